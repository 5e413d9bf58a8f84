# cython: language_level=3
"""Giving a client's replies the names that it knows.

Everything that a client is sent passes here once, in order, on its way to the socket. What a reply is
about is known from the requests: for each that is passed on, `expect` puts down what its reply is,
and the first of that is what the next reply is. So the same code serves every kind of link, a cluster,
the near cache, and what the sidecar answers itself.

Messages and confirmations of subscriptions stand between replies. In RESP3 their type tells them, in
RESP2 their first word, which can't be taken for another reply's: a client of RESP2 that has
subscriptions gets no other arrays with such a word.

A reply without names passes as it comes. One with names is held until it is whole, and given out
without the prefix. EXEC's array has the replies of the commands that the server has queued, which
it has confirmed one by one.

A message about a key of somebody else's (`__keyevent@0__:set`) is dropped.
"""
from collections import deque
from libc.stdlib cimport free
from libc.string cimport memcmp
from sidecar.core.memory cimport (buffer_append, buffer_head, buffer_release, buffer_size,
    buffer_truncate, ring_grown, ring_new)
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, FRAME_PUSH, frame_reply,
    framer_reset)
from sidecar.core.rewrite.rules cimport SHAPE_EACH, SHAPE_NONE
from sidecar.core.rewrite.walk cimport (Bulk, Walk, walk_begin, walk_bulk, walk_cut, walk_end,
    walk_element, walk_length, walk_value)

cdef const char* QUEUED = b"+QUEUED\r\n"
cdef const char* OK = b"+OK\r\n"
cdef const char* OWN_ERROR = b"-ERR wrong number of arguments for 'get' command\r\n"
cdef const char* NOT_PERMITTED = b"-NOPERM "
cdef const char* OF_KEY = b"__keyspace@"
cdef const char* OF_EVENT = b"__keyevent@"
cdef const char* OF_TRACKING = b"__redis__:invalidate"


cdef inline bint begins(const char* p, size_t n, const char* words, size_t size) noexcept nogil:
    return n >= size and memcmp(p, words, size) == 0


cdef inline bint is_the(const Bulk* b, const char* word, size_t size) noexcept nogil:
    return b.n == size and memcmp(b.p, word, size) == 0


cdef inline bint is_queued(const char* p, size_t n) noexcept nogil:
    return n == 9 and memcmp(p, QUEUED, 9) == 0


cdef int kind_of(const Bulk* word, bint* more) noexcept nogil:
    """Of which kind of subscriptions the word tells that there is one more, or less; -1: of none."""
    more[0] = word.n < 11
    if is_the(word, b"subscribe", 9) or is_the(word, b"unsubscribe", 11):
        return CHANNELS
    if is_the(word, b"psubscribe", 10) or is_the(word, b"punsubscribe", 12):
        more[0] = word.n == 10
        return PATTERNS
    if is_the(word, b"ssubscribe", 10) or is_the(word, b"sunsubscribe", 12):
        more[0] = word.n == 10
        return SHARD_CHANNELS
    return -1


cdef size_t prefix_at(const Bulk* b) noexcept nogil:
    """Where a channel has the prefix, if it has it: in that of a key's events, before the key."""
    cdef size_t i
    if begins(b.p, b.n, OF_KEY, 11):
        for i in range(11, b.n - 2):
            if memcmp(b.p + i, b"__:", 3) == 0:
                return i + 3
    return 0


cdef bint has_prefix(const Walk* w, const Bulk* b, size_t at) noexcept nogil:
    return b.p != NULL and b.n >= at and begins(b.p + at, b.n - at, w.prefix, w.size)


