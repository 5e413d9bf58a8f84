# cython: language_level=3, cdivision=True
"""The connections of one event loop: what they share, and the order in which they are served.

Everything that follows from one event is done before the next event, except that links are flushed at
the end:

    recv -> session_feed -> requests lie in Link.out -> one flush for all links at the end
    recv -> link_receive -> replies lie in the receive buffer -> settle: one send per client

What the core remembers as `borrowed` points into the reactor's receive buffer, so it is sent or
copied before anybody reads again: `settle` and Client.sent_to_link see to it. A send that the
socket does not take whole is finished when the socket is writable.

Rare events (a session waits for something, a link is lost) go to the handler, in Python
(sidecar.proxy.session.handler). The handler may call back at once: `settle` is not entered twice; the
outer call serves what the inner one has marked.
"""
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from sidecar.core.cluster.redirection cimport retry_waiting, waiting_requests
from sidecar.core.guard.guard cimport guard_ready
from sidecar.core.observe.audit_notes cimport NOTE_COMMAND, NOTE_NOPERM, Note
from sidecar.core.link.receiver cimport session_drop, session_mark
from sidecar.core.memory cimport buffers_taken
from sidecar.core.records cimport HOLD_ALL, HOLD_WRITES, Link, NEW_SESSION_WINDOW, STALL_LIMIT
from sidecar.core.stats cimport BUCKETS
from sidecar.core.stats import bucket_bounds
from sidecar.core.observe.trace_records cimport trace_draw
from sidecar.core.cache.tracked_requests cimport tracked_ask_due


LIMITED = 0.001             # seconds between two looks at clients that wait for their limits
RETRY = 0.01                # seconds between two looks at redirected requests that wait


cdef class PlaneConnection(Connection):
    """One side of the traffic: a client or a server. Not used by itself."""

    cdef int attend(self) except -1:
        """Its session was marked: see to it."""
        return 0

    cdef int send_gathered(self) except -1:
        """A client's replies have waited for others of their batch: send them now."""
        return 0

    cdef int flush(self) except -1:
        """Send what lies ready for it."""
        return 0

    cdef void look(self, Silence* found) noexcept:
        """A server's: see whether it is silent (silence.pyx)."""


