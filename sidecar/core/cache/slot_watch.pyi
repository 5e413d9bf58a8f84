"""For Cython only; see slot_watch.pyx."""
