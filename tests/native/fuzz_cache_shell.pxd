"""The sidecar of a fuzzed world with a near cache (see fuzz_cache_shell.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from sidecar.core.cache.near_cache cimport NearCache
from sidecar.core.cache.store cimport Cache
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Barriers, Core, Link
from sidecar.core.stats cimport Stats
from tests.native.fuzz_cache_judge cimport Judge, Peer
from tests.native.fuzz_cache_server cimport CONNECTIONS_MAX, Server, Wire

cdef enum:
    WHOS = 4                # identities
    PEERS = 6
    SPACES = 3
    OWN = 4                 # index of the first dedicated link,
    TRACKED = 10            # of the first tracked one,
    RETIRED = 13            # and of the shared ones that were held up and replaced
    WIRES = 17
    REQUEST_BUFFER = 512
    BUDGET = 3000
    VALUE_MAX = 400
    WANTED = 1200           # what the records of wanted keys take, at most: whatever the budget is

# Of the identities: two protocols of one user and database, another database, another user.
cdef inline int user_of(int who) noexcept:
    return who == 3

cdef inline int db_of(int who) noexcept:
    return who == 2

cdef inline int proto_of(int who) noexcept:
    return 2 + who % 2

cdef class CacheShell:
    cdef Core core
    cdef Stats* stats
    cdef Barriers* barriers
    cdef CommandTable table
    cdef NearCache near
    cdef Cache* cache
    cdef Peer peers[PEERS]
    cdef Wire wires[CONNECTIONS_MAX]
    cdef Server server
    cdef Judge judge
    cdef bint losses
    cdef uint32_t calm      # how rare upsets are
    cdef uint32_t quick     # of 4 things that are said, so many are answered at once
    cdef uint32_t pace      # microseconds that may pass at once
    cdef uint32_t scenes    # of 96 steps and so many more, those that are scenes
    cdef uint32_t held      # connections whose answers do not arrive for now, by bit
    cdef readonly long long fed

    cdef int new_cache(self, str mode, uint64_t seed) except -1
    cdef int begin_all(self) except -1
    cdef int new_link(self, int w, int who) except -1
    cdef void hang_up(self, int w) noexcept
    cdef void part(self, int w) noexcept
    cdef int track(self, int space) except -1
    cdef void untrack(self, int space) noexcept
    cdef int enter(self, int i) except -1
    cdef void leave(self, int i) noexcept
    cdef void sweep(self) noexcept
    cdef int send(self, int i) except -1
    cdef int feed(self, int i, size_t n) except -1
    cdef void pass_time(self, int64_t microseconds) noexcept
    cdef void begin(self) noexcept
    cdef void become_pinned(self, int i) noexcept
    cdef void copy_run(self, Link* l) noexcept
    cdef int settle(self) except -1
    cdef int attend(self, int i) except -1
    cdef int serve_stall(self, int i, int stall) except -1
    cdef int go_on(self, int i) except -1
    cdef int check_memory(self) except -1
