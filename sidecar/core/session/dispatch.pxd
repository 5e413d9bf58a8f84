"""Deciding on one request (see dispatch.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command, CommandTable
from sidecar.core.records cimport Session

cdef int dispatch(Session* s, CommandTable table, const char* p, size_t n,
                  size_t at) noexcept nogil
cdef int queue_asked(Session* s, Command* c, const char* p, size_t n) noexcept nogil
cdef int begin_stream(Session* s, Command* c, const char* p, size_t n) noexcept nogil
cdef void take_back_piece(Session* s) noexcept nogil
