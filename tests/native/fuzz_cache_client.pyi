"""What the clients of a fuzzed world with a near cache say: for tests only."""
