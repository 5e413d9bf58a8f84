"""For Cython only; see past.pyx."""
