# cython: language_level=3, cdivision=True
"""A client's names and the server's: between the socket and the session.

    socket -> Rewriter.take -> out -> session_feed -> ...                  what a client sends
    socket <- Rewriter.replies.feed <- Session.out, .borrowed <- ...       what it is sent

So all that follows (cache, hot keys, slots, links of any kind, traces) knows the server's names only,
and clients whose names are the server's pay nothing.

A request is rewritten when it is whole (requests.pyx). Of a larger one than `most` bytes the keys are
found by where they stand, as its arguments come; if that does not tell them, it is refused.

Behind AUTH, HELLO and RESET other rules may hold: what follows them `waits` for their reply.
RANDOMKEY is served by scanning; what follows waits as well. On a client's protocol error it gets the
error in its turn and QUIT is sent: what it sent is never passed on, since a server may take it for
a request and execute it.
"""
from libc.string cimport memchr, memset
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.protocol.commands cimport (FIND_KEYNUM, FIND_RANGE, FORM_MASK, FORM_ONE, FORM_REST,
    FORM_SPECS, KeySpec)
from sidecar.core.protocol.cursor cimport (Cursor, cursor_begin, cursor_next, put_header, read_header,
    read_number)
from sidecar.core.protocol.request cimport (ERR_BULK, ERR_QUOTES, SCAN_DONE, SCAN_EMPTY,
    SCAN_ERROR, SCAN_INLINE, SCAN_MORE, inline_to_multibulk, scan_request, scanner_reset)
from sidecar.core.rewrite.replies cimport DUE_LOGIN, DUE_RESET, DUE_SAME, DUE_SHAPED
from sidecar.core.rewrite.requests cimport unknown_command
from sidecar.core.rewrite.rules cimport (ACT_CHANNEL, ACT_KEEP, ACT_KEYS, ACT_LOGIN, ACT_RESET,
    ACT_SUBSCRIBE, MARK_NONE, RewriteRules)

cdef enum:
    HEADER_MOST = 24        # bytes of an argument's header

cdef bytes TOO_LARGE = b"-NOPERM '%b' is too large here for its keys to get a prefix\r\n"


