"""Finding where a request ends: the request scanner (see request.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.cursor cimport Cursor, cursor_on

cdef enum Scanned:
    SCAN_MORE = 0       # the request is not whole yet
    SCAN_DONE = 1       # bytes [0, pos) are one multibulk request
    SCAN_EMPTY = 2      # bytes [0, pos) are a request without arguments: no reply is due
    SCAN_INLINE = 3     # bytes [0, pos) are one inline line, to be split by inline_to_multibulk
    SCAN_ERROR = 4      # a protocol error; `error` says which. After ERR_CRLF and ERR_BULK `pos`
                        # is behind the bytes that are wrong

cdef enum RequestError:
    ERR_NONE = 0
    ERR_INLINE_SIZE
    ERR_QUOTES
    ERR_COUNT_SIZE
    ERR_COUNT
    ERR_UNAUTH_COUNT
    ERR_BULK_SIZE
    ERR_DOLLAR
    ERR_BULK
    ERR_UNAUTH_BULK
    ERR_CRLF
    ERR_MEMORY

cdef struct Scanner:
    size_t pos          # bytes of this request scanned so far
    int64_t argc        # number of arguments, -1 until the header has been read
    int64_t left        # arguments not yet complete
    int64_t bulk        # payload bytes of the current argument not yet passed, -1 between arguments
    uint32_t name_at    # where the first argument's payload begins
    uint32_t name_len
    int error
    char found          # what stood in the place of '$'

cdef struct Limits:
    int64_t bulk        # proto-max-bulk-len of the server
    int64_t count       # arguments a request may have
    int64_t unauth_bulk
    int64_t unauth_count
    bint joined_quotes  # in inline requests a word may go on behind a closing quote (Valkey 9)

cdef inline void scanner_reset(Scanner* s) noexcept nogil:
    s.pos = 0
    s.argc = -1
    s.left = 0
    s.bulk = -1
    s.name_at = 0
    s.name_len = 0

cdef int scan_request(Scanner* s, const char* p, size_t n, const Limits* limits,
                      bint authenticated) noexcept nogil
cdef int inline_to_multibulk(const char* p, size_t n, Buffer* out, bint joined) noexcept nogil
cdef bytes error_text(int error, char found)


cdef inline void arguments_of(Cursor* c, const char* p, size_t n, const Scanner* s) noexcept nogil:
    """Read the arguments behind the name of the request p[0:n], which is `s`'s."""
    cdef size_t at = <size_t>s.name_at + s.name_len + 2
    cursor_on(c, p + at, n - at if at < n else 0)
