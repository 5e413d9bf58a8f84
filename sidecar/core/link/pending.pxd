"""The pending queue of a link (see pending.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Core, Entry, Link, Session

cdef Link* link_new(Core* core, void* owner, bint shared) noexcept nogil
cdef void link_free(Link* l) noexcept nogil
cdef int grow_ring(Link* l) noexcept nogil
cdef int link_entry(Link* l, Session* s, Command* c, uint16_t flags) noexcept nogil
cdef int link_push(Link* l, Session* s, Command* c, const char* p, size_t n,
                   uint16_t flags) noexcept nogil
cdef int link_bytes(Link* l, const char* p, size_t n) noexcept nogil
cdef void link_sent(Link* l, size_t n) noexcept nogil
cdef int link_local(Link* l, Session* s, const char* p, size_t n) noexcept nogil
cdef void answer_ready(Link* l, Entry* e) noexcept nogil
cdef void settle_ready(Link* l) noexcept nogil

cdef const char* UNCERTAIN
cdef size_t UNCERTAIN_LEN
