"""What the near cache is worth, beside none and beside others (see bench/README.md)."""
