"""The server of a fuzzed world with a near cache: for tests only."""
