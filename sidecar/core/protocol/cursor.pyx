# cython: language_level=3, cdivision=True
"""Reading arguments and numbers, and writing headers.

A request is a header `*<count>` and as many arguments, `$<length>`, each line and each argument with
CR LF behind it. A Cursor walks through that. What is read for every command is inline in cursor.pxd;
scan_request (request.pyx) finds requests with it; code that looks for a key, an option or a
subcommand uses it too.

There are two more places that read lengths, since theirs may arrive in pieces: the scanner, where an
argument is not there as a whole, and the reply framer.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy
from sidecar.core.memory cimport buffer_append

cdef enum:
    CR = 13
    LF = 10

cdef uint64_t LARGEST = (<uint64_t>1 << 63) - 1


cdef bint read_number(const char* p, size_t n, int64_t* out) noexcept nogil:
    """Strict decimal, as the server's string2ll; False when it is none or overflows 64 bits."""
    cdef size_t i = 0
    cdef bint negative = False
    cdef uint64_t v = 0
    if n > 0 and p[0] == c'-':
        negative = True
        i = 1
    # 19 digits can't overflow an unsigned number, and 20 can't fit a signed one.
    if n == i or n - i > 19:
        return False
    if p[i] == c'0':
        out[0] = 0
        return n == 1
    while i < n:
        if p[i] < c'0' or p[i] > c'9':
            return False
        v = v * 10 + <uint64_t>(p[i] - c'0')
        i += 1
    if v > LARGEST + (1 if negative else 0):
        return False
    out[0] = <int64_t>(0 - v) if negative else <int64_t>v
    return True


cdef bint read_line_number(const char* p, size_t n, int64_t* out) noexcept nogil:
    """The number that fills the line p[0:n] up to its CR LF; False when it does not."""
    cdef const char* cr = <const char*>memchr(p, CR, n)
    if cr == NULL or cr + 1 == p + n or cr[1] != LF:
        return False
    return read_number(p, <size_t>(cr - p), out)


cdef int put_header(Buffer* out, char kind, size_t value) noexcept nogil:
    """Write `<kind><value> CR LF`: 0, or -1 without memory."""
    cdef char line[24]
    cdef int i = 22
    line[22] = CR
    line[23] = LF
    while value or i == 22:
        i -= 1
        line[i] = <char>(c'0' + value % 10)
        value //= 10
    i -= 1
    line[i] = kind
    return buffer_append(out, line + i, 24 - i)


# For tests. Not one byte more is copied than is given, so that a sanitizer sees what goes beyond.

def arguments_in(bytes request):
    """(how many arguments the request says it has, those that are there as a whole)."""
    cdef size_t n = len(request)
    cdef char* p = <char*>malloc(n if n else 1)
    cdef Cursor c
    if p == NULL:
        raise MemoryError
    try:
        memcpy(p, <const char*>request, n)
        count = cursor_begin(&c, p, n)
        found = []
        while cursor_next(&c):
            found.append(c.arg[:c.size])
        return count, found
    finally:
        free(p)


def number_in(bytes text, bint line=False):
    """The number that the text is, or with `line`, the line at its beginning; None: it is none."""
    cdef int64_t value = 0
    cdef const char* p = text
    found = read_line_number(p, len(text), &value) if line else read_number(p, len(text), &value)
    return value if found else None


def is_the_word(bytes argument, bytes word):
    """Whether an argument is taken for this word."""
    cdef Cursor c
    c.arg, c.size = argument, len(argument)
    return bool(is_word(&c, word, len(word)))
