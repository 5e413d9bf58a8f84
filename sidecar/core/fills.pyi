"""For Cython only; see fills.pyx."""
