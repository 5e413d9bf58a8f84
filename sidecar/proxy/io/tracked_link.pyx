# cython: language_level=3, cdivision=True
"""The near cache's own connections: a socket for each tracked link of the core.

core/cache/tracked.pyx knows what is sent and received. sidecar.proxy.nearcache.keeper, in Python,
opens the connections and sees to lost ones, which is rare.
"""
from libc.stdint cimport int32_t, uint32_t

from sidecar.core.memory cimport buffer_drop, buffer_head, buffer_size
from sidecar.core.cache.near_cache cimport NearCache
from sidecar.core.cache.fill cimport cache_begin
from sidecar.core.cache.touch cimport cache_touch_used
from sidecar.core.cache.store cimport Cache, Value, value_bytes
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.request cimport SCAN_DONE, Scanner, scan_request, scanner_reset
from sidecar.core.cache.tracked cimport (NOT_ALLOWED, Tracked, tracked_begin, tracked_end,
    tracked_free, tracked_new, tracked_receive)
from sidecar.core.cache.tracked_requests cimport tracked_ask, tracked_beat, tracked_say
from sidecar.proxy.io.plane cimport Plane
from sidecar.proxy.io.reactor cimport Connection, ENDED, NOTHING_YET


cdef class TrackedLink(Connection):
    """The connection that reads values for one space, as `user`. `handler(link, reason)` is told once
    when it is lost."""
    cdef readonly Plane plane
    cdef Tracked* t
    cdef readonly object owner
    cdef readonly bint refused      # its user may not do what the cache needs
    cdef object handler
    cdef bytes user

    def __init__(self, Plane plane, int space, sock, tls, owner, handler, bytes user=b""):
        self.plane = self.reactor = plane
        self.user = user
        self.owner, self.handler = owner, handler
        self.t = tracked_new(plane.near_cache.cache, <void*>self, space)
        if self.t == NULL:
            raise MemoryError
        self.t.user, self.t.user_len = <const char*>user, len(user)
        self.open(sock, tls)
        self.watch_reading(True)        # what fails here leaves nothing behind
        plane.tracked.append(self)
        tracked_begin(self.t)

    def __dealloc__(self):
        if self.t != NULL:
            tracked_free(self.t)
            self.t = NULL

    cdef int readable(self) except -1:
        cdef Py_ssize_t n = self.fill()
        cdef int r
        if n == NOTHING_YET:
            return 0
        if n == ENDED:
            self.lose("the server closed the connection")
            return 0
        self.plane.stamp()
        r = tracked_receive(self.t, self.plane.received, n)
        self.plane.settle()
        if r == NOT_ALLOWED:
            self.refused = True
            self.lose("its user may read, but not use PTTL, or SSUBSCRIBE on a cluster")
        elif r < 0:
            self.lose("the server answered what the near cache cannot use: "
                      + repr(self.plane.received[:n][:80]))
        return 0

    cdef int writable(self) except -1:
        self.watch_writing(False)
        if self.tls is not None:
            self.flush_sealed()
        self.t.due = True
        self.push_out()
        return 0

    cdef int push_out(self) except -1:
        cdef Py_ssize_t k
        if self.closed or not self.t.due or self.writing:
            return 0
        self.t.due = False
        if buffer_size(&self.t.out) == 0:
            return 0
        k = self.send_now(buffer_head(&self.t.out), buffer_size(&self.t.out))
        if k < 0:
            self.lose("the connection broke")
            return 0
        buffer_drop(&self.t.out, k)
        if buffer_size(&self.t.out):
            self.watch_writing(True)
        return 0

    def beat(self):
        """Send a heartbeat: its answer renews the lease of the space."""
        self.plane.stamp()
        if tracked_beat(self.t) == 0:
            self.push_out()

    def log_in(self, bytes request):
        """Send an AUTH; its answer is as good as that to a heartbeat."""
        self.plane.stamp()
        if not self.closed and tracked_say(self.t, request, len(request)) == 0:
            self.push_out()

    def load(self, bytes request):
        """Have the cache read what answers this whole multibulk request of a cacheable command.

        False when there is nothing to do: it is here or being read already, or can't be now. It
        is sent with the next thing that is, or by `flush`. Its key is wanted from then on, unless
        it is rules that say so.
        """
        cdef Scanner scan
        cdef Command* c
        cdef const char* p = request
        cdef Value* v
        scanner_reset(&scan)
        if self.closed or scan_request(&scan, p, len(request), &self.plane.core.limits,
                                       True) != SCAN_DONE:
            return False
        self.plane.stamp()
        c = self.plane.table.find(p + scan.name_at, scan.name_len)
        v = cache_begin(self.t.cache, self.t.space, c, p, len(request), &scan)
        if v == NULL:
            return False
        tracked_ask(v, self.t.cache)
        return True

    def flush(self):
        """Send what has been queued."""
        self.push_out()

    def lose(self, str reason):
        """The connection is of no use any more; the space's values go."""
        if self.closed:
            return
        self.end()
        self.handler(self, reason)

    def give_up(self):
        """End it, since serving it has raised an error."""
        self.lose("an internal error")

    def end(self):
        """Close it on purpose."""
        if self.closed:
            return
        self.plane.tracked.remove(self)
        tracked_end(self.t)             # whatever becomes of the socket, nothing of it is served
        self.detach()
        self.plane.settle()

    @property
    def pending(self):
        """Answers due."""
        return self.t.tail - self.t.head

    @property
    def received(self):
        """Bytes received since the start."""
        return self.t.received


def tell_use(NearCache near, bint yes):
    """Whether the server is told from now on which keys are in use (see touch.pyx)."""
    near.cache.tells_use = yes


def used(NearCache near):
    """How many values were served and not told of yet."""
    return near.cache.used_tail - near.cache.used_head


def touch(NearCache near, uint32_t most, uint32_t named_most, uint32_t repeats):
    """Queue what tells the server of at most so many values that were served: until `named_most`
    keys are named, each at most `repeats` times. Returns of how many; `flush` sends it."""
    return cache_touch_used(near.cache, most, named_most, repeats)


def in_use(NearCache near, table, uint32_t first, uint32_t slots, uint32_t least):
    """Values that may be served now and have been, `least` times or more: a list of (times, space,
    command's name, its arguments' bytes). Looks through some slots of the store, since all of
    them take too long in one go; None beyond the last one.
    """
    cdef Cache* k = near.cache
    cdef uint32_t now
    cdef uint32_t i
    cdef Value* v
    cdef list found = []
    if k.core == NULL or first >= k.slots:
        return None
    now = <uint32_t>((k.core.clock - k.start) // 1000)
    for i in range(first, min(first + slots, k.slots)):
        v = k.values[i]
        while v != NULL:
            if not v.reading and not v.large and v.served >= least and <int32_t>(v.expires - now) > 0:
                found.append((v.served, v.space, table.name(v.command),
                              value_bytes(v)[:v.args_size]))
            v = v.next
    return found
