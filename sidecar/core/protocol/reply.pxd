"""Finding where a reply ends: the reply framer (see reply.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t

cdef enum Framed:
    FRAME_MORE = 0      # every byte belongs to the reply, which is not whole yet
    FRAME_REPLY = 1     # one reply ends here
    FRAME_PUSH = 2      # one out-of-band push ends here
    FRAME_ERROR = 3     # not the Redis protocol: the link cannot be trusted any more

cdef enum:
    STREAM_DEPTH = 16   # streamed aggregates inside each other; no server sends even one

cdef struct Framer:
    int64_t remaining   # values still to come for the current reply
    int64_t bulk        # payload bytes to skip, line end included
    int64_t number      # the length being read
    char state
    char kind           # type byte of the header being read
    char first          # type byte of the whole reply, an attribute before it not counted
    char digits         # how the length was written so far
    bint negative
    bint streamed       # the header has a '?' for its length
    bint chunks         # inside a streamed string
    int depth
    int64_t outer[STREAM_DEPTH]

cdef void framer_reset(Framer* f) noexcept nogil
cdef int frame_reply(Framer* f, const char* p, size_t n, size_t* at) noexcept nogil
