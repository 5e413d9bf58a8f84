# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Clients and links on their sockets: where the core's bytes meet the reactor.

Everything that follows from one event is done before the next is looked at, but for the flush of
the links:

    recv -> session_feed -> requests lie in Link.out -> one flush for all links at the end
    recv -> link_receive -> replies lie in the receive buffer -> settle: one send per client

What the core remembers as a `run` points into the reactor's receive buffer, so it is sent or
copied before anybody reads again: `settle` and `sent_to_link` see to it. A send that the socket
does not take whole is finished when the socket is writable.

What is rare (sessions that want something, links that are lost) goes to the handler, in Python;
see sidecar.proxy.pool. The handler may call back at once: `settle` is not entered twice, the
outer call takes up what the inner one has marked.
"""
from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from time import monotonic

from sidecar.core.audit cimport NOTE_COMMAND, NOTE_NOPERM, Note, Notes
from sidecar.core.bars cimport bars_give_up
from sidecar.core.cache cimport NearCache
from sidecar.core.fills cimport cache_leave
from sidecar.core.tracked cimport tracked_ask_due
from sidecar.core.acks cimport link_receive_acked, link_seal
from sidecar.core.commands cimport (Command, ROUTE_BLOCKING, ROUTE_MAYBE_BLOCKING, ROUTE_WAIT)
from sidecar.core.link cimport (link_bytes, link_free, link_new, link_push, link_receive,
    link_sent, session_drop, session_mark, session_new, session_say)
from sidecar.core.records cimport (DEDICATED_PAUSE, MODE_DEDICATED, MODE_PINNED, MODE_SHARED,
    WANT_DEDICATED, WANT_ERROR, WANT_FILL, WANT_HANG_UP, WANT_HELD, WANT_LINK, WANT_LOCAL, WANT_NOTHING,
    WANT_ONCE, WANT_PIN, WANT_ROOM, WANT_SHELL, WANT_WAIT, link_outstanding, link_turn_over,
    link_unsent)
from sidecar.core.loss cimport link_divert, link_fail, link_lost, link_move
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.request cimport (ERR_MEMORY, SCAN_DONE, SCAN_INLINE, Scanner, error_text,
    scan_request, scanner_reset)
from sidecar.core.request import normalise_inline, split_arguments
from sidecar.core.reply cimport framer_reset
from sidecar.core.session cimport session_feed, session_has_room, session_ready, session_resume
from sidecar.core.stats import bucket_bounds
from sidecar.core.sketch cimport HotKeys
from sidecar.core.stats cimport BUCKETS
from sidecar.core.trace cimport (TRACED_CONTEXT, TRACED_FOLLOW, TRACE_CONTEXT, Traces, trace_draw,
    trace_refused, trace_sent)
from sidecar.proxy.reactor cimport ENDED, PURSUE, Connection, Reactor

cdef extern from "sys/socket.h" nogil:
    int shutdown(int fd, int how)
    int SHUT_WR

NOTHING, LINK, DEDICATED, ONCE, PIN, LOCAL, WAIT, HELD = (
    WANT_NOTHING, WANT_LINK, WANT_DEDICATED, WANT_ONCE, WANT_PIN, WANT_LOCAL, WANT_WAIT, WANT_HELD)
cdef enum:
    GATHERED_MOST = 16384   # bytes of replies that wait for others of the same batch

NOT_MASTER = "the server says that it is not the master"
SHARED_MODE, DEDICATED_MODE, PINNED_MODE = MODE_SHARED, MODE_DEDICATED, MODE_PINNED


cdef class Plane(Reactor):
    """All connections of one event loop, and the settings and counters they share.

    `handler` has wanted(client, want), client_closed(client), upstream_lost(upstream, reason),
    released(client, upstream), was_reset(client), may_hold(client), end_when_quiet(client)
    failed(connection, error) and audited(client, kind, command, second); all are called on the loop and return at once.
    """

    def __cinit__(self, loop, handler, CommandTable table, *, size_t request_buffer,
                  size_t link_pause, size_t output_pause, size_t output_max, bint own_poller=True):
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        if self.stats == NULL:
            raise MemoryError
        self.handler, self.table = handler, table
        self.clients, self.upstreams = set(), set()
        self.unflushed, self.waiting_for_room, self.held = [], set(), set()
        self.flush_callback = self.flush_links
        self.closed_for = {}
        self.tracked = []
        self.output_max = output_max
        self.core.stats = self.stats
        self.core.request_buffer = request_buffer
        self.core.link_pause = link_pause
        self.core.output_pause = output_pause
        self.core.slow = UINT32_MAX
        self.core.limits.bulk = 512 * 1024 * 1024
        self.core.limits.count = 2147483647
        self.core.limits.unauth_bulk = 16384
        self.core.limits.unauth_count = 10

    def __dealloc__(self):
        free(self.stats)
        free(self.bars)
        free(self.notes)

    cdef void before_events(self) noexcept:
        self.stamp()

    cdef int after_events(self) except -1:
        if self.unflushed or (self.near_cache is not None and self.near_cache.cache.due):
            self.flush_links()
        return 0

    cdef int failed(self, Connection c, error) except -1:
        self.handler.failed(c, error)
        return 0

    def follow_master(self):
        """READONLY, LOADING and MASTERDOWN mean that the server is not the master: see link.pyx."""
        self.core.follows = True

    def require_acks(self, int replicas, bytes wait):
        """Answer writes once this many replicas have them; `wait` is the WAIT request for it."""
        self.ack_request = wait
        self.core.ack_request = <const char*>self.ack_request
        self.core.ack_request_len = len(wait)
        self.core.ack_command = self.table.find(b"wait", 4)
        self.core.acks = replicas

    def use_cache(self, NearCache cache):
        """Serve cacheable reads of clients that have a space from this near cache."""
        if cache is None or self.near_cache is not None:
            raise ValueError("one near cache, once")
        self.bars = <Bars*>calloc(1, sizeof(Bars))
        if self.bars == NULL:
            raise MemoryError
        self.stamp()
        cache.cache.core = &self.core
        cache.cache.start = self.core.clock
        cache.cache.get_id = self.table.find(b"get", 3).id
        cache.cache.geopos_id = self.table.find(b"geopos", 6).id
        cache.cache.zrank_id = self.table.find(b"zrank", 5).id
        cache.cache.zrevrank_id = self.table.find(b"zrevrank", 8).id
        cache.cache.acl_id = self.table.find(b"acl", 3).id
        self.near_cache = cache
        self.core.bars = self.bars
        self.core.cache = <void*>cache.cache

    def use_hot_keys(self, HotKeys hot_keys):
        """Count keys in this detector."""
        self.hot_keys = hot_keys
        self.core.sketch = <void*>hot_keys.sketch

    def use_audit(self):
        """Tell the handler of audited commands and of refused ones: audited(client, kind, command,
        second word); kind is "command", "NOPERM", "NOAUTH" or, without a client, "lost"."""
        if self.notes == NULL:
            self.notes = <Notes*>calloc(1, sizeof(Notes))
            if self.notes == NULL:
                raise MemoryError
        self.core.audit = self.notes

    cdef int tell_notes(self) except -1:
        """Hand over the notes, while the clients they are about are surely there."""
        cdef Note* note
        cdef int i
        cdef list told = []
        for i in range(self.notes.count):
            note = self.notes.notes + i
            kind = "command" if note.kind == NOTE_COMMAND else (
                "NOPERM" if note.kind == NOTE_NOPERM else "NOAUTH")
            told.append((<object>note.owner, kind, self.table.name(note.command),
                         note.second[:note.second_len]))
        if self.notes.lost:
            told.append((None, "lost", str(self.notes.lost), b""))
        self.notes.count = 0
        self.notes.lost = 0
        for client, kind, command, second in told:
            self.handler.audited(client, kind, command, second)
        return 0

    def use_traces(self, Traces traces, uint32_t slow):
        """Record commands here; those that take `slow` microseconds or more are slow."""
        self.traces = traces
        self.core.tracer = <void*>traces.tracer
        self.core.slow = slow
        trace_draw(&self.core)

    @property
    def clock(self):
        """The present time, in microseconds of the core's clock: that of records."""
        self.stamp()
        return self.core.clock

    def hold_writes(self):
        """Keep back what may change data, until `release_writes`."""
        self.core.hold_writes = True

    def release_writes(self):
        """Let the writes that were kept back go on."""
        cdef set held = self.held
        cdef Client c
        self.held = set()
        self.core.hold_writes = False
        for c in held:
            if not c.closed:
                session_mark(c.s)
        self.settle()

    @property
    def held_clients(self):
        """The clients `writes_held` counts."""
        return [c for c in self.held if not c.closed]

    @property
    def writes_held(self):
        """Clients whose next command is a write that is kept back."""
        return len(self.held)

    def set_max_bulk(self, long long size):
        """Longest argument a request may have (the server's proto-max-bulk-len), in bytes."""
        self.core.limits.bulk = size

    cdef void stamp(self) noexcept:
        cdef timespec t
        clock_gettime(CLOCK_MONOTONIC, &t)
        self.core.clock = <uint64_t>t.tv_sec * 1000000 + <uint64_t>t.tv_nsec // 1000
        self.core.now = <uint32_t>self.core.clock
        self.core.seconds = <uint32_t>t.tv_sec

    cdef int later(self, Upstream up) except -1:
        """Flush this link once the events of this iteration have been seen."""
        up.queued = True
        self.unflushed.append(up)
        return self.schedule()

    cdef int schedule(self) except -1:
        if not self.flush_due and not self.polling:
            self.flush_due = True
            self.loop.call_soon(self.flush_callback)
        return 0

    def flush_links(self):
        """Send what the links have gathered. Called by the loop, and at the end of a poll."""
        cdef list links = self.unflushed
        cdef Upstream up
        self.unflushed = []
        self.flush_due = False
        if self.near_cache is not None and self.near_cache.cache.due:
            self.push_out()
        for up in links:
            up.queued = False
            if not up.closed:
                self.serve_flush(up)
        if self.waiting_for_room:
            self.room()
        elif self.core.dirty != NULL:
            self.settle()

    cdef int push_out(self) except -1:
        """Send what the near cache asks for."""
        cdef Connection c
        self.near_cache.cache.due = False
        tracked_ask_due(self.near_cache.cache)
        for c in list(self.tracked):
            try:
                c.push_out()
            except Exception as error:
                self.failed(c, error)
        return 0

    cdef int serve_flush(self, Upstream up) noexcept:
        try:
            up.flush()
        except Exception as error:
            self.failed(up, error)
        return 0

    cdef int settle(self) except -1:
        """Let every marked session send, and act on what it wants."""
        cdef Session* s
        if self.settling:
            return 0
        self.settling = True
        try:
            while self.core.dirty != NULL:
                s = self.core.dirty
                self.core.dirty = s.next_dirty
                s.dirty = False
                if s.owner == NULL:
                    if s.outstanding == 0:
                        session_drop(s)
                    continue
                self.serve_session(<Client>s.owner)
        finally:
            self.settling = False
        return 0

    cdef int serve_session(self, Client c) noexcept:
        try:
            c.attend()
        except Exception as error:
            self.failed(c, error)
        return 0

    cdef int room(self) except -1:
        """A link or a client has sent something: those who wait for that look again."""
        cdef set waiting = self.waiting_for_room
        cdef Client c
        self.waiting_for_room = set()
        for c in waiting:
            if not c.closed:
                session_mark(c.s)
        self.settle()
        return 0

    def snapshot(self):
        """Counters as plain Python values: totals since the start, latencies in seconds."""
        cdef int i, b
        cdef Stats* st = self.stats
        families = self.table.families
        commands = {}
        for i in range(self.table.count):
            if st.calls[i]:
                commands[self.table.name(i)] = st.calls[i]
        latency = {}
        for i in range(len(families)):
            counts = [st.latency[i].counts[b] for b in range(BUCKETS)]
            if any(counts):
                latency[families[i]] = (counts, st.latency[i].sum_us * 1e-6)
        return {
            "client_bytes_in": st.client_bytes_in, "client_bytes_out": st.client_bytes_out,
            "upstream_bytes_in": st.upstream_bytes_in, "upstream_bytes_out": st.upstream_bytes_out,
            "protocol_errors": st.protocol_errors, "errors_local": st.errors_local,
            "uncertain": st.uncertain, "commands": commands, "latency": latency,
            "latency_bounds": bucket_bounds(),
            "replies_error": {families[i]: st.errors[i] for i in range(len(families))
                              if st.errors[i]},
            "clients_closed": dict(self.closed_for), "clients_active": len(self.clients),
        }


