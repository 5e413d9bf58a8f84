# cython: language_level=3
"""Taking the prefix off the names in a whole reply.

    p[0:given]      written to `out`, without what has been cut away
    p[given:at]     looked at, and to be written as it is
    p[at:n]         not looked at yet

Only the values on the way to a name are opened; the framer skips the others, however deep they are.
A name without the prefix stays as it is. Whatever the bytes are, nothing beyond p[n] is read: a reply
that is not built as its shape says ends the walk, and the rest of it is written as it is.
"""
from libc.string cimport memchr, memcmp
from sidecar.core.memory cimport buffer_append
from sidecar.core.protocol.cursor cimport put_header, read_line_number
from sidecar.core.protocol.reply cimport (FRAME_ERROR, FRAME_MORE, Framer, frame_reply,
    framer_reset)
from sidecar.core.rewrite.rules cimport (SHAPE_EACH, SHAPE_ERROR, SHAPE_EVEN, SHAPE_FIRST, SHAPE_KEY,
    SHAPE_NONE, SHAPE_SCAN, SHAPE_STREAMS, SHAPE_TRACKING)

cdef enum Role:
    ROLE_SKIP = 0
    ROLE_NAME = 1
    ROLE_OPEN = 2           # there are names inside

cdef enum:
    MOST = 1 << 30          # no reply has more values at one level

cdef const char* NO_GROUP = b"-NOGROUP "
cdef const char* BEFORE_KEY = b"key '"
cdef const char* BEFORE_KEY_NAME = b"key name '"


cdef void walk_begin(Walk* w, const char* p, size_t n, Buffer* out, const char* prefix,
                     size_t size) noexcept nogil:
    """Walk through the reply p[0:n]."""
    w.p, w.n, w.out = p, n, out
    w.at = w.given = 0
    w.prefix, w.size = prefix, size


cdef int walk_end(Walk* w) noexcept nogil:
    """Write what is left: 0, or -1 without memory."""
    cdef size_t given = w.given
    w.given = w.at = w.n
    return buffer_append(w.out, w.p + given, w.n - given)


cdef bint walk_length(Walk* w, int64_t* length) noexcept nogil:
    """Pass a header, and tell the number in it. False: there is none."""
    cdef const char* line_feed = <const char*>memchr(w.p + w.at, 10, w.n - w.at)
    if line_feed == NULL or not read_line_number(w.p + w.at + 1, line_feed - (w.p + w.at), length):
        return False
    w.at = <size_t>(line_feed - w.p) + 1
    return True


cdef bint walk_bulk(Walk* w, Bulk* b) noexcept nogil:
    """Pass a string. False: there is none."""
    cdef int64_t length = 0
    cdef bint null
    b.header = w.at
    b.p, b.n = NULL, 0
    if w.at >= w.n:
        return False
    null = w.p[w.at] == c'_'
    if null:
        return walk_skip(w)
    if w.p[w.at] != c'$' or not walk_length(w, &length):
        return False
    if length < 0:
        return True
    if w.n - w.at < 2 or <size_t>length > w.n - w.at - 2:
        return False
    b.p, b.n = w.p + w.at, <size_t>length
    w.at += b.n + 2
    return True


cdef bint walk_skip(Walk* w) noexcept nogil:
    """Pass one value, whatever it is. False: it is not there as a whole."""
    cdef Framer f
    cdef int r
    framer_reset(&f)
    r = frame_reply(&f, w.p, w.n, &w.at)
    return r != FRAME_MORE and r != FRAME_ERROR


cdef bint walk_cut(Walk* w, const Bulk* b, size_t at) noexcept nogil:
    """Take the prefix out of a string that has it at `at`. False: memory is out."""
    if buffer_append(w.out, w.p + w.given, b.header - w.given) < 0 \
            or put_header(w.out, c'$', b.n - w.size) < 0 or buffer_append(w.out, b.p, at) < 0:
        return False
    w.given = <size_t>(b.p - w.p) + at + w.size
    return True


