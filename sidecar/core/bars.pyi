"""For Cython only; see bars.pyx."""
