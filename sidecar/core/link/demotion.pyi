"""Demoted links: for other Cython modules only."""
