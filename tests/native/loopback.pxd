"""The core as Python sees it, without sockets (see loopback.pyx)."""
from libc.stdint cimport uint8_t
from sidecar.core.observe.audit_notes cimport Notes
from sidecar.core.observe.trace_records cimport Traces
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Core, Link, Session
from sidecar.core.stats cimport Stats

cdef class Loopback:
    cdef Core core
    cdef Stats* stats
    cdef readonly CommandTable table
    cdef dict sessions      # number -> address of the record
    cdef dict links
    cdef dict homes         # session -> the shared link it goes back to
    cdef dict refusals
    cdef Py_ssize_t last
    cdef readonly list marked
    cdef readonly Traces traces
    cdef Notes* notes

    cdef Session* session(self, Py_ssize_t number) except NULL
    cdef Link* link(self, Py_ssize_t number) except NULL
    cdef int hold(self, uint8_t what, bint yes) except -1
    cdef int settle(self) except -1
    cdef int settle_link(self, Link* l) except -1
