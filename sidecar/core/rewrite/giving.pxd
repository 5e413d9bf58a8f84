"""Passing requests on, and refusing them (see giving.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.request cimport Limits, Scanner
from sidecar.core.rewrite.replies cimport ReplyRewriter
from sidecar.core.rewrite.rules cimport RewriteRules

cdef struct Place:          # where the prefix goes
    const char* p           # an argument,
    size_t n
    size_t at               #   and so many bytes into it

cdef class Giving:
    cdef readonly RewriteRules rules
    cdef ReplyRewriter replies
    cdef Buffer out             # for the session
    cdef Scanner scan           # of the first request
    cdef const Limits* limits
    cdef bint raw               # replies are not matched any more
    cdef readonly bint broken   # the client has broken the protocol: nothing more is taken
    cdef Place* places
    cdef size_t places_cap
    cdef size_t places_len

    cdef int give(self, const char* p, size_t n, int due=*, int which=*) except -1
    cdef int give_placed(self, const char* p, size_t n, int due=*, int which=*, int more=*,
                         uint32_t count=*) except -1
    cdef int give_raw(self, const char* p, size_t n) except -1
    cdef int put(self, const char* p, size_t n) except -1
    cdef int put_argument(self, const char* p, size_t n, const char* more, size_t size) except -1
    cdef int place(self, const char* p, size_t n, size_t at=*) except -1
    cdef int refuse(self, bytes error) except -1
    cdef int protocol_error(self, int error, char found) except -1
