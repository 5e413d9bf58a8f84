"""Counters and latency histograms of the data path (see stats.pyx)."""
from libc.stdint cimport uint32_t, uint64_t
from sidecar.core.protocol.commands cimport MAX_COMMANDS

cdef enum:
    BUCKETS = 48
    FAMILIES = 24
    BLOCKING_FAMILY = 1     # see policy/routing.py

cdef struct Histogram:
    uint64_t counts[BUCKETS]
    uint64_t sum_us

cdef struct Stats:
    uint64_t calls[MAX_COMMANDS]
    uint64_t errors[FAMILIES]
    Histogram latency[FAMILIES]
    uint64_t client_bytes_in
    uint64_t client_bytes_out
    uint64_t upstream_bytes_in
    uint64_t upstream_bytes_out
    uint64_t protocol_errors
    uint64_t errors_local
    uint64_t uncertain
    uint64_t replies_discarded

cdef int latency_bucket(uint32_t us) noexcept nogil
