"""Records of single commands: those that are sampled, slow or failed (see trace_records.pyx).

    trace_skip counts down to the next one that is sampled      every command, in dispatch.pyx
    trace_begin(...)    its record is begun, and its entry gets the record's number
    trace_answered(...) the entry was answered, and it has a record, was slow, or failed
    trace_ready, trace_failed, trace_refused                    answers made here
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Core, Entry, Link, Session

cdef enum:
    TRACES_OPEN = 255       # begun and not answered: as many as an entry's number can tell apart
    TRACES_KEPT = 1024      # finished, until the shell takes them
    TRACE_KEY = 128         # of a longer key only the beginning is kept
    TRACE_ERROR = 24
    TRACE_CONTEXT = 24      # trace id and span id of the application

cdef enum TraceWhy:
    TRACE_SAMPLED = 1
    TRACE_SLOW = 2
    TRACE_FAILED = 4

cdef enum TraceFlag:
    TRACE_CACHED = 1        # answered from the near cache
    TRACE_FILLED = 2        # for which it was read from the server first
    TRACE_WAITED = 4        # held before it could be put on a link
    TRACE_RESENT = 8        # its connection was lost, and it was put on another one
    TRACE_LOCAL = 16        # answered here: no server has seen it
    TRACE_SHARED = 32       # on a shared link
    TRACE_HAS_CONTEXT = 64

cdef enum Traced:           # Session.traced; 0: nothing but the sampler looks at its commands
    TRACED_CONTEXT = 1      # the application has named the trace that its commands belong to
    TRACED_FOLLOW = 2       # and wants them in it
    TRACED_WAITED = 4       # the command at the head has waited since Session.waiting_since
    TRACED_PICKED = 8       # and was picked by the sampler
    TRACED_FILL = 16        # and waited for the near cache

cdef struct Trace:
    uint64_t start          # the request was read; this and what follows: microseconds, Core.clock
    uint64_t queued         # it was put on a link; 0: it never was
    uint64_t sent           # it had been given to the socket; 0: not known
    uint64_t end            # the reply was there
    uint64_t client
    void* link              # it was put on; to be compared, never followed
    uint32_t server
    uint32_t db
    uint32_t request        # bytes
    uint32_t reply
    uint32_t key_size
    uint16_t command
    uint8_t why
    uint8_t flags
    char error[TRACE_ERROR] # first word of an error reply, ends with 0
    uint8_t context[TRACE_CONTEXT]
    char key[TRACE_KEY]

cdef struct Tracer:
    const Command* commands
    double share            # of the commands that is sampled
    bint failed             # whether failed ones are kept
    bint keys               # whether the first key is
    uint32_t allowed        # records that may be begun until the shell allows more
    uint32_t reserve        # of those, for slow and failed ones
    uint64_t random
    uint64_t counts[3]      # sampled, slow, failed
    uint64_t dropped        # not recorded, since too many were
    uint32_t cursor
    uint64_t full_at        # when none of the open ones was free; 0: there may be one
    uint8_t used[TRACES_OPEN]
    Trace open[TRACES_OPEN]
    uint32_t head
    uint32_t tail
    Trace kept[TRACES_KEPT]

cdef void trace_draw(Core* core) noexcept nogil
cdef int trace_begin(Core* core, Session* s, const Command* c, const char* p, size_t n,
                     uint32_t since, uint8_t flags, bint sampled) noexcept nogil
cdef void trace_queued(Core* core, int slot, Link* l, Entry* e) noexcept nogil
cdef void trace_local(Core* core, int slot, size_t size) noexcept nogil
cdef void trace_drop(Core* core, int slot) noexcept nogil
cdef void trace_answered(Link* l, const Entry* e, Session* s, size_t at, const char* p, size_t n,
                         size_t size, bint error) noexcept nogil
cdef void trace_ready(Link* l, const Entry* e) noexcept nogil
cdef void trace_failed(Link* l, const Entry* e, const char* error, size_t n) noexcept nogil
cdef void trace_refused(Core* core, Session* s, const Command* c, const char* p, size_t n,
                        const char* error, size_t size) noexcept nogil
cdef void trace_sent(Link* l) noexcept nogil
cdef void trace_moved(Link* l, const Entry* e) noexcept nogil
cdef void trace_waits(Session* s, bint fill) noexcept nogil

cdef class Traces:
    cdef Tracer* tracer     # never NULL, and never another one
    cdef object table       # borrowed from: keeps `commands` alive
