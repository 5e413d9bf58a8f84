# cython: language_level=3
"""A link on its socket: sends what sessions have queued, and hands replies to the core.

A shared link outlives its sockets; a dedicated link ends with its socket. recovery.pyx decides what
the loss of a link means for each request; sidecar.proxy.links.shared connects it again.
"""
from libc.stdint cimport uint32_t

from sidecar.core.cluster.subscriptions cimport Subscriptions
from sidecar.core.link.replica_acks cimport link_receive_acked, link_seal
from sidecar.core.link.pending cimport link_free, link_new, link_push, link_sent
from sidecar.core.link.receive cimport link_receive
from sidecar.core.link.silence cimport Silence, link_silence
from sidecar.core.link.recovery cimport link_divert, link_fail, link_lost, link_move, link_send_elsewhere
from sidecar.core.memory cimport buffer_append, buffer_head, buffer_size
from sidecar.core.records cimport (Link, MODE_PINNED, Session, link_outstanding, link_demotion_over,
    link_unsent)
from sidecar.core.protocol.commands cimport ROUTE_BLOCKING, ROUTE_ONCE, ROUTE_WAIT
from sidecar.core.protocol.reply cimport framer_reset
from sidecar.core.session.mode cimport session_in_transaction
from sidecar.core.observe.trace_records cimport trace_sent
from sidecar.proxy.io.plane cimport PlaneConnection, Plane
from sidecar.proxy.io.reactor cimport ENDED, NOTHING_YET

cdef extern from "sys/socket.h" nogil:
    int shutdown(int fd, int how)
    int SHUT_WR

NOT_MASTER = "the server says that it is not the master"
ENDED_BY_SERVER = "the server closed the connection"


