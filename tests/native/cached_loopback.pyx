# cython: language_level=3
"""The core with a near cache, without sockets: for tests and fuzzing only.

What tracked_link.pyx and plane.pyx do for the near cache with sockets, done with bytes. Tracked
links are known by number, like sessions and links.

    feed(session, bytes) -> core -> push_out() -> tracked_output(tracked, n)
    tracked_receive(tracked, bytes) -> core -> take(session)
"""
cimport cython
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free
from sidecar.core.cache.fill cimport cache_begin, cache_leave
from sidecar.core.cache.near_cache cimport NearCache
from sidecar.core.cache.store cimport Value
from sidecar.core.cache.tracked cimport (NOT_ALLOWED, tracked_begin, tracked_end, tracked_free,
    tracked_new, tracked_receive)
from sidecar.core.cache.tracked_requests cimport (Tracked, tracked_ask, tracked_ask_due,
    tracked_beat)
from sidecar.core.link.recovery cimport link_fail
from sidecar.core.memory cimport (Buffer, buffer_drop, buffer_head, buffer_release, buffer_reserve,
    buffer_size, buffers_taken)
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.request cimport SCAN_DONE, Scanner, scan_request, scanner_reset
from sidecar.core.records cimport Barriers, BUCKETS_OF_KEYS, Link, Session
from tests.native.loopback cimport Loopback
from tests.native.loopback import LinkError


def buffers_in_use():
    """Bytes that all buffers of the process hold."""
    return buffers_taken()


cdef class SpareBlocks:
    """Holds the blocks that the core keeps for buffers to come, so that each is asked for anew."""
    cdef Buffer[512] buffers

    def __cinit__(self):
        cdef int i
        for i in range(512):
            self.buffers[i].data = NULL
            self.buffers[i].start = self.buffers[i].end = self.buffers[i].cap = 0
            if buffer_reserve(&self.buffers[i], 1) < 0:
                raise MemoryError

    def __dealloc__(self):
        self.give_back()

    def give_back(self):
        """Let go of them."""
        cdef int i
        for i in range(512):
            buffer_release(&self.buffers[i])


class NotAllowed(LinkError):
    """The user of this tracked link may not do what the near cache needs."""


@cython.no_gc_clear
cdef class CachedLoopback(Loopback):
    """A loopback whose sessions may be answered from a near cache (`use_cache`)."""
    cdef readonly NearCache cache
    cdef Barriers* barriers
    cdef dict tracked       # number -> address of the record

    def __cinit__(self, *args, **sizes):
        self.tracked = {}
        self.barriers = <Barriers*>calloc(1, sizeof(Barriers))
        if self.barriers == NULL:
            raise MemoryError

    def __dealloc__(self):
        # The base class ends the sessions and links after this, without the cache.
        cdef size_t address
        for address in self.tracked.values():
            tracked_end(<Tracked*>address)
            tracked_free(<Tracked*>address)
        for address in self.links.values():
            link_fail(<Link*>address, b"", 0)
        self.core.cache = NULL
        self.core.barriers = NULL
        free(self.barriers)

    def use_cache(self, NearCache cache):
        """Answer sessions that have a space from this near cache."""
        cache.attach(&self.core, self.barriers, self.table)
        self.cache = cache

    def use_space(self, Py_ssize_t session, uint16_t space, int proto):
        """Answer a session from this space (0: from none), in RESP2 or RESP3."""
        cdef Session* s = self.session(session)
        s.space, s.proto = space, proto

    def set_fresh(self, Py_ssize_t session, bint yes):
        """Whether a session is never answered from the near cache, by its own wish."""
        self.session(session).fresh = yes

    def drop(self, Py_ssize_t session):
        """The client has gone."""
        cache_leave(self.session(session))
        Loopback.drop(self, session)

    cdef Tracked* tracked_link(self, Py_ssize_t number) except NULL:
        cdef size_t address = self.tracked[number]
        return <Tracked*>address

    def add_tracked(self, uint16_t space):
        """A new tracked link, connected, that reads for this space: its number."""
        cdef Tracked* t
        self.last += 1
        t = tracked_new(self.cache.cache, <void*>self.last, space)
        if t == NULL:
            raise MemoryError
        tracked_begin(t)
        self.tracked[self.last] = <size_t>t
        return self.last

    def close_tracked(self, Py_ssize_t tracked):
        """Its connection is gone."""
        cdef Tracked* t = self.tracked_link(tracked)
        tracked_end(t)
        tracked_free(t)
        del self.tracked[tracked]
        self.settle()

    def push_out(self):
        """Ask for what has been put off: the plane does this once for each round of events."""
        self.cache.cache.due = False
        tracked_ask_due(self.cache.cache)
        self.settle()

    def beat(self, Py_ssize_t tracked):
        """Queue a heartbeat."""
        if tracked_beat(self.tracked_link(tracked)) < 0:
            raise MemoryError

    def load(self, Py_ssize_t tracked, bytes request):
        """Have what answers this request read, as a warm start does: whether there was anything to
        do."""
        cdef Tracked* t = self.tracked_link(tracked)
        cdef Scanner scan
        cdef Command* c
        cdef Value* v
        cdef const char* p = request
        scanner_reset(&scan)
        if scan_request(&scan, p, len(request), &self.core.limits, True) != SCAN_DONE:
            raise ValueError("no whole request")
        c = self.table.find(p + scan.name_at, scan.name_len)
        v = cache_begin(t.cache, t.space, c, p, len(request), &scan)
        if v == NULL:
            return False
        tracked_ask(v, t.cache)
        self.settle()
        return True

    def tracked_output(self, Py_ssize_t tracked, size_t most):
        """Up to `most` bytes for the server; they count as sent."""
        cdef Tracked* t = self.tracked_link(tracked)
        cdef size_t n = min(most, buffer_size(&t.out))
        if n == 0:
            return b""
        data = buffer_head(&t.out)[:n]
        buffer_drop(&t.out, n)
        return data

    def tracked_receive(self, Py_ssize_t tracked, bytes data):
        """Bytes from the server. LinkError or NotAllowed: close it."""
        cdef int r = tracked_receive(self.tracked_link(tracked), data, len(data))
        self.settle()
        if r == NOT_ALLOWED:
            raise NotAllowed
        if r < 0:
            raise LinkError

    def tracked_pending(self, Py_ssize_t tracked):
        """Answers due on a tracked link."""
        cdef Tracked* t = self.tracked_link(tracked)
        return t.tail - t.head

    def barred(self):
        """Commands under way that bar keys, or are counted as loose: 0 when nothing is."""
        cdef int i
        cdef size_t count = self.barriers.pending_all
        count += self.barriers.loose[0] + self.barriers.loose[1]
        for i in range(BUCKETS_OF_KEYS):
            count += self.barriers.sets[i].pending + self.barriers.sets[i].writing
        return count
