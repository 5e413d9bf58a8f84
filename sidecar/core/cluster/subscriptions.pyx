# cython: language_level=3
"""What a client of a cluster has subscribed to: for another node to serve it when its own goes.

A subscriber has a link of its own, on which bytes pass both ways. Its subscriptions are read from what
passes: requests are remembered until their answers have come, confirmations change the three sets. A
message is only looked at: no object is made for it, and it is given out from where it lies.

    client   SUBSCRIBE a b  ->  due: [SUBSCRIBE a b, 0 of 2]
    server   subscribe a    ->  due: [SUBSCRIBE a b, 1 of 2]     channels: {a}
    server   subscribe b    ->  due: []                          channels: {a, b}

Nothing is given out in part (but for what is large): where a link ends, what the client has got ends
with a whole message, and another link can go on behind it.

What the client is not given:

* `sunsubscribe` that nobody has asked for: the slot of the channel has left the server;
* a redirection. What the server sends behind it is held until that has been dealt with, so that answers
  come in the order of the requests. (In RESP2 a server refuses commands of a subscriber, but redirects
  those of other slots first: the client is told what one server says.)

Both have the shell look for the right server (proxy/cluster/subscribers.py). Sharded channels whose
slots are at other servers than the link's are `away`, on links of their own (proxy/io/side_link.pyx).
The client is told sums over all of them: one server would count so.

A client that sends what changes its connection in other ways (AUTH, SELECT, MULTI, MONITOR ...) is
`strange`: it is followed no more, and ends with its link. What is away is ended, and it is told so.
"""
from libc.string cimport memcmp, memcpy, memset
from sidecar.core.link.fence cimport fence_raise
from sidecar.core.link.limited cimport limit_raw_reply
from sidecar.core.link.receiver cimport deliver, session_say
from sidecar.core.link.transaction_state cimport keep_reply_start
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_release, buffer_size
from sidecar.core.observe.audit_notes cimport audit_raw_reply
from sidecar.core.protocol.commands cimport (COMMAND_READ, FORM_CONTAINER, FORM_MASK, ROUTE_PIN,
    ROUTE_SHARED)
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, cursor_on
from sidecar.core.protocol.reply cimport FRAME_ERROR, FRAME_MORE, FRAME_REPLY, frame_reply
from sidecar.core.protocol.request cimport SCAN_DONE, SCAN_MORE, scan_request, scanner_reset
from sidecar.core.protocol.request import split_arguments

cdef enum:
    # Bytes of a request or a message that are kept. Names are short, and so are most messages: a
    # larger one is given out as it comes.
    LARGEST = 65536
    # Bytes of requests that may be due: a client that has more is followed no more.
    LARGEST_DUE = 1048576
    SHORTEST = 20           # bytes of a confirmation or a message, at least

cdef int kind_named(const char* p, size_t n) noexcept nogil:
    """The kind of this word, in lower case."""
    if n == 7 and memcmp(p, b"message", 7) == 0:
        return MESSAGE
    if n == 8 and memcmp(p + 1, b"message", 7) == 0:
        return MESSAGE
    if n == 9 and memcmp(p, b"subscribe", 9) == 0:
        return SUBSCRIBE
    if n == 10 and memcmp(p + 1, b"subscribe", 9) == 0:
        return PSUBSCRIBE if p[0] == c'p' else SSUBSCRIBE if p[0] == c's' else NO_KIND
    if n == 11 and memcmp(p, b"unsubscribe", 11) == 0:
        return UNSUBSCRIBE
    if n == 12 and memcmp(p + 1, b"unsubscribe", 11) == 0:
        return PUNSUBSCRIBE if p[0] == c'p' else SUNSUBSCRIBE if p[0] == c's' else NO_KIND
    return NO_KIND


cdef int kind_told(const char* p, size_t n) noexcept nogil:
    """What kind of message or confirmation p[0:n] is, an array in RESP2 and a push in RESP3."""
    cdef Cursor c
    if n < SHORTEST or (p[1] != c'3' and p[1] != c'4') or p[2] != 13:
        return NO_KIND
    cursor_on(&c, p + 4, n - 4)
    return kind_named(c.arg, c.size) if cursor_next(&c) else NO_KIND


