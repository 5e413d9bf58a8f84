"""The Redis protocol and what commands mean: requests, replies, the command table, keys."""
