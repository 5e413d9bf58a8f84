# cython: language_level=3
"""A client on its socket: reads for its session, sends its replies, and does what it wants.

`readable` feeds the session; `attend` follows whenever the session was marked: replies are sent,
and what the session wants is done, here or by the handler. The second half is what the handler
(sidecar.proxy.session.handler and whom it calls) may ask for and do.
"""
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from time import monotonic

from sidecar.core.link.barrier cimport barriers_abandon
from sidecar.core.protocol.commands cimport ROUTE_BLOCKING, ROUTE_MAYBE_BLOCKING, ROUTE_WAIT
from sidecar.core.cache.fill cimport cache_leave
from sidecar.core.link.pending cimport link_bytes, link_push
from sidecar.core.link.receiver cimport session_drop, session_mark, session_new, session_say
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_size,
    buffer_truncate)
from sidecar.core.records cimport (DEDICATED_PAUSE, Link, MODE_DEDICATED, MODE_PINNED, MODE_SHARED,
    Session, STALL_DEDICATED, STALL_PROTOCOL_ERROR, STALL_FILL, STALL_HANG_UP, STALL_HEAVY,
    STALL_HELD, STALL_LINK, STALL_SESSION_COMMAND,
    STALL_NONE, STALL_ONCE, STALL_PIN, STALL_REPLIES, STALL_ROOM, STALL_SHELL, STALL_WAIT_COMMAND)
from sidecar.core.protocol.request cimport (SCAN_DONE, SCAN_INLINE, Scanner, error_text, scan_request,
    scanner_reset)
from sidecar.core.protocol.request import normalise_inline, split_arguments
from sidecar.core.session.feed cimport session_feed, session_has_room, session_ready, session_resume
from sidecar.core.session.mode cimport (session_in_transaction, session_may_give_back, session_use)
from sidecar.core.observe.trace_records cimport TRACED_CONTEXT, TRACED_FOLLOW, TRACE_CONTEXT, trace_refused
from sidecar.proxy.io.plane cimport Plane
from sidecar.proxy.io.reactor cimport ENDED, PURSUE
from sidecar.proxy.io.upstream cimport Upstream

cdef enum:
    GATHERED_MOST = 16384   # bytes of replies that wait for others of the same batch

NOTHING, LINK, DEDICATED, ONCE, PIN, SESSION_COMMAND, WAIT_COMMAND, HELD, HEAVY = (
    STALL_NONE, STALL_LINK, STALL_DEDICATED, STALL_ONCE, STALL_PIN, STALL_SESSION_COMMAND,
    STALL_WAIT_COMMAND, STALL_HELD, STALL_HEAVY)
SHARED_MODE, DEDICATED_MODE, PINNED_MODE = MODE_SHARED, MODE_DEDICATED, MODE_PINNED


