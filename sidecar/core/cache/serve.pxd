"""The near cache: what is answered from it (see serve.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command, CommandTable
from sidecar.core.protocol.request cimport Scanner
from sidecar.core.records cimport Barriers, Core, Session
from sidecar.core.cache.store cimport Cache, Value

cdef enum Served:
    SERVED = 0              # answered, now or in its turn
    FILLING = 1             # it waits for a value that is being read
    ASK = 2                 # likewise, and the value must be asked for first
    PUT_OFF = 3             # it goes past, and the value is to be asked for soon
    NOT_SERVED = 4          # not from here
    UNPROVED = 5            # it is here, and what has been told since is not known to be

cdef int cache_serve(Session* s, Command* c, const char* p, size_t n, const Scanner* scan,
                     Value** ask) noexcept nogil

cdef class NearCache:
    cdef Cache* cache
    cdef void attach(self, Core* core, Barriers* barriers, CommandTable table) noexcept