cdef bint walk_name(Walk* w) noexcept nogil:
    cdef Bulk b
    if not walk_bulk(w, &b):
        return False
    if b.p == NULL or b.n < w.size or memcmp(b.p, w.prefix, w.size) != 0:
        return True
    return walk_cut(w, &b, 0)


cdef const char* behind(const char* p, size_t n, const char* words, size_t size) noexcept nogil:
    """What stands behind these words in p[0:n]; NULL: they are not there."""
    cdef size_t i
    for i in range(n - size + 1 if n >= size else 0):
        if p[i] == words[0] and memcmp(p + i, words, size) == 0:
            return p + i + size
    return NULL


cdef bint walk_error(Walk* w) noexcept nogil:
    """Take the prefix off the key that a stream's error names."""
    cdef const char* line = w.p + w.at
    cdef const char* end
    cdef const char* key
    cdef size_t n
    if not walk_skip(w):
        return False
    end = w.p + w.at
    n = <size_t>(end - line)
    if n < 9 or memcmp(line, NO_GROUP, 9) != 0:
        return True
    key = behind(line, n, BEFORE_KEY, 5)
    if key == NULL:
        key = behind(line, n, BEFORE_KEY_NAME, 10)
    if key == NULL or <size_t>(end - key) < w.size or memcmp(key, w.prefix, w.size) != 0:
        return True
    if buffer_append(w.out, w.p + w.given, <size_t>(key - w.p) - w.given) < 0:
        return False
    w.given = <size_t>(key - w.p) + w.size
    return True


cdef int role_of(int shape, int depth, int64_t index, bint in_map) noexcept nogil:
    """What the value is that stands there."""
    if shape == SHAPE_KEY:
        return ROLE_NAME
    if shape == SHAPE_NONE or shape == SHAPE_ERROR:
        return ROLE_SKIP
    if depth == 0:
        return ROLE_OPEN
    if depth == 1:
        if shape == SHAPE_EACH:
            return ROLE_NAME
        if shape == SHAPE_FIRST:
            return ROLE_NAME if index == 0 else ROLE_SKIP
        if shape == SHAPE_EVEN:
            return ROLE_SKIP if index & 1 else ROLE_NAME
        if shape == SHAPE_SCAN:
            return ROLE_OPEN if index == 1 else ROLE_SKIP
        if shape == SHAPE_TRACKING:
            return ROLE_OPEN if index == 5 else ROLE_SKIP
        if in_map:                      # SHAPE_STREAMS
            return ROLE_SKIP if index & 1 else ROLE_NAME
        return ROLE_OPEN
    if shape == SHAPE_STREAMS:
        return ROLE_NAME if index == 0 else ROLE_SKIP
    return ROLE_NAME


cdef bint walk_messages(Walk* w) noexcept nogil:
    """Pass messages, which old servers let stand between the elements of a reply."""
    while w.at < w.n and w.p[w.at] == c'>':
        if not walk_skip(w):
            return False
    return True


cdef bint walk_into(Walk* w, int shape, int depth, int64_t index, bint in_map) noexcept nogil:
    cdef int role = role_of(shape, depth, index, in_map)
    cdef int64_t count = 0
    cdef int64_t i
    cdef char kind
    if depth and not walk_messages(w):
        return False
    if w.at >= w.n:
        return False
    kind = w.p[w.at]
    if kind == c'-' and shape != SHAPE_NONE:
        return walk_error(w)
    if role == ROLE_NAME and kind == c'$':
        return walk_name(w)
    if role != ROLE_OPEN or not (kind == c'*' or kind == c'%' or kind == c'~'):
        return walk_skip(w)
    if not walk_length(w, &count) or count > MOST:
        return False
    if kind == c'%':
        count *= 2
    for i in range(count):              # none, if it is the null array
        if not walk_into(w, shape, depth + 1, i, kind == c'%'):
            return False
    return True


cdef bint walk_value(Walk* w, int shape) noexcept nogil:
    """Pass one value that has names where its shape says. False: it has another shape, or memory is
    out."""
    return walk_into(w, shape, 0, 0, False)


cdef bint walk_element(Walk* w, int shape) noexcept nogil:
    """The same of one that is an element of another."""
    return walk_messages(w) and walk_into(w, shape, 0, 0, False)
