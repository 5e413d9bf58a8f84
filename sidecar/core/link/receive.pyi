"""Splitting of replies: for other Cython modules only."""
