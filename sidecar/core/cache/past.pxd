"""What goes past the near cache (see past.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Core, Entry, Link

cdef void cache_touch(Core* core, Link* l, Entry* e, Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil
cdef void cache_touch_part(Core* core, Link* l, Entry* e, Command* c, const char* p,
                           size_t n) noexcept nogil
cdef void cache_pass(Link* l, Command* c, const char* p, size_t n,
                     const Scanner* scan) noexcept nogil
cdef void cache_pass_part(Link* l, Command* c, const char* p, size_t n) noexcept nogil
