# cython: language_level=3
"""A reply of RESP3 in the form of RESP2, for replies to the reads that are cached.

Maps and sets become arrays, nulls the null string or array, doubles, big numbers and verbatim strings
bulk strings, booleans integers, as the server itself gives them to a RESP2 client. Where it does
not do so element by element (pairs of member and score are arrays in RESP3, and flat in RESP2)
there is no form: arrays inside arrays are refused.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memchr
from sidecar.core.memory cimport Buffer, buffer_append, buffer_release, buffer_size
from sidecar.core.protocol.cursor cimport put_header, read_line_number

cdef enum:
    NO_FORM = 0xffffffff


cdef int put_bulk(Buffer* out, const char* p, size_t n) noexcept nogil:
    if put_header(out, c'$', n) < 0 or buffer_append(out, p, n) < 0:
        return -1
    return buffer_append(out, b"\r\n", 2)


cdef uint32_t to_resp2(Buffer* out, const char* p, size_t n, bint null_array) noexcept nogil:
    """Write the RESP2 form of the whole reply p[0:n] to `out`: its size.

    `null_array`: the command's null is a null array there, and not a null string.
    0: it is the same, and `out` is empty. NO_FORM: it has none, or memory is out.
    """
    cdef size_t i = 0
    cdef size_t size, at
    cdef int64_t length
    cdef const char* line
    cdef char kind
    cdef bint same = True
    cdef int r
    cdef int aggregates = 0
    while i < n:
        kind = p[i]
        line = <const char*>memchr(p + i, 10, n - i)
        if line == NULL:
            return none(out)
        at = <size_t>(line - p) + 1         # what follows the line
        size = 0
        length = -1
        if kind == c'$' or kind == c'=' or kind == c'*' or kind == c'%' or kind == c'~':
            if not read_line_number(p + i + 1, at - i - 1, &length):
                return none(out)            # the length is streamed
        if (kind == c'$' or kind == c'=') and length >= 0:
            size = <size_t>length
            if n - at < size + 2:
                return none(out)
        if length < 0 and (kind == c'$' or kind == c'*'):
            r = buffer_append(out, p + i, at - i)       # null, as RESP2 has it
        elif kind == c'*' or kind == c'%' or kind == c'~':
            aggregates += 1
            if aggregates > 1 or length < 0:
                return none(out)
            same = same and kind == c'*'
            r = put_header(out, c'*', <size_t>length * (2 if kind == c'%' else 1))
        elif kind == c'_':
            same = False
            r = buffer_append(out, b"*-1\r\n" if null_array else b"$-1\r\n", 5)
        elif kind == c',' or kind == c'(':
            same = False
            r = put_bulk(out, p + i + 1, at - i - 3)
        elif kind == c'#':
            same = False
            r = put_header(out, c':', p[i + 1] == c't')
        elif kind == c'=':
            same = False
            r = put_bulk(out, p + at + 4, size - 4) if size >= 4 else -1
            at += size + 2
        elif kind == c'$':
            at += size + 2
            r = buffer_append(out, p + i, at - i)
        elif kind == c':' or kind == c'+' or kind == c'-':
            r = buffer_append(out, p + i, at - i)
        else:
            return none(out)
        if r < 0:
            return none(out)
        i = at
    if same:
        buffer_release(out)
        return 0
    return <uint32_t>buffer_size(out)


cdef uint32_t none(Buffer* out) noexcept nogil:
    buffer_release(out)
    return NO_FORM
