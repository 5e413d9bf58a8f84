"""For Cython only; see tracked_requests.pyx."""
