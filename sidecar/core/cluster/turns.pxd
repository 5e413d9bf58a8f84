"""Gives a cluster's client its replies in its own order (see turns.pyx)."""
from sidecar.core.records cimport Session

cdef void branches_collect(Session* s) noexcept nogil
