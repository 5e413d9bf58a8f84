# cython: language_level=3, cdivision=True
"""Passing requests on: as they are, with the prefix in its places, or refused.

A refused request must be answered in its turn, and must end a transaction that is open. So `GET`
without arguments goes to the server in its place, which refuses that in any state of the connection,
and the reply gets our text.
"""
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memchr
from sidecar.core.memory cimport buffer_append, buffer_release
from sidecar.core.protocol.cursor cimport put_header
from sidecar.core.protocol.request cimport error_text, scanner_reset
from sidecar.core.rewrite.replies cimport DUE_DROPPED, DUE_RAW, DUE_SAME

cdef enum:
    FIRST_PLACES = 16

cdef bytes WITHOUT_ARGUMENTS = b"*1\r\n$3\r\nGET\r\n"
cdef bytes QUIT = b"*1\r\n$4\r\nQUIT\r\n"


cdef inline size_t header_size(size_t n) noexcept nogil:
    """How long the header of an argument of n bytes is."""
    cdef size_t size = 4
    while n >= 10:
        n //= 10
        size += 1
    return size


cdef int by_place(const void* a, const void* b) noexcept nogil:
    cdef const char* p = (<const Place*>a).p
    cdef const char* q = (<const Place*>b).p
    return -1 if p < q else p > q


cdef class Giving:
    """What a client's session gets. Giving(rules, chance, protocol): `chance` is any number; the client
    speaks RESP2 or 3 (`protocol`) now."""

    def __cinit__(self, RewriteRules rules not None, chance, int protocol=2):
        self.rules = rules
        self.replies = ReplyRewriter(rules, chance, protocol)
        self.places = <Place*>malloc(FIRST_PLACES * sizeof(Place))
        if self.places == NULL:
            raise MemoryError
        self.places_cap = FIRST_PLACES
        scanner_reset(&self.scan)

    def __dealloc__(self):
        buffer_release(&self.out)
        free(self.places)

    cdef int put(self, const char* p, size_t n) except -1:
        if buffer_append(&self.out, p, n) < 0:
            raise MemoryError
        return 0

    cdef int put_argument(self, const char* p, size_t n, const char* more, size_t size) except -1:
        """One argument: p[0:n], and behind it more[0:size]."""
        if put_header(&self.out, c'$', n + size) < 0 or buffer_append(&self.out, p, n) < 0 \
                or buffer_append(&self.out, more, size) < 0 \
                or buffer_append(&self.out, b"\r\n", 2) < 0:
            raise MemoryError
        return 0

    cdef int give(self, const char* p, size_t n, int due=DUE_SAME, int which=0) except -1:
        """Pass a request on as it is."""
        if not self.raw:
            self.replies.expect(due, which)
        return self.put(p, n)

    cdef int place(self, const char* p, size_t n, size_t at=0) except -1:
        """The prefix goes into the argument p[0:n], so many bytes into it."""
        cdef Place* grown
        if self.places_len == self.places_cap:
            grown = <Place*>realloc(self.places, 2 * self.places_cap * sizeof(Place))
            if grown == NULL:
                raise MemoryError
            self.places, self.places_cap = grown, 2 * self.places_cap
        self.places[self.places_len].p, self.places[self.places_len].n = p, n
        self.places[self.places_len].at = at
        self.places_len += 1
        return 0

    cdef int give_placed(self, const char* p, size_t n, int due=DUE_SAME, int which=0,
                         int more=0, uint32_t count=1) except -1:
        """Pass on the request p[0:n] with the prefix in its places. So many more arguments will follow
        than it has; its reply comes in so many parts (`count`)."""
        cdef size_t i
        cdef size_t places = self.places_len
        cdef const char* done = p
        cdef const char* header
        cdef Place* to
        cdef bint sorted = True
        for i in range(1, places):
            sorted = sorted and self.places[i - 1].p < self.places[i].p
        if not sorted:
            qsort(self.places, places, sizeof(Place), by_place)
        self.places_len = 0
        if not self.raw:
            self.replies.expect(due, which, count)
        if more:
            if put_header(&self.out, c'*', <size_t>(self.scan.argc + more)) < 0:
                raise MemoryError
            done = <const char*>memchr(p, 10, n) + 1
        for i in range(places):
            to = self.places + i
            header = to.p - header_size(to.n)
            if header < done:
                continue                # two specifications tell the same key
            self.put(done, header - done)
            if put_header(&self.out, c'$', to.n + self.rules.size) < 0:
                raise MemoryError
            self.put(to.p, to.at)
            self.put(self.rules.text, self.rules.size)
            done = to.p + to.at
        return self.put(done, p + n - done)

    cdef int refuse(self, bytes error) except -1:
        """Have the server refuse something, and give the client this error for it."""
        if not self.raw:
            self.replies.refuse(error)
        return self.put(WITHOUT_ARGUMENTS, len(WITHOUT_ARGUMENTS))

    cdef int protocol_error(self, int error, char found) except -1:
        """Nothing can be read on: the client gets the error, and is hung up on."""
        self.broken = True
        self.refuse(error_text(error, found))
        return self.give(QUIT, len(QUIT), DUE_DROPPED)

    cdef int give_raw(self, const char* p, size_t n) except -1:
        """From here on replies are not one for each request: they pass as they are."""
        if not self.raw:
            self.replies.expect(DUE_RAW)
        self.raw = True
        return self.put(p, n)