cdef class Rewriter(RequestRewriter):
    """What one client sends and is sent, in the server's and in its own names.

    Rewriter(rules, chance, protocol): `chance` is any number; the client speaks RESP2 or 3
    (`protocol`) now.
    """

    def __dealloc__(self):
        buffer_release(&self.pending)

    def use(self, RewriteRules rules not None):
        """Rewrite by these rules what comes from now on. If that is what follows a login, replies
        may be due to what came before it."""
        self.rules = rules
        if self.waits and not self.replies.passed:
            self.replies.later = rules
        else:
            self.replies.rules = rules

    def expect_login(self):
        """The reply to a login is due, which was passed on before there was a rewriter; what follows
        waits for it."""
        self.replies.expect(DUE_LOGIN)
        self.waits = True

    cdef int take(self, const char* p, size_t n, const Limits* limits, bint authenticated,
                  size_t most) except -1:
        """Bytes from the client: what the session is to get of them is written to `out`."""
        cdef size_t done
        self.limits = limits
        if self.broken:
            return 0
        if buffer_size(&self.pending) or self.waits:
            if buffer_append(&self.pending, p, n) < 0:
                raise MemoryError
            return self.go_on(limits, authenticated, most)
        done = self.parse(p, n, authenticated, most)
        if buffer_append(&self.pending, p + done, n - done) < 0:
            raise MemoryError
        return 0

    cdef bint ready(self) noexcept:
        """Whether the reply has come that it waits for."""
        return self.waits and (self.replies.passed or self.replies.cursor is not None)

    cdef int go_on(self, const Limits* limits, bint authenticated, size_t most) except -1:
        """Go on with what waits, if it need not wait any more."""
        cdef size_t done
        self.limits = limits
        if self.ready():
            if not self.replies.passed:
                return self.random_key()
            self.waits = self.replies.passed = False
        if not self.waits and buffer_size(&self.pending):
            done = self.parse(buffer_head(&self.pending), buffer_size(&self.pending), authenticated,
                              most)
            if done:
                buffer_drop(&self.pending, done)
        return 0

    cdef size_t parse(self, const char* p, size_t n, bint authenticated, size_t most) except? 0:
        """Rewrite requests until the bytes end or one has to wait: how many bytes are done."""
        cdef size_t at = 0
        cdef size_t k
        cdef int r
        while at < n and not self.waits:
            if self.broken:
                return n
            if self.streaming:
                k = self.stream(p + at, n - at)
                at += k
                if self.streaming and not self.broken:
                    break
                continue
            r = scan_request(&self.scan, p + at, n - at, self.limits, authenticated)
            k = self.scan.pos
            if r == SCAN_MORE:
                if k + <size_t>max(self.scan.bulk, 0) <= most or self.scan.argc < 0:
                    break
                at += self.begin_stream(p + at, n - at)
                continue
            if r == SCAN_DONE:
                self.request(p + at, k)
            elif r == SCAN_INLINE:
                self.inline(p + at, k)
            elif r == SCAN_ERROR:
                self.protocol_error(self.scan.error, self.scan.found)
            at += k
            scanner_reset(&self.scan)
        return n if self.broken else at

    cdef int inline(self, const char* p, size_t n) except -1:
        """A line: the server gets it as the multibulk request that it stands for."""
        cdef Buffer line
        cdef int r
        memset(&line, 0, sizeof(line))
        try:
            r = inline_to_multibulk(p, n, &line, self.limits.joined_quotes)
            if r == SCAN_ERROR:
                self.protocol_error(ERR_QUOTES, 0)
            elif r != SCAN_EMPTY:
                scanner_reset(&self.scan)
                scan_request(&self.scan, buffer_head(&line), buffer_size(&line), self.limits, True)
                self.request(buffer_head(&line), buffer_size(&line))
        finally:
            buffer_release(&line)
        return 0

    # Large requests

    cdef int begin_stream(self, const char* p, size_t n) except -1:
        """A large request, of which p[0:n] has come. How many bytes are done: its first line, if
        its name is there."""
        cdef RewriteRules rules = self.rules
        cdef Command* c
        cdef size_t line = <size_t>(<const char*>memchr(p, 10, n) - p) + 1
        cdef int act, shape
        self.argc, self.index, self.left = self.scan.argc, 0, 0
        self.login, self.refusal, self.indices_len = False, None, 0
        self.streaming = STREAM_PASS
        if self.scan.left == self.scan.argc:
            self.streaming = STREAM_DROP        # a name of this size is no command's
            self.refusal = unknown_command(b"", 0)
            return <int>line
        c = rules.table.find(p + self.scan.name_at, self.scan.name_len)
        if rules.known < rules.table.count:
            rules.learn()
        act, shape = rules.acts[c.id], rules.shapes[c.id]
        if (c.id == 0 and rules.size) or rules.marks[c.id] != MARK_NONE:
            self.streaming = STREAM_DROP
            self.refusal = unknown_command(p, n)
        elif act == ACT_LOGIN or act == ACT_RESET:
            self.login = not self.raw
        elif rules.size and act != ACT_KEEP and not self.find_indices(c, act, p, n):
            self.streaming = STREAM_DROP
            self.refusal = TOO_LARGE % c.name[:c.name_len]
        elif rules.size == 0 and act == ACT_SUBSCRIBE:
            return self.give_raw(p, line)
        if self.streaming == STREAM_DROP:
            return <int>line
        if self.login:
            self.give(p, line, DUE_LOGIN if act == ACT_LOGIN else DUE_RESET)
        else:
            self.give(p, line, DUE_SHAPED if shape else DUE_SAME, shape)
        return <int>line

    cdef bint find_indices(self, const Command* c, int act, const char* p, size_t n) except -1:
        """Find out which arguments are keys, of a request of which p[0:n] has come. False: that can't
        be told yet."""
        cdef int form = c.keys & FORM_MASK
        cdef int i
        if act == ACT_CHANNEL or (act == ACT_KEYS and form == FORM_ONE):
            return self.add_indices(1, 1, 1)
        if act != ACT_KEYS:
            return False
        if form == FORM_REST:
            return self.add_indices(1, self.argc - 1, 1)
        if form != FORM_SPECS:
            return False
        for i in range(c.rules.specs_len):
            if not self.add_specified(c.rules.specs + i, p, n):
                return False
        return True

    cdef bint add_indices(self, int64_t first, int64_t last, int64_t step) except -1:
        self.indices[self.indices_len].first = first
        self.indices[self.indices_len].last = last
        self.indices[self.indices_len].step = step
        self.indices_len += 1
        return True

    cdef bint add_specified(self, const KeySpec* spec, const char* p, size_t n) except -1:
        """The arguments that a specification means."""
        cdef Cursor a
        cdef int64_t count = 0
        cdef int64_t i
        if spec.keyword_len:
            return False
        if spec.find == FIND_RANGE and spec.limit <= 1:
            return self.add_indices(
                spec.at, spec.at + spec.last if spec.last >= 0 else self.argc + spec.last, spec.step)
        if spec.find != FIND_KEYNUM:
            return False
        cursor_begin(&a, p, n)
        for i in range(spec.at + spec.count_at + 1):
            if not cursor_next(&a):
                return False
        if not read_number(a.arg, a.size, &count) or not 0 <= count <= self.argc:
            return False
        i = spec.at + spec.first
        return self.add_indices(i, i + (count - 1) * spec.step, spec.step)

    cdef bint is_key(self) noexcept:
        """Whether the next argument is a key."""
        cdef int i
        for i in range(self.indices_len):
            if self.indices[i].first <= self.index <= self.indices[i].last \
                    and (self.index - self.indices[i].first) % self.indices[i].step == 0:
                return True
        return False

    cdef size_t stream(self, const char* p, size_t n) except? 0:
        """Go on with a large request: how many bytes are done."""
        cdef size_t i = 0
        cdef size_t k, size
        cdef bint passes = self.streaming == STREAM_PASS
        while True:
            k = min(self.left, n - i)
            if passes:
                self.put(p + i, k)
            i += k
            self.left -= k
            if self.left:
                return i
            if self.index == self.argc:
                self.end_stream()
                return i
            size = 0
            k = read_header(p + i, n - i, c'$', &size)
            if k == 0 and n - i < HEADER_MOST and (n == i or memchr(p + i, 10, n - i) == NULL):
                return i
            if k == 0 or <int64_t>size > self.limits.bulk:
                # The session sees what is wrong, and where, and ends the client.
                self.broken_stream(p + i, n - i)
                return n
            if passes and self.is_key():
                if put_header(&self.out, c'$', size + self.rules.size) < 0:
                    raise MemoryError
                self.put(self.rules.text, self.rules.size)
            elif passes:
                self.put(p + i, k)
            i += k
            self.index += 1
            self.left = size + 2

    cdef int broken_stream(self, const char* p, size_t n) except -1:
        """The rest of a large request is none."""
        self.broken = True
        if self.streaming == STREAM_PASS:
            return self.put(p, n)
        return self.protocol_error(ERR_BULK, 0)

    cdef int end_stream(self) except -1:
        """A large request has come to its end."""
        self.waits = self.login
        if self.streaming == STREAM_DROP:
            self.refuse(self.refusal)
        self.streaming = STREAM_NONE
        scanner_reset(&self.scan)
        return 0

    # For tests

    def requests(self, bytes data, bint authenticated=True, size_t most=1 << 18):
        """What the session gets of these bytes of the client's."""
        cdef Limits limits
        limits.bulk, limits.count = 512 << 20, 1 << 20
        limits.unauth_bulk, limits.unauth_count, limits.joined_quotes = 16384, 10, False
        self.take(data, len(data), &limits, authenticated, most)
        return self.given()

    def resumed(self):
        """What the session gets of what has waited for replies."""
        cdef Limits limits
        limits.bulk, limits.count = 512 << 20, 1 << 20
        limits.unauth_bulk, limits.unauth_count, limits.joined_quotes = 16384, 10, False
        self.go_on(&limits, True, 1 << 18)
        return self.given()

    cdef bytes given(self):
        cdef bytes out = buffer_head(&self.out)[:buffer_size(&self.out)]
        buffer_release(&self.out)
        return out

    def shown(self, bytes data):
        """What the client gets of these bytes that it is sent."""
        cdef Buffer out
        memset(&out, 0, sizeof(out))
        try:
            self.replies.feed(data, len(data), &out)
            return buffer_head(&out)[:buffer_size(&out)]
        finally:
            buffer_release(&out)
