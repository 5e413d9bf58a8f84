"""A client of a cluster: its records at the shards, and whose reply comes next (see branches.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.reply cimport Framer
from sidecar.core.records cimport Link, Session

cdef struct Shards:         # of one identity; the shell's
    Link** links            # its shared link to each shard; NULL: there is none yet
    uint16_t count
    uint16_t any            # the shard that gets what names no key

cdef struct Branch:
    Session* session        # stands for the client on the shard's link; NULL: not needed yet
    uint32_t queued         # replies that the client has not been given
    Framer framer           # of what it is given
    size_t early            # bytes that it keeps for later turns

cdef struct Turn:           # so many of the client's next replies come from here
    uint32_t due
    uint16_t shard
    Session* apart          # not NULL: from this record, of a request that was redirected

cdef struct Branches:
    Shards* shards
    Branch* of              # by shard
    uint16_t count
    Turn* ring
    uint32_t mask
    uint32_t head
    uint32_t tail
    uint32_t seen           # Slots.changes when nothing was due
    size_t early            # bytes that all branches keep

cdef int session_join(Session* s, Shards* shards) noexcept nogil
cdef void session_leave(Session* s) noexcept nogil
cdef int branch_for(Session* s, const Command* c, const char* p, size_t n,
                    uint16_t* shard) noexcept nogil
cdef bint branch_waits(const Session* s, uint16_t shard) noexcept nogil
cdef int branch_push(Session* s, uint16_t shard, Command* c, const char* p, size_t n) noexcept nogil
cdef void branches_collect(Session* s) noexcept nogil

cdef inline size_t early_bytes(const Session* s) noexcept nogil:
    """Bytes of replies that have come before their turn."""
    return (<Branches*>s.branches).early if s.branches != NULL else 0
