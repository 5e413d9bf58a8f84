"""For Cython only; see walk.pyx."""
