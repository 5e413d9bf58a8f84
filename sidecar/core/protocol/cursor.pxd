"""Reading arguments and numbers, and writing headers: nothing else in the core does (see cursor.pyx).

    cursor_begin(&c, p, n)      *3 CR LF: how many arguments there are to be
    cursor_next(&c)             $3 CR LF SET CR LF: the next one is c.arg, c.size
    is_word(&c, b"block", 5)    whether that is the word

The bytes may be any bytes, and only the beginning of a request: nothing beyond `end` is read.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.commands cimport is_name

cdef extern from *:
    """
    #include <string.h>
    static inline int sidecar_line_ends(const char *p) { return memcmp(p, "\\r\\n", 2) == 0; }
    """
    bint line_ends "sidecar_line_ends"(const char* p) nogil

cdef struct Cursor:
    const char* at          # where the next argument begins
    const char* end         # what is there ends here
    const char* arg         # the argument read last
    size_t size

cdef enum:
    DIGITS_MOST = 18        # of a length: so many cannot overflow

cdef bint read_number(const char* p, size_t n, int64_t* out) noexcept nogil
cdef bint read_line_number(const char* p, size_t n, int64_t* out) noexcept nogil
cdef int put_header(Buffer* out, char kind, size_t value) noexcept nogil


cdef inline size_t read_header(const char* p, size_t n, char mark, size_t* value) noexcept nogil:
    """Read `<mark><length> CR LF`: the bytes it takes, 0 if that is not what stands at p.

    A length is written as the server wants it: without a sign, a blank or a leading zero.
    """
    cdef size_t i = 2
    cdef size_t v
    cdef size_t most = n if n < DIGITS_MOST + 1 else DIGITS_MOST + 1
    cdef unsigned char digit
    if n < 4 or p[0] != mark:
        return 0
    digit = <unsigned char>(p[1] - c'0')
    if digit > 9:
        return 0
    v = digit
    if line_ends(p + 2):                # one digit, as most have
        value[0] = v
        return 4
    if v:
        while i < most:
            digit = <unsigned char>(p[i] - c'0')
            if digit > 9:
                break
            v = v * 10 + digit
            i += 1
    if n - i < 2 or not line_ends(p + i):
        return 0
    value[0] = v
    return i + 2


cdef inline void cursor_on(Cursor* c, const char* p, size_t n) noexcept nogil:
    """Read p[0:n], in which the first argument begins."""
    c.at = p
    c.end = p + n


cdef inline int64_t cursor_begin(Cursor* c, const char* p, size_t n) noexcept nogil:
    """Read the request p[0:n]: how many arguments it says it has, -1 if it does not begin so."""
    cdef size_t count = 0
    cdef size_t head = read_header(p, n, c'*', &count)
    cursor_on(c, p + head, n - head if head else 0)
    return <int64_t>count if head else -1


cdef inline bint cursor_next(Cursor* c) noexcept nogil:
    """Read the next argument. False: it is not there as a whole, or it is none."""
    cdef size_t left = <size_t>(c.end - c.at)
    cdef size_t size = 0
    cdef size_t head = read_header(c.at, left, c'$', &size)
    if head == 0 or left - head < size + 2 or not line_ends(c.at + head + size):
        return False
    c.arg = c.at + head
    c.size = size
    c.at = c.arg + size + 2
    return True


cdef inline bint is_word(const Cursor* c, const char* word, size_t n) noexcept nogil:
    """Whether the argument is this word (in lower case). For servers a NUL ends it, so here too."""
    return c.size >= n and (c.size == n or c.arg[n] == 0) and is_name(c.arg, word, n)
