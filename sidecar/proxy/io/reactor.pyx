# cython: language_level=3, cdivision=True
"""Sockets, plain or TLS, on an event loop: readiness, reads and writes, and nothing of Redis.

The loop enters Python once for all sockets that are ready (poller.pxd); they are then served by
C calls. There is ONE receive buffer for all sockets of a reactor: what a connection leaves in it
must have been sent or copied before anybody reads again.

TLS is the standard library's SSLObject over two memory buffers, driven from here: no transport
objects, and one read or write of the socket for many records.

An error while one connection is served ends that connection, and no other: events are
edge-triggered, and one that was skipped would not come again.
"""
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc

import ssl

from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.proxy.io.poller cimport (poller_close, poller_hung_up, poller_open, poller_readable,
    poller_set, poller_wait, poller_who, poller_writable)

cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int fd, void* buf, size_t n, int flags)
    ssize_t send(int fd, const void* buf, size_t n, int flags)

cdef enum:
    RECEIVE = 262144        # one read; larger ones cost cache misses, smaller ones system calls
    SEAL = 65536            # plaintext sealed at a time: bounds what waits for a slow TLS peer
    FOR_READING = 0x100     # PyBUF_READ
    FOR_WRITING = 0x200     # PyBUF_WRITE


cdef Py_ssize_t taken(int fd, const char* p, size_t n) noexcept nogil:
    """How many of these bytes the socket takes now, or -1 when it is broken."""
    cdef ssize_t k
    while True:
        k = send(fd, p, n, 0)
        if k >= 0:
            return k
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            return -1


cdef class Reactor:
    """The sockets of one event loop. Subclasses say what happens around and after events.

    Reactor(loop, own_poller): without a poller of its own, or where the system has none, the loop
    watches each socket.
    """

    def __cinit__(self, loop, *args, bint own_poller=True, **kwargs):
        self.received = <char*>malloc(RECEIVE)
        self.sealed = <char*>malloc(RECEIVE)
        if self.received == NULL or self.sealed == NULL:
            raise MemoryError
        self.received_view = PyMemoryView_FromMemory(self.received, RECEIVE, FOR_WRITING)
        self.sealed_view = PyMemoryView_FromMemory(self.sealed, RECEIVE, FOR_WRITING)
        self.loop = loop
        self.closed_meanwhile, self.read_again = [], []
        self.poller = poller_open() if own_poller else -1
        if self.poller >= 0:
            loop.add_reader(self.poller, self.poll)

    def __dealloc__(self):
        free(self.received)
        free(self.sealed)

    def close(self):
        """Leave the loop. All connections must have been closed."""
        if self.poller >= 0:
            self.loop.remove_reader(self.poller)
            poller_close(self.poller)
            self.poller = -1

    def poll(self):
        """Some sockets are ready: serve them. Called by the loop."""
        cdef int i
        cdef int n = poller_wait(self.poller, self.events, EVENTS)
        cdef Connection c
        cdef list again = self.read_again
        if again:
            self.read_again = []
        self.polling = True
        self.before_events()
        for i in range(n):
            c = <Connection>poller_who(self.events[i])
            if poller_readable(self.events[i]) and c.reading:
                self.serve(c, True)
                if poller_hung_up(self.events[i]) and c.reading:
                    self.read_again.append(c)
            if poller_writable(self.events[i]) and c.writing:
                self.serve(c, False)
        for c in again:
            if c.reading:
                self.serve(c, True)
        self.polling = False
        if self.closed_meanwhile:
            self.closed_meanwhile.clear()
        if self.read_again:
            self.loop.call_soon(self.poll)
        self.after_events()

    cdef int serve(self, Connection c, bint readable) noexcept:
        """One event of one connection. An error of ours ends that connection, and no other."""
        try:
            if readable:
                c.readable()
            else:
                c.writable()
        except Exception as error:
            self.failed(c, error)
        return 0

    cdef void before_events(self) noexcept:
        """Events are about to be served."""

    cdef int after_events(self) except -1:
        """The events at hand have been served."""
        return 0

    cdef int failed(self, Connection c, error) except -1:
        """Serving a connection raised an error."""
        raise error


