"""Which keys a request names (see keys.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command, FORM_MASK, FORM_ONE, FORM_REST, FORM_WRITES
from sidecar.core.protocol.cursor cimport Cursor, cursor_next
from sidecar.core.protocol.request cimport Scanner, arguments_of

cdef enum:
    # What find_keys gives instead of a number of keys. Each means: any key may be touched. (Only
    # read, if the command is flagged COMMAND_READ; PFCOUNT alone writes all the same.)
    KEYS_UNKNOWN = -1       # can't be known: the command is not, or its arguments make no sense
    KEYS_TOO_MANY = -2      # more than there is room for
    KEYS_UNDECLARED = -3    # a script or function that declares none
    KEYS_ANY = -4           # none are named, all are meant: FLUSHALL

cdef struct KeySpan:
    const char* p
    size_t n
    bint write              # the command may change this key

cdef int find_keys(const Command* c, const char* request, size_t n, KeySpan* out,
                   int most) noexcept nogil


cdef bint key_in_part(const Command* c, const char* request, size_t n, KeySpan* key) noexcept nogil


cdef inline bint first_key(const Command* c, const char* request, size_t n, const Scanner* scan,
                           KeySpan* key) noexcept nogil:
    """The key of a request that names exactly one, as argument 1; False: ask find_keys.

    `scan` has just found the multibulk request request[0:n] whole.
    """
    cdef Cursor a
    cdef int form = c.keys & FORM_MASK
    if scan.argc < 2 or not (form == FORM_ONE or (form == FORM_REST and scan.argc == 2)):
        return False
    arguments_of(&a, request, n, scan)
    if not cursor_next(&a):
        return False
    key.p = a.arg
    key.n = a.size
    key.write = c.keys & FORM_WRITES != 0
    return True
