"""The clients of a fuzzed world: for tests only."""
