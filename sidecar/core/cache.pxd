"""The near cache's store (see cache.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from sidecar.core.commands cimport Command
from sidecar.core.memory cimport Buffer
from sidecar.core.request cimport Scanner
from sidecar.core.records cimport Core, Entry, Link, Session

cdef enum CacheMode:
    CACHE_OBSERVE = 1       # counts what it would have served
    CACHE_HOT = 2           # keys that the detector names
    CACHE_RULES = 3         # keys that a rule names

cdef enum Served:
    SERVED = 0              # answered, now or in its turn
    FILLING = 1             # it waits for a value that is being read
    ASK = 2                 # likewise, and the value must be asked for first
    PUT_OFF = 3             # it goes past, and the value is to be asked for soon
    PASS = 4                # not from here

cdef enum:
    SPACES = 1024
    RULES_MAX = 64
    NO_FORM = 0xffffffff    # Value.reply2: the reply cannot be put into RESP2's form

cdef struct KeyRecord:
    KeyRecord* next
    Value* values
    uint32_t hash
    uint32_t size           # of the key, whose bytes follow the record
    uint32_t since          # epoch when it was made: see bars.pyx
    uint8_t wanted          # hot: may be cached
    uint8_t poor            # reading it in spite of commands under way has not paid, lately
    uint8_t ghost           # observe: its value would be here

cdef struct Fill:
    Session* waiting
    Buffer request          # what is sent on the tracked link, to ask again
    Value* after            # the next one put off
    int tries
    bint waiting_for_quiet  # put off: not asked for yet
    bint forced             # asked for while commands were under way: those who come wait
    uint64_t asked
    uint32_t begun
    uint32_t begun_all
    bint doomed             # what is being read must not be stored

cdef struct Value:
    Value* next
    Value* sibling          # other values of the same key
    KeyRecord* key
    Fill* fill              # NULL: the value is here
    uint32_t hash
    uint32_t args           # bytes of the request after the command's name,
    uint32_t reply          # of the reply in RESP3,
    uint32_t reply2         # and in RESP2 where that differs; they follow the record
    uint32_t until          # milliseconds of the cache's own clock
    uint16_t space
    uint16_t command
    uint8_t used
    uint8_t forced
    uint16_t served

cdef struct Space:
    bint used
    uint64_t proved         # all invalidations from before this moment (Core.clock) are here; 0: no
    void* link              # the Tracked that reads for it; NULL: none

cdef struct Rule:
    char* prefix
    size_t size
    bint never
    uint64_t ttl            # microseconds; 0: the cache's own
    uint64_t staleness      # likewise

cdef struct Counts:
    uint64_t hits
    uint64_t ghost_hits
    uint64_t fills
    uint64_t stored
    uint64_t evicted
    uint64_t expired
    uint64_t flushed        # times that everything was dropped
    uint64_t dropped_here   # values dropped for a command of our own
    uint64_t dropped_pushed # for a push of the server
    uint64_t miss_cold
    uint64_t miss_lease
    uint64_t miss_barred    # a value read was not stored: something was under way
    uint64_t miss_filling
    uint64_t miss_size
    uint64_t miss_error
    uint64_t bypassed
    uint64_t checked        # values that were here were read again and compared:
    uint64_t mismatched     # they were not what the server has

cdef struct Cache:
    Core* core
    KeyRecord** keys        # tables of chains; both have as many
    Value** values
    uint32_t slots          # chains in use,
    uint32_t slots_max      # of so many there is room for
    uint32_t mask           # the power of two that is not less than `slots`, less one
    uint32_t count
    uint64_t seed
    uint64_t start          # Core.clock at its beginning
    uint64_t chance
    size_t bytes
    size_t budget
    size_t value_max
    uint64_t staleness      # how old a value may be, at most, microseconds
    uint64_t ttl_max
    uint64_t ttl_missing
    int mode
    bint due                # something was queued on a tracked link since the shell last looked
    uint32_t check_every    # one answer in so many is compared with the server's; 0: none
    uint32_t check_in       # answers until the next
    uint16_t get_id
    uint16_t geopos_id
    uint16_t zrank_id
    uint16_t zrevrank_id
    uint16_t acl_id
    Rule rules[RULES_MAX]
    int rule_count
    Value* put_off
    uint32_t wanted         # keys that are
    Space spaces[SPACES]
    Counts counts

cdef int cache_serve(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                     Value** ask, int* count) noexcept nogil
cdef bint cache_check_due(Cache* k) noexcept nogil
cdef uint64_t cache_value_hash(Cache* k, Value* v) noexcept nogil
cdef void cache_compare(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                        const char* args, size_t n, const char* reply, size_t size) noexcept nogil
cdef void cache_pass(Link* l, Command* c, const char* p, size_t n,
                     const Scanner* scan) noexcept nogil
cdef void cache_pass_part(Link* l, Command* c, const char* p, size_t n) noexcept nogil
cdef void cache_touch(Core* core, Link* l, Entry* e, Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil
cdef Value* cache_begin(Cache* k, uint16_t space, Command* c, const char* p, size_t n,
                        const Scanner* scan) noexcept nogil
cdef bint cache_may_ask(Cache* k, Value* v) noexcept nogil
cdef void cache_leave(Session* s) noexcept nogil
cdef void cache_drop_key(Cache* k, const char* key, size_t n, bint pushed) noexcept nogil
cdef void cache_drop_all(Cache* k) noexcept nogil
cdef void cache_drop_space(Cache* k, uint16_t space) noexcept nogil
cdef bint cache_filled(Cache* k, Value* v, long long ttl, const char* p, size_t n) noexcept nogil
cdef void cache_not_filled(Cache* k, Value* v) noexcept nogil

cdef class NearCache:
    cdef Cache* cache
