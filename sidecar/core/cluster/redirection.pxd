"""Sends redirected requests on, or has them wait (see redirection.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from sidecar.core.cluster.branches cimport Apart, Branches
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Core, Link, Session

cdef int follow(Session* s, Apart* a, const char* p, size_t n) noexcept nogil
cdef void pass_request(Link* l, Command* c, const char* p, size_t n) noexcept nogil
cdef void retry_waiting(Core* core, bint all, uint32_t most) noexcept nogil
cdef uint32_t waiting_requests(const Core* core) noexcept nogil
