"""Reading a client's requests, one after the other (see feed.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Session

cdef int session_feed(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil
cdef int session_resume(Session* s, CommandTable table) noexcept nogil
cdef bint session_ready(const Session* s) noexcept nogil
cdef size_t session_room_hint(const Session* s) noexcept nogil
cdef bint session_has_room(const Session* s, size_t share) noexcept nogil
