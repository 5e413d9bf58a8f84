"""Keys that are served from the near cache, kept in use at the server (see touch.pyx)."""
from libc.stdint cimport uint32_t
from sidecar.core.cache.store cimport Cache, USED_MOST, Value

cdef uint32_t cache_touch_used(Cache* k, uint32_t most, uint32_t named_most,
                               uint32_t repeats) noexcept nogil

cdef inline void note_use(Cache* k, Value* v) noexcept nogil:
    """The value was served. With the list full it is not noted; the next time it may be."""
    if v.hits == 0:
        if k.used_tail - k.used_head >= USED_MOST or not k.tells_use:
            return
        k.used[k.used_tail % USED_MOST] = v.hash
        k.used_tail += 1
    v.hits += v.hits < 255