cdef class Connection:
    """A socket, plain or TLS, on the loop. Not used by itself."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.closed = True

    def __dealloc__(self):
        buffer_release(&self.tls_rest)

    cdef int open(self, object sock, tuple tls) except -1:
        """Take over a connected non-blocking socket; tls is (SSLObject, incoming, outgoing)."""
        self.sock = sock
        self.fd = sock.fileno()
        self.closed = self.ended = False
        if tls is not None:
            self.tls, self.tls_in, self.tls_out = tls
        return 0

    cdef int detach(self) except -1:
        """Leave the loop and close the socket."""
        if self.closed:
            return 0
        self.closed = True
        if self.reading or self.writing:
            try:
                self.watch(False, False)
            except OSError:
                self.reading = self.writing = False     # closing it ends the watching as well
        if self.reactor.polling:
            self.reactor.closed_meanwhile.append(self)
        self.fd = -1
        self.sock.close()
        self.sock = self.tls = self.tls_in = self.tls_out = None
        buffer_release(&self.tls_rest)
        return 0

    cdef int watch_reading(self, bint on) except -1:
        if on != self.reading:
            self.watch(on, self.writing)
        return 0

    cdef int watch_writing(self, bint on) except -1:
        if on != self.writing:
            self.watch(self.reading, on)
        return 0

    cdef int watch(self, bint reading, bint writing) except -1:
        """Have readiness told: by the reactor's poller, or by the loop."""
        cdef int had = self.reading or self.writing
        if self.reactor.poller >= 0:
            if poller_set(self.reactor.poller, self.fd, had, reading, writing, <void*>self) < 0:
                raise OSError(errno, "cannot watch a socket")
        else:
            if reading != self.reading:
                if reading:
                    self.reactor.loop.add_reader(self.fd, self.on_readable)
                else:
                    self.reactor.loop.remove_reader(self.fd)
            if writing != self.writing:
                if writing:
                    self.reactor.loop.add_writer(self.fd, self.on_writable)
                else:
                    self.reactor.loop.remove_writer(self.fd)
        self.reading, self.writing = reading, writing
        return 0

    cdef int readable(self) except -1:
        return 0

    cdef int writable(self) except -1:
        return 0

    cdef int push_out(self) except -1:
        """Send what has been queued for it, if anything has."""
        return 0

    def give_up(self):
        """End it, since serving it has raised an error: a bug of ours, or memory that is out."""
        self.detach()

    def on_readable(self):
        """The socket has something, or has broken. Called by the loop."""
        if not self.closed:
            self.reactor.before_events()
            self.reactor.serve(self, True)

    def on_writable(self):
        """The socket takes bytes again. Called by the loop."""
        if not self.closed:
            self.reactor.before_events()
            self.reactor.serve(self, False)

    cdef Py_ssize_t fill(self) except -2:
        """Read into the reactor's buffer: the number of bytes, ENDED, or NOTHING_YET."""
        cdef Py_ssize_t n
        cdef Py_ssize_t got = 0
        cdef Py_ssize_t k
        while True:
            n = recv(self.fd, self.reactor.received if self.tls is None else self.reactor.sealed,
                     RECEIVE if self.tls is None else RECEIVE // 2, 0)
            if n >= 0:
                break
            if errno == EAGAIN:
                if self.tls is None:
                    return NOTHING_YET
                n = -1
                break
            if errno != EINTR:
                return ENDED
        if n == (RECEIVE if self.tls is None else RECEIVE // 2) and self.reactor.poller >= 0:
            # There may be more, and no event will tell.
            self.reactor.read_again.append(self)
        if self.tls is None or n == 0:
            return n
        if n > 0:
            self.tls_in.write(self.reactor.sealed_view[:n])
        try:
            # A read gives at most one record, and there is room for the largest: when nothing
            # sealed is left there is nothing more, and asking would cost an exception.
            while got == 0 or self.tls_in.pending:
                view = self.reactor.received_view
                k = self.tls.read(RECEIVE - got, view if got == 0 else view[got:])
                if k == 0:
                    return got
                got += k
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return got
        if self.tls_out.pending:
            self.flush_sealed()
        return got if got else NOTHING_YET

    cdef Py_ssize_t send_now(self, const char* p, size_t n) except -2:
        """Give bytes to the socket: how many it took, or -1 when it is broken."""
        if self.tls is not None:
            return self.seal(p, n)
        return taken(self.fd, p, n)

    cdef Py_ssize_t seal(self, const char* p, size_t n) except -2:
        """As send_now for TLS: sealed bytes that the socket did not take wait in tls_rest."""
        cdef size_t done = 0
        cdef size_t k
        while done < n:
            if buffer_size(&self.tls_rest):
                break
            k = n - done if n - done < SEAL else SEAL
            try:
                self.tls.write(PyMemoryView_FromMemory(<char*>p + done, k, FOR_READING))
            except ssl.SSLError:
                return -1
            done += k
            if self.flush_sealed():
                return -1
        return done

    cdef int flush_sealed(self) except -1:
        """Send what TLS has made: 0, or 1 where the socket is broken, and what waited is dropped.
        Who does not read from it at the moment would otherwise never learn that."""
        cdef Py_ssize_t k = 0
        cdef bytes data
        cdef const char* p
        if buffer_size(&self.tls_rest):
            k = taken(self.fd, buffer_head(&self.tls_rest), buffer_size(&self.tls_rest))
            if k < 0:
                buffer_release(&self.tls_rest)
                return 1
            buffer_drop(&self.tls_rest, k)
            if buffer_size(&self.tls_rest):
                self.watch_writing(True)
                return 0
        if not self.tls_out.pending:
            return 0
        data = self.tls_out.read()
        p = data
        k = taken(self.fd, p, len(data))
        if k < 0:
            return 1
        if k < len(data):
            if buffer_append(&self.tls_rest, p + k, len(data) - k) < 0:
                raise MemoryError       # not one byte may be missing
            self.watch_writing(True)
        return 0
