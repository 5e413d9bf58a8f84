"""A client of a cluster: its records at the shards, and whose reply comes next (see branches.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from sidecar.core.memory cimport buffer_size
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.reply cimport Framer
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Link, Session

cdef struct Shards:         # of one identity; the shell's
    Link** links            # its shared link to each shard; NULL: there is none
    uint16_t count
    uint16_t any            # the shard that gets what names no key

cdef struct Branch:
    Session* session        # stands for the client on the shard's link; NULL: not needed yet
    uint32_t queued         # replies that the client has not been given
    Framer framer           # of what it is given
    size_t early            # bytes that it keeps for later turns

cdef struct Apart:          # a request by itself: it was redirected, or is a part of a split one
    Session* session        # its record. While it waits, its `out` is the latest error
    uint8_t hops            # servers that it has been sent on to since it last waited
    uint8_t waits_so_far
    bint counted            # it was redirected: its client's `redirected` counts it until its answer
    bint waits              # it is not under way: it is sent again later (redirection.pyx)
    uint32_t since          # when it first waited, microseconds, wraps,
    uint32_t retry_at       #   and when it is sent again

cdef struct Gathered:       # one reply, made of the replies to several parts: gather.pyx
    uint8_t rule            # Rule
    uint32_t count          # parts
    uint32_t given          # parts whose reply is there
    uint32_t keys
    Apart* parts
    uint32_t* part_of       # of each key: which part asks for it; NULL where that does not matter

cdef struct Turn:           # so many of the client's next replies come from here
    uint32_t due
    uint16_t shard
    Apart* apart            # not NULL: from this one
    Gathered* gathered      # not NULL: one reply, from these

cdef enum:
    SHARD_HERE = 65534      # Turn.shard: `Branches.here`

cdef struct Branches:
    Shards* shards
    Branch* of              # by shard
    Branch here             # what the near cache has answered in their turn
    uint16_t count
    uint16_t wanted         # the shard that the request at the head is for; NO_SHARD: nobody's
    Turn* ring
    uint32_t mask
    uint32_t head
    uint32_t tail
    uint32_t seen           # Slots.changes when nothing was due
    size_t early            # bytes that all branches keep
    Session* next_waiting   # of Slots.waiting,
    bint waiting            #   and whether it is in there

cdef int session_join(Session* s, Shards* shards) noexcept nogil
cdef void branches_guarded(Session* s) noexcept nogil
cdef void session_leave(Session* s) noexcept nogil
cdef int slot_for(const Command* c, const char* p, size_t n, const Scanner* scan) noexcept nogil
cdef int branch_for(Session* s, const Command* c, const char* p, size_t n,
                    uint16_t* shard) noexcept nogil
cdef int branch_at(Session* s, uint16_t shard) noexcept nogil
cdef bint branch_waits(const Session* s, uint16_t shard) noexcept nogil
cdef int branch_push(Session* s, uint16_t shard, Command* c, const char* p, size_t n) noexcept nogil
cdef int reserve_turn(Branches* b) noexcept nogil
cdef Turn* add_turn(Branches* b) noexcept nogil
cdef Session* record_for(Session* s, uint16_t shard) noexcept nogil
cdef int branch_say(Session* s, const char* p, size_t n) noexcept nogil
cdef int apart_begin(Apart* a, Session* s) noexcept nogil
cdef void apart_end(Apart* a, Session* s) noexcept nogil

cdef inline size_t early_bytes(const Session* s) noexcept nogil:
    """Bytes of replies that have come before their turn."""
    return (<Branches*>s.branches).early if s.branches != NULL else 0

cdef inline void count_early(Branches* b, Branch* branch) noexcept nogil:
    """The bytes that a branch keeps have changed."""
    cdef size_t size = buffer_size(&branch.session.out)
    b.early += size - branch.early
    branch.early = size

cdef inline Link* link_to(const Branches* b, uint16_t shard) noexcept nogil:
    """The identity's shared link to a shard, or NULL."""
    return b.shards.links[shard] if shard < b.shards.count else NULL
