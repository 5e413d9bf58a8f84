"""What the near cache reads (see fill.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uint64_t
from sidecar.core.link.barrier cimport bucket_of
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Barriers, Session
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.cache.store cimport Cache, Value

cdef Value* begin_fill(Cache* k, uint64_t hash, uint64_t key_hash, uint16_t space,
                       uint16_t command, const char* args, size_t n, const char* key,
                       size_t key_size) noexcept nogil
cdef void put_off(Cache* k, Value* v) noexcept nogil
cdef void wait_for(Session* s, Value* v) noexcept nogil
cdef Value* cache_begin(Cache* k, uint16_t space, Command* c, const char* p, size_t n,
                        const Scanner* scan) noexcept nogil
cdef bint cache_may_ask(Cache* k, Value* v) noexcept nogil
cdef void cache_not_filled(Cache* k, Value* v) noexcept nogil
cdef void cache_passing(Value* v) noexcept nogil
cdef void cache_too_large(Cache* k, Value* v, int64_t ttl) noexcept nogil
cdef void pass_by(Value* v) noexcept nogil
cdef bint cache_filled(Cache* k, Value* v, int64_t ttl, const char* p, size_t n) noexcept nogil
cdef void cache_leave(Session* s) noexcept nogil
cdef void draw_check(Cache* k) noexcept nogil
cdef bint cache_check_due(Cache* k) noexcept nogil
cdef void cache_compare(Cache* k, uint64_t hash, uint16_t space, uint16_t command,
                        const char* args, size_t n, const char* reply, size_t size) noexcept nogil

cdef inline bint has_time(const Session* s) noexcept nogil:
    """Whether the session loses nothing by waiting: nothing of it is under way, and nothing lies
    behind. One in the middle of a pipeline would be cut in two."""
    return s.outstanding == 0 and not s.core.more_requests

cdef inline bint being_written(Cache* k, uint64_t hash) noexcept nogil:
    cdef Barriers* b = k.core.barriers
    return b.pending_all != 0 or b.sets[bucket_of(hash)].writing != 0
