"""The connection that reads values for the near cache (see tracked.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t
from sidecar.core.cache.store cimport Cache
from sidecar.core.cache.tracked_requests cimport Tracked

cdef enum:
    NOT_ALLOWED = -2

cdef Tracked* tracked_new(Cache* cache, void* owner, uint16_t space) noexcept nogil
cdef void tracked_free(Tracked* t) noexcept nogil
cdef void tracked_begin(Tracked* t) noexcept nogil
cdef int tracked_receive(Tracked* t, const char* p, size_t n) noexcept nogil
cdef void tracked_end(Tracked* t) noexcept nogil