cdef class Client(PlaneConnection):
    """One client connection."""

    def __init__(self, Plane plane, sock, tls, long long id, identity, peer):
        self.plane = self.reactor = plane
        plane.stamp()
        self.s = session_new(&plane.core, <void*>self)
        if self.s == NULL:
            raise MemoryError
        self.id, self.identity, self.peer = id, identity, peer
        self.s.client_number = id
        self.local = sock.getsockname()
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
        elif l.borrowed_len or l.out.end > l.out.start:
            (<Upstream>l.owner).flush()
        if not self.closed and self.s.input_broken and not self.ended:
            self.end_of_input()         # a server that does not mind the error gets no more, either
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
        cdef uint32_t at
        cdef int route
        if self.s.streaming:
            return True
        if self.s.mode != MODE_DEDICATED:
            return False
        at = l.head
        while at != l.tail and l.ring[at & l.mask].session == NULL:
            at += 1                 # the sidecar's own requests, before the client's
        if at == l.tail:
            return False
        route = l.ring[at & l.mask].route
        return route == ROUTE_BLOCKING or route == ROUTE_MAYBE_BLOCKING or route == ROUTE_WAIT

    cdef bint gave_up(self) noexcept:
        """Whether its next request is held for want of a master. It has hung up meanwhile: who
        sent the request may have sent it again on another connection."""
        cdef Session* s = self.s
        if s.outstanding:
            return False
        return s.stall == STALL_HELD or (
            s.stall == STALL_SHELL and self.task is None and self.plane.core.master_may_change
            and s.mode == MODE_SHARED and s.link != NULL and not s.link.up)

    cdef int flush(self) except -1:
        """Send replies; what the socket does not take waits for it to be writable."""
        cdef Session* s = self.s
        cdef Py_ssize_t k
        s.active_at = self.plane.core.seconds
        if s.borrowed_len:
            if self.writing or buffer_size(&s.out):
                k = 0
            else:
                k = self.send_now(s.borrowed, s.borrowed_len)
            if k >= 0:
                self.plane.stats.client_bytes_out += k
                self.sent += k
                if <size_t>k < s.borrowed_len and buffer_append(&s.out, s.borrowed + k, s.borrowed_len - k) < 0:
                    k = -1
            s.borrowed = NULL
            s.borrowed_len = 0
            if k < 0:
                self.close("client")
                return 0
        elif s.out.end > s.out.start and not self.writing:
            k = self.send_now(buffer_head(&s.out), buffer_size(&s.out))
            if k < 0:
                self.close("client")
                return 0
            self.plane.stats.client_bytes_out += k
            self.sent += k
            buffer_drop(&s.out, k)
        if s.out.end > s.out.start:
            self.watch_writing(True)
        return 0

    cdef int attend(self) except -1:
        """The session was marked: send its replies, close it, or do what it wants."""
        cdef Session* s = self.s
        cdef int stall
        cdef bint parsed = self.parsed
        self.parsed = False
        if self.answered is not None and not s.must_close and not self.finishing:
            self.keep()
            if not self.closed and s.outstanding == 0:
                self.take_answer()
            return 0
        if s.stall == STALL_FILL and s.awaited == NULL and s.mode == MODE_SHARED \
                and not s.must_close and not self.finishing:
            self.keep()
            if not self.closed:
                self.go_on()        # and then we are here again
            return 0
        if s.borrowed_len or s.out.end > s.out.start:
            if self.more_to_come(parsed):
                self.keep()
                self.gather()
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
            stall = s.stall
            if stall == STALL_PROTOCOL_ERROR:
                self.protocol_error()
            elif stall == STALL_HANG_UP:
                self.close("hostile")
            elif stall == STALL_ROOM:
                if session_has_room(s, 2):
                    self.go_on()
                else:
                    self.plane.waiting_for_room.add(self)
            elif stall == STALL_FILL or stall == STALL_REPLIES:
                self.go_on()
            elif stall == STALL_HELD:
                if not self.plane.core.hold_writes:
                    self.go_on()
                elif self in self.plane.held or self.plane.handler.may_hold(self):
                    self.plane.held.add(self)
                else:
                    s.stall = STALL_SHELL
                    self.plane.handler.stalled(self, stall)
            else:
                s.stall = STALL_SHELL
                self.plane.handler.stalled(self, stall)
            if self.closed:
                return 0
        if self.retiring and s.stall == STALL_NONE and s.outstanding == 0 \
                and s.unread.end == s.unread.start \
                and (s.mode == MODE_SHARED or (s.kept and not session_in_transaction(s))):
            self.finish()
            return 0
        if self.ended and (self.never_answered() or self.gave_up()):
            self.close("client")
            return 0
        if self.ended and s.stall == STALL_NONE and s.outstanding == 0 \
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
        return (s.awaited != NULL or (parsed and s.outstanding > 0)) \
            and buffer_size(&s.out) + s.borrowed_len < GATHERED_MOST

    cdef int gather(self) except -1:
        """What it waits for may not come for long, since the server may hold it back: the plane's
        next tick sends what is there."""
        if not self.gathering:
            self.gathering = True
            self.plane.gathering.append(self)
        return 0

    cdef int send_gathered(self) except -1:
        self.gathering = False
        # With `answered` the end of `out` is a reply to the sidecar, which is not to be sent.
        if not self.closed and not self.writing and self.answered is None:
            self.flush()
        return 0

    cdef int keep(self) except -1:
        """Replies go behind those that wait to be sent."""
        cdef Session* s = self.s
        if s.borrowed_len and buffer_append(&s.out, s.borrowed, s.borrowed_len) < 0:
            self.close("memory")        # the session's record may be gone by now
            return 0
        s.borrowed = NULL
        s.borrowed_len = 0
        return 0

    cdef int take_answer(self) except -1:
        """The reply to `ask` is here, behind pushes perhaps."""
        cdef Session* s = self.s
        cdef object answered = self.answered
        cdef bytes data = buffer_head(&s.out)[self.asked_at:buffer_size(&s.out)]
        buffer_truncate(&s.out, self.asked_at)
        self.answered = None
        answered(data)
        return 0

    cdef int give_back(self) except -1:
        """A session with a link of its own: has the need for it passed?"""
        cdef Session* s = self.s
        cdef Link* l = s.link
        cdef Upstream up = <Upstream>l.owner
        # A slow reader slows its own link down, instead of filling this process.
        up.watch_reading(not up.closed and buffer_size(&s.out) < DEDICATED_PAUSE)
        if s.mode == MODE_PINNED:
            if l.reset_passed:
                self.drop_link()
                self.plane.handler.was_reset(self)
            return 0
        if not session_may_give_back(s):
            return 0
        session_use(s, NULL, MODE_SHARED)
        up.client = None
        self.plane.handler.released(self, up)
        if not self.closed and s.stall != STALL_PROTOCOL_ERROR and s.stall != STALL_HANG_UP:
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
        if self.retiring and s.stall == STALL_NONE and s.scan.pos == 0 \
                and not session_in_transaction(s):
            self.watch_reading(False)
            return 0
        # What waits for room is read on: a client may send all before it reads a reply.
        self.watch_reading(s.stall == STALL_NONE or buffer_size(&s.unread) < (
            self.plane.client_share if s.stall == STALL_ROOM and not self.plane.short_of_memory
            else self.plane.core.request_buffer))
        return 0

    cdef int go_on(self) except -1:
        """Parse what has been read; what was wanted has been done."""
        if self.closed:
            return 0
        self.s.stall = STALL_NONE
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

    def stay_shared(self):
        """There is no link for it alone, though its replies are large: go on without one."""
        if self.s != NULL:
            self.s.heavy = 0
            self.go_on()

    def head(self):
        """The request at the head: (arguments, raw multibulk bytes), or None when none is whole."""
        cdef Scanner scan
        cdef int r
        cdef bytes raw
        scanner_reset(&scan)
        r = scan_request(&scan, buffer_head(&self.s.unread), buffer_size(&self.s.unread),
                         &self.plane.core.limits, True)
        raw = buffer_head(&self.s.unread)[:scan.pos]
        if r == SCAN_INLINE:
            raw = normalise_inline(raw, self.plane.core.limits.joined_quotes)
        elif r != SCAN_DONE:
            return None
        return split_arguments(raw), raw

    def skip(self):
        """Drop the request at the head: it has been answered."""
        cdef Scanner scan
        self.s.traced &= TRACED_CONTEXT | TRACED_FOLLOW
        self.s.command_count += 1
        scanner_reset(&scan)
        scan_request(&scan, buffer_head(&self.s.unread), buffer_size(&self.s.unread),
                     &self.plane.core.limits, True)
        buffer_drop(&self.s.unread, scan.pos)

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
                s.stall = STALL_LINK
                session_mark(s)
                self.plane.settle()
            return
        if link_push(l, s, self.plane.table.find(name, len(name)), raw, len(raw), 0) < 0:
            self.close("memory")
            return
        self.skip()
        self.go_on()

    def ask(self, bytes request, answered):
        """Send this down the client's link while the request at the head waits, and call `answered`
        with the reply, which the client does not get. No reply may be outstanding.

        Pushes that come before the reply, on a link of the client's own, stand before it. If the link
        is lost, the request is sent again, as a read is.
        """
        cdef Link* l
        cdef Session* s = self.s
        cdef bytes name
        if self.closed:
            return
        l = s.link
        if not l.up:
            if l.refusal != NULL:
                self.plane.stats.errors_local += 1
                answered(l.refusal[:l.refusal_len])
            else:
                s.stall = STALL_LINK
                session_mark(s)
                self.plane.settle()
            return
        name = self.head()[0][0]
        if self.keep() < 0 or self.closed:
            return
        self.asked_at = buffer_size(&s.out)
        self.answered = answered
        if link_push(l, s, self.plane.table.find(name, len(name)), request, len(request), 0) < 0:
            self.close("memory")
            return
        self.sent_to_link()

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
        self.due_when_closed = 1 if self.s.mode == MODE_PINNED else self.s.outstanding
        if self.s.mode != MODE_SHARED:
            self.drop_link()
        self.answered = None
        self.plane.clients.discard(self)
        self.plane.closed_for[reason] = self.plane.closed_for.get(reason, 0) + 1
        self.detach()
        if self.s.awaited != NULL:
            cache_leave(self.s)
        session_drop(self.s)
        self.s = NULL
        self.plane.handler.client_closed(self)

    def give_up(self):
        """End it, since serving it has raised an error."""
        self.close("error")

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
        session_use(self.s, NULL, MODE_SHARED)
        barriers_abandon(l, l.head, l.tail)
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
            memcpy(self.s.trace_context, <const char*>context, TRACE_CONTEXT)
            self.s.traced |= TRACED_CONTEXT | (TRACED_FOLLOW if sampled else 0)

    def use_tenant(self, uint16_t number):
        """Count its keys as those of this (user, database)."""
        self.s.tenant = number

    def use_space(self, uint16_t space, int proto):
        """Answer its reads from this space of the near cache (0: from none), in RESP2 or 3."""
        self.s.space, self.s.proto = space, proto
        self.s.proof_came = False

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
        session_use(self.s, up.link, MODE_SHARED)

    def use_dedicated(self, Upstream up, bint pinned=False, bint tainted=False, bint kept=False):
        """Give the session a link of its own, and go on."""
        session_use(self.s, up.link, MODE_PINNED if pinned else MODE_DEDICATED)
        up.client = self
        up.link.tainted = tainted or pinned or kept
        self.s.kept = kept
        self.s.translates_ids = pinned and not self.server_ids
        up.watch_reading(True)
        self.go_on()
        if pinned and self.ended and not self.closed:
            up.end_of_requests()

    def keep_link(self):
        """The link it has to itself stays its own for good."""
        if self.s.mode == MODE_DEDICATED:
            self.s.kept = self.s.link.tainted = True

    def pin(self):
        """From here on bytes pass both ways on the link it has to itself; go on."""
        session_use(self.s, self.s.link, MODE_PINNED)
        self.s.link.tainted = True
        self.s.translates_ids = not self.server_ids
        self.go_on()

    def pin_at_once(self):
        """Session pooling: a link of its own from the first command on, and nothing changed."""
        self.server_ids = True
        self.s.stall = STALL_PIN
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
        return self.s != NULL and session_in_transaction(self.s)

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
        return self.plane.core.seconds - self.s.active_at if self.s != NULL else 0

    @property
    def buffered(self):
        """Bytes kept here for it: requests that wait, and replies that it has not read."""
        return buffer_size(&self.s.unread) + buffer_size(&self.s.out) if self.s != NULL else 0

    @property
    def unparsed(self):
        """Bytes it has sent that wait for something."""
        return buffer_size(&self.s.unread) if self.s != NULL else 0

    @property
    def pinned_bytes(self):
        """Bytes its own link has received, for one that has a link for good; else None."""
        if self.s == NULL or self.s.mode != MODE_PINNED:
            return None
        return self.s.link.received_bytes

    @property
    def kept(self):
        """Whether its link is its own for good: dedicated, or pinned."""
        return self.s != NULL and (self.s.kept or self.s.mode == MODE_PINNED)

    @property
    def outstanding(self):
        """Replies that are due to it, or were when it was closed. Those of a pinned one are not
        counted: one is."""
        if self.s == NULL:
            return self.due_when_closed
        return 1 if self.s.mode == MODE_PINNED else self.s.outstanding

    @property
    def movable(self):
        """Whether it can be given another link now: it is between two requests."""
        return (self.s != NULL and self.s.mode == MODE_SHARED and self.s.outstanding == 0
                and self.s.stall == STALL_NONE and self.answered is None)

    @property
    def figures(self):
        """What CLIENT LIST tells of it: bytes received and sent, requests, the latest command."""
        if self.s == NULL:
            return 0, 0, 0, b""
        name = self.plane.table.name(self.s.last_command).encode() if self.s.command_count else b""
        return self.s.received_bytes, self.sent, self.s.command_count, name

    @property
    def idle(self):
        """Whether nothing of this client is under way here."""
        return (self.s == NULL or (self.s.outstanding == 0 and self.s.stall == STALL_NONE
                and buffer_size(&self.s.unread) == 0 and buffer_size(&self.s.out) == 0
                and (self.s.mode == MODE_SHARED
                     or (self.s.kept and not session_in_transaction(self.s)))))
