# cython: language_level=3
"""Finding where a reply ends, for RESP2 and RESP3, without keeping a byte of it.

A reply is a tree, but its end can be found with one number: how many values are still due.
A scalar takes one away; an aggregate of n takes one away and adds n (a map 2n); an attribute
adds 2n and takes nothing, since the value it describes follows. Streamed aggregates have no n:
the outer count waits on a small stack until the `.` that ends them. A string of known length is
skipped; a streamed string is a run of `;n` chunks that ends with `;0`.

The state is kept between any two bytes, so parts of a reply can be passed on as they arrive.
"""
from libc.string cimport memchr
from sidecar.core.protocol.cursor cimport read_header

cdef enum:
    AT_TYPE = 0         # the next byte is a type
    AT_LENGTH = 1       # reading a length up to its line end
    AT_LINE = 2         # skipping a line
    AT_BULK = 3         # skipping a payload
    AT_LF = 4           # the line feed that ends a length
    CR = 13
    LF = 10
    MAX_DIGITS = 18

# While a streamed aggregate is open its count is not known: a number no reply can use up.
cdef int64_t OPEN = 1 << 62


cdef void framer_reset(Framer* f) noexcept nogil:
    f.remaining = 1
    f.bulk = 0
    f.state = AT_TYPE
    f.first = 0
    f.chunks = False
    f.depth = 0


cdef int begin_length(Framer* f, char kind) noexcept nogil:
    f.kind = kind
    f.number = 0
    f.digits = 0
    f.negative = False
    f.streamed = False
    f.state = AT_LENGTH
    return FRAME_MORE


cdef int begin_value(Framer* f, char kind) noexcept nogil:
    """Act on a type byte."""
    if f.first == 0 and kind != c'|' and f.remaining == 1 and f.depth == 0:
        f.first = kind                  # keys and values of an attribute come before it
    if f.chunks:
        if kind != c';':
            return FRAME_ERROR
        return begin_length(f, kind)
    if kind == c'+' or kind == c'-' or kind == c':' or kind == c'_' or kind == c'#' \
            or kind == c',' or kind == c'(':
        f.kind = kind
        f.state = AT_LINE
        return FRAME_MORE
    if kind == c'$' or kind == c'*' or kind == c'%' or kind == c'~' or kind == c'>' \
            or kind == c'|' or kind == c'!' or kind == c'=':
        return begin_length(f, kind)
    if kind == c'.' and f.depth > 0:
        f.kind = kind
        f.state = AT_LINE
        return FRAME_MORE
    return FRAME_ERROR


cdef int open_stream(Framer* f) noexcept nogil:
    """A header with `?` for its length."""
    if f.kind == c'$':
        f.chunks = True
        return FRAME_MORE
    if f.kind != c'*' and f.kind != c'%' and f.kind != c'~':
        return FRAME_ERROR
    if f.depth == STREAM_DEPTH:
        return FRAME_ERROR
    f.outer[f.depth] = f.remaining - 1
    f.depth += 1
    f.remaining = OPEN
    return FRAME_MORE


cdef int end_length(Framer* f) noexcept nogil:
    """Act on a length whose line is complete."""
    cdef int64_t n = f.number
    f.state = AT_TYPE
    if f.streamed:
        return open_stream(f)
    if f.digits == 0:
        return FRAME_ERROR
    if f.kind == c';':
        if n == 0:
            f.chunks = False
            f.remaining -= 1
        else:
            f.bulk = n + 2
            f.state = AT_BULK
        return FRAME_MORE
    if f.negative:
        # Only the RESP2 nulls $-1 and *-1.
        if n != 1 or (f.kind != c'$' and f.kind != c'*'):
            return FRAME_ERROR
        f.remaining -= 1
        return FRAME_MORE
    if f.kind == c'$' or f.kind == c'!' or f.kind == c'=':
        f.bulk = n + 2
        f.state = AT_BULK
    elif f.kind == c'>' and f.first != c'>':
        f.remaining += n                # it is none of the values that it stands between
    elif f.kind == c'*' or f.kind == c'~' or f.kind == c'>':
        f.remaining += n - 1
    elif f.kind == c'%':
        f.remaining += 2 * n - 1
    else:
        f.remaining += 2 * n
    # A sum this large is no reply: without a bound it could be driven over the edge.
    if f.remaining > OPEN + (OPEN >> 1) or f.remaining < 0:
        return FRAME_ERROR
    return FRAME_MORE


