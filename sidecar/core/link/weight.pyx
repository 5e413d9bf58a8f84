# cython: language_level=3
"""How much a session may have in flight on a shared link.

Replies on a shared link come in the order of the requests of all its clients. So what one client
asks for delays the others, and what it does not read has to be kept here. Nobody knows how large a
reply will be before it comes. So a session begins with a few requests in flight, and its *window*
grows only as its replies prove small (slow start, as TCP does it):

    the window is full                         twice as many, once half of its replies have come
    a reply of LARGE_REPLY bytes or more       as many as make WINDOW_BYTES, if all are like it
    a reply of HEAVY_REPLY bytes or more       the session is *heavy*

A heavy session continues on a dedicated link, as soon as nothing of it is in flight: there the
sidecar stops reading the link while the client does not read, and TCP's back-pressure reaches the
server, as it would without a sidecar. It returns to the shared link when HEAVY_REPLIES replies in a
row were smaller. If there is no link to be had, it stays on the shared one with a window of 1.

The window holds whole requests back, never replies, and never within a MULTI ... EXEC piece.
"""
from libc.stdint cimport uint32_t
from sidecar.core.records cimport (HEAVY_REPLIES, HEAVY_REPLY, LARGEST_WINDOW, LARGE_REPLY,
    WINDOW_BYTES)


cdef void session_weigh(Session* s, size_t size) noexcept nogil:
    """A reply of this size has come for the session. Called where `is_weighty`."""
    if size >= HEAVY_REPLY:
        s.heavy = HEAVY_REPLIES
    elif s.heavy:
        s.heavy -= 1
    if size >= LARGE_REPLY:
        s.window = <uint32_t>(WINDOW_BYTES // size) if size < WINDOW_BYTES else 1


cdef void window_widen(Session* s) noexcept nogil:
    """A session stops at its full window: it may have twice as many once replies have come."""
    if s.window < LARGEST_WINDOW:
        s.window *= 2
