"""Which link a session uses, and what is open on it (see mode.pyx)."""
from libc.stdint cimport uint8_t
from sidecar.core.records cimport Link, MODE_DEDICATED, MODE_SHARED, Session

cdef enum Situation:
    # A session's mode, and what is to be expected to be open on its link.
    SHARED = 0
    GATHERING = 1           # shared: the beginning of a MULTI ... EXEC piece has been queued
    DEDICATED = 2           # nothing open
    WATCHING = 3            # dedicated; or nothing is open, and the link is its own for good
    IN_MULTI = 4            # dedicated
    PINNED = 5
    SITUATIONS = 6

cdef void session_use(Session* s, Link* l, uint8_t mode) noexcept nogil
cdef bint session_may_give_back(const Session* s) noexcept nogil
cdef bint session_in_transaction(const Session* s) noexcept nogil

cdef inline int situation_of(const Session* s) noexcept nogil:
    if s.mode == MODE_SHARED:
        return GATHERING if s.in_multi else SHARED
    if s.mode == MODE_DEDICATED:
        return IN_MULTI if s.in_multi else (WATCHING if s.watching or s.kept else DEDICATED)
    return PINNED
