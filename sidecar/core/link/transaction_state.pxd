"""What is open on a connection, as its replies tell (see transaction_state.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport ENTRY_IN_MULTI, ENTRY_STATE, Entry, Link, STATE_IN_MULTI

cdef bint transaction_follows(Link* l, Entry* e, const char* p, size_t n) noexcept nogil
cdef void keep_reply_start(Link* l, const char* p, size_t n) noexcept nogil

cdef inline bint tells_state(const Link* l, const Entry* e) noexcept nogil:
    """Whether the reply to `e` may change what is open, or shows that other things are open than
    was expected when `e` was queued; or, on a dedicated link, whether it was queued by the
    server."""
    return e.flags & ENTRY_STATE != 0 or (e.flags ^ l.transaction) & ENTRY_IN_MULTI != 0 \
        or (l.transaction & STATE_IN_MULTI and not l.shared)
