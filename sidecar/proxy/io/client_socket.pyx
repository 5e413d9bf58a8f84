# cython: language_level=3
"""A client on its socket: reads for its session, sends its replies, and sees when it is over.

`readable` feeds the session. `attend` follows whenever the session was marked: it sends replies, and
does what the session waits for, or has the handler do it (sidecar.proxy.session.handler). What the
handler then asks of a client is in client.pyx.
"""
from libc.stdint cimport uint32_t
from time import monotonic
from sidecar.core.link.barrier cimport barriers_abandon
from sidecar.core.cluster.branches cimport branches_guarded, session_leave
from sidecar.core.cluster.turns cimport branches_collect
from sidecar.core.protocol.commands cimport ROUTE_BLOCKING, ROUTE_MAYBE_BLOCKING, ROUTE_WAIT
from sidecar.core.cache.fill cimport cache_leave
from sidecar.core.guard.guard cimport guard_nothing_due, guard_settle
from sidecar.core.link.receiver cimport session_drop, session_mark, session_new, session_say
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size, buffer_truncate)
from sidecar.core.records cimport (link_unsent, DEDICATED_PAUSE, Link, MODE_DEDICATED, MODE_PINNED, MODE_SHARED,
    Session, STALL_PROTOCOL_ERROR, STALL_FILL, STALL_HANG_UP, STALL_HELD, STALL_LIMIT,
    STALL_NONE, STALL_REPLIES,
    STALL_ROOM, STALL_SHELL)
from sidecar.core.protocol.request cimport error_text
from sidecar.core.session.feed cimport session_has_room, session_ready, session_resume
from sidecar.core.session.mode cimport session_in_transaction, session_may_give_back, session_use
from sidecar.proxy.io.plane cimport Plane
from sidecar.proxy.io.reactor cimport ENDED, NOTHING_YET
from sidecar.proxy.io.upstream cimport Upstream

cdef enum:
    GATHERED_MOST = 16384   # bytes of replies that wait for others of the same batch