cdef int read_length(Framer* f, const char* p, size_t n, size_t* at) noexcept nogil:
    """Read on in a length; FRAME_MORE when the line is over or the bytes are."""
    cdef size_t i = at[0]
    cdef char c
    while i < n:
        c = p[i]
        i += 1
        if c >= c'0' and c <= c'9' and not f.streamed and f.digits < MAX_DIGITS:
            f.number = f.number * 10 + (c - c'0')
            f.digits += 1
        elif c == CR:
            f.state = AT_LF
            break
        elif c == c'-' and f.digits == 0 and not f.negative:
            f.negative = True
        elif c == c'?' and f.digits == 0 and not f.negative:
            f.streamed = True
        else:
            return FRAME_ERROR
    at[0] = i
    return FRAME_MORE


cdef int end_line(Framer* f) noexcept nogil:
    f.state = AT_TYPE
    if f.kind == c'.':
        f.depth -= 1
        f.remaining = f.outer[f.depth]
    else:
        f.remaining -= 1
    return FRAME_MORE


cdef inline size_t whole_value(const char* p, size_t n) noexcept nogil:
    """The size of the string or simple line at p, as most values are; 0 if it is none or not whole."""
    cdef size_t size = 0
    cdef size_t head
    cdef const char* lf
    if p[0] == c'$':
        head = read_header(p, n, c'$', &size)
        return head + size + 2 if head and n - head >= size + 2 else 0
    if p[0] == c'+' or p[0] == c':':
        lf = <const char*>memchr(p, LF, n)
        return lf - p + 1 if lf != NULL else 0
    return 0


cdef int frame_reply(Framer* f, const char* p, size_t n, size_t* at) noexcept nogil:
    """Read on from at[0] until the current reply ends or the bytes do; at[0] moves."""
    cdef size_t i = at[0]
    cdef size_t whole
    cdef const char* lf
    cdef int r
    while i < n:
        whole = 0
        if f.state == AT_TYPE and not f.chunks:
            whole = whole_value(p + i, n - i)
        if whole:
            if f.first == 0 and f.remaining == 1 and f.depth == 0:
                f.first = p[i]
            i += whole
            f.remaining -= 1
            r = FRAME_MORE
        elif f.state == AT_TYPE:
            r = begin_value(f, p[i])
            i += 1
        elif f.state == AT_LENGTH:
            r = read_length(f, p, n, &i)
        elif f.state == AT_LF:
            r = end_length(f) if p[i] == LF else FRAME_ERROR
            i += 1
        elif f.state == AT_LINE:
            lf = <const char*>memchr(p + i, LF, n - i)
            if lf == NULL:
                i = n
                break
            i = lf - p + 1
            r = end_line(f)
        else:
            if <int64_t>(n - i) < f.bulk:
                f.bulk -= <int64_t>(n - i)
                i = n
                break
            i += <size_t>f.bulk
            f.bulk = 0
            f.state = AT_TYPE
            if not f.chunks:
                f.remaining -= 1
            r = FRAME_MORE
        if r == FRAME_ERROR:
            at[0] = i
            return FRAME_ERROR
        if f.remaining == 0 and f.depth == 0 and f.state == AT_TYPE:
            at[0] = i
            f.remaining = 1
            r = FRAME_PUSH if f.first == c'>' else FRAME_REPLY
            return r
    at[0] = i
    return FRAME_MORE


cdef class ReplyDecoder:
    """The framer as Python sees it: for the control plane and for tests.

    feed(data) gives the replies that the new bytes complete, each as (kind, raw bytes) with kind
    "reply" or "push". ValueError: the bytes are not the Redis protocol.
    """
    cdef Framer framer
    cdef bytearray pending

    def __init__(self):
        framer_reset(&self.framer)
        self.pending = bytearray()

    def feed(self, bytes data):
        cdef list found = []
        cdef size_t at = 0
        cdef int r
        cdef const char* p = data
        cdef size_t n = len(data)
        cdef size_t begin = 0
        while at < n:
            r = frame_reply(&self.framer, p, n, &at)
            self.pending += p[begin:at]
            begin = at
            if r == FRAME_ERROR:
                raise ValueError(f"not a Redis reply: {bytes(self.pending[:64])!r}")
            if r == FRAME_MORE:
                break
            found.append(("push" if r == FRAME_PUSH else "reply", bytes(self.pending)))
            self.pending = bytearray()
            self.framer.first = 0
        return found
