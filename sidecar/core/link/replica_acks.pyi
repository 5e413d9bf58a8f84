"""Replies to writes, withheld until replicas have the writes; for Cython only."""
