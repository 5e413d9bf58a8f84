"""Giving a client's replies the names that it knows (see replies.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.reply cimport Framer
from sidecar.core.rewrite.rules cimport RewriteRules
from sidecar.core.rewrite.walk cimport Walk

cdef enum Due:
    # What the server's next reply is, by the requests that were passed on.
    DUE_SAME = 0            # so many replies without names
    DUE_SHAPED = 1          # names stand where the shape says
    DUE_REFUSED = 2         # an error, in the place of which the client gets one of ours
    DUE_CONFIRMED = 3       # so many confirmations; 0: one for each subscription of the kind
    DUE_MULTI = 4
    DUE_EXEC = 5
    DUE_DISCARD = 6
    DUE_LOGIN = 7           # what the client sends behind it waits for it
    DUE_RESET = 8           # likewise
    DUE_RANDOM = 9          # likewise: of a SCAN, in the place of RANDOMKEY
    DUE_DROPPED = 10        # the client gets nothing
    DUE_RAW = 11            # from here on everything passes as it is

cdef enum Channel:          # kinds of subscriptions
    CHANNELS = 0
    PATTERNS = 1
    SHARD_CHANNELS = 2
    KINDS = 3

cdef struct Expected:
    uint8_t due
    uint8_t which           # Shape, or of confirmations the Channel
    uint32_t count

cdef class ReplyRewriter:
    cdef RewriteRules rules
    cdef RewriteRules later     # those that hold behind the login that is under way; None: the same
    cdef Expected* ring
    cdef uint32_t mask
    cdef uint32_t head
    cdef uint32_t tail
    cdef object errors          # for DUE_REFUSED, in order
    cdef Framer framer
    cdef Buffer held            # a reply or message that is to be whole before it is given out
    cdef bint holding
    cdef bint in_reply          # the framer is inside of one
    cdef bint raw
    cdef int64_t subscribed[KINDS]
    cdef char confirmed_by      # the first byte of the latest confirmation
    cdef bint in_multi          # the server has accepted MULTI
    cdef bint names_in_exec     # some of the commands queued have names in their replies
    cdef Buffer queued          # the shapes of the commands queued
    cdef bint passed            # what DUE_LOGIN or DUE_RESET was said of is answered
    cdef uint64_t chance
    cdef int protocol           # RESP2 or 3
    cdef bytes cursor           # of RANDOMKEY: where to scan on; None: it is answered
    cdef bint from_start        #   whether it has been scanned from the start

    cdef int expect(self, int due, int which=*, uint32_t count=*) except -1
    cdef int refuse(self, bytes error) except -1
    cdef int feed(self, const char* p, size_t n, Buffer* out) except -1
    cdef bytes random_cursor(self, bint from_start)
    cdef uint64_t draw(self) noexcept
    cdef Expected* first(self) noexcept
    cdef int begin(self, char kind) except -1
    cdef int end(self, int framed, const char* p, size_t n, Buffer* out) except -1
    cdef int take(self, const char* p, size_t n, Buffer* out) except -1
    cdef int next(self) except -1
    cdef int end_multi(self) except -1
    cdef int queue(self, int shape) except -1
    cdef int give_exec(self, const char* p, size_t n, Buffer* out) except -1
    cdef int give_shaped(self, const char* p, size_t n, int shape, Buffer* out) except -1
    cdef int give_random(self, const char* p, size_t n, Buffer* out) except -1
    cdef int message(self, const char* p, size_t n, Buffer* out) except -1
    cdef bint give_message(self, Walk* w) except -1
    cdef int confirmed(self, int kind, int64_t count, bint more, char by) except -1