cdef class Upstream(PlaneConnection):
    """A link and, while it is up, its socket. A shared link outlives its sockets."""

    def __init__(self, Plane plane, owner, bint shared):
        self.plane = self.reactor = plane
        self.owner, self.shared = owner, shared
        self.link = link_new(&plane.core, <void*>self, shared)
        if self.link == NULL:
            raise MemoryError
        self.link.shard = -1

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

    def lead_to_shard(self, int number):
        """It leads to the shard of a cluster that has this number."""
        self.link.shard = number

    def load(self, requests):
        """Have its server load scripts before anything else that is sent on this link, which has just come
        up; nobody waits for the answers."""
        for request in requests:
            self.ask_first(request)
        self.flush()

    def known_as(self, uint32_t server):
        """Records of commands name the server of this link by this number."""
        self.link.server = server

    def refuse(self, bytes error):
        """The connection will not be there in time: requests that wait, and new ones, get this error.

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
        if n == NOTHING_YET:
            return 0
        if n == ENDED:
            self.lost(ENDED_BY_SERVER)
            return 0
        self.plane.stats.upstream_bytes_in += n
        self.plane.stamp()
        if self.subscriptions is not None:
            return self.receive_followed(self.plane.received, n)
        if self.client is not None and self.client.lines is not None:
            return self.receive_filtered(n)
        if self.plane.core.acks:
            n = link_receive_acked(self.link, self.plane.received, n)
        else:
            n = link_receive(self.link, self.plane.received, n)
        return self.judge_received(n)

    cdef int receive_filtered(self, Py_ssize_t n) except -1:
        cdef bytes kept = self.client.lines(self.plane.received[:n])
        return self.judge_received(link_receive(self.link, kept, len(kept)))

    # Subscribers of a cluster

    def follow(self, Subscriptions subscriptions):
        """Its pinned client's subscriptions are kept here from now on."""
        self.subscriptions = subscriptions
        self.noted = buffer_size(&self.link.out)

    cdef int note_sent(self) except -1:
        """Have the subscriptions see what the client has sent, and what has not been seen yet."""
        cdef Link* l = self.link
        self.subscriptions.note(buffer_head(&l.out) + self.noted, buffer_size(&l.out) - self.noted)
        self.noted = buffer_size(&l.out)
        self.subscriptions.note(l.borrowed, l.borrowed_len)
        if self.subscriptions.strange:
            self.follow_no_more()
        return 0

    cdef int follow_no_more(self) except -1:
        cdef object client = self.client
        cdef bint shared = self.subscriptions.is_shared
        self.subscriptions.hand_over(self.link)
        self.subscriptions = client.subscriptions = None
        if shared:
            self.plane.handler.subscriber_changed(client)
        return 0

    cdef int receive_followed(self, const char* p, Py_ssize_t n) except -1:
        cdef bint told = self.subscriptions.receive(self.link, p, n)
        cdef object client = self.client
        if self.subscriptions.strange:
            self.follow_no_more()
        elif self.subscriptions.waits():
            self.watch_reading(False)
        self.judge_received(0)
        if told and self.subscriptions is not None and self.client is client:
            self.plane.handler.subscriptions_taken(client, self)
        return 0

    def take(self, bytes data):
        """What the server has sent on its connection before that was attached."""
        self.plane.stamp()
        if self.closed or self.client is None:
            return
        if self.subscriptions is not None:
            self.receive_followed(data, len(data))
        else:
            self.judge_received(link_receive(self.link, data, len(data)))

    cdef int judge_received(self, Py_ssize_t n) except -1:
        if self.plane.notes != NULL and self.plane.notes.count:
            self.plane.tell_notes()
        self.plane.settle()
        if n < 0:
            self.lost("the server sent what nobody asked for")
        elif self.link.demoted and link_demotion_over(self.link):
            self.lost(NOT_MASTER)
        elif self.link.unsealed and not self.closed:
            self.flush()            # a reply has shown that a write was executed outside of MULTI
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
        if l.demoted:
            return 0
        if self.subscriptions is not None and self.client is not None:
            self.note_sent()
        if l.unsealed and not self.in_the_middle() and link_seal(l) < 0:
            self.lost("memory is out")
            return 0
        if l.borrowed_len:
            if not self.writing:
                k = self.send_now(l.borrowed, l.borrowed_len)
            if k >= 0:
                self.plane.stats.upstream_bytes_out += k
                if <size_t>k < l.borrowed_len \
                        and buffer_append(&l.out, l.borrowed + k, l.borrowed_len - k) < 0:
                    k = -1              # memory is out: what follows would be in its place
            l.borrowed = NULL
            l.borrowed_len = 0
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
        if l.records_unsent and not n:
            self.plane.stamp()
            trace_sent(l)
        self.noted = n
        if n:
            self.watch_writing(True)
        elif self.shut == 1:
            self.shut = 2
            shutdown(self.fd, SHUT_WR)
        return 0

    cdef void look(self, Silence* found) noexcept:
        link_silence(self.link, self.reading, found)

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
            if self.client is not None and not self.shut:
                self.shut = 2
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
        cdef Upstream kept = self       # whoever has found it out may have no reference of its own
        cdef PlaneConnection client = self.client
        cdef bint resumes = False
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
                if self.subscriptions is not None and not client.closed:
                    self.note_sent()
                    resumes = self.subscriptions is not None and client.leave_link()
                if not resumes and not client.closed:
                    client.drop_link()
                    client.finish()
            else:
                link_lost(self.link, False)
                client.s.outstanding = 0
                client.drop_link()
                client.finish()
        self.plane.settle()
        self.plane.handler.upstream_lost(self, reason)
        if resumes and not client.closed:
            self.plane.handler.subscriber_left(client, self, reason)
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

    def become_shared(self):
        """Make a shared link of this dedicated one, which is idle and carries no state."""
        cdef Link* l = self.link
        if not l.up or l.client != NULL or l.head != l.tail or l.tainted or link_unsent(l):
            raise ValueError("the link is in use")
        self.shared = l.shared = True
        l.sent = 0

    def divert_to(self, Upstream other):
        """Retire this shared link, which is held up: clients that wait for reads only go to
        `other`."""
        if link_divert(self.link, other.link) < 0:
            raise MemoryError
        other.flush()

    def leave(self):
        """The shard has gone to which this shared link leads: what may be sent again goes elsewhere."""
        if not self.closed:
            self.detach()
            self.plane.upstreams.discard(self)
            self.link.up = False
        link_lost(self.link, True)
        link_send_elsewhere(self.link)
        self.plane.settle()

    def retire(self):
        """Another link takes the place of this shared link: it carries what is under way to its end."""
        self.link.retired = True

    def move_to(self, Upstream other):
        """This shared link was lost: let what may be sent again wait on `other` instead."""
        if link_move(self.link, other.link) < 0:
            raise MemoryError
        if other.link.up:
            other.flush()

    def give_up(self):
        """End it, since serving it has raised an error: what was under way is judged as after any loss."""
        self.lost("an internal error")

    def break_off(self, str reason):
        """Treat the connection as lost (it is silent, or talks to the wrong server)."""
        self.lost(reason)

    def ask_first(self, bytes request):
        """Queue a request of the sidecar's own before the first of a client's; its reply is
        dropped."""
        if link_push(self.link, NULL, self.plane.table.commands, request, len(request), 0) < 0:
            raise MemoryError

    def log_in(self, bytes request):
        """Queue an AUTH of the sidecar's own, whose reply is dropped, between two requests. Not where a
        client's replies are not matched with its requests, nor inside of a transaction."""
        if not self.closed and not self.link.demoted and not self.in_the_middle():
            self.ask_first(request)
            self.flush()

    @property
    def demoted(self):
        """Whether its server has said that it is not the master (any more)."""
        return self.link.demoted

    @property
    def cautious(self):
        """Whether what the server may hold back goes on other links: the one before is held up."""
        return self.link.cautious

    @cautious.setter
    def cautious(self, bint yes):
        self.link.cautious = yes

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
    def between_replies(self):
        """Whether the pinned client of this link has been given whole replies and messages only: something
        else may come next."""
        cdef Link* l = self.link
        return l.raw and not l.unframed and l.head == l.tail and l.reply_start_len == 0 \
            and buffer_size(&l.error_line) == 0

    @property
    def outstanding(self):
        """Replies due on this link."""
        return link_outstanding(self.link)

    @property
    def under_way(self):
        """What is under way on this link: "replies", "transaction" (or WATCH), "streaming" (the rest of
        a large request is still to come), "blocked" (nobody knows when the reply comes), "raw"
        (requests of a pinned client without a reply, as far as can be told); "" if nothing is."""
        cdef Link* l = self.link
        cdef Session* s = l.client
        cdef uint32_t at = l.head
        cdef int route
        if l.raw:
            return "raw" if l.raw_requests_due and not l.unframed else ""
        if s != NULL and s.streaming:
            return "streaming"
        if s != NULL and session_in_transaction(s):
            return "transaction"
        if at == l.tail:
            return ""
        while at != l.tail and l.ring[at & l.mask].session == NULL:
            at += 1                     # the sidecar's own requests stand before the client's
        if not self.shared and at != l.tail:
            route = l.ring[at & l.mask].route
            if route == ROUTE_BLOCKING or route == ROUTE_WAIT or route == ROUTE_ONCE:
                return "blocked"
        return "replies"

    @property
    def received(self):
        """Bytes received since the start: whether it moves tells silence."""
        return self.link.received_bytes

    @property
    def up(self):
        """Whether it has a connection."""
        return self.link.up

    @property
    def tainted(self):
        """Whether it carries a former client's state."""
        return self.link.tainted
