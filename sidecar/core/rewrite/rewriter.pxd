"""A client's names and the server's: between the socket and the session (see rewriter.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.commands cimport Command, KeySpec, MAX_SPECS
from sidecar.core.protocol.request cimport Limits
from sidecar.core.rewrite.requests cimport RequestRewriter

cdef struct Indices:        # every step-th argument from first to last is a key
    int64_t first
    int64_t last
    int64_t step

cdef enum Streaming:        # what is done with the rest of a large request
    STREAM_NONE = 0
    STREAM_PASS = 1         # its keys get the prefix, by where they stand
    STREAM_DROP = 2         # it is refused, once it has come

cdef class Rewriter(RequestRewriter):
    cdef Buffer pending         # requests that are not whole, or wait
    cdef bint counted           # that it has broken the protocol
    cdef int streaming
    cdef int64_t argc           # of the large request,
    cdef int64_t index          #   the next argument,
    cdef size_t left            #   bytes of the present one, with its line end
    cdef Indices indices[MAX_SPECS]
    cdef int indices_len
    cdef bint login             #   it is AUTH or HELLO
    cdef bytes refusal          #   what it gets when it has come

    cdef int take(self, const char* p, size_t n, const Limits* limits, bint authenticated,
                  size_t most) except -1
    cdef bint ready(self) noexcept
    cdef int go_on(self, const Limits* limits, bint authenticated, size_t most) except -1
    cdef size_t parse(self, const char* p, size_t n, bint authenticated, size_t most) except? 0
    cdef int inline(self, const char* p, size_t n) except -1
    cdef int begin_stream(self, const char* p, size_t n) except -1
    cdef bint find_indices(self, const Command* c, int act, const char* p, size_t n) except -1
    cdef bint add_indices(self, int64_t first, int64_t last, int64_t step) except -1
    cdef bint add_specified(self, const KeySpec* spec, const char* p, size_t n) except -1
    cdef bint is_key(self) noexcept
    cdef size_t stream(self, const char* p, size_t n) except? 0
    cdef int broken_stream(self, const char* p, size_t n) except -1
    cdef int end_stream(self) except -1
    cdef bytes given(self)
