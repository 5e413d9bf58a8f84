"""Judging a request of a client that is restricted."""
