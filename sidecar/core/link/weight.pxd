"""How much a session may have in flight on a shared link (see weight.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.records cimport HEAVY_REPLY, LARGE_REPLY, MODE_SHARED, Session

cdef void session_weigh(Session* s, size_t size) noexcept nogil
cdef void window_widen(Session* s) noexcept nogil

cdef inline bint window_full(const Session* s) noexcept nogil:
    """Whether the next request of a session on a shared link has to wait for replies."""
    return s.outstanding >= s.window and s.mode == MODE_SHARED

cdef inline bint window_has_room(const Session* s) noexcept nogil:
    """Whether a session that stopped at a full window, which is twice as wide since, may go on."""
    return s.mode != MODE_SHARED or s.outstanding <= s.window // 4

cdef inline bint is_weighty(const Session* s, size_t size) noexcept nogil:
    """Whether a reply of this size says something about its session: cheap, for each reply."""
    return size >= LARGE_REPLY or s.heavy != 0
