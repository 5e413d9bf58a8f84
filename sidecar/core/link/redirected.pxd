"""Requests that a cluster's server has answered by a redirection (see redirected.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t
from sidecar.core.records cimport Session

cdef struct Redirected:     # what comes before the bytes of each request that is kept
    uint32_t size
    uint16_t command

cdef void keep_redirected(Session* t, uint16_t command, const char* request,
                          uint32_t size) noexcept nogil
cdef Redirected first_redirected(const Session* t, const char** request) noexcept nogil
cdef void forget_redirected(Session* t) noexcept nogil

cdef inline bint is_redirection(const char* p, size_t n) noexcept nogil:
    """Whether an error that begins like this says that another shard has the key."""
    return n > 5 and p[0] == c'-' and (
        (p[1] == c'M' and p[2] == c'O' and p[3] == c'V' and p[4] == c'E' and p[5] == c'D')
        or (p[1] == c'A' and p[2] == c'S' and p[3] == c'K' and p[4] == c' '))