cdef bint is_redirection(const char* p, size_t n) noexcept nogil:
    """Whether a server that answers SSUBSCRIBE so has not executed it, and another one may."""
    return (n > 7 and memcmp(p, b"-MOVED ", 7) == 0) or (n > 5 and memcmp(p, b"-ASK ", 5) == 0) \
        or (n > 10 and memcmp(p, b"-TRYAGAIN ", 10) == 0) \
        or (n > 13 and memcmp(p, b"-CLUSTERDOWN ", 13) == 0)


cdef size_t limited(Link* l, Session* s, const char* p, size_t begin, size_t at, size_t end, int kind,
                    bint first) noexcept nogil:
    """As limit_raw_reply, for a client that need not have a guard."""
    if s == NULL or (s.guard == NULL and not l.swallowing):
        return begin
    if first:
        l.reply_start_len = 0
    keep_reply_start(l, p + at, end - at)
    return limit_raw_reply(l, p, begin, at, end, kind, first)


cdef class Subscriptions:
    """The subscriptions of one client. `channels`, `patterns` and `sharded` are those that the server
    has confirmed. `pushes`: it speaks RESP3, where messages are no replies."""

    def __init__(self, CommandTable table, bint pushes):
        self.table = table
        self.mark = c'>' if pushes else c'*'
        self.limits.bulk = self.limits.count = LARGEST
        self.channels, self.patterns, self.sharded, self.away = set(), set(), set(), set()
        self.swallowed = self.instead = b""
        scanner_reset(&self.scan)

    def __dealloc__(self):
        buffer_release(&self.asked)
        buffer_release(&self.due)
        buffer_release(&self.rest)
        buffer_release(&self.held)

    # Requests

    cdef int note(self, const char* p, size_t n) except -1:
        """The client has sent p[0:n]."""
        cdef int r
        if self.strange or n == 0:
            return 0
        if buffer_append(&self.asked, p, n) < 0:
            raise MemoryError
        while buffer_size(&self.asked) and not self.strange:
            r = scan_request(&self.scan, buffer_head(&self.asked), buffer_size(&self.asked),
                             &self.limits, True)
            if r == SCAN_MORE and buffer_size(&self.asked) <= LARGEST:
                return 0
            if r != SCAN_DONE:
                self.strange = True
                break
            self.note_request(buffer_head(&self.asked), self.scan.pos)
            buffer_drop(&self.asked, self.scan.pos)
            scanner_reset(&self.scan)
        return 0

    cdef int note_request(self, const char* p, size_t n) except -1:
        cdef Command* c = self.table.find(p + self.scan.name_at, self.scan.name_len)
        cdef Due d
        memset(&d, 0, sizeof(d))
        d.size, d.wanted = <uint32_t>n, 1
        if c.route == ROUTE_PIN:
            d.kind = kind_named(c.name, c.name_len)
            d.again = True
            d.wanted = <uint32_t>(self.scan.argc - 1)
        elif c.route == ROUTE_SHARED:
            d.again = c.flags & COMMAND_READ != 0
        if (c.route != ROUTE_PIN and c.route != ROUTE_SHARED) or (
                c.route == ROUTE_PIN and d.kind == NO_KIND):
            self.strange = True
            return 0
        if buffer_size(&self.due) + n > LARGEST_DUE:
            self.strange = True
            return 0
        if buffer_append(&self.due, <const char*>&d, sizeof(d)) < 0 \
                or buffer_append(&self.due, p, n) < 0:
            raise MemoryError
        self.due_count += 1
        self.begun = True
        return 0

    cdef bint over(self) noexcept:
        """Whether it has no subscription left, and is owed nothing: it is a client like any other."""
        return self.begun and not self.strange and self.due_count == 0 and not self.in_part \
            and buffer_size(&self.asked) == 0 and buffer_size(&self.rest) == 0 \
            and not self.channels and not self.patterns and not self.sharded \
            and self.refusal is None

    cdef Due oldest(self) noexcept:
        """The oldest request that is due; without any, one of no kind."""
        cdef Due d
        memset(&d, 0, sizeof(d))
        if self.due_count:
            memcpy(&d, buffer_head(&self.due), sizeof(d))
        return d

    cdef void drop_due(self) noexcept:
        """The oldest request has its answer."""
        buffer_drop(&self.due, sizeof(Due) + self.oldest().size)
        self.due_count -= 1

    # Answers and messages

    cdef int receive(self, Link* l, const char* p, size_t n) except -1:
        """Give the client what the server has sent, p[0:n], but for what it is not to get. 1: there is
        more of that now; 0: there is not.

            p[begin:at]     whole answers and messages, not given out yet
            p[at:i]         the one that is being read
        """
        cdef size_t i = 0
        cdef size_t at = 0
        cdef size_t begin = 0
        cdef int r = FRAME_MORE
        cdef Session* s = l.client
        cdef bint news
        l.received_bytes += n
        fence_raise(l.core)
        if self.refusal is not None:
            return self.hold(p, n)
        while i < n:
            at = i
            r = frame_reply(&l.framer, p, n, &i)
            if r == FRAME_MORE or r == FRAME_ERROR:
                break
            if l.head != l.tail:        # the answer to a request of the sidecar's own
                l.head += r == FRAME_REPLY
                begin = i
            elif self.in_part:
                self.in_part = False
                begin = limited(l, s, p, begin, at, i, r, False)
            elif buffer_size(&self.rest):
                if buffer_append(&self.rest, p + at, i - at) < 0:
                    raise MemoryError
                self.give(l, buffer_head(&self.rest), buffer_size(&self.rest), r)
                buffer_release(&self.rest)
                begin = i
            elif not self.passes(s, p + at, i - at):
                deliver(s, p + begin, at - begin)
                self.say_instead(l, r)
                begin = i
            else:
                begin = limited(l, s, p, begin, at, i, r, True)
            l.framer.first = 0
            r = FRAME_MORE
            at = i
            if self.refusal is not None:
                break
        l.raw_requests_due = self.due_count
        if r == FRAME_ERROR:
            l.unframed = self.strange = True
        if self.strange or self.in_part:
            self.hand_over(l)
            if self.in_part and at < n:
                begin = limited(l, s, p, begin, at, n, FRAME_MORE, False)
            deliver(s, p + begin, n - begin)
        elif self.refusal is not None:
            deliver(s, p + begin, at - begin)
            self.hold(p + at, n - at)
        elif l.head != l.tail:
            deliver(s, p + begin, at - begin)
        elif buffer_size(&self.rest) + n - at > LARGEST and not self.whole:
            self.in_part = True
            if begin < at or buffer_size(&self.rest) == 0:
                begin = limited(l, s, p, begin, at, n, FRAME_MORE, True)
            elif limited(l, s, buffer_head(&self.rest), 0, 0, buffer_size(&self.rest), FRAME_MORE, True) == 0:
                session_say(s, buffer_head(&self.rest), buffer_size(&self.rest))
                begin = limited(l, s, p, begin, at, n, FRAME_MORE, False)
            else:
                begin = n
            buffer_release(&self.rest)
            deliver(s, p + begin, n - begin)
        else:
            deliver(s, p + begin, at - begin)
            if buffer_append(&self.rest, p + at, n - at) < 0:
                raise MemoryError
        news, self.news = self.news, False
        return news

    cdef bint waits(self) noexcept:
        """Whether what the server sends is held."""
        return self.refusal is not None

    cdef int hold(self, const char* p, size_t n) except -1:
        if buffer_append(&self.held, p, n) < 0:
            raise MemoryError
        return 0

    cdef int give(self, Link* l, const char* p, size_t n, int kind) except -1:
        """Give the client p[0:n], an answer or a message, or what it gets instead."""
        if self.passes(l.client, p, n) and limited(l, l.client, p, 0, 0, n, kind, True) == 0:
            session_say(l.client, p, n)
        return self.say_instead(l, kind)

    cdef int say_instead(self, Link* l, int kind) except -1:
        """A frame of this kind is not for the client: give it what it gets instead."""
        if self.withheld:
            self.withheld = False
            limited(l, l.client, b"", 0, 0, 0, kind, True)
        if self.instead:
            session_say(l.client, self.instead, len(self.instead))
            self.instead = b""
        return 0

    cdef int hand_over(self, Link* l) except -1:
        """Keep nothing back any more of what the server has sent; nothing is away any more."""
        cdef bytes said = b""
        if self.refusal is not None:
            said, self.refusal = self.refusal, None
            self.drop_due()
        said += self.without_away()
        session_say(l.client, said, len(said))
        session_say(l.client, buffer_head(&self.held), buffer_size(&self.held))
        buffer_release(&self.held)
        session_say(l.client, buffer_head(&self.rest), buffer_size(&self.rest))
        buffer_release(&self.rest)
        return 0

    cdef bytes without_away(self):
        """How one server would say that it has ended what is away; it is ended."""
        said = []
        for name in sorted(self.away):
            self.sharded.discard(name)
            said.append(self.confirmation(b"sunsubscribe", name))
        self.away.clear()
        return b"".join(said)

    def confirmation(self, bytes word, bytes name):
        """A confirmation for the client of this channel, with the sum of its sharded ones."""
        return b"%c3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:%d\r\n" % (
            self.mark, len(word), word, len(name), name, len(self.sharded))

    cdef bint passes(self, Session* s, const char* p, size_t n) except -1:
        """Whether p[0:n], an answer or a message, is for the client."""
        cdef int kind
        if p[0] != self.mark:
            return p[0] == c'>' or self.answered(s, p, n)
        kind = kind_told(p, n)
        if p[0] == c'*' and (kind == NO_KIND or not (self.is_subscribed or self.oldest().kind == kind)):
            return self.answered(s, p, n)
        return kind == NO_KIND or kind == MESSAGE or self.confirmed(kind, p, n)

    @property
    def is_subscribed(self):
        """Whether it has any subscription. In RESP2 its replies are no arrays of three then."""
        return bool(self.channels or self.patterns or self.sharded)

    cdef bint confirmed(self, int kind, const char* p, size_t n) except -1:
        """Take in a confirmation: whether it is for the client."""
        cdef Due d = self.oldest()
        cdef Cursor c
        cdef set names = self.names_of(kind)
        cdef object name = None
        cursor_on(&c, p + 4, n - 4)
        cursor_next(&c)
        if cursor_next(&c):
            name = c.arg[:c.size]
        if d.kind != kind:
            if kind == SUNSUBSCRIBE:
                self.swallowed += p[:n]
                self.news = True
            return kind != SUNSUBSCRIBE
        if d.wanted == 0:
            d.all = kind == SUNSUBSCRIBE
            d.wanted = <uint32_t>max(1, len(names) - (len(self.away) if d.all else 0))
        if kind <= SSUBSCRIBE:
            names.add(name)
        else:
            names.discard(name)
        d.answered += 1
        passes = not self.away or (kind != SSUBSCRIBE and kind != SUNSUBSCRIBE) \
            or self.sums(kind, name, &d)
        if d.answered >= d.wanted:
            self.drop_due()
        else:
            memcpy(buffer_head(&self.due), &d, sizeof(d))
        if kind > SSUBSCRIBE and self.is_hollow:
            self.news = True
        return passes

    cdef bint sums(self, int kind, object name, Due* d) except -1:
        """A sharded channel was confirmed, and some are away: make what the client is told of it, with
        the sum of all. False: that goes in the place of the server's word."""
        if name is not None:
            self.away.discard(name)
            self.instead = self.confirmation(
                b"ssubscribe" if kind == SSUBSCRIBE else b"sunsubscribe", name)
        if d.all and d.answered >= d.wanted:
            self.instead += self.without_away()
            self.news = True
        return False

    @property
    def is_hollow(self):
        """Whether its link has no subscription, and others have: in RESP2 the link's server does not
        know then that the client is a subscriber."""
        return self.mark == c'*' and bool(self.away) and not self.channels and not self.patterns \
            and len(self.sharded) == len(self.away)

    cdef set names_of(self, int kind):
        if kind == SUBSCRIBE or kind == UNSUBSCRIBE:
            return self.channels
        return self.patterns if kind == PSUBSCRIBE or kind == PUNSUBSCRIBE else self.sharded

    cdef bint answered(self, Session* s, const char* p, size_t n) except -1:
        """Take in the reply to the oldest request: whether it is for the client."""
        cdef int kind
        if p[0] == c'-':
            if self.due_count and is_redirection(p, n):
                kind = self.oldest().kind
                self.withheld = kind == NO_KIND
                if kind == NO_KIND and self.mark == c'*' and self.is_subscribed:
                    self.instead = self.not_in_this_mode()
                    self.drop_due()
                else:
                    self.refusal = p[:n]
                    self.news = True
                return False
            audit_raw_reply(s, p, min(n, 8))
        if self.due_count:
            self.drop_due()
        return True

    cdef bytes not_in_this_mode(self):
        """What a server answers a subscriber of RESP2 to its oldest request."""
        cdef Command* c
        words = self.due_requests[0]
        c = self.table.find(words[0], len(words[0]))
        name = words[0].lower()
        if c.keys & FORM_MASK == FORM_CONTAINER and len(words) > 1:
            name += b"|" + words[1].lower()
        return b"-ERR Can't execute '%b': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET" \
            b" are allowed in this context\r\n" % name

    cdef bint only_asks_for_shards(self) noexcept:
        """Whether all requests that are due are SSUBSCRIBE, and nothing of them is done."""
        cdef size_t at = 0
        cdef Due d
        while at < buffer_size(&self.due):
            memcpy(&d, buffer_head(&self.due) + at, sizeof(d))
            if d.kind != SSUBSCRIBE or d.answered:
                return False
            at += sizeof(d) + d.size
        return True

    @property
    def may_repeat(self):
        """Whether its oldest request may be sent twice: a read."""
        return self.oldest().again

    @property
    def is_new(self):
        """Whether it has no subscription, and all that is due are sharded channels."""
        return not self.is_subscribed and self.only_asks_for_shards()

    # What another server needs

    @property
    def movable(self):
        """Whether another link can go on where this one ends."""
        cdef size_t at = 0
        cdef Due d
        if self.strange or self.in_part or buffer_size(&self.asked):
            return False
        while at < buffer_size(&self.due):
            memcpy(&d, buffer_head(&self.due) + at, sizeof(d))
            if not d.again:
                return False
            at += sizeof(d) + d.size
        return True

    @property
    def due_requests(self):
        """The requests that have no whole answer, as words; without the channels that are confirmed."""
        cdef size_t at = 0
        cdef Due d
        found = []
        while at < buffer_size(&self.due):
            memcpy(&d, buffer_head(&self.due) + at, sizeof(d))
            at += sizeof(d)
            words = split_arguments((buffer_head(&self.due) + at)[:d.size])
            found.append(words[:1] + words[1 + d.answered:])
            at += d.size
        return found

    @property
    def taken(self):
        """The names of the channels that the server has unsubscribed by itself."""
        cdef Cursor c
        cdef const char* p = self.swallowed
        cdef size_t n = len(self.swallowed)
        found = set()
        cursor_on(&c, p, n)
        while c.at + 4 < p + n:
            cursor_on(&c, c.at + 4, <size_t>(p + n - c.at) - 4)
            if not cursor_next(&c) or not cursor_next(&c):
                break
            found.add(c.arg[:c.size])
            while c.at < p + n and c.at[0] != 10:   # the count: a line
                c.at += 1
            c.at += 1
        return found

    def begin_again(self):
        """Another link goes on: nothing is due on it, and all that is confirmed is subscribed there."""
        buffer_release(&self.asked)
        buffer_release(&self.due)
        buffer_release(&self.rest)
        buffer_release(&self.held)
        scanner_reset(&self.scan)
        self.due_count = 0
        self.swallowed = b""
        self.refusal = None

    def resolve(self):
        """The oldest request, whose answer was a redirection, has been dealt with: what the server has
        sent behind that is to be taken now."""
        cdef bytes held = buffer_head(&self.held)[:buffer_size(&self.held)]
        buffer_release(&self.held)
        self.drop_due()
        self.refusal = None
        return held

    def share(self):
        """Other links are to give the client messages as well, from now on. False: it is being given a
        large one in part now."""
        self.whole = self.whole or not self.in_part
        return self.whole

    @property
    def is_shared(self):
        """Whether other links have given the client messages."""
        return self.whole

    def put_away(self):
        """What the server has ended by itself is to be had on other links: the names."""
        found = self.taken & self.sharded
        self.swallowed = b""
        self.away |= found
        return found

    # For tests

    def asks(self, bytes requests):
        """As `note`."""
        self.note(requests, len(requests))

    def gives(self, bytes frame):
        """Whether the client is given this answer or message."""
        return self.passes(NULL, frame, len(frame))
