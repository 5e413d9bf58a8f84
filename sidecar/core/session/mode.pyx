# cython: language_level=3
"""Which link a session uses, and for how long.

SHARED      its requests go down the link it shares with all clients of its identity;
DEDICATED   it has a link of its own for as long as it needs connection state (WATCH, MULTI
            that did not arrive whole, a blocking command, a large request); one reply each.
            It is KEPT for good when the server has state of the client's that only RESET ends
            (CLIENT TRACKING, NO-EVICT ..., SELECT in a transaction);
PINNED      it has a link of its own for good (SUBSCRIBE, MONITOR ..., or session pooling);
            bytes pass both ways, replies are not matched with requests.

            a command needs it                       a command needs it
    SHARED -------------------> DEDICATED  SHARED -------------------> PINNED
    DEDICATED ----------------> SHARED     DEDICATED ----------------> PINNED
            nothing due or open                      a command needs it while WATCH or MULTI is open

A session changes its mode only when no reply is due to it, but for DEDICATED to PINNED: the link
stays the same.
"""
from sidecar.core.link.barrier cimport barriers_abandon, barriers_undo
from sidecar.core.records cimport MODE_PINNED, STALL_SHELL
from sidecar.core.memory cimport buffer_release
from libc.stdint cimport uint32_t


cdef void session_use(Session* s, Link* l, uint8_t mode) noexcept nogil:
    """Put a session on this link (NULL: none yet) in this mode. Nothing else changes a mode."""
    cdef Link* old = s.link
    if s.mode != MODE_SHARED and old != NULL and old != l:
        old.client = NULL
    if mode == MODE_SHARED:
        s.in_multi = s.watching = s.discard_due = s.reset_due = s.input_broken = s.replies_off = False
        s.streaming = s.discarding      # the rest of what was refused is still to come
        s.translates_ids = s.kept = s.rewrites_exec = False
        s.redirect_link = 0
        buffer_release(&s.under_way)
    else:
        if mode == MODE_PINNED and s.mode == MODE_DEDICATED:
            forget_entries(s, l)
            s.translates_ids = True        # it may know the sidecar's ids
        s.kept = False
        l.first_slot = -1
        l.client = s
        l.raw = mode == MODE_PINNED
        l.raw_requests_due = 0
        buffer_release(&l.raw_sizes)
        l.reply_start_len = 0
    s.link = l
    s.mode = mode


cdef void forget_entries(Session* s, Link* l) noexcept nogil:
    """The replies due on a dedicated link are matched no more: it is pinned.

    Entries of the sidecar's own requests stay, so that their replies are still swallowed; they
    come before any of the client's.
    """
    cdef uint32_t i = l.head
    while i != l.tail and l.ring[i & l.mask].session == NULL:
        i += 1
    barriers_undo(l, i)
    l.tail = i
    barriers_abandon(l, i, i)           # of a transaction that is not over
    s.outstanding = 0


cdef bint session_may_give_back(const Session* s) noexcept nogil:
    """Whether a session needs its dedicated link no more: nothing is due, and by the server's own
    replies nothing is open on it."""
    return s.mode == MODE_DEDICATED and s.outstanding == 0 and s.link.transaction == 0 \
        and not s.kept and not s.streaming and s.stall != STALL_SHELL


cdef bint session_in_transaction(const Session* s) noexcept nogil:
    """Whether a WATCH or MULTI is open on its dedicated link, or about to be."""
    return s.mode == MODE_DEDICATED \
        and (s.in_multi or s.watching or s.link.transaction != 0)
