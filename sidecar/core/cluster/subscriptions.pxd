"""What a client of a cluster has subscribed to (see subscriptions.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.commands cimport Command, CommandTable
from sidecar.core.protocol.request cimport Limits, Scanner
from sidecar.core.records cimport Link, Session

cdef enum Kind:
    # What a request asks for, and what a confirmation confirms.
    NO_KIND = 0
    SUBSCRIBE = 1
    PSUBSCRIBE = 2
    SSUBSCRIBE = 3
    UNSUBSCRIBE = 4
    PUNSUBSCRIBE = 5
    SUNSUBSCRIBE = 6
    MESSAGE = 7

# A request whose answer is not whole; its bytes follow.
cdef struct Due:
    uint32_t size
    uint32_t answered       # confirmations that have come
    uint32_t wanted         # and that are to come; 0: it is not known yet
    unsigned char kind
    bint all                # SUNSUBSCRIBE of all channels
    bint again              # it may be sent once more

cdef int kind_told(const char* p, size_t n) noexcept nogil

cdef class Subscriptions:
    cdef CommandTable table
    cdef char mark          # with which messages begin
    cdef Limits limits
    cdef Scanner scan
    cdef readonly set channels, patterns, sharded
    cdef readonly set away      # those of `sharded` that other links of the client have
    cdef bint whole             # other links give it messages as well: none is given out in part
    cdef readonly bint strange  # it has sent what other requests are needed for to make up for it
    cdef Buffer asked       # a request of which the rest is to come
    cdef Buffer due         # the Dues, oldest first
    cdef uint32_t due_count
    cdef bint begun         # it has asked for something
    cdef Buffer rest        # the beginning of what the server is sending
    cdef bint in_part       # that beginning was large, and has been given out
    cdef bytes swallowed    # confirmations of the server's own that the client has not been given
    cdef readonly bytes refusal     # the redirection that has answered the oldest request; None: none has
    cdef Buffer held            # what the server has sent behind that
    cdef bytes instead          # what the client is given in the place of a confirmation
    cdef bint withheld          # the reply that has just been taken in is not for the client
    cdef bint news              # there is something for the shell to do

    cdef bint over(self) noexcept
    cdef int note(self, const char* p, size_t n) except -1
    cdef int note_request(self, const char* p, size_t n) except -1
    cdef int receive(self, Link* l, const char* p, size_t n) except -1
    cdef bint waits(self) noexcept
    cdef int hold(self, const char* p, size_t n) except -1
    cdef int give(self, Link* l, const char* p, size_t n, int kind) except -1
    cdef int say_instead(self, Link* l, int kind) except -1
    cdef int hand_over(self, Link* l) except -1
    cdef bint sums(self, int kind, object name, Due* d) except -1
    cdef bytes without_away(self)
    cdef bytes not_in_this_mode(self)
    cdef bint passes(self, Session* s, const char* p, size_t n) except -1
    cdef bint confirmed(self, int kind, const char* p, size_t n) except -1
    cdef bint answered(self, Session* s, const char* p, size_t n) except -1
    cdef set names_of(self, int kind)
    cdef bint only_asks_for_shards(self) noexcept
    cdef Due oldest(self) noexcept
    cdef void drop_due(self) noexcept
