"""For Cython only; see fence.pyx."""
