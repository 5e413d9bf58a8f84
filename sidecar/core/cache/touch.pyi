"""For Cython only; see touch.pyx."""