cdef class Client(Connection):
    """One client connection."""

    def __init__(self, Plane plane, sock, tls, long long id, identity, peer):
        self.plane = self.reactor = plane
        plane.stamp()
        self.s = session_new(&plane.core, <void*>self)
        if self.s == NULL:
            raise MemoryError
        self.id, self.identity, self.peer = id, identity, peer
        self.s.number = id
        self.name = self.lib_name = self.lib_version = b""
        self.since = monotonic()
        self.open(sock, tls)
        plane.clients.add(self)

    def start(self):
        """Begin to read."""
        self.watch_reading(True)
        if self.tls is not None and (self.tls_in.pending or self.tls.pending()):
            self.on_readable()

    cdef int readable(self) except -1:
        cdef Py_ssize_t n = self.fill()
        if n == PURSUE:
            return 0
        if n == ENDED:
            self.end_of_input()
        elif session_feed(self.s, self.plane.table, self.plane.received, n) < 0:
            self.close("memory")
            return 0
        if self.plane.notes != NULL and self.plane.notes.count:
            self.plane.tell_notes()
        if not self.closed:
            self.sent_to_link()
        if not self.closed:
            self.next_reading()
        if self.plane.core.dirty != NULL:
            self.parsed = True
            self.plane.settle()
            self.parsed = False
        return 0

    cdef int writable(self) except -1:
        self.watch_writing(False)
        if self.tls is not None:
            self.flush_sealed()
        self.attend()
        self.plane.room()
        return 0

    cdef int sent_to_link(self) except -1:
        """After a parse: see that what it left on the link gets sent."""
        cdef Link* l = self.s.link
        cdef Upstream up
        if self.plane.near_cache is not None and self.plane.near_cache.cache.due:
            self.plane.schedule()
        if l == NULL or not l.up:
            return 0
        if l.shared:
            if l.out.end - l.out.start > l.sent:
                up = <Upstream>l.owner
                if not up.queued:
                    self.plane.later(up)
        elif l.run_len or l.out.end > l.out.start:
            (<Upstream>l.owner).flush()
        return 0

    cdef int end_of_input(self) except -1:
        """The client will send no more. Replies that are due are still given to it.

        One that waits in a blocking command is gone for good: what it would pop must stay.
        """
        self.ended = True
        self.watch_reading(False)
        if self.s.mode == MODE_PINNED:
            (<Upstream>self.s.link.owner).end_of_requests()
        if not self.closed:
            session_mark(self.s)
        return 0

    cdef bint never_answered(self) noexcept:
        """Whether what it last asked for may stay without an answer for ever: a blocking command,
        or a large request whose rest will not come."""
        cdef Link* l = self.s.link
        cdef int route
        if self.s.streaming:
            return True
        if self.s.mode != MODE_DEDICATED or l.head == l.tail:
            return False
        route = self.plane.table.commands[l.ring[l.head & l.mask].command].route
        return route == ROUTE_BLOCKING or route == ROUTE_MAYBE_BLOCKING or route == ROUTE_WAIT

    cdef bint gave_up(self) noexcept:
        """Whether its next request is held for want of a master. It has hung up meanwhile: who
        sent the request may have sent it again on another connection."""
        cdef Session* s = self.s
        if s.outstanding:
            return False
        return s.want == WANT_HELD or (
            s.want == WANT_SHELL and self.task is None and self.plane.core.follows
            and s.mode == MODE_SHARED and s.link != NULL and not s.link.up)

    cdef int flush(self) except -1:
        """Send replies; what the socket does not take waits for it to be writable."""
        cdef Session* s = self.s
        cdef Py_ssize_t k
        s.heard = self.plane.core.seconds
        if s.run_len:
            if self.writing or buffer_size(&s.out):
                k = 0
            else:
                k = self.send_now(s.run, s.run_len)
            if k >= 0:
                self.plane.stats.client_bytes_out += k
                if <size_t>k < s.run_len and buffer_append(&s.out, s.run + k, s.run_len - k) < 0:
                    k = -1
            s.run = NULL
            s.run_len = 0
            if k < 0:
                self.close("client")
                return 0
        elif s.out.end > s.out.start and not self.writing:
            k = self.send_now(buffer_head(&s.out), buffer_size(&s.out))
            if k < 0:
                self.close("client")
                return 0
            self.plane.stats.client_bytes_out += k
            buffer_drop(&s.out, k)
        if s.out.end > s.out.start:
            if buffer_size(&s.out) > self.plane.output_max:
                self.close("slow")
                return 0
            self.watch_writing(True)
        return 0

    cdef int attend(self) except -1:
        """The session was marked: send its replies, close it, or do what it wants."""
        cdef Session* s = self.s
        cdef int want
        cdef bint parsed = self.parsed
        self.parsed = False
        if s.want == WANT_FILL and s.value == NULL and s.mode == MODE_SHARED \
                and not s.must_close and not self.finishing:
            self.keep()
            self.go_on()            # and then we are here again
            return 0
        if s.run_len or s.out.end > s.out.start:
            if self.more_to_come(parsed):
                self.keep()
            else:
                self.flush()
        if self.closed:
            return 0
        if s.must_close:
            self.close("upstream")
            return 0
        if self.finishing:
            if s.out.end == s.out.start and buffer_size(&self.tls_rest) == 0:
                self.close("served")
            return 0
        if s.mode != MODE_SHARED:
            self.give_back()
            if self.closed:
                return 0
        if session_ready(s):
            want = s.want
            if want == WANT_ERROR:
                self.protocol_error()
            elif want == WANT_HANG_UP:
                self.close("hostile")
            elif want == WANT_ROOM:
                if session_has_room(s, 2):
                    self.go_on()
                else:
                    self.plane.waiting_for_room.add(self)
            elif want == WANT_FILL:
                self.go_on()
            elif want == WANT_HELD:
                if not self.plane.core.hold_writes:
                    self.go_on()
                elif self in self.plane.held or self.plane.handler.may_hold(self):
                    self.plane.held.add(self)
                else:
                    s.want = WANT_SHELL
                    self.plane.handler.wanted(self, want)
            else:
                s.want = WANT_SHELL
                self.plane.handler.wanted(self, want)
            if self.closed:
                return 0
        if self.retiring and s.want == WANT_NOTHING and s.outstanding == 0 \
                and s.mode == MODE_SHARED and s.in_.end == s.in_.start:
            self.finish()
            return 0
        if self.ended and (self.never_answered() or self.gave_up()):
            self.close("client")
            return 0
        if self.ended and s.want == WANT_NOTHING and s.outstanding == 0 \
                and s.out.end == s.out.start and s.mode != MODE_PINNED:
            self.close("client")
            return 0
        self.next_reading()
        return 0

    cdef bint more_to_come(self, bint parsed) noexcept:
        """Whether what has been answered at once, from the near cache, had better be sent with what
        is surely to follow: replies of the server to the same batch, or a value being read. One
        system call for a batch instead of two or three is worth more than the round trip."""
        cdef Session* s = self.s
        if s.mode != MODE_SHARED or s.must_close or self.finishing or self.ended or self.writing:
            return False
        return (s.value != NULL or (parsed and s.outstanding > 0)) \
            and buffer_size(&s.out) + s.run_len < GATHERED_MOST

    cdef int keep(self) except -1:
        """Replies go behind those that wait to be sent."""
        cdef Session* s = self.s
        if s.run_len and buffer_append(&s.out, s.run, s.run_len) < 0:
            self.close("memory")
        s.run = NULL
        s.run_len = 0
        return 0

    cdef int give_back(self) except -1:
        """A session with a link of its own: has the need for it passed?"""
        cdef Session* s = self.s
        cdef Link* l = s.link
        cdef Upstream up = <Upstream>l.owner
        # A slow reader slows its own link down, instead of filling this process.
        up.watch_reading(not up.closed and buffer_size(&s.out) < DEDICATED_PAUSE)
        if s.mode == MODE_PINNED:
            if l.saw_reset:
                self.drop_link()
                self.plane.handler.was_reset(self)
            return 0
        if s.outstanding or s.in_multi or s.watching or s.streaming or s.want == WANT_SHELL:
            return 0
        l.client = NULL
        s.link = NULL
        s.mode = MODE_SHARED
        up.client = None
        self.plane.handler.released(self, up)
        if not self.closed and s.want != WANT_ERROR and s.want != WANT_HANG_UP:
            self.go_on()
        return 0

    cdef int protocol_error(self) except -1:
        cdef bytes text = error_text(self.s.scan.error, self.s.scan.found)
        self.plane.stats.protocol_errors += 1
        self.say(text)
        self.finish()
        return 0

    cdef int next_reading(self) except -1:
        """Read on unless much that was read still waits."""
        cdef Session* s = self.s
        if self.ended or self.finishing:
            return 0
        if self.retiring and s.want == WANT_NOTHING and s.scan.pos == 0 and not s.in_multi \
                and not s.watching:
            self.watch_reading(False)
            return 0
        self.watch_reading(s.want == WANT_NOTHING or s.in_.end - s.in_.start < self.plane.core.request_buffer)
        return 0

    cdef int go_on(self) except -1:
        """Parse what has been read; what was wanted has been done."""
        if self.closed:
            return 0
        self.s.want = WANT_NOTHING
        if self.s.traced:
            self.plane.stamp()          # how long it has waited is to be told
        if session_resume(self.s, self.plane.table) < 0:
            self.close("memory")
            return 0
        if self.plane.notes != NULL and self.plane.notes.count:
            self.plane.tell_notes()
        self.sent_to_link()
        if not self.closed:
            self.parsed = True
            session_mark(self.s)
        self.plane.settle()
        return 0

    # What the handler may ask for and do.

    def resume(self):
        """Go on with the requests that have been read."""
        self.go_on()

    def head(self):
        """The request at the head: (arguments, raw multibulk bytes), or None when none is whole."""
        cdef Scanner scan
        cdef int r
        cdef bytes raw
        scanner_reset(&scan)
        r = scan_request(&scan, buffer_head(&self.s.in_), buffer_size(&self.s.in_),
                         &self.plane.core.limits, True)
        raw = buffer_head(&self.s.in_)[:scan.pos]
        if r == SCAN_INLINE:
            raw = normalise_inline(raw)
        elif r != SCAN_DONE:
            return None
        return split_arguments(raw), raw

    def skip(self):
        """Drop the request at the head: it has been answered."""
        cdef Scanner scan
        self.s.traced &= TRACED_CONTEXT | TRACED_FOLLOW
        scanner_reset(&scan)
        scan_request(&scan, buffer_head(&self.s.in_), buffer_size(&self.s.in_),
                     &self.plane.core.limits, True)
        buffer_drop(&self.s.in_, scan.pos)

    def say(self, bytes reply):
        """Append reply bytes. No reply may be outstanding."""
        session_say(self.s, reply, len(reply))

    def forward(self):
        """Put the request at the head on the shared link as an ordinary one, and go on."""
        cdef Link* l
        cdef Session* s = self.s
        cdef bytes name, raw
        if self.closed:
            return
        l = s.link
        args, raw = self.head()
        name = args[0]
        if not l.up:
            if l.refusal != NULL:
                self.refuse(l.refusal[:l.refusal_len])
            else:
                s.want = WANT_LINK
                session_mark(s)
                self.plane.settle()
            return
        if link_push(l, s, self.plane.table.find(name, len(name)), raw, len(raw), 0) < 0:
            self.close("memory")
            return
        self.skip()
        self.go_on()

    def answer(self, bytes reply):
        """Answer the request at the head and go on."""
        if self.closed:
            return
        if reply[:1] == b"-" and self.plane.core.tracer != NULL:
            self.record_refusal(reply)
        self.skip()
        self.say(reply)
        self.go_on()

    def refuse(self, bytes error):
        """Answer the request at the head with an error of the sidecar's own, and go on."""
        if self.closed:
            return
        self.plane.stats.errors_local += 1
        self.answer(error)

    def refuse_last(self, bytes error):
        """Give an error of the sidecar's own, and hang up: nothing can be read on."""
        self.plane.stats.errors_local += 1
        self.say(error)
        self.finish()

    cdef int record_refusal(self, bytes reply) except -1:
        """The request at the head gets this error."""
        cdef bytes name, raw
        head = self.head()
        if head is not None and head[0]:
            name, raw = head[0][0], head[1]
            trace_refused(&self.plane.core, self.s, self.plane.table.find(name, len(name)), raw,
                          len(raw), reply, len(reply))
        return 0

    def finish(self):
        """Close once what has been said is sent; read no more."""
        if self.closed or self.finishing:
            return
        self.finishing = True
        self.watch_reading(False)
        session_mark(self.s)
        self.plane.settle()

    def retire(self):
        """Take no new requests, and close once those that were taken are answered.

        A request that is partly here is still completed, and so is a transaction.
        """
        if not self.closed and not self.retiring:
            self.retiring = True
            session_mark(self.s)
            self.plane.settle()

    def close(self, str reason="closed"):
        """Close now. Replies still due are dropped when they come."""
        if self.closed:
            return
        if self.s.mode != MODE_SHARED:
            self.drop_link()
        self.plane.clients.discard(self)
        self.plane.closed_for[reason] = self.plane.closed_for.get(reason, 0) + 1
        self.detach()
        if self.s.value != NULL:
            cache_leave(self.s)
        session_drop(self.s)
        self.s = NULL
        self.plane.handler.client_closed(self)

    def pass_on(self, bytes request):
        """Pinned: send this in the place of the request at the head, and go on."""
        if link_bytes(self.s.link, request, len(request)) < 0:
            self.close("memory")
            return
        self.skip()
        self.go_on()

    def drop_link(self):
        """Close the link this client has to itself; it is shared, and linkless, again."""
        cdef Link* l = self.s.link
        cdef Upstream up
        if self.s.mode == MODE_SHARED or l == NULL:
            return
        up = <Upstream>l.owner
        self.s.mode = MODE_SHARED
        self.s.link = NULL
        self.s.in_multi = self.s.watching = self.s.streaming = self.s.reset_due = False
        self.s.raw_in = False
        l.client = NULL
        bars_give_up(l, l.head, l.tail)
        l.head = l.tail
        self.s.outstanding = 0
        up.client = None
        up.close()

    def use_db(self, uint32_t number):
        """Its commands are on this database, as their records are to say."""
        self.s.db = number

    def join_trace(self, bytes context, bint sampled):
        """Its commands belong to a trace of the application: trace id and span id; empty: none."""
        if self.s == NULL:
            return
        if context and len(context) != TRACE_CONTEXT:
            raise ValueError("context")
        self.s.traced &= 0xff ^ (TRACED_CONTEXT | TRACED_FOLLOW)
        if context:
            memcpy(self.s.context, <const char*>context, TRACE_CONTEXT)
            self.s.traced |= TRACED_CONTEXT | (TRACED_FOLLOW if sampled else 0)

    def use_tenant(self, uint16_t number):
        """Count its keys as those of this (user, database)."""
        self.s.tenant = number

    def use_space(self, uint16_t space, int proto):
        """Answer its reads from this space of the near cache (0: from none), in RESP2 or 3."""
        self.s.space, self.s.proto = space, proto

    @property
    def fresh(self):
        """Whether it is never answered from the near cache, by its own wish."""
        return self.s != NULL and self.s.fresh

    @fresh.setter
    def fresh(self, bint yes):
        if self.s != NULL:
            self.s.fresh = yes

    def use_shared(self, Upstream up):
        """Put the session on the shared link of its identity."""
        self.s.link = up.link
        self.s.mode = MODE_SHARED

    def use_dedicated(self, Upstream up, bint pinned=False, bint spoilt=False):
        """Give the session a link of its own, and go on."""
        self.s.link = up.link
        self.s.mode = MODE_PINNED if pinned else MODE_DEDICATED
        up.client = self
        up.link.client = self.s
        up.link.raw = pinned
        up.link.spoilt = spoilt or pinned
        self.s.translating = pinned and not self.exact
        up.watch_reading(True)
        self.go_on()
        if pinned and self.ended and not self.closed:
            up.end_of_requests()

    def pin_at_once(self):
        """Session pooling: a link of its own from the first command on, and nothing changed."""
        self.exact = True
        self.s.want = WANT_PIN
        session_mark(self.s)
        self.plane.settle()

    def set_authenticated(self, bint yes):
        """Whether the server's tighter limits before authentication are off."""
        self.s.authenticated = yes

    @property
    def mode(self):
        """SHARED_MODE, DEDICATED_MODE or PINNED_MODE."""
        return self.s.mode if self.s != NULL else MODE_SHARED

    @property
    def in_transaction(self):
        """Whether a WATCH or MULTI is open on its dedicated link."""
        return self.s != NULL and (self.s.in_multi or self.s.watching)

    @property
    def dedicated(self):
        """The link it has to itself, or None."""
        if self.s == NULL or self.s.mode == MODE_SHARED or self.s.link == NULL:
            return None
        return <Upstream>self.s.link.owner

    def is_on(self, Upstream up):
        """Whether this link is the one its requests go down."""
        return self.s != NULL and self.s.link == up.link

    @property
    def silent_for(self):
        """Whole seconds since it last sent or was sent something."""
        self.plane.stamp()
        return self.plane.core.seconds - self.s.heard if self.s != NULL else 0

    @property
    def unparsed(self):
        """Bytes it has sent that wait for something."""
        return buffer_size(&self.s.in_) if self.s != NULL else 0

    @property
    def pinned_bytes(self):
        """Bytes its own link has received, for one that has a link for good; else None."""
        if self.s == NULL or self.s.mode != MODE_PINNED:
            return None
        return self.s.link.received

    @property
    def idle(self):
        """Whether nothing of this client is under way here."""
        return (self.s == NULL or (self.s.outstanding == 0 and self.s.want == WANT_NOTHING
                and buffer_size(&self.s.in_) == 0 and buffer_size(&self.s.out) == 0
                and self.s.mode == MODE_SHARED))


