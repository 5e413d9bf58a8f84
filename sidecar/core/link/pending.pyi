"""Pending queues: for other Cython modules only."""
