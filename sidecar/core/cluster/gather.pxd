"""Splits a request over several slots, and makes one reply of the replies (see gather.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.cluster.branches cimport Gathered
from sidecar.core.protocol.commands cimport Command
from sidecar.core.records cimport Session

cdef enum Rule:             # how the replies to the parts become one
    RULE_SUM = 0            # integers: their sum
    RULE_SAME = 1           # all alike: the first one
    RULE_EACH = 2           # arrays: the element of each key, in the order of the keys

cdef enum:
    NOT_SPLIT = -1          # what gather_push says of a request whose keys all have one slot

cdef int gather_push(Session* s, Command* c, const char* p, size_t n) noexcept nogil
cdef bint gathered_ready(Session* s, Gathered* g) noexcept nogil
cdef void gathered_give(Session* s, Gathered* g) noexcept nogil
cdef void gathered_end(Session* s, Gathered* g) noexcept nogil
