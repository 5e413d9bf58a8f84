"""What the near cache promises, as a judge of replies: for tests only."""
