# cython: language_level=3
"""A client whose names are not the server's: a key prefix, or renamed commands.

Its rewriter (sidecar.core.rewrite) stands between the socket and the session. What is received is
rewritten before the session gets it, and `Session.out` before it is sent; a client without one pays
a look at `rewriter`.

    Session.out     what the client has names for | what has come since
                    ------- `shown` bytes --------
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_head, buffer_release, buffer_size,
    buffer_truncate)
from sidecar.core.link.receiver cimport session_settle_borrowed
from sidecar.core.protocol.request cimport (SCAN_DONE, SCAN_INLINE, Scanner, scan_request,
    scanner_reset)
from sidecar.core.records cimport Core, MODE_PINNED, Session
from sidecar.core.rewrite.rules cimport RewriteRules
from sidecar.core.session.feed cimport session_feed


cdef class RewritingConnection(PlaneConnection):
    """What a client's socket does about names. Not used by itself."""

    def use_rewriter(self, RewriteRules rules, uint64_t chance, int protocol):
        """Rewrite its names by these rules, from the request on that follows the one at its head.

        `chance` is any number; the client speaks RESP2 or 3 (`protocol`) now. A client has a
        rewriter for good: without names of its own it has one whose rules change nothing.
        """
        cdef Session* s = self.s
        cdef Scanner scan
        cdef size_t size
        cdef int r
        if s == NULL:
            return
        if self.rewriter is not None:
            self.rewriter.use(rules)
            return
        self.rewriter = Rewriter(rules, chance, protocol)
        size = buffer_size(&s.unread)
        scanner_reset(&scan)
        r = scan_request(&scan, buffer_head(&s.unread), size, &self.plane.core.limits, True)
        if r == SCAN_DONE or r == SCAN_INLINE:
            self.rewriter.expect_login()
            if buffer_append(&self.rewriter.pending, buffer_head(&s.unread) + scan.pos,
                             size - scan.pos) < 0:
                raise MemoryError
            buffer_truncate(&s.unread, scan.pos)

    @property
    def rewrite_rules(self):
        """The rules by which its names are rewritten; None: they have always been the server's."""
        return None if self.rewriter is None else self.rewriter.rules

    cdef int feed(self, const char* p, size_t n) except -2:
        """Bytes from the client: 0, or -1 when memory is out."""
        cdef Core* core = &self.plane.core
        if self.rewriter is None:
            return session_feed(self.s, self.plane.table, p, n)
        self.rewriter.take(p, n, &core.limits,
                           self.s.authenticated or self.s.mode == MODE_PINNED, core.request_buffer)
        return self.feed_given()

    cdef int feed_given(self) except -2:
        """Give the session what has been rewritten: 0, or -1 when memory is out."""
        cdef Rewriter w = self.rewriter
        cdef Session* s = self.s
        cdef int r
        if w.broken and not w.counted:
            w.counted = True
            self.plane.stats.protocol_errors += 1
        r = session_feed(s, self.plane.table, buffer_head(&w.out), buffer_size(&w.out))
        # A link may have borrowed bytes that are given back below: copy them first.
        if s.link != NULL and s.link.borrowed_len:
            if buffer_append(&s.link.out, s.link.borrowed, s.link.borrowed_len) < 0:
                r = -1
            s.link.borrowed = NULL
            s.link.borrowed_len = 0
        buffer_release(&w.out)
        return r

    cdef bint rewrite_on(self) except -1:
        """Go on with requests that have waited for a reply, if it has come. False: memory is out."""
        cdef Core* core = &self.plane.core
        if self.rewriter is None or not self.rewriter.ready():
            return True
        self.rewriter.go_on(&core.limits, self.s.authenticated or self.s.mode == MODE_PINNED,
                            core.request_buffer)
        return self.feed_given() == 0

    cdef int show(self) except -1:
        """Give what is to be sent the client's names."""
        cdef Session* s = self.s
        cdef Buffer fresh
        cdef size_t size
        if session_settle_borrowed(s) < 0:
            return 0                    # the client is to be closed
        size = buffer_size(&s.out)
        if size == self.shown:
            return 0
        memset(&fresh, 0, sizeof(fresh))
        try:
            self.rewriter.replies.feed(buffer_head(&s.out) + self.shown, size - self.shown, &fresh)
            buffer_truncate(&s.out, self.shown)
            if buffer_append(&s.out, buffer_head(&fresh), buffer_size(&fresh)) < 0:
                raise MemoryError
        finally:
            buffer_release(&fresh)
        self.shown = buffer_size(&s.out)
        return 0

    cdef size_t kept_back(self) noexcept:
        """Bytes of the client's that the rewriter has."""
        if self.rewriter is None:
            return 0
        return buffer_size(&self.rewriter.pending) + buffer_size(&self.rewriter.replies.held)

    cdef bint reads_too_far(self) noexcept:
        """Whether much has been read that waits for a reply."""
        return self.rewriter is not None and self.rewriter.waits \
            and buffer_size(&self.rewriter.pending) >= self.plane.core.request_buffer
