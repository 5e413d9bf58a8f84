# cython: language_level=3
"""A client, as the handler sees it: the request at its head, its link, its identity, its figures.

The handler (sidecar.proxy.session.handler) and the parts that it passes calls on to read the request
at the head here, answer it or send it on, and give the client links. The socket is in
client_socket.pyx.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from sidecar.core.cluster.branches cimport (Branches, branch_at, branch_push,
    branch_waits, session_join, session_leave, slot_for)
from sidecar.core.protocol.slots cimport NO_SHARD, slot_of
from sidecar.core.guard.guard cimport guard_passed
from sidecar.core.link.pending cimport link_bytes, link_push
from sidecar.core.link.receiver cimport session_mark
from sidecar.core.memory cimport buffer_drop, buffer_head, buffer_size
from sidecar.core.records cimport (ENTRY_IN_MULTI, Link, MODE_DEDICATED, MODE_PINNED, MODE_SHARED, Session,
    STALL_DEDICATED, STALL_HEAVY, STALL_HELD, STALL_LINK, STALL_SESSION_COMMAND, STALL_NONE,
    STALL_ONCE, STALL_PIN, STALL_WAIT_COMMAND, STATE_IN_MULTI)
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.keys cimport KeySpan, key_in_part
from sidecar.core.protocol.request cimport (SCAN_MORE, SCAN_DONE, SCAN_INLINE, Scanner, scan_request,
    scanner_reset)
from sidecar.core.protocol.request import normalise_inline, split_arguments
from sidecar.core.session.dispatch cimport queue_asked
from sidecar.core.session.mode cimport session_in_transaction, session_use
from sidecar.core.observe.trace_records cimport (TRACED_CONTEXT, TRACED_FOLLOW, TRACE_CONTEXT,
    trace_refused)
from sidecar.proxy.io.shard_links cimport ShardLinks
from sidecar.proxy.io.upstream cimport Upstream

NOTHING, LINK, DEDICATED, ONCE, PIN, SESSION_COMMAND, WAIT_COMMAND, HELD, HEAVY = (
    STALL_NONE, STALL_LINK, STALL_DEDICATED, STALL_ONCE, STALL_PIN, STALL_SESSION_COMMAND,
    STALL_WAIT_COMMAND, STALL_HELD, STALL_HEAVY)
cdef bytes MULTI = b"*1\r\n$5\r\nMULTI\r\n"

SHARED_MODE, DEDICATED_MODE, PINNED_MODE = MODE_SHARED, MODE_DEDICATED, MODE_PINNED


cdef class Client(ClientSocket):
    """One client connection, as the handler sees it."""

    def resume(self):
        """Go on with the requests that have been read."""
        self.go_on()

    def stay_shared(self):
        """Go on on the shared link, though its replies are large: there is no other link to be
        had."""
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

    def forward(self):
        """Put the request at the head on the shared link as an ordinary one, and go on."""
        cdef Link* l
        cdef Session* s = self.s
        cdef bytes name, raw
        if self.closed:
            return
        l = self.asking_link()
        args, raw = self.head()
        name = args[0]
        if l == NULL or not l.up:
            if l != NULL and l.refusal != NULL:
                self.refuse(l.refusal[:l.refusal_len])
            else:
                s.stall = STALL_LINK
                session_mark(s)
                self.plane.settle()
            return
        if queue_asked(s, self.plane.table.find(name, len(name)), raw, len(raw)) < 0:
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
        l = self.asking_link()
        if l == NULL or not l.up:
            if l != NULL and l.refusal != NULL:
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
        if queue_asked(s, self.plane.table.find(name, len(name)), request, len(request)) < 0:
            self.close("memory")
            return
        self.sent_to_link()

    cdef Link* asking_link(self) except? NULL:
        """The link that takes what is asked for this client; a cluster's client is put on a branch.
        NULL: there is none yet."""
        cdef Session* s = self.s
        cdef Branches* b = <Branches*>s.branches
        if b == NULL or s.mode != MODE_SHARED:
            return s.link
        if branch_at(s, b.shards.any) != STALL_NONE or branch_waits(s, b.shards.any):
            return s.link if s.link != NULL and s.link.refusal != NULL else NULL
        return s.link

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

    def pass_on(self, bytes request):
        """Pinned: send this in the place of the request at the head, and go on."""
        if link_bytes(self.s.link, request, len(request)) < 0:
            self.close("memory")
            return
        if self.guard is not None:
            guard_passed(self.s, NULL, len(request))
        self.skip()
        self.go_on()

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
        self.s.proof_space = 0

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

    def join_shards(self, ShardLinks links):
        """Its requests go to the shards of a cluster from now on, on these links; None: they do not.
        No reply may be due to it."""
        session_leave(self.s)
        self.shard_links = links
        if links is not None and session_join(self.s, &links.shards) < 0:
            raise MemoryError

    @property
    def wanted_shard(self):
        """The number of the shard that its next request is for, as far as has been found; None: nobody
        has the slot."""
        cdef Branches* b = <Branches*>self.s.branches
        return None if b.wanted == NO_SHARD else b.wanted

    def shard_ahead(self):
        """The number of the shard of the first key that its unread requests name: None if they name none;
        -1: nobody has the slot."""
        cdef Scanner scan
        cdef Session* s = self.s
        cdef const char* p = buffer_head(&s.unread)
        cdef size_t n = buffer_size(&s.unread)
        cdef size_t at = 0
        cdef int slot, r
        cdef Command* c
        cdef KeySpan key
        while at < n:
            scanner_reset(&scan)
            slot = -1
            r = scan_request(&scan, p + at, n - at, &self.plane.core.limits, True)
            if r == SCAN_MORE and scan.argc > 0 and scan.left < scan.argc:
                c = self.plane.table.find(p + at + scan.name_at, scan.name_len)
                if key_in_part(c, p + at, n - at, &key):
                    slot = slot_of(key.p, key.n)
            elif r == SCAN_DONE:
                c = self.plane.table.find(p + at + scan.name_at, scan.name_len)
                slot = slot_for(c, p + at, scan.pos, &scan)
            if slot >= 0:
                shard = self.plane.slots.owner(slot)
                return -1 if shard is None else shard
            if r != SCAN_DONE:
                break
            at += scan.pos
        return None

    def ask_shards(self, requests, answered):
        """Send [(shard, request)] while the request at the head waits, and call `answered` with the
        replies, one after the other. No reply may be due. False: a link is not up, and nothing was
        sent."""
        cdef Session* s = self.s
        cdef bytes name, request
        cdef int shard
        if self.closed:
            return True
        for shard, request in requests:
            if branch_at(s, shard) != STALL_NONE or branch_waits(s, shard):
                return False
        name = self.head()[0][0]
        if self.keep() < 0 or self.closed:
            return True
        self.asked_at = buffer_size(&s.out)
        self.answered = answered
        for shard, request in requests:
            branch_at(s, shard)
            if branch_push(s, shard, self.plane.table.find(name, len(name)), request,
                           len(request)) < 0:
                self.close("memory")
                return True
        self.plane.feed_links()
        return True

    @property
    def encrypted(self):
        """Whether it speaks TLS."""
        return self.tls is not None

    @property
    def head_refused(self):
        """Whether the request at the head is refused, in a transaction that is not sent yet."""
        return self.guard is not None and self.guard.guard.head_refused

    @property
    def multi_unsent(self):
        """Whether MULTI has been answered, and has not been sent, since its keys are not known."""
        return self.s != NULL and self.s.multi_unsent

    @multi_unsent.setter
    def multi_unsent(self, bint yes):
        self.queued_unsent = None
        if self.s != NULL:
            self.s.multi_unsent = yes

    def use_dedicated(self, Upstream up, bint pinned=False, bint tainted=False, bint kept=False,
                      bytes first=b""):
        """Give the session a link of its own, on which its requests `first` are sent, and go on."""
        session_use(self.s, up.link, MODE_PINNED if pinned else MODE_DEDICATED)
        up.client = self
        up.link.tainted = tainted or pinned or kept
        self.s.kept = kept
        self.s.translates_ids = pinned and not self.server_ids
        up.watch_reading(True)
        if pinned and self.subscriptions is not None:
            up.follow(self.subscriptions)
        if first and link_bytes(up.link, first, len(first)) < 0:
            raise MemoryError
        if self.s.multi_unsent:
            self.begin_multi()
        else:
            self.go_on()

    cdef int begin_multi(self) except -1:
        """MULTI was answered before its shard was known, and so was what has been queued: send that now,
        and go on once the server has accepted it."""
        cdef Session* s = self.s
        cdef bytes name
        cdef bytes request
        s.multi_unsent = False
        if self.keep() < 0 or self.closed:
            return 0
        self.asked_at = buffer_size(&s.out)
        self.answered = self.multi_begun
        s.in_multi = True
        for name, request in [(b"multi", MULTI), *(self.queued_unsent or ())]:
            if link_push(s.link, s, self.plane.table.find(name, len(name)), request, len(request),
                         ENTRY_IN_MULTI) < 0:
                self.close("memory")
                return 0
        return self.sent_to_link()

    def multi_begun(self, bytes reply):
        """The server has answered MULTI, and what was queued. If it has refused any of it, nothing of the
        transaction may be executed: the client was told that it had begun."""
        queued, self.queued_unsent = self.queued_unsent or [], None
        if reply == b"+OK\r\n" + len(queued) * b"+QUEUED\r\n":
            self.go_on()
        else:
            lines = reply.splitlines(keepends=True)
            self.refuse_last(next((line for line in lines if line[:1] == b"-"), reply))

    def keep_link(self):
        """The link it has to itself stays its own for good."""
        if self.s.mode == MODE_DEDICATED:
            self.s.kept = self.s.link.tainted = True

    def redirect(self, uint64_t link, uint64_t number):
        """Its tracking is redirected to the link with this id on the server, which is that of the
        client with this number."""
        if self.s != NULL and self.s.mode != MODE_SHARED:
            self.s.redirect_link, self.s.redirect_client = link, number

    @property
    def redirected(self):
        """What `redirect` was told: two numbers; 0 for none."""
        if self.s == NULL:
            return 0, 0
        return self.s.redirect_link, self.s.redirect_client

    @property
    def queued(self):
        """How many commands its transaction has; None outside of one."""
        if self.s == NULL or self.s.mode != MODE_DEDICATED \
                or not self.s.link.transaction & STATE_IN_MULTI:
            return None
        return self.s.link.queued

    @property
    def rewrites_exec(self):
        """Whether `EXEC` of its present transaction is a session command."""
        return self.s != NULL and self.s.rewrites_exec

    def rewrite_exec(self, bint yes):
        """Have `EXEC` of its present transaction be a session command, or not."""
        self.s.rewrites_exec = yes

    def pin(self):
        """From here on bytes pass both ways on the link it has to itself; go on."""
        session_use(self.s, self.s.link, MODE_PINNED)
        self.s.link.tainted = True
        self.s.translates_ids = not self.server_ids
        self.go_on()

    @property
    def knows_our_ids(self):
        """Whether the ids of clients that it may name are the sidecar's, and not the server's."""
        return not self.server_ids

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
        if self.s == NULL:
            return 0
        return buffer_size(&self.s.unread) + buffer_size(&self.s.out) + self.kept_back()

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
                and self.kept_back() == 0
                and (self.s.mode == MODE_SHARED
                     or (self.s.kept and not session_in_transaction(self.s)))))
