"""For Cython only; see fill.pyx."""
