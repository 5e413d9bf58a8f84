"""Judging a request of a client that is restricted (see judge.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Session

cdef enum:
    PASSES = -1             # what guard_judge gives for a request that is to be decided on

cdef bint has_block(const char* p, size_t n) noexcept nogil
cdef int guard_judge(Session* s, Command* c, const char* p, size_t n, bint whole) noexcept nogil
