"""A link on its socket (see upstream.pyx)."""
from sidecar.core.cluster.subscriptions cimport Subscriptions
from sidecar.core.records cimport Link
from sidecar.proxy.io.plane cimport PlaneConnection

cdef class Upstream(PlaneConnection):
    cdef Link* link
    cdef readonly bint shared
    cdef readonly object owner  # the links it is one of
    cdef readonly PlaneConnection client
    cdef public object target   # where its connection leads, or led
    cdef public object hello
    cdef public object names    # what the server knows a dedicated link by; None: not known
    cdef public long long server_id
    cdef public double idle_since
    cdef object refusal_text
    cdef bint shut
    cdef Subscriptions subscriptions    # of its client; None: they are not followed
    cdef size_t noted           # bytes of `link.out` that they know of

    cdef int receive_filtered(self, Py_ssize_t n) except -1
    cdef int judge_received(self, Py_ssize_t n) except -1
    cdef bint in_the_middle(self) noexcept
    cdef int note_sent(self) except -1
    cdef int follow_no_more(self) except -1
    cdef int receive_followed(self, const char* p, Py_ssize_t n) except -1
    cdef int lost(self, str reason) except -1
