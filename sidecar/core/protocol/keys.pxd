"""Which keys a request names (see keys.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t
from sidecar.core.protocol.commands cimport Command, FORM_MASK, FORM_ONE, FORM_REST, FORM_WRITES

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


cdef inline bint first_key(const Command* c, const char* request, uint32_t name_at,
                           uint32_t name_len, int64_t argc, KeySpan* key) noexcept nogil:
    """The key of a request that names exactly one, as argument 1; False: ask find_keys.

    `request` must be a whole multibulk request that scan_request has gone through: `name_at`,
    `name_len` and `argc` are the scanner's.
    """
    cdef const char* p
    cdef size_t n = 0
    cdef int form = c.keys & FORM_MASK
    if argc < 2 or not (form == FORM_ONE or (form == FORM_REST and argc == 2)):
        return False
    p = request + name_at + name_len + 3        # past CR LF and '$'
    while p[0] >= c'0':
        n = n * 10 + <size_t>(p[0] - c'0')
        p += 1
    key.p = p + 2
    key.n = n
    key.write = c.keys & FORM_WRITES != 0
    return True