cdef class ClientSocket(RewritingConnection):
    """The socket of one client, and the life of its session."""

    def __init__(self, Plane plane, sock, tls, long long id, identity, peer):
        self.plane = self.reactor = plane
        plane.stamp()
        self.s = session_new(&plane.core, <void*>self)
        if self.s == NULL:
            raise MemoryError
        self.id, self.identity, self.peer = id, identity, peer
        self.s.client_number = id
        self.local = sock.getsockname()
        self.listener_policy = ""
        self.name = self.lib_name = self.lib_version = b""
        self.principal = self.first_principal = ""
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
        if n == NOTHING_YET:
            return 0
        if n == ENDED:
            self.end_of_input()
        elif self.feed(self.plane.received, n) < 0:
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
        if self.tls is not None and self.flush_sealed():
            self.close("client")
        else:
            self.attend()
        self.plane.room()
        return 0

    cdef int sent_to_link(self) except -1:
        """After a parse: see that what it left on the link gets sent."""
        cdef Link* l = self.s.link
        cdef Upstream up
        if self.plane.near_cache is not None and self.plane.near_cache.cache.due:
            self.plane.schedule()
        if self.plane.core.fed != NULL:
            self.plane.feed_links()
        if l == NULL or not l.up:
            return 0
        if l.shared:
            if l.out.end - l.out.start > l.sent:
                up = <Upstream>l.owner
                if not up.queued:
                    self.plane.later(up)
        elif l.borrowed_len or l.out.end > l.out.start:
            (<Upstream>l.owner).flush()
        return 0

    cdef int end_of_input(self) except -1:
        """The client will send no more. Replies that are due are still given to it.

        One that waits in a blocking command is gone for good: what it would pop must stay.
        """
        self.ended = True
        self.watch_reading(False)
        session_mark(self.s)
        return 0

    cdef bint waits_for_its_time(self) noexcept:
        """Whether it waits for its limits, and surely not for long."""
        return self.s.stall == STALL_LIMIT and self.guard is not None and not self.guard.guard.blocked

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
        """Whether its next request is held for want of a master. The client has hung up meanwhile,
        and may have sent the request again on another connection."""
        cdef Session* s = self.s
        if s.outstanding:
            return False
        return s.stall == STALL_HELD or (
            s.stall == STALL_SHELL and self.task is None and self.plane.core.interrupted
            and s.mode == MODE_SHARED and s.link != NULL and not s.link.up)

    cdef int flush(self) except -1:
        """Send replies; what the socket does not take waits for it to be writable."""
        cdef Session* s = self.s
        cdef Py_ssize_t k
        s.active_at = self.plane.core.seconds
        if self.rewriter is not None:
            self.show()
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
            if self.rewriter is not None:
                self.shown -= k
        if s.out.end > s.out.start:
            self.watch_writing(True)
        return 0

    cdef int attend(self) except -1:
        """The session was marked: send its replies, close it, or do what it wants."""
        cdef Session* s = self.s
        cdef bint parsed = self.parsed
        self.parsed = False
        if s.branches != NULL:
            branches_collect(s)
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
            elif self.others_reply():
                self.keep()
                self.wait_for_others()
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
        if buffer_size(&s.turned_back):
            self.turn_back()
        elif s.mode != MODE_SHARED:
            self.give_back()
        if not self.closed and session_ready(s):
            self.serve_stall()
        if not self.closed and self.rewriter is not None and self.rewriter.ready():
            self.read_on()
        if not self.closed and s.guard != NULL:
            self.see_to_limits()
        if not self.closed and not self.end_if_over():
            self.next_reading()
        return 0

    cdef int read_on(self) except -1:
        """The reply has come that the requests behind it have waited for."""
        if not self.rewrite_on():
            self.close("memory")
            return 0
        self.has_parsed()
        return 0

    cdef int see_to_limits(self) except -1:
        """Have the plane look again when it may go on, or note that it has nothing under way."""
        cdef Session* s = self.s
        if s.stall == STALL_LIMIT:
            self.plane.limited.add(self)
            self.plane.see_to_limited()
        elif s.stall == STALL_NONE and guard_nothing_due(s):
            guard_settle(s)
        return 0

    cdef int serve_stall(self) except -1:
        """Do what the session waits for, or have the handler do it."""
        cdef Session* s = self.s
        cdef int stall = s.stall
        if stall == STALL_PROTOCOL_ERROR:
            self.protocol_error()
        elif stall == STALL_LIMIT:
            self.go_on()
        elif stall == STALL_HANG_UP:
            self.close("hostile")
        elif stall == STALL_FILL or stall == STALL_REPLIES:
            self.go_on()
        elif stall == STALL_ROOM:
            if session_has_room(s, 2):
                self.go_on()
            else:
                self.plane.waiting_for_room.add(self)
        elif stall == STALL_HELD and s.held_in_round != self.plane.core.hold_round:
            self.go_on()
        elif stall == STALL_HELD and (self in self.plane.held
                                      or self.plane.handler.may_hold(self)):
            self.plane.held.add(self)
        else:
            s.stall = STALL_SHELL
            self.plane.handler.stalled(self, stall)
        return 0

    cdef bint end_if_over(self) except -1:
        """End a client that sends no more, or is to be let go, once nothing is due to it. The server of
        one with a link for good is told, and then ends it."""
        cdef Session* s = self.s
        cdef Upstream up
        cdef bint waits = self.rewriter is not None and self.rewriter.waits
        cdef bint answered = s.stall == STALL_NONE and s.outstanding == 0 and not waits
        if self.ended and s.mode == MODE_PINNED and s.stall != STALL_SHELL \
                and not self.waits_for_its_time() and not (waits and s.link.raw_requests_due == 0):
            up = <Upstream>s.link.owner
            up.end_of_requests()
            if self.closed:
                return True
        if self.retiring and answered and s.unread.end == s.unread.start and self.kept_back() == 0 \
                and (s.mode == MODE_SHARED or (s.kept and not session_in_transaction(s))):
            self.finish()
            return True
        if self.ended and (self.never_answered() or self.gave_up() or (
                answered and s.out.end == s.out.start and s.mode != MODE_PINNED)):
            self.close("client")
            return True
        return False

    cdef bint more_to_come(self, bint parsed) noexcept:
        """Whether replies from the near cache should wait for those that will follow: the server's,
        to the same batch, or a value that is being read. One system call for a batch instead of two
        or three is worth more than the round trip."""
        cdef Session* s = self.s
        if s.mode != MODE_SHARED or s.must_close or self.finishing or self.ended or self.writing \
                or self.rewriter is not None:
            return False
        return (s.awaited != NULL or (parsed and s.outstanding > 0)) \
            and buffer_size(&s.out) + s.borrowed_len < GATHERED_MOST

    cdef bint others_reply(self) noexcept:
        """Whether more replies may be at hand, from other shards: one system call for all of them."""
        cdef Session* s = self.s
        return s.branches != NULL and s.outstanding and self.plane.polling \
            and s.mode == MODE_SHARED and not (s.must_close or self.finishing or self.ended) \
            and not self.writing and self.rewriter is None and buffer_size(&s.out) + s.borrowed_len < GATHERED_MOST

    cdef int wait_for_others(self) except -1:
        """Have the replies sent at the end of the events at hand."""
        if not self.replying:
            self.replying = True
            self.plane.replied.append(self)
        return 0

    cdef int gather(self) except -1:
        """Let the replies wait for those of the same batch. The server may hold these back: then the
        plane's next tick sends what is there."""
        if not self.gathering:
            self.gathering = True
            self.plane.gathering.append(self)
        return 0

    cdef int send_gathered(self) except -1:
        self.gathering = self.replying = False
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
        """Give back the link that the session has to itself, if it needs it no more."""
        cdef Session* s = self.s
        cdef Link* l = s.link
        cdef Upstream up = <Upstream>l.owner
        # A slow reader slows its own link down, instead of filling this process.
        up.watch_reading(not up.closed and buffer_size(&s.out) < DEDICATED_PAUSE
                         and not (self.subscriptions is not None and self.subscriptions.waits()))
        if s.mode == MODE_PINNED:
            if l.reset_passed:
                self.drop_link()
                self.plane.handler.was_reset(self)
            elif self.subscriptions is not None and self.subscriptions.over() \
                    and link_unsent(l) == 0 and l.borrowed_len == 0:
                self.leave_node()
            return 0
        if not session_may_give_back(s):
            return 0
        session_use(s, NULL, MODE_SHARED)
        up.client = None
        self.plane.handler.released(self, up)
        if not self.closed and s.stall != STALL_PROTOCOL_ERROR and s.stall != STALL_HANG_UP:
            self.go_on()
        return 0

    cdef int leave_node(self) except -1:
        """A cluster's client was a subscriber, and is none any more: its commands go by their keys."""
        cdef bint shared = self.subscriptions.is_shared
        self.subscriptions = None
        self.drop_link()
        if shared:
            self.plane.handler.subscriber_changed(self)
        return self.go_on()

    cdef int turn_back(self) except -1:
        """A cluster's client: the server of its own link has sent its request elsewhere."""
        cdef Session* s = self.s
        cdef Upstream up = <Upstream>s.link.owner
        cdef bytes error = buffer_head(&s.turned_back)[:buffer_size(&s.turned_back)]
        buffer_release(&s.turned_back)
        session_use(s, NULL, MODE_SHARED)
        up.client = None
        s.stall = STALL_SHELL
        self.plane.handler.released(self, up)
        self.plane.handler.turned_back(self, error)
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
        if self.reads_too_far() or (self.retiring and s.stall == STALL_NONE and s.scan.pos == 0
                                    and self.kept_back() == 0 and not session_in_transaction(s)):
            self.watch_reading(False)
            return 0
        # What waits for room is read on: a client may send all before it reads a reply.
        self.watch_reading(s.stall == STALL_NONE or buffer_size(&s.unread) < (
            self.plane.client_share if s.stall == STALL_ROOM and not self.plane.short_of_memory
            else self.plane.core.request_buffer))
        return 0

    cdef int go_on(self) except -1:
        """Parse what has been read: what the session waited for has been done."""
        if self.closed:
            return 0
        self.s.stall = STALL_NONE
        if self.s.traced:
            self.plane.stamp()          # how long it has waited is to be told
        if session_resume(self.s, self.plane.table) < 0:
            self.close("memory")
            return 0
        self.has_parsed()
        if not self.closed:
            self.parsed = True
        self.plane.settle()
        return 0

    cdef int has_parsed(self) except -1:
        """Requests have been decided on outside of a reading: pass on what has come of it."""
        if self.plane.notes != NULL and self.plane.notes.count:
            self.plane.tell_notes()
        self.sent_to_link()
        if not self.closed:
            session_mark(self.s)
        return 0

    def say(self, bytes reply):
        """Append reply bytes. No reply may be outstanding."""
        session_say(self.s, reply, len(reply))

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
        self.plane.held.discard(self)
        self.plane.closed_for[reason] = self.plane.closed_for.get(reason, 0) + 1
        self.detach()
        if self.s.awaited != NULL:
            cache_leave(self.s)
        session_leave(self.s)
        self.use_guard(None)
        self.plane.limited.discard(self)
        session_drop(self.s)
        self.s = NULL
        self.plane.handler.client_closed(self)

    def give_up(self):
        """End it, since serving it has raised an error."""
        self.close("error")

    def use_guard(self, ClientGuard guard):
        """Restrict it by this from now on; None: by nothing."""
        if self.guard is not None:
            self.guard.leave()
        self.guard = guard
        self.s.guard = NULL if guard is None else &guard.guard
        branches_guarded(self.s)
        session_mark(self.s)            # what it waits for may be over

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

    def leave_link(self):
        """Give up the link for good of a subscriber, for another one to go on where it ends; its requests
        wait meanwhile. False: no other link can go on there, or the client has hung up, and nothing has
        changed."""
        cdef Session* s = self.s
        cdef Upstream up
        if self.ended or self.finishing or s.must_close or s.stall == STALL_SHELL \
                or not self.subscriptions.movable:
            return False
        up = <Upstream>s.link.owner
        up.subscriptions = None
        session_use(s, NULL, MODE_SHARED)
        up.client = None
        s.stall = STALL_SHELL
        up.close()
        return True
