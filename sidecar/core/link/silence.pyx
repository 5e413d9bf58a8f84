# cython: language_level=3
"""How long links have owed replies: nothing else tells whether the server still answers.

All links are looked at a few times a second, so commands pay nothing for it. A link is silent from
when it was first seen to owe a reply, or from the last bytes that came. A long queue that moves is
not silent. The age of its oldest request is told apart from that.

Some replies are due only when something else happens: those to blocking commands, to WAIT, and to
what the sidecar does not know (modules). A pinned link has no entries: requests that pass are
counted, and so are replies. Messages count as replies as well, so such a link may seem to owe less
than it does, and after CLIENT REPLY OFF it owes for good. These links only raise the question
whether the server answers.

A link that is not read, since its client does not read, owes nothing.
"""
from libc.stdint cimport uint32_t
from sidecar.core.protocol.commands cimport ROUTE_BLOCKING, ROUTE_ONCE, ROUTE_WAIT
from sidecar.core.records cimport ENTRY_ACK, Entry, link_outstanding


cdef inline bint may_be_long(const Entry* e) noexcept nogil:
    """Whether the server may keep this entry's reply back for as long as it was asked to."""
    return e.route == ROUTE_BLOCKING or e.route == ROUTE_WAIT or e.route == ROUTE_ONCE \
        or e.flags & ENTRY_ACK != 0


cdef inline uint32_t first_due(const Link* l) noexcept nogil:
    """The oldest entry that has no reply. Replies to writes may be here and withheld."""
    if l.core.acks and not l.raw and l.judged_to - l.head <= link_outstanding(l):
        return l.judged_to
    return l.head


cdef void link_silence(Link* l, bint read, Silence* found) noexcept nogil:
    """Look at one link and add to `found`; `read`: its socket is being read."""
    cdef uint32_t first = first_due(l)
    cdef uint32_t due = l.tail - first
    cdef uint64_t silent
    cdef uint64_t age
    cdef Entry* e = NULL
    if due:
        e = l.ring + (first & l.mask)
    elif l.raw:
        due = l.raw_requests_due
    if not l.up or l.unframed or not read or due == 0:
        l.quiet_since = 0
        return
    if l.quiet_since == 0 or l.received_bytes != l.received_before:
        l.received_before = l.received_bytes
        l.quiet_since = l.core.clock
    silent = l.core.clock - l.quiet_since
    if e == NULL or may_be_long(e):
        if silent > found.may_block:
            found.may_block = silent
        if silent >= SILENT_FROM:
            found.blocking += due
        return
    age = l.core.now - e.read_at
    if age > found.oldest:
        found.oldest = age
    if silent > found.silent:
        found.silent = silent
    if silent >= SILENT_FROM:
        found.requests += due
