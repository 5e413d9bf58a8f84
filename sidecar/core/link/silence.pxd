"""How long links have owed replies (see silence.pyx)."""
from libc.stdint cimport uint64_t
from sidecar.core.records cimport Link

cdef struct Silence:        # of all links that were looked at; times in microseconds
    uint64_t oldest         # age of the oldest request that the server should have answered
    uint64_t silent         # longest time for which a link has owed such a reply and got nothing
    uint64_t requests       # replies due on links that have been silent for SILENT_FROM
    uint64_t may_block      # the same two of links whose reply may be long in coming:
    uint64_t blocking       # only a question to the server can tell whether it is due

cdef enum:
    SILENT_FROM = 250000

cdef void link_silence(Link* l, bint read, Silence* found) noexcept nogil
