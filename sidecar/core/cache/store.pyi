"""For Cython only; see store.pyx."""
