# cython: language_level=3
"""The core as Python sees it, without sockets: for tests and fuzzing only.

A Loopback owns what a plane owns (one core, its counters, sessions and links) and does with
them what the plane does, but for I/O: bytes a client sent are fed in, bytes for the server are
taken out in pieces of any size, and so on. Sessions and links are known by number. Policy is the
caller's: a Loopback never connects, closes or answers anything of its own accord.

    feed(session, bytes)     -> core -> link_output(link, n)
    link_receive(link, bytes) -> core -> take(session)

The bytes given to a call are gone when it returns, as a receive buffer would be: what the core
remembers by pointer (`borrowed`) is copied before that.
"""
cimport cython
from libc.stdint cimport uint32_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from sidecar.core.link.barrier cimport barriers_abandon
from sidecar.core.guard.guard cimport ClientGuard, guard_settle
from sidecar.core.link.replica_acks cimport link_receive_acked, link_seal
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.link.pending cimport link_free, link_local, link_new, link_push, link_sent
from sidecar.core.link.receive cimport link_receive
from sidecar.core.link.receiver cimport session_drop, session_new, session_say
from sidecar.core.records cimport (LARGEST_WINDOW, Core, Link, MODE_DEDICATED, MODE_PINNED, MODE_SHARED, Session,
    HOLD_ALL, HOLD_WRITES, STALL_NONE, STALL_SHELL, link_outstanding, link_demotion_over, link_unsent)
from sidecar.core.link.recovery cimport link_divert, link_fail, link_lost, link_move
from sidecar.core.memory cimport (buffer_append, buffer_drop, buffer_head, buffer_release,
    buffer_size)
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.protocol.request cimport (SCAN_DONE, SCAN_INLINE, Scanner, error_text, scan_request,
    scanner_reset)
from sidecar.core.protocol.request import normalise_inline, split_arguments
from sidecar.core.session.feed cimport session_feed, session_ready, session_resume
from sidecar.core.session.mode cimport session_may_give_back, session_use
from sidecar.core.stats cimport BUCKETS, Stats
from sidecar.core.observe.audit_notes cimport Note, Notes
from sidecar.core.observe.trace_records cimport (TRACED_CONTEXT, TRACED_FOLLOW, TRACE_CONTEXT, Traces, trace_draw,
    trace_sent)

STALLS = ("nothing", "link", "dedicated", "once", "pin", "session_command", "wait_command", "protocol_error", "hang_up",
         "room", "shell", "held", "fill", "replies", "heavy", "limit")
WAIT = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n100\r\n"
MODES = ("shared", "dedicated", "pinned")


class LinkError(Exception):
    """The core wants this link closed: the bytes received are not replies to what was asked."""


