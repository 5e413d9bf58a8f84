"""For Cython only; see barrier.pyx."""
