"""The bench harness: the sidecar and its peers, side by side in one run (see bench/README.md)."""