cdef class Upstream(Connection):
    """A link and, while it is up, its socket. A shared link outlives its sockets."""

    def __init__(self, Plane plane, identity, bint shared):
        self.plane = self.reactor = plane
        self.identity, self.shared = identity, shared
        self.link = link_new(&plane.core, <void*>self, shared)
        if self.link == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.link != NULL:
            link_free(self.link)
            self.link = NULL

    def attach(self, sock, tls, hello, long long server_id):
        """The link has a connection: authenticated, on the right protocol and database."""
        self.open(sock, tls)
        self.hello, self.server_id = hello, server_id
        self.link.up = True
        self.link.refusal = NULL
        self.refusal_text = None
        self.shut = False
        framer_reset(&self.link.framer)
        self.plane.upstreams.add(self)
        self.watch_reading(True)
        if link_unsent(self.link):
            self.flush()

    def known_as(self, uint32_t server):
        """The number that records are to say for the server this link leads to."""
        self.link.server = server

    def refuse(self, bytes error):
        """The connection will not be there in time: what waits, and what comes, gets this error.

        True when it was not refusing before.
        """
        cdef const char* p = error
        cdef bint first = self.link.refusal == NULL
        self.refusal_text = error
        self.link.refusal = p
        self.link.refusal_len = len(error)
        link_fail(self.link, p, len(error))
        self.plane.settle()
        return first

    cdef int readable(self) except -1:
        cdef Py_ssize_t n = self.fill()
        if n == PURSUE:
            return 0
        if n == ENDED:
            self.lost("the server closed the connection")
            return 0
        self.plane.stats.upstream_bytes_in += n
        self.plane.stamp()
        if self.plane.core.acks:
            n = link_receive_acked(self.link, self.plane.received, n)
        else:
            n = link_receive(self.link, self.plane.received, n)
        if self.plane.notes != NULL and self.plane.notes.count:
            self.plane.tell_notes()
        self.plane.settle()
        if n < 0:
            self.lost("the server sent what nobody asked for")
        elif self.link.turned and link_turn_over(self.link):
            self.lost(NOT_MASTER)
        return 0

    cdef int writable(self) except -1:
        self.watch_writing(False)
        if self.tls is not None:
            self.flush_sealed()
        self.flush()
        self.plane.room()
        return 0

    cdef int flush(self) except -1:
        """Send requests; a run that the socket does not take whole is copied."""
        cdef Link* l = self.link
        cdef Py_ssize_t k = 0
        cdef size_t n
        if l.turned:
            return 0
        if l.unsealed and not self.in_the_middle() and link_seal(l) < 0:
            self.lost("memory is out")
            return 0
        if l.run_len:
            if not self.writing:
                k = self.send_now(l.run, l.run_len)
            if k >= 0:
                self.plane.stats.upstream_bytes_out += k
                if <size_t>k < l.run_len:
                    buffer_append(&l.out, l.run + k, l.run_len - k)
            l.run = NULL
            l.run_len = 0
        n = link_unsent(l)
        if k >= 0 and n and not self.writing:
            k = self.send_now(buffer_head(&l.out) + l.sent, n)
            if k > 0:
                self.plane.stats.upstream_bytes_out += k
                link_sent(l, k)
                n -= k
        if k < 0:
            self.lost("the connection broke")
            return 0
        if l.tracing and not n:
            self.plane.stamp()
            trace_sent(l)
        if n:
            self.watch_writing(True)
        elif self.shut == 1:
            self.shut = 2
            shutdown(self.fd, SHUT_WR)
        return 0

    cdef bint in_the_middle(self) noexcept:
        """Whether a request of the sidecar's own may not follow yet."""
        cdef Session* s = self.link.client
        return self.link.raw or (s != NULL and (s.in_multi or s.streaming))

    def end_of_requests(self):
        """The pinned client will send no more: tell the server so, after what is still unsent.

        TLS has no half-closed state that servers know: there the client ends once its link has
        been quiet.
        """
        if self.tls is not None:
            if self.client is not None:
                self.plane.handler.end_when_quiet(self.client)
            return
        if not self.shut:
            self.shut = True
            if link_unsent(self.link) == 0:
                shutdown(self.fd, SHUT_WR)
                return
            self.flush()

    cdef int lost(self, str reason) except -1:
        """The connection is gone without our doing."""
        cdef Client client = self.client
        if self.closed:
            return 0
        self.detach()
        self.plane.upstreams.discard(self)
        self.link.up = False
        if self.shared:
            link_lost(self.link, True)
        elif client is not None:
            if client.s.mode == MODE_PINNED:
                client.flush()
                if not client.closed:
                    client.drop_link()
                    client.finish()
            else:
                link_lost(self.link, False)
                client.s.outstanding = 0
                client.drop_link()
                client.finish()
        self.plane.settle()
        self.plane.handler.upstream_lost(self, reason)
        return 0

    def close(self):
        """Close the connection on purpose."""
        cdef bytes error = b"-UNAVAILABLE the link was closed\r\n"
        if not self.closed:
            self.detach()
            self.plane.upstreams.discard(self)
            self.link.up = False
        if self.shared:
            link_fail(self.link, error, len(error))

    def divert_to(self, Upstream other):
        """Retire this shared link, which is held up; who waits for reads only goes to `other`."""
        if link_divert(self.link, other.link) < 0:
            raise MemoryError
        other.flush()

    def move_to(self, Upstream other):
        """This shared link was lost: let what may be sent again wait on `other` instead."""
        if link_move(self.link, other.link) < 0:
            raise MemoryError
        if other.link.up:
            other.flush()

    def break_off(self, str reason):
        """Treat the connection as lost (it is silent, or talks to the wrong server)."""
        self.lost(reason)

    def ask_first(self, bytes request):
        """Queue a request of the sidecar's own before the first of a client's; its reply is
        dropped."""
        if link_push(self.link, NULL, self.plane.table.commands, request, len(request), 0) < 0:
            raise MemoryError

    @property
    def turned(self):
        """Whether its server has said that it is not the master (any more)."""
        return self.link.turned

    @property
    def retained(self):
        """Bytes of requests that wait here for a connection or an answer."""
        return buffer_size(&self.link.out)

    @property
    def refusing(self):
        """Whether commands get an error at once because there is no connection."""
        return self.link.refusal != NULL

    @property
    def refusal(self):
        """The error reply that commands get while it refuses, or None."""
        return self.refusal_text

    @property
    def outstanding(self):
        """Replies due on this link."""
        return link_outstanding(self.link)

    @property
    def received(self):
        """Bytes received since the start: whether it moves tells silence."""
        return self.link.received

    @property
    def up(self):
        """Whether it has a connection."""
        return self.link.up

    @property
    def spoilt(self):
        """Whether it carries a former client's state."""
        return self.link.spoilt
