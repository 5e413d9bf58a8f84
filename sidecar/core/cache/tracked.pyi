"""For Cython only; see tracked.pyx."""
