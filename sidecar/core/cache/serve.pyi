"""For Cython only; see serve.pyx."""
