"""The servers of a fuzzed world: for tests only."""
