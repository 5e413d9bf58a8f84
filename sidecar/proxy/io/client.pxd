"""A client, as the handler sees it (see client.pyx)."""
from sidecar.core.records cimport Link
from sidecar.proxy.io.client_socket cimport ClientSocket
from sidecar.proxy.io.shard_links cimport ShardLinks

cdef class Client(ClientSocket):
    cdef readonly ShardLinks shard_links    # of a cluster's client: kept alive as long as it uses them
    cdef Link* asking_link(self) except? NULL
    cdef int begin_multi(self) except -1
    cdef int record_refusal(self, bytes reply) except -1
