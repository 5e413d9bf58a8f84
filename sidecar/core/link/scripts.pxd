"""Scripts that clients of a cluster have given (see scripts.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.string cimport memcmp
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Link

cdef enum:
    SCRIPTS_SEEN = 1024     # hashes of scripts that are known to be kept, or brought to a shard

cdef class Scripts:
    cdef uint64_t seed
    cdef uint64_t seen[SCRIPTS_SEEN]
    cdef uint64_t brought[SCRIPTS_SEEN]     # hashes of shard and digest
    cdef object kept        # by digest, the one used least recently first
    cdef dict again         # by shard: the redirection to its own server
    cdef readonly size_t size   # bytes of the scripts

    cdef bytes script_of(self, bytes digest)
    cdef int bring(self, Link* l, Command* c, bytes digest) except -1
    cdef int look_up(self, bytes digest, int shard, Buffer* load, Buffer* again) except -1

cdef void scripts_see(void* scripts, const Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil
cdef int scripts_bring(void* scripts, Link* l, Command* c, const char* p, size_t n) noexcept nogil
cdef bint scripts_find(void* scripts, int shard, const char* request, size_t n, Buffer* load,
                       Buffer* again) noexcept nogil

cdef inline bint may_miss_script(const char* p, size_t n) noexcept nogil:
    """Whether p[0:n] is, or may be the beginning of, the answer to EVALSHA that there is no such
    script."""
    return memcmp(p, b"-NOSCRIPT ", n if n < 10 else 10) == 0
