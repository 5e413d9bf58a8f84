"""The end of RESET on a pinned link (for other Cython modules only)."""
