# cython: language_level=3
"""One more link of a cluster's subscriber, to a shard that has sharded channels which its own has not.

Nothing is sent on it but what the shell says: SSUBSCRIBE, and commands of a RESP3 client whose keys are
at that shard. Messages pass to the client as they are, each as a whole,
between what its own link gives it; anything else is the shell's (proxy/cluster/side_links.py).
"""
from sidecar.core.cluster.subscriptions cimport MESSAGE, NO_KIND, kind_told
from sidecar.core.guard.account cimport BY_REPLY
from sidecar.core.guard.guard cimport Guard, TOO_LARGE_REPLY, guard_count, guard_exceeds
from sidecar.core.link.fence cimport fence_raise
from sidecar.core.link.pending cimport link_bytes
from sidecar.core.link.receiver cimport session_say
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.protocol.reply cimport FRAME_ERROR, FRAME_MORE, frame_reply
from sidecar.core.records cimport Link, Session
from sidecar.proxy.io.plane cimport Plane, PlaneConnection
from sidecar.proxy.io.reactor cimport ENDED, NOTHING_YET
from sidecar.proxy.io.upstream cimport Upstream
from sidecar.proxy.io.upstream import ENDED_BY_SERVER


cdef class SideLink(Upstream):
    """A link beside a client's own. It ends with its socket, and never leads elsewhere."""
    cdef Buffer unread          # from the beginning of what is not whole yet
    cdef char mark              # with which messages begin

    def __init__(self, Plane plane, owner, PlaneConnection client):
        Upstream.__init__(self, plane, owner, False)
        self.client = client
        self.mark = c'>' if owner.identity.login.proto == 3 else c'*'

    def __dealloc__(self):
        buffer_release(&self.unread)

    def send(self, bytes request):
        """Send a request of the shell's. Its answer is told to the handler (`side_said`)."""
        if link_bytes(self.link, request, len(request)) < 0:
            raise MemoryError
        self.flush()

    def take(self, bytes data):
        """What the server has sent on its connection before that was attached."""
        self.plane.stamp()
        self.hear(data, len(data))

    cdef int readable(self) except -1:
        cdef Py_ssize_t n = self.fill()
        if n == NOTHING_YET:
            return 0
        if n == ENDED:
            return self.lost(ENDED_BY_SERVER)
        self.plane.stats.upstream_bytes_in += n
        self.plane.stamp()
        return self.hear(self.plane.received, n)

    cdef int hear(self, const char* p, size_t n) except -1:
        cdef Link* l = self.link
        cdef size_t at = 0
        cdef size_t i = buffer_size(&self.unread)
        cdef int kind, r
        cdef const char* frame
        l.received_bytes += n
        fence_raise(l.core)
        if buffer_append(&self.unread, p, n) < 0:
            raise MemoryError
        while not self.closed:
            r = frame_reply(&l.framer, buffer_head(&self.unread), buffer_size(&self.unread), &i)
            if r == FRAME_MORE:
                break
            if r == FRAME_ERROR:
                self.lost("the server sent what is no reply")
                break
            l.framer.first = 0
            frame = buffer_head(&self.unread) + at
            kind = kind_told(frame, i - at) if frame[0] == self.mark else NO_KIND
            if kind == MESSAGE:
                if self.client.s != NULL:
                    session_say(self.client.s, frame, i - at)
            elif kind == NO_KIND and l.head != l.tail:
                l.head += 1             # the answer to a request of the sidecar's own
            else:
                self.plane.handler.side_said(self.client, self, self.allowed(frame, i - at))
            at = i
        buffer_drop(&self.unread, at)
        return self.plane.settle()

    cdef bytes allowed(self, const char* frame, size_t n):
        """What the client may get of an answer."""
        cdef Session* s = self.client.s
        if s == NULL or s.guard == NULL or frame[0] == c'>' or not guard_exceeds(s, n):
            return frame[:n]
        guard_count(<Guard*>s.guard, BY_REPLY)
        return TOO_LARGE_REPLY

    cdef int lost(self, str reason) except -1:
        if self.closed:
            return 0
        self.close()
        self.plane.handler.upstream_lost(self, reason)
        self.plane.handler.side_lost(self.client, self, reason)
        return 0
