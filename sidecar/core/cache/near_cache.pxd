"""The near cache of one plane (see near_cache.pyx)."""
from sidecar.core.cache.store cimport Cache
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Barriers, Core

cdef class NearCache:
    cdef Cache* cache
    cdef void attach(self, Core* core, Barriers* barriers, CommandTable table) noexcept
