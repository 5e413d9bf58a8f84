"""What the near cache promises, as a judge of replies (see fuzz_cache_judge.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.reply cimport Framer
from sidecar.core.records cimport Session
from tests.native.fuzz_cache_server cimport Ask, CONNECTIONS_MAX, KEYS, PLACES, Server

cdef enum:
    DUE_MAX = 64            # replies one client may wait for
    SPACES_MAX = 4

cdef struct Due:
    Ask ask
    int64_t at              # when it was sent
    uint32_t floor          # the newest event of its key, and of the other, that had been told then
    uint32_t floor2
    int body                # EXEC: so many requests before it are its transaction's
    bint in_multi

cdef struct Peer:
    Session* s
    int who                 # its identity
    int user
    int db
    int proto
    bint pinned
    bint fresh
    bint idle               # nothing was due to it when this event began
    uint32_t writes         # places that it was writing when this event began, by bit
    uint32_t told[PLACES]
    Buffer script
    Buffer got
    Framer framer
    Due due[DUE_MAX]
    uint32_t head
    uint32_t tail

cdef struct Judge:
    Server* server
    int64_t staleness
    int64_t ttl_max
    int64_t ttl_missing
    int64_t ttl_short       # of the keys that begin with "short:"
    int64_t staleness_short
    bint serves
    bint errors             # commands may be answered with an error at any time
    uint32_t told[PLACES]
    int live[SPACES_MAX]    # the number of each space's tracked connection; 0: none
    uint32_t pushed[SPACES_MAX][KEYS + 1]   # the newest invalidation received on it; last: of all
    uint32_t begun[SPACES_MAX]              # the first event that its connection can have seen
    uint32_t writes         # what anybody was writing when this event began, by place

cdef uint32_t places_of(int db, const Ask* ask) noexcept
cdef int check_replies(Judge* j, Peer* p, Peer* peers, int count) except -1
cdef int expect(Judge* j, Peer* p, const Ask* ask, bint in_multi, int body) except -1