cdef class Plane(Reactor):
    """All connections of one event loop, and the settings and counters they share.

    The handler (`use_handler`) has stalled(client, stall), client_closed(client),
    upstream_lost(upstream, reason), released(client, upstream), was_reset(client),
    turned_back(client, error), subscriber_left(client, upstream, reason),
    subscriptions_taken(client, upstream), subscriber_changed(client),
    side_said(client, link, frame), side_lost(client, link, reason),
    may_hold(client), end_when_quiet(client), failed(error) and audited(client, kind, command, second);
    all are called on the loop and return at once.
    """

    def __cinit__(self, loop, CommandTable table, *, size_t request_buffer,
                  size_t link_pause, size_t output_pause, size_t client_share, bint own_poller=True):
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        if self.stats == NULL:
            raise MemoryError
        self.table = table
        self.clients, self.upstreams = set(), set()
        self.unflushed, self.waiting_for_room, self.held, self.limited = [], set(), set(), set()
        self.gathering = []
        self.replied = []
        self.flush_callback = self.flush_links
        self.closed_for = {}
        self.tracked = []
        self.retry_within = 0.0
        self.client_share = client_share
        self.core.stats = self.stats
        self.core.request_buffer = request_buffer
        self.core.link_pause = link_pause
        self.core.output_pause = output_pause
        self.core.new_session_window = NEW_SESSION_WINDOW
        self.core.slow_from = UINT32_MAX
        self.core.limits.bulk = 512 * 1024 * 1024
        self.core.limits.count = 2147483647
        self.core.limits.unauth_bulk = 16384
        self.core.limits.unauth_count = 10

    def __dealloc__(self):
        free(self.stats)
        free(self.barriers)
        free(self.notes)

    cdef void before_events(self) noexcept:
        self.stamp()

    cdef int after_events(self) except -1:
        cdef list clients = self.replied
        if clients:
            self.replied = []
            self.send_replies(clients)
        if self.unflushed or (self.near_cache is not None
                              and (self.near_cache.cache.due or self.barriers.fence_raised)):
            self.flush_links()
        return 0

    cdef int failed(self, Connection c, error) except -1:
        """Serving a connection has raised an error: end that connection. An error on the way is told,
        too, and does not reach the other connections."""
        self.tell_failed(error)
        try:
            c.give_up()
        except Exception as another:
            self.tell_failed(another)
            try:
                c.detach()
            except Exception as last:
                self.tell_failed(last)
        return 0

    cdef int tell_failed(self, error) noexcept:
        try:
            self.handler.failed(error)
        except Exception:
            pass                        # that it cannot be told must not stop the others
        return 0

    def use_handler(self, handler):
        """Call this handler from now on. It must be set before the first connection is there."""
        self.handler = handler

    def follow_master(self, bint follows=True):
        """Whether READONLY, LOADING and MASTERDOWN mean that the server is not the master: see
        demotion.pyx."""
        self.core.master_may_change = follows

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
        self.barriers = <Barriers*>calloc(1, sizeof(Barriers))
        if self.barriers == NULL:
            raise MemoryError
        self.stamp()
        cache.attach(&self.core, self.barriers, self.table)
        self.near_cache = cache

    def use_hot_keys(self, HotKeys hot_keys):
        """Count keys in this detector."""
        self.hot_keys = hot_keys
        self.core.sketch = <void*>hot_keys.sketch

    def use_slots(self, SlotTable slots, Scripts scripts, doubted):
        """The upstream is a cluster, with these slots; scripts are kept here. `doubted` is called when requests wait because
        servers have sent them elsewhere, or have refused them for now."""
        self.slots, self.doubted = slots, doubted
        self.core.commands = self.table.commands
        self.core.slots = slots.slots
        self.scripts = scripts
        self.core.scripts = <void*>scripts

    def retry_redirected(self, bint all):
        """Send again what waits after a redirection, if it is time, or all of it; what has waited for
        `retry_within` seconds is given up."""
        if self.slots is None or not self.slots.waits:
            return
        self.stamp()
        retry_waiting(&self.core, all, <uint32_t>(min(self.retry_within, 4000.0) * 1000000))
        self.settle()

    def retry_again(self):
        """Called by the loop: look at what waits."""
        self.retry_due = False
        self.retry_redirected(False)
        self.see_to_waiting()

    cdef int see_to_waiting(self) except -1:
        """Have a look at what waits, soon."""
        if not self.retry_due and self.slots.waits:
            self.retry_due = True
            self.loop.call_later(RETRY, self.retry_again)
            self.doubted()
        return 0

    cdef int see_to_limited(self) except -1:
        """Clients wait for their limits: look at them in a moment."""
        if not self.limited_due:
            self.limited_due = True
            self.loop.call_later(LIMITED, self.look_at_limited)
        return 0

    def look_at_limited(self):
        """Called by the loop: let those go on that have waited long enough."""
        cdef PlaneConnection c
        cdef set waiting = self.limited
        self.limited_due = False
        self.limited = set()
        self.stamp()
        for c in waiting:
            if c.s != NULL and c.s.stall == STALL_LIMIT:
                if guard_ready(c.s):
                    session_mark(c.s)
                else:
                    self.limited.add(c)
        if self.limited:
            self.see_to_limited()
        self.settle()

    @property
    def limited_count(self):
        """The number of clients that have to wait for their limits."""
        return len(self.limited)

    @property
    def redirected_clients(self):
        """How many clients have redirected requests that wait."""
        return waiting_requests(&self.core) if self.slots is not None else 0

    cdef int feed_links(self) except -1:
        """Links have got requests: flush them once the events of this iteration have been seen."""
        cdef Link* l
        cdef PlaneConnection up
        while self.core.fed != NULL:
            l = self.core.fed
            self.core.fed = l.next_fed
            l.fed = False
            up = <PlaneConnection>l.owner
            if l.up and not up.queued:
                self.later(up)
        return 0

    def use_audit(self, bint refusals):
        """Tell the handler of audited commands and, with `refusals`, of refused ones:
        audited(client, kind, command, second word); kind is "command", "NOPERM", "NOAUTH" or,
        without a client, "lost"."""
        if self.notes == NULL:
            self.notes = <Notes*>calloc(1, sizeof(Notes))
            if self.notes == NULL:
                raise MemoryError
        self.notes.refusals = refusals
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
            self.notes_lost += self.notes.lost
            told.append((None, "lost", str(self.notes.lost), b""))
        self.notes.count = 0
        self.notes.lost = 0
        for client, kind, command, second in told:
            try:
                self.handler.audited(client, kind, command, second)
            except Exception as error:
                self.tell_failed(error)
        return 0

    def use_traces(self, Traces traces, uint32_t slow):
        """Record commands here; those that take `slow` microseconds or more are slow."""
        self.traces = traces
        self.core.tracer = <void*>traces.tracer
        self.core.slow_from = slow
        trace_draw(&self.core)

    @property
    def clock(self):
        """The present time, in microseconds of the core's clock: that of records."""
        self.stamp()
        return self.core.clock

    def tell_interrupted(self, bint yes):
        """Whether commands cannot be passed on now: a client that hangs up has then given up, and
        what it sent is not executed later."""
        self.core.interrupted = yes

    def hold_writes(self):
        """Keep back what may change data, until `release_writes`."""
        self.core.holds |= HOLD_WRITES

    def release_writes(self):
        """Let the writes that were kept back go on, unless all is held."""
        self.core.holds &= 0xff ^ HOLD_WRITES
        self.judge_held()

    def hold_all(self):
        """Keep back every command that does not belong to an open transaction, until
        `release_all`."""
        self.core.holds |= HOLD_ALL

    def release_all(self):
        """Let what was kept back go on, unless it is a write and those are held."""
        self.core.holds &= 0xff ^ HOLD_ALL
        self.judge_held()

    def judge_held(self):
        """Decide again on all commands that are held: a hold has ended, or who is held may wait no
        longer."""
        cdef set held = self.held
        cdef PlaneConnection c
        self.held = set()
        self.core.hold_round += 1
        for c in held:
            if not c.closed:
                session_mark(c.s)
        self.settle()

    @property
    def buffered(self):
        """Bytes that the buffers of all connections hold."""
        return buffers_taken()

    @property
    def held_clients(self):
        """The clients whose next command is kept back."""
        return [c for c in self.held if not c.closed]

    @property
    def held_count(self):
        """The number of clients whose next command is kept back."""
        return len(self.held)

    def set_limits(self, *, size_t request_buffer, size_t link_pause, size_t output_pause,
                   size_t client_share):
        """Change the limits that the constructor was given, in bytes."""
        self.client_share = client_share
        self.core.request_buffer = request_buffer
        self.core.link_pause = link_pause
        self.core.output_pause = output_pause

    def set_max_bulk(self, long long size):
        """Longest argument a request may have (the server's proto-max-bulk-len), in bytes."""
        self.core.limits.bulk = size

    def set_joined_quotes(self, bint joined):
        """Whether the server lets a word of an inline request go on behind a closing quote."""
        self.core.limits.joined_quotes = joined

    cdef void stamp(self) noexcept:
        cdef timespec t
        clock_gettime(CLOCK_MONOTONIC, &t)
        self.core.clock = <uint64_t>t.tv_sec * 1000000 + <uint64_t>t.tv_nsec // 1000
        self.core.now = <uint32_t>self.core.clock
        self.core.seconds = <uint32_t>t.tv_sec

    cdef int later(self, PlaneConnection up) except -1:
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
        cdef PlaneConnection up
        self.unflushed = []
        self.flush_due = False
        if self.near_cache is not None and (self.near_cache.cache.due or self.barriers.fence_raised):
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
        """Send what the near cache asks for, each link's by itself."""
        cdef Connection c
        self.near_cache.cache.due = False
        tracked_ask_due(self.near_cache.cache)
        for c in list(self.tracked):
            try:
                c.push_out()
            except Exception as error:
                self.failed(c, error)
        return 0

    cdef int serve_flush(self, PlaneConnection up) noexcept:
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
                self.serve_session(<PlaneConnection>s.owner)
        finally:
            self.settling = False
        if self.core.fed != NULL:
            self.feed_links()
        if self.slots is not None:
            self.see_to_waiting()
        return 0

    cdef int serve_session(self, PlaneConnection c) noexcept:
        try:
            c.attend()
        except Exception as error:
            self.failed(c, error)
        return 0

    def send_gathered(self, now):
        """Send the replies that wait for others of their batch. To be called at each tick: what they
        wait for may be held back by the server."""
        cdef list waiting = self.gathering
        self.gathering = []
        self.send_replies(waiting)

    cdef int send_replies(self, list clients) except -1:
        """Send what these have been kept from; one that fails ends alone."""
        cdef PlaneConnection c
        for c in clients:
            try:
                c.send_gathered()
            except Exception as error:
                self.failed(c, error)
        return 0

    cdef int room(self) except -1:
        """A link or a client has sent something: clients that wait for room look again."""
        cdef set waiting = self.waiting_for_room
        cdef PlaneConnection c
        self.waiting_for_room = set()
        for c in waiting:
            if not c.closed:
                session_mark(c.s)
        self.settle()
        return 0

    @property
    def errors_made(self):
        """Error replies of the sidecar's own since the start."""
        return self.stats.errors_local + self.stats.uncertain

    def silence(self):
        """How long the server has owed replies, in seconds: the age of the oldest request, how long
        a link has been silent, replies due on silent links; and the last two of links whose
        replies may be long in coming (see silence.pyx)."""
        cdef Silence found
        cdef PlaneConnection up
        memset(&found, 0, sizeof(found))
        self.stamp()
        for up in self.upstreams:
            up.look(&found)
        return (found.oldest * 1e-6, found.silent * 1e-6, found.requests, found.may_block * 1e-6,
                found.blocking)

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
            "replies_error": {families[i]: st.errors[i] for i in range(len(families))},
            "clients_closed": dict(self.closed_for), "clients_active": len(self.clients),
        }
