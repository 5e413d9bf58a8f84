"""The hot-key detector, as the control plane sees it (see detector.pyx)."""
from libc.stdint cimport uint32_t
from sidecar.core.hotkeys.sketch cimport Sketch

cdef class HotKeys:
    cdef Sketch* sketch     # never NULL, and never another one
    cdef bytes key(self, uint32_t row)
