"""For Cython only; see sketch.pyx."""
