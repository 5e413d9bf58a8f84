"""Requests that a cluster's server has not executed, and that are sent again (see redirected.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp
from sidecar.core.records cimport Link, Session

cdef struct Redirected:     # what comes before the bytes of each request that is kept
    uint32_t size
    uint16_t command

cdef void keep_redirected(Session* t, uint16_t command, const char* request,
                          uint32_t size) noexcept nogil
cdef Redirected first_redirected(const Session* t, const char** request) noexcept nogil
cdef void forget_redirected(Session* t) noexcept nogil

cdef const char* redirection_error(const Link* l, const char* p, size_t n) noexcept nogil
cdef int turn_back(Session* s, const char* error, size_t n) noexcept nogil

cdef enum:
    REDIRECTION_START = 13  # bytes that tell whether an error is one


cdef inline bint may_split(const Link* l) noexcept nogil:
    """Whether the link is a cluster's client's own."""
    return l.client != NULL and l.core.slots != NULL


cdef inline bint splits_transaction(const Link* l, const char* p, size_t n) noexcept nogil:
    """Whether an error that begins like this tells a cluster's client where a key is, and its request
    cannot be sent there: it is one of a transaction, or was too large to be kept. The client knows of
    no shards, and gets `redirection_error` instead."""
    return may_split(l) and n > 5 \
        and (memcmp(p, b"-MOVED", 6) == 0 or memcmp(p, b"-ASK ", 5) == 0)


cdef inline bint is_redirection(const char* p, size_t n) noexcept nogil:
    """Whether an error that begins like this says that another shard has the key, or that none can
    serve it just now. Either way nothing was executed."""
    return n > 5 and p[0] == c'-' and (
        memcmp(p + 1, b"MOVED", 5) == 0 or memcmp(p + 1, b"ASK ", 4) == 0
        or (n >= 9 and memcmp(p + 1, b"LOADING ", 8) == 0)
        or (n >= 10 and memcmp(p + 1, b"TRYAGAIN ", 9) == 0)
        or (n >= REDIRECTION_START and memcmp(p + 1, b"CLUSTERDOWN ", 12) == 0))