@cython.no_gc_clear
cdef class Loopback:
    """One core with its sessions and links.

    Sizes have the plane's meaning: requests beyond `request_buffer` are streamed; a link with
    more than `link_pause` unsent, or a session with more than `output_pause` unread, takes no
    more for now. With `follows`, a link is demoted when its server says that it is not the master; with
    `acks`, writes are answered once that many replicas have them.
    """
    def __cinit__(self, CommandTable table, *, size_t request_buffer=65536,
                  size_t link_pause=1 << 30, size_t output_pause=1 << 30,
                  long long max_bulk=512 * 1024 * 1024, bint follows=False, int acks=0):
        self.stats = <Stats*>calloc(1, sizeof(Stats))
        if self.stats == NULL:
            raise MemoryError
        self.table = table
        self.sessions, self.links, self.homes, self.refusals = {}, {}, {}, {}
        self.marked = []
        self.core.stats = self.stats
        self.core.request_buffer = request_buffer
        self.core.new_session_window = LARGEST_WINDOW
        self.core.link_pause = link_pause
        self.core.output_pause = output_pause
        self.core.limits.bulk = max_bulk
        self.core.limits.count = 2147483647
        self.core.limits.unauth_bulk = 16384
        self.core.limits.unauth_count = 10
        self.core.master_may_change, self.core.acks = follows, acks
        self.core.ack_request = WAIT
        self.core.ack_request_len = len(WAIT)
        self.core.ack_command = table.find(b"wait", 4)

    def __dealloc__(self):
        cdef size_t address
        for address in self.links.values():
            link_fail(<Link*>address, b"", 0)
        self.settle()
        for address in self.sessions.values():
            session_drop(<Session*>address)
        for address in self.links.values():
            link_free(<Link*>address)
        free(self.stats)
        free(self.notes)

    cdef Session* session(self, Py_ssize_t number) except NULL:
        cdef size_t address = self.sessions[number]
        return <Session*>address

    cdef Link* link(self, Py_ssize_t number) except NULL:
        cdef size_t address = self.links[number]
        return <Link*>address

    cdef int settle(self) except -1:
        """Copy what lies in the caller's bytes; note who was marked; free who has gone."""
        cdef Session* s
        while self.core.dirty != NULL:
            s = self.core.dirty
            self.core.dirty = s.next_dirty
            s.dirty = False
            if s.owner == NULL:
                if s.outstanding == 0:
                    session_drop(s)
                continue
            if s.borrowed_len:
                if buffer_append(&s.out, s.borrowed, s.borrowed_len) < 0:
                    s.must_close = True
                s.borrowed = NULL
                s.borrowed_len = 0
            if <Py_ssize_t>s.owner not in self.marked:
                self.marked.append(<Py_ssize_t>s.owner)
        return 0

    cdef int settle_link(self, Link* l) except -1:
        if l != NULL and l.borrowed_len:
            if buffer_append(&l.out, l.borrowed, l.borrowed_len) < 0:
                raise MemoryError
            l.borrowed = NULL
            l.borrowed_len = 0
        return 0

    # Time and counters.

    def set_now(self, uint32_t microseconds):
        """The time that follows, in microseconds; it wraps."""
        self.core.clock += <uint32_t>(microseconds - self.core.now)
        self.core.now = microseconds

    def use_traces(self, Traces traces, uint32_t slow):
        """Record commands here; those that take `slow` microseconds or more are slow."""
        self.traces = traces
        self.core.tracer = <void*>traces.tracer
        self.core.slow_from = slow
        trace_draw(&self.core)

    def join_trace(self, Py_ssize_t session, bytes context, bint sampled):
        """What a session's commands belong to: trace id and span id."""
        cdef Session* s = self.session(session)
        if len(context) != TRACE_CONTEXT:
            raise ValueError("context")
        memcpy(s.trace_context, <const char*>context, TRACE_CONTEXT)
        s.traced |= TRACED_CONTEXT | (TRACED_FOLLOW if sampled else 0)

    def use_notes(self):
        """Note audited commands, and those that are refused, from now on."""
        self.notes = <Notes*>calloc(1, sizeof(Notes))
        if self.notes == NULL:
            raise MemoryError
        self.notes.refusals = True
        self.core.audit = self.notes

    def take_notes(self):
        """(session, command, second word) of each command noted since the last call."""
        cdef Note* note
        cdef int i
        found = []
        for i in range(self.notes.count):
            note = self.notes.notes + i
            found.append((<Py_ssize_t>note.owner, self.table.name(note.command),
                          note.second[:note.second_len]))
        self.notes.count = 0
        return found

    def counters(self):
        """The counters, by name; calls by command, latency buckets and errors by family."""
        cdef Stats* st = self.stats
        cdef int i, b
        names = self.table.families
        return {
            "client_bytes_in": st.client_bytes_in, "uncertain": st.uncertain,
            "errors_local": st.errors_local,
            "calls": {self.table.name(i): st.calls[i]
                      for i in range(self.table.count) if st.calls[i]},
            "errors": {names[i]: st.errors[i] for i in range(len(names)) if st.errors[i]},
            "latency": {names[i]: [st.latency[i].counts[b] for b in range(BUCKETS)]
                        for i in range(len(names)) if st.latency[i].sum_us
                        or any([st.latency[i].counts[b] for b in range(BUCKETS)])},
            "sum_us": sum([st.latency[i].sum_us for i in range(len(names))]),
        }

    def take_marked(self):
        """The sessions marked since the last call, each once."""
        found = self.marked
        self.marked = []
        return found

    # Sessions.

    def add_session(self, link=None, *, bint authenticated=True):
        """A new client, on this shared link if one is given: its number."""
        cdef Session* s
        self.last += 1
        s = session_new(&self.core, <void*>self.last)
        if s == NULL:
            raise MemoryError
        s.authenticated = authenticated
        s.client_number = self.last
        self.sessions[self.last] = <size_t>s
        if link is not None:
            s.link = self.link(link)
        self.homes[self.last] = link
        return self.last

    def use_shared(self, Py_ssize_t session, Py_ssize_t link):
        """Put a session that has nothing outstanding on a shared link."""
        cdef Session* s = self.session(session)
        session_use(s, self.link(link), MODE_SHARED)
        self.homes[session] = link

    def use_dedicated(self, Py_ssize_t session, Py_ssize_t link, bint pinned=False):
        """Give a session a link of its own. `resume` goes on."""
        cdef Session* s = self.session(session)
        session_use(s, self.link(link), MODE_PINNED if pinned else MODE_DEDICATED)

    def may_give_back(self, Py_ssize_t session):
        """Whether the need for the dedicated link has passed."""
        return session_may_give_back(self.session(session))

    def give_back(self, Py_ssize_t session):
        """Take the link of its own from a session and put it back on its shared link."""
        cdef Session* s = self.session(session)
        cdef Link* l = s.link
        if s.mode == MODE_PINNED:
            barriers_abandon(l, l.head, l.tail)
            l.head = l.tail
            s.outstanding = 0
        home = self.homes[session]
        session_use(s, NULL if home is None else self.link(home), MODE_SHARED)

    def restrict(self, Py_ssize_t session, ClientGuard guard):
        """Judge what a session sends by this guard, which the caller keeps."""
        self.session(session).guard = &guard.guard

    def settle_limits(self, Py_ssize_t session):
        """Nothing is due to a session, which has a guard."""
        guard_settle(self.session(session))

    def feed(self, Py_ssize_t session, bytes data):
        """Bytes from the client."""
        cdef Session* s = self.session(session)
        if session_feed(s, self.table, data, len(data)) < 0:
            raise MemoryError
        self.settle_link(s.link)
        self.settle()

    def resume(self, Py_ssize_t session):
        """What was wanted has been done: go on with what has been read."""
        cdef Session* s = self.session(session)
        s.stall = STALL_NONE
        if session_resume(s, self.table) < 0:
            raise MemoryError
        self.settle_link(s.link)
        self.settle()

    def drop(self, Py_ssize_t session):
        """The client has gone."""
        cdef Session* s = self.session(session)
        if s.mode != MODE_SHARED and s.link != NULL:
            s.link.client = NULL
            barriers_abandon(s.link, s.link.head, s.link.tail)
            s.link.head = s.link.tail
            s.outstanding = 0
        session_drop(s)
        del self.sessions[session]
        if session in self.marked:
            self.marked.remove(session)

    def take(self, Py_ssize_t session):
        """Everything there is to send to this client."""
        cdef Session* s = self.session(session)
        data = buffer_head(&s.out)[:buffer_size(&s.out)] if buffer_size(&s.out) else b""
        buffer_release(&s.out)
        return data

    def say(self, Py_ssize_t session, bytes reply):
        """Append a reply made by the caller."""
        session_say(self.session(session), reply, len(reply))
        self.settle()

    def say_behind(self, Py_ssize_t session, bytes reply):
        """A reply made by the caller, behind those that the session still waits for."""
        cdef Session* s = self.session(session)
        if s.outstanding == 0:
            self.say(session, reply)
        elif link_local(s.link, s, reply, len(reply)) < 0:
            raise MemoryError

    def head(self, Py_ssize_t session):
        """The whole request at the head of what has been read: (arguments, bytes of it), or
        None."""
        cdef Session* s = self.session(session)
        cdef Scanner scan
        cdef int r
        if buffer_size(&s.unread) == 0:
            return None
        scanner_reset(&scan)
        r = scan_request(&scan, buffer_head(&s.unread), buffer_size(&s.unread), &self.core.limits, True)
        if r != SCAN_DONE and r != SCAN_INLINE:
            return None
        raw = buffer_head(&s.unread)[:scan.pos]
        return split_arguments(normalise_inline(raw) if r == SCAN_INLINE else raw), scan.pos

    def skip(self, Py_ssize_t session, size_t size):
        """Drop this many bytes at the head: the caller has answered them."""
        cdef Session* s = self.session(session)
        s.traced &= TRACED_CONTEXT | TRACED_FOLLOW
        buffer_drop(&s.unread, size)

    def stall(self, Py_ssize_t session):
        """What its parsing waits for, one of WANTS."""
        return STALLS[self.session(session).stall]

    def ready(self, Py_ssize_t session):
        """Whether what it wants may be done now."""
        return session_ready(self.session(session))

    def mode(self, Py_ssize_t session):
        """One of MODES."""
        return MODES[self.session(session).mode]

    def outstanding(self, Py_ssize_t session):
        """Replies due to it."""
        return self.session(session).outstanding

    def unread(self, Py_ssize_t session):
        """Bytes from the client that lie here unparsed, or parsed in part."""
        return buffer_size(&self.session(session).unread)

    def must_close(self, Py_ssize_t session):
        """Whether its replies can't be mended any more."""
        return self.session(session).must_close

    def was_reset(self, Py_ssize_t session):
        """Whether the reply to its RESET has passed (pinned)."""
        cdef Session* s = self.session(session)
        return s.link != NULL and s.link.reset_passed

    def redirect(self, Py_ssize_t session, unsigned long long link, unsigned long long number):
        """Its tracking is redirected to this link (by its id), of the client of this number."""
        cdef Session* s = self.session(session)
        s.redirect_link, s.redirect_client = link, number

    def set_authenticated(self, Py_ssize_t session, bint yes):
        """Whether the tighter limits before authentication are off."""
        self.session(session).authenticated = yes

    def error(self, Py_ssize_t session):
        """The error reply for a session that wants "error"."""
        cdef Session* s = self.session(session)
        return error_text(s.scan.error, s.scan.found)

    # Links.

    def add_link(self, *, bint shared=True, bint up=True):
        """A new link: its number."""
        cdef Link* l
        self.last += 1
        l = link_new(&self.core, <void*>self.last, shared)
        if l == NULL:
            raise MemoryError
        l.up = up
        self.links[self.last] = <size_t>l
        return self.last

    def close_link(self, Py_ssize_t link):
        """Forget a link that no session uses. What is due on it has been answered or failed."""
        cdef Link* l = self.link(link)
        if link_outstanding(l) or l.client != NULL:
            raise ValueError("the link is in use")
        link_free(l)
        del self.links[link]

    def ask_first(self, Py_ssize_t link, bytes request):
        """Queue a request nobody waits for: its reply is dropped."""
        if link_push(self.link(link), NULL, self.table.commands, request, len(request), 0) < 0:
            raise MemoryError

    def link_output(self, Py_ssize_t link, size_t most):
        """Up to `most` bytes for the server; they count as sent."""
        cdef Link* l = self.link(link)
        cdef size_t n
        if l.sent > buffer_size(&l.out):
            raise AssertionError("more was sent than there is")
        n = link_unsent(l)
        if n > most:
            n = most
        if n == 0:
            return b""
        data = (buffer_head(&l.out) + l.sent)[:n]
        link_sent(l, n)
        if l.records_unsent and link_unsent(l) == 0:
            trace_sent(l)
        return data

    def hold_writes(self, bint yes):
        """Whether what may change data waits ("held"); who waits is resumed by the caller."""
        self.hold(HOLD_WRITES, yes)

    def hold_all(self, bint yes):
        """Whether everything waits that belongs to no open transaction."""
        self.hold(HOLD_ALL, yes)

    cdef int hold(self, uint8_t what, bint yes) except -1:
        if yes:
            self.core.holds |= what
        else:
            self.core.holds &= 0xff ^ what
            self.core.hold_round += 1
        return 0

    def seal(self, Py_ssize_t link):
        """With `acks`: what is queued is about to be sent. Nothing happens in the middle of a
        transaction or of a large request, where no request of the sidecar's own may follow."""
        cdef Link* l = self.link(link)
        cdef Session* s = l.client
        if not (l.raw or (s != NULL and (s.in_multi or s.streaming))) and link_seal(l) < 0:
            raise MemoryError

    def turn_over(self, Py_ssize_t link):
        """Whether the link is demoted, and all that was sent on it is judged."""
        return link_demotion_over(self.link(link))

    def demoted(self, Py_ssize_t link):
        """Whether its server has stopped being the master."""
        return self.link(link).demoted

    def link_move(self, Py_ssize_t old, Py_ssize_t link):
        """Let what is left on `old`, which was lost, wait on `link` instead."""
        if link_move(self.link(old), self.link(link)) < 0:
            raise MemoryError
        for session, home in self.homes.items():
            if home == old:
                self.homes[session] = link

    def link_receive(self, Py_ssize_t link, bytes data):
        """Bytes from the server. LinkError: close it."""
        cdef Link* l = self.link(link)
        cdef int r
        if self.core.acks:
            r = link_receive_acked(l, data, len(data))
        else:
            r = link_receive(l, data, len(data))
        self.settle()
        if r < 0:
            raise LinkError

    def link_lost(self, Py_ssize_t link, bint resend=True):
        """Its connection has broken; `link_up` when there is another."""
        cdef Link* l = self.link(link)
        l.up = False
        link_lost(l, resend)
        self.settle()

    def divert(self, Py_ssize_t old, Py_ssize_t link):
        """`old` is held up: move to `link` who waits on it for reads only."""
        if link_divert(self.link(old), self.link(link)) < 0:
            raise MemoryError
        for session, home in self.homes.items():
            if home == old and self.sessions.get(session) is not None \
                    and self.session(session).link == self.link(link):
                self.homes[session] = link

    def link_up(self, Py_ssize_t link):
        """It has a connection again. Who waits for it is resumed by the caller."""
        cdef Link* l = self.link(link)
        l.up = True
        l.refusal = NULL
        framer_reset(&l.framer)

    def refuse(self, Py_ssize_t link, bytes error):
        """There will be no connection in time: what waits, and what comes, gets this error."""
        cdef Link* l = self.link(link)
        self.refusals[link] = error
        l.up = False
        l.refusal = error
        l.refusal_len = len(error)
        link_fail(l, error, len(error))
        self.settle()

    def link_outstanding(self, Py_ssize_t link):
        """Replies due on it."""
        return link_outstanding(self.link(link))

    def link_unsent(self, Py_ssize_t link):
        """Bytes not yet taken with link_output."""
        return link_unsent(self.link(link))

    def link_of(self, Py_ssize_t session):
        """The number of the link a session is on, or None."""
        cdef Link* l = self.session(session).link
        return None if l == NULL else <Py_ssize_t>l.owner

    def kept(self, Py_ssize_t session):
        """Whether its dedicated link is its own for good."""
        return self.session(session).kept

    def tainted(self, Py_ssize_t link):
        """Whether it carries state of its client."""
        return self.link(link).tainted
