"""A client on its socket (see client_socket.pyx)."""
from libc.stdint cimport uint32_t
from sidecar.core.cluster.subscriptions cimport Subscriptions
from sidecar.core.guard.guard cimport ClientGuard
from sidecar.proxy.io.rewriting cimport RewritingConnection

cdef class ClientSocket(RewritingConnection):
    cdef readonly long long id
    cdef readonly bint finishing
    cdef bint retiring
    cdef bint parsed            # requests have just been parsed, and nothing of theirs sent since
    cdef public object identity
    cdef public str principal       # who it is to the sidecar (session/principals.py); empty: not known
    cdef public str listener_policy     # the command policy that its listener names; empty: none
    cdef public object restricted_as    # what it has together with others (session/guards.py)
    cdef readonly ClientGuard guard     # what restricts it; None: nothing does
    cdef public str first_principal     # who it is after RESET, by its certificate or user
    cdef public object in_exec  # what is changed in the reply to EXEC (session/in_exec.py)
    cdef public Subscriptions subscriptions     # of a cluster's subscriber: its link may change
    cdef public list queued_unsent  # of a transaction that is not sent yet: what has been queued, by name
    cdef public object name
    cdef public object lib_name
    cdef public object lib_version
    cdef public object task
    cdef public object peer
    cdef readonly double since
    cdef bint server_ids        # session pooling: ids are the server's own
    cdef public bint passed_login   # pinned, and AUTH or HELLO has passed: its user is not known
    cdef readonly object local
    cdef object answered        # called with the reply to what was asked for it; None: nothing was
    cdef uint32_t due_when_closed   # replies that were due when it was closed
    cdef size_t asked_at        # where that reply begins among the unsent ones
    cdef unsigned long long sent        # bytes, to the client

    cdef int take_answer(self) except -1
    cdef bint more_to_come(self, bint parsed) noexcept
    cdef bint others_reply(self) noexcept
    cdef int wait_for_others(self) except -1
    cdef int keep(self) except -1
    cdef int gather(self) except -1
    cdef int sent_to_link(self) except -1
    cdef int give_back(self) except -1
    cdef int leave_node(self) except -1
    cdef int turn_back(self) except -1
    cdef int next_reading(self) except -1
    cdef int read_on(self) except -1
    cdef int go_on(self) except -1
    cdef int has_parsed(self) except -1
    cdef bint never_answered(self) noexcept
    cdef bint waits_for_its_time(self) noexcept
    cdef bint gave_up(self) noexcept
    cdef int end_of_input(self) except -1
    cdef int protocol_error(self) except -1
    cdef int serve_stall(self) except -1
    cdef int see_to_limits(self) except -1
    cdef bint end_if_over(self) except -1
