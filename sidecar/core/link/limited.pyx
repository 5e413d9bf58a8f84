# cython: language_level=3
"""Limits of what is passed on as it comes: replies on a link for good, and large requests.

On a link for good, replies are not matched with requests. There `Link.raw_sizes` has the size of each
request that has one reply, in order, and each reply takes the first of them. Requests of the SUBSCRIBE
family are not counted, nor is what follows CLIENT REPLY or a replica's SYNC: how many replies come is not
known there, and a request that is counted without one would be waited for in vain.

    client   GET a   SUBSCRIBE c   GET b        raw_sizes  [22, 22]
    server   $1 x                               raw_sizes  [22]
    server   >3 subscribe c 1                   raw_sizes  [22]     a push is no reply
    server   $1 y                               raw_sizes  []

Where messages are no pushes (RESP2), they and confirmations take one as well. So a subscriber of RESP2 may
have more under way than it should, by the messages that have come meanwhile, but never waits in vain.
"""
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, strlen
from sidecar.core.guard.account cimport BY_REPLY, BY_REQUEST
from sidecar.core.guard.guard cimport (Guard, TOO_LARGE_REPLY, TOO_LARGE_REQUEST, USES, guard_count,
    guard_exceeds, guard_let_go, raw_outstanding)
from sidecar.core.link.receiver cimport deliver, session_mark, session_say
from sidecar.core.memory cimport buffer_drop, buffer_head
from sidecar.core.protocol.reply cimport FRAME_REPLY


cdef void raw_answered(Link* l, Guard* g, char first) noexcept nogil:
    """A reply has come on a link for good, which begins with `first`."""
    cdef uint32_t size
    if raw_outstanding(l):
        memcpy(&size, buffer_head(&l.raw_sizes), sizeof(size))
        buffer_drop(&l.raw_sizes, sizeof(size))
        guard_let_go(g, size)
    elif first != c'*':
        l.client.replies_off = False    # it is no message: replies do come


cdef bint is_message(const Link* l, const Guard* g) noexcept nogil:
    """Whether what is being read may be a message to a subscriber of RESP2. It is no reply."""
    return g.subscribed and l.reply_start_len == sizeof(l.reply_start) and (
        memcmp(l.reply_start, b"*3\r\n$7\r\nmessage\r", 16) == 0
        or memcmp(l.reply_start, b"*3\r\n$8\r\nsmessage", 16) == 0
        or memcmp(l.reply_start, b"*4\r\n$8\r\npmessage", 16) == 0)


cdef size_t limit_raw_reply(Link* l, const char* p, size_t begin, size_t at, size_t end, int kind,
                            bint first) noexcept nogil:
    """A reply, or the first or another part of one, has come on a link for good: p[at:end], of this kind
    (FRAME_...). Its client, which has or had a guard, is to be given p[begin:at] as well. Returns from
    where on there is still something to be given."""
    cdef Session* s = l.client
    cdef Guard* g = <Guard*>s.guard
    if first:
        l.partial_size = 0
    l.partial_size += end - at
    if g != NULL and l.framer.first != c'>' and not l.swallowing and not s.must_close:
        if first and l.framer.first == c'$' and guard_exceeds(s, <size_t>max(l.framer.number, 0)):
            l.swallowing = True
            guard_count(g, BY_REPLY)
        elif guard_exceeds(s, l.partial_size) and not is_message(l, g):
            l.swallowing = first and kind == FRAME_REPLY
            guard_count(g, BY_REPLY)
            if not l.swallowing:
                s.must_close = True     # it has a part of it
                session_mark(s)
    if l.swallowing:
        deliver(s, p + begin, at - begin)
        begin = end
        if kind == FRAME_REPLY:
            l.swallowing = False
            session_say(s, TOO_LARGE_REPLY, strlen(TOO_LARGE_REPLY))
    if kind == FRAME_REPLY and g != NULL:
        raw_answered(l, g, l.framer.first)
    return begin


cdef bint limit_streamed(Session* s, size_t n) noexcept nogil:
    """So many more bytes are there of a large request that is passed on as it comes. True: it has turned
    out to be larger than its client may send, who is told so and closed."""
    cdef Guard* g = <Guard*>s.guard
    cdef int i
    g.streamed += n
    for i in range(USES):
        if g.uses[i] != NULL and g.uses[i].limits.request and g.streamed > g.uses[i].limits.request:
            guard_count(g, BY_REQUEST)
            if s.outstanding <= 1:
                session_say(s, TOO_LARGE_REQUEST, strlen(TOO_LARGE_REQUEST))
            s.must_close = True
            session_mark(s)
            return True
    return False
