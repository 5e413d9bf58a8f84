"""A client, as the handler sees it (see client.pyx)."""
from sidecar.proxy.io.client_socket cimport ClientSocket

cdef class Client(ClientSocket):
    cdef int record_refusal(self, bytes reply) except -1
