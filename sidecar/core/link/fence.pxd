"""The fence: what has just been told of changes elsewhere (see fence.pyx)."""
from sidecar.core.records cimport Barriers, Core, Entry, Link, Session

cdef bint is_null(const char* p, size_t n) noexcept nogil
cdef void entry_tells(Link* l, Entry* e, bint always) noexcept nogil
cdef void entry_took_back(Entry* e) noexcept nogil

cdef inline void fence_raise(Core* core) noexcept nogil:
    """A client is about to be told of something that may be news of any key."""
    cdef Barriers* b = core.barriers
    if b != NULL:
        b.fence = b.tracked_requests
        b.fence_raised = True

cdef inline Session* listener(const Entry* e) noexcept nogil:
    """The client that the entry's reply is for."""
    return e.session.trunk if e.session.trunk != NULL else e.session


cdef inline void entry_told(Link* l, Entry* e, bint refused) noexcept nogil:
    """The reply to an entry that tells is about to be given out, or will not be. One that was refused
    tells of nothing."""
    if not refused:
        fence_raise(l.core)
        if e.session != NULL and l.core.barriers != NULL:
            listener(e).fence_seen = l.core.barriers.fence
            listener(e).proof_space = 0
    entry_took_back(e)
