"""Tests of redis-sidecar; helpers live in `tests.harness`."""
