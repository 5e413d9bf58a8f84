"""For Cython only; see resp2.pyx."""
