"""A session as the receiver of replies (see receiver.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport Core, Session

cdef Session* session_new(Core* core, void* owner) noexcept nogil
cdef void session_drop(Session* s) noexcept nogil
cdef void session_mark(Session* s) noexcept nogil
cdef int session_settle_borrowed(Session* s) noexcept nogil
cdef int session_say(Session* s, const char* p, size_t n) noexcept nogil
cdef void deliver(Session* s, const char* p, size_t n) noexcept nogil
cdef void answer(Session* s, const char* p, size_t n) noexcept nogil
cdef void session_mark_live(Session* s) noexcept nogil
