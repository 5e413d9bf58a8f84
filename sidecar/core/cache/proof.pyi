"""For Cython only; see proof.pyx."""