cdef class ReplyRewriter:
    """The replies and messages of one client, which has spoken RESP2 or 3 (`protocol`) so far. `chance`:
    any number, for RANDOMKEY."""

    def __cinit__(self, RewriteRules rules not None, uint64_t chance, int protocol):
        self.rules = rules
        self.ring = <Expected*>ring_new(&self.mask, sizeof(Expected))
        if self.ring == NULL:
            raise MemoryError
        self.errors = deque()
        self.chance = chance | 1
        self.protocol = protocol
        framer_reset(&self.framer)

    def __dealloc__(self):
        free(self.ring)
        buffer_release(&self.held)
        buffer_release(&self.queued)

    cdef int expect(self, int due, int which=0, uint32_t count=1) except -1:
        """This is due behind what is due already."""
        cdef Expected* last
        cdef Expected* grown
        if self.tail != self.head and due == DUE_SAME:
            last = self.ring + ((self.tail - 1) & self.mask)
            if last.due == DUE_SAME:
                last.count += count
                return 0
        if self.tail - self.head == self.mask + 1:
            grown = <Expected*>ring_grown(self.ring, &self.mask, self.head, sizeof(Expected))
            if grown == NULL:
                raise MemoryError
            self.ring = grown
        last = self.ring + (self.tail & self.mask)
        last.due, last.which, last.count = <uint8_t>due, <uint8_t>which, count
        self.tail += 1
        return 0

    cdef int refuse(self, bytes error) except -1:
        """The client gets this error in the place of one that is due."""
        self.errors.append(error)
        return self.expect(DUE_REFUSED)

    cdef Expected* first(self) noexcept:
        return self.ring + (self.head & self.mask) if self.head != self.tail else NULL

    cdef int next(self) except -1:
        """The first reply that is due has come."""
        cdef Expected* e = self.first()
        if e == NULL:
            return 0                    # said by the sidecar, before it hangs up
        e.count -= e.count != 0
        if e.count == 0:
            self.head += 1
        return 0

    cdef int feed(self, const char* p, size_t n, Buffer* out) except -1:
        """Write to `out` what the client gets of what it is sent.

            p[begin:i]      passes as it is
        """
        cdef size_t i = 0
        cdef size_t begin = 0
        cdef size_t at
        cdef int r
        while i < n and not self.raw:
            at = i
            if not self.in_reply:
                self.begin(p[i])
                if self.raw:
                    break
            r = frame_reply(&self.framer, p, n, &i)
            if self.holding and (buffer_append(out, p + begin, at - begin) < 0
                                 or buffer_append(&self.held, p + at, i - at) < 0):
                raise MemoryError
            if self.holding:
                begin = i
            if r == FRAME_MORE:
                break
            if r == FRAME_ERROR:
                self.raw = True         # no reply: the client is to see that as it is
                if buffer_append(out, buffer_head(&self.held), buffer_size(&self.held)) < 0:
                    raise MemoryError
                buffer_release(&self.held)
                break
            self.framer.first = 0
            self.in_reply = False
            if self.holding:
                self.end(r, buffer_head(&self.held), buffer_size(&self.held), out)
                buffer_release(&self.held)
                self.holding = False
            else:
                self.next()
        if buffer_append(out, p + begin, n - begin) < 0:
            raise MemoryError
        return 0

    cdef int begin(self, char kind) except -1:
        """A reply or message begins: whether it is held until it is whole."""
        cdef Expected* e = self.first()
        cdef int due = e.due if e != NULL else DUE_SAME
        self.in_reply = True
        if due == DUE_RAW:
            self.raw = True
        elif kind == c'>':
            self.holding = True
        elif kind == c'*' and (due == DUE_CONFIRMED or (
                self.confirmed_by == c'*'
                and self.subscribed[0] + self.subscribed[1] + self.subscribed[2] > 0)):
            self.holding = True
        elif due == DUE_SAME:
            self.holding = self.in_multi and kind == c'+'
        else:
            self.holding = due != DUE_EXEC or kind != c'*' or self.names_in_exec
            if due == DUE_EXEC and not self.holding:
                self.in_multi = False
                buffer_release(&self.queued)
        return 0

    cdef int end(self, int framed, const char* p, size_t n, Buffer* out) except -1:
        """What was held is whole."""
        if (framed == FRAME_PUSH or p[0] == c'*') and self.message(p, n, out):
            return 0
        if framed == FRAME_PUSH:
            if buffer_append(out, p, n) < 0:
                raise MemoryError
            return 0
        return self.take(p, n, out)

    cdef int take(self, const char* p, size_t n, Buffer* out) except -1:
        """Give out the whole reply p[0:n]: it is what is due first."""
        cdef Expected* e = self.first()
        cdef int due = e.due if e != NULL else DUE_SAME
        cdef int shape = SHAPE_NONE
        if due == DUE_SHAPED:
            shape = e.which
        if due != DUE_CONFIRMED:
            self.next()
        elif p[0] == c'-':
            self.head += 1              # none of it was done
        if self.in_multi and is_queued(p, n):
            self.queue(shape)
        elif due == DUE_SHAPED:
            return self.give_shaped(p, n, shape, out)
        elif due == DUE_REFUSED:
            error = self.errors.popleft()
            if begins(p, n, OWN_ERROR, 48) or begins(p, n, NOT_PERMITTED, 8):
                if buffer_append(out, error, len(error)) < 0:
                    raise MemoryError
                return 0
        elif due == DUE_MULTI:
            self.in_multi = self.in_multi or begins(p, n, OK, 5)
        elif due == DUE_EXEC:
            return self.give_exec(p, n, out)
        elif due == DUE_DISCARD:
            if begins(p, n, OK, 5):
                self.end_multi()
        elif due == DUE_RANDOM:
            return self.give_random(p, n, out)
        elif due == DUE_DROPPED:
            return 0
        elif due == DUE_RESET and begins(p, n, b"+RESET", 6):
            self.end_multi()
            self.subscribed[0] = self.subscribed[1] = self.subscribed[2] = 0
            self.protocol = 2
        if due == DUE_LOGIN and p[0] == c'%':
            self.protocol = 3
        elif due == DUE_LOGIN and p[0] == c'*':
            self.protocol = 2
        if due == DUE_LOGIN or due == DUE_RESET:
            self.passed = True
            self.rules, self.later = self.later or self.rules, None
        if buffer_append(out, p, n) < 0:
            raise MemoryError
        return 0

    cdef int end_multi(self) except -1:
        self.in_multi = self.names_in_exec = False
        buffer_release(&self.queued)
        return 0

    cdef int queue(self, int shape) except -1:
        """The server has queued a command with a reply of this shape."""
        cdef char one = <char>shape
        if buffer_append(&self.queued, &one, 1) < 0:
            raise MemoryError
        self.names_in_exec = self.names_in_exec or shape != SHAPE_NONE
        return 0

    cdef int give_exec(self, const char* p, size_t n, Buffer* out) except -1:
        """Give out the reply to EXEC, in which each element has a shape of its own."""
        cdef Walk w
        cdef int64_t count = 0
        cdef size_t i
        walk_begin(&w, p, n, out, self.rules.text, self.rules.size)
        if p[0] == c'*' and self.names_in_exec and walk_length(&w, &count) \
                and count == <int64_t>buffer_size(&self.queued):
            for i in range(<size_t>count):
                if not walk_element(&w, buffer_head(&self.queued)[i]):
                    break
        self.end_multi()
        if walk_end(&w) < 0:
            raise MemoryError
        return 0

    cdef int give_shaped(self, const char* p, size_t n, int shape, Buffer* out) except -1:
        cdef Walk w
        walk_begin(&w, p, n, out, self.rules.text, self.rules.size)
        walk_value(&w, shape)
        if walk_end(&w) < 0:
            raise MemoryError
        return 0

    # RANDOMKEY

    cdef uint64_t draw(self) noexcept:
        """A number by chance."""
        self.chance ^= self.chance << 13
        self.chance ^= self.chance >> 7
        self.chance ^= self.chance << 17
        return self.chance

    cdef bytes random_cursor(self, bint from_start):
        """Where RANDOMKEY begins to scan."""
        self.from_start = from_start
        # The server masks what its table has no place for. Larger ones may be no numbers to it.
        return b"0" if from_start else b"%d" % (self.draw() >> 16)

    cdef int give_random(self, const char* p, size_t n, Buffer* out) except -1:
        """One of the keys found, the null string if there are none at all; or scan on."""
        cdef Walk w
        cdef Bulk cursor, key
        cdef int64_t count = 0
        cdef int64_t pick
        cdef bytes found = None
        self.cursor = None
        walk_begin(&w, p, n, out, self.rules.text, self.rules.size)
        if p[0] != c'*' or not walk_length(&w, &count) or not walk_bulk(&w, &cursor) \
                or w.at >= n or p[w.at] != c'*' or not walk_length(&w, &count):
            self.passed = True
            if walk_end(&w) < 0:
                raise MemoryError
            return 0                    # an error
        pick = <int64_t>(self.draw() % <uint64_t>count) if count > 0 else -1
        while pick >= 0 and walk_bulk(&w, &key):
            pick -= 1
            if pick < 0 and has_prefix(&w, &key, 0):
                found = key.p[w.size:key.n]
        if found is None and not is_the(&cursor, b"0", 1):
            self.cursor = cursor.p[:cursor.n]
        elif found is None and not self.from_start:
            self.cursor = self.random_cursor(True)
        elif found is not None:
            found = b"$%d\r\n%b\r\n" % (len(found), found)
        else:
            found = b"_\r\n" if self.protocol == 3 else b"$-1\r\n"
        self.passed = self.cursor is None
        if found is not None and buffer_append(out, found, len(found)) < 0:
            raise MemoryError
        return 0

    # Messages

    cdef int confirmed(self, int kind, int64_t count, bint more, char by) except -1:
        """The server has confirmed that a subscription is there, or is not any more; `count` is what
        it says of how many there are."""
        cdef Expected* e = self.first()
        self.confirmed_by = by
        self.subscribed[kind] = count
        if kind != SHARD_CHANNELS:      # those of the other kind are among them
            self.subscribed[kind] -= self.subscribed[1 - kind]
        if e == NULL or e.due != DUE_CONFIRMED or e.which >> 1 != kind or (e.which & 1) != more:
            return 0                    # the server's own wish: the slot has left it
        if e.count:
            return self.next()
        if self.subscribed[kind] <= 0:
            self.head += 1
        return 0

    cdef int message(self, const char* p, size_t n, Buffer* out) except -1:
        """Give out a message or confirmation p[0:n]; 0: it is neither."""
        cdef Walk w
        cdef Bulk word, channel
        cdef int64_t count = 0
        cdef bint more = False
        cdef bint ours = True
        cdef int kind
        cdef size_t at
        cdef size_t before = buffer_size(out)
        walk_begin(&w, p, n, out, self.rules.text, self.rules.size)
        if not walk_length(&w, &count) or not walk_bulk(&w, &word) or word.p == NULL:
            return 0
        kind = kind_of(&word, &more)
        if kind >= 0 and count == 3 and walk_bulk(&w, &channel):
            if channel.p != NULL:
                at = prefix_at(&channel)
                if has_prefix(&w, &channel, at):
                    walk_cut(&w, &channel, at)
            if w.at < n and p[w.at] == c':' and walk_length(&w, &count):
                self.confirmed(kind, count, more, p[0])
        elif is_the(&word, b"invalidate", 10) and count == 2 and p[0] == c'>':
            walk_value(&w, SHAPE_EACH)
        elif is_the(&word, b"pmessage", 8) and count == 4 and walk_bulk(&w, &channel):
            at = prefix_at(&channel) if channel.p != NULL else 0
            if has_prefix(&w, &channel, at):
                walk_cut(&w, &channel, at)
            ours = self.give_message(&w)
        elif (is_the(&word, b"message", 7) or is_the(&word, b"smessage", 8)) and count == 3:
            ours = self.give_message(&w)
        else:
            return 0
        if not ours:
            buffer_truncate(out, before)
        elif walk_end(&w) < 0:
            raise MemoryError
        return 1

    cdef bint give_message(self, Walk* w) except -1:
        """Take the prefix off a channel, and off the key that is told in an event's message. False:
        it is about somebody else's key, and the client does not get it."""
        cdef Bulk channel, key
        cdef size_t at
        if w.size == 0 or not walk_bulk(w, &channel) or channel.p == NULL:
            return True
        if is_the(&channel, OF_TRACKING, 20):
            walk_value(w, SHAPE_EACH)
            return True
        if begins(channel.p, channel.n, OF_EVENT, 11):
            if not walk_bulk(w, &key) or not has_prefix(w, &key, 0):
                return False
            return walk_cut(w, &key, 0)
        at = prefix_at(&channel)
        if not has_prefix(w, &channel, at):
            return False
        return walk_cut(w, &channel, at)
