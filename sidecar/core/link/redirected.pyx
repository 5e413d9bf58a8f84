# cython: language_level=3
"""Requests that a cluster's server has not executed: another shard has the key, or none can serve it now.
They will be sent again. Until the reply's turn comes (core/cluster/turns.pyx) they are kept with the
client's branch. A branch reads nothing from a client: these are its `unread` bytes. The client's own
session counts them (`redirected`): they are under way nowhere, so nothing bars their keys from being
answered from the near cache, and the client is given nothing from there meanwhile.

A client that has a link of its own has one request at a time on it. A copy of it is kept, and goes back
to where it was read: `unread` begins with it again. In a transaction, or while it watches keys, its
requests stay at one shard: a redirection becomes the error that one server would give. So does that of
a request which was passed on as it came, too large to be kept.
"""
from libc.string cimport memcpy, memset
from libc.stdint cimport uint16_t
from sidecar.core.protocol.slots cimport ServerAddress, Slots, redirection_target, slots_put
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)


cdef void keep_redirected(Session* t, uint16_t command, const char* request,
                          uint32_t size) noexcept nogil:
    """Keep a request, behind those that are kept already. Without memory its client is closed."""
    cdef Redirected kept
    cdef size_t before = buffer_size(&t.unread)
    kept.size, kept.command = size, command
    if buffer_append(&t.unread, <const char*>&kept, sizeof(kept)) < 0 \
            or buffer_append(&t.unread, request, size) < 0:
        t.unread.end = t.unread.start + before
        t.must_close = True
    elif t.trunk != NULL:
        t.trunk.redirected += 1


cdef Redirected first_redirected(const Session* t, const char** request) noexcept nogil:
    """The oldest request that is kept. There must be one."""
    cdef Redirected kept
    memcpy(&kept, buffer_head(&t.unread), sizeof(kept))
    request[0] = buffer_head(&t.unread) + sizeof(kept)
    return kept


cdef void forget_redirected(Session* t) noexcept nogil:
    """The oldest request that is kept is dealt with."""
    cdef const char* request
    cdef Redirected kept = first_redirected(t, &request)
    buffer_drop(&t.unread, sizeof(kept) + kept.size)
    if t.trunk != NULL:
        t.trunk.redirected -= 1


cdef const char* CROSSSLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
cdef const char* HAS_MOVED = \
    b"-TRYAGAIN the keys of this transaction are moving to another shard; begin it again\r\n"
cdef const char* LARGE_MOVES = \
    b"-TRYAGAIN the key of this large request is moving to another shard; send it again\r\n"


cdef const char* redirection_error(const Link* l, const char* p, size_t n) noexcept nogil:
    """What the redirection p[0:n] means for a request that cannot be sent elsewhere. In the transaction
    that is open on this link: its key has another slot than the first one, or that slot moves."""
    cdef Slots* slots = <Slots*>l.core.slots
    cdef int slot = -1
    cdef const ServerAddress* to = redirection_target(slots, p, n, &slot)
    if p[1] == c'M':
        slots.moved += 1
        if to != NULL and to.in_use:
            slots_put(slots, <uint16_t>slot, to.shard)
    if l.transaction == 0:
        return LARGE_MOVES
    return HAS_MOVED if slot == l.first_slot or slot < 0 or l.first_slot < 0 else CROSSSLOT


cdef int turn_back(Session* s, const char* error, size_t n) noexcept nogil:
    """The only request of a client on a link of its own was answered by this redirection: it has still to
    be served. 0, or -1 without memory."""
    if buffer_append(&s.under_way, buffer_head(&s.unread), buffer_size(&s.unread)) < 0 \
            or buffer_append(&s.turned_back, error, n) < 0:
        return -1
    buffer_release(&s.unread)
    s.unread = s.under_way
    memset(&s.under_way, 0, sizeof(s.under_way))
    return 0
