"""What must hold of a near cache's own records (see fuzz_cache_checks.pyx)."""
from sidecar.core.cache.store cimport Cache
from sidecar.core.records cimport Barriers

cdef int check_barriers(const Barriers* b) except -1
cdef int check_store(Cache* k, const Barriers* b) except -1
