"""The shared links of one identity to the shards of a cluster (see shard_links.pyx)."""
from sidecar.core.cluster.branches cimport Shards

cdef class ShardLinks:
    cdef Shards shards
    cdef readonly dict links
