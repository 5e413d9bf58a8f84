# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Finding where a request ends, and nothing more.

The scanner walks the headers of one multibulk request and skips the payloads; it copies and
keeps nothing. It may be called again with more bytes and goes on where it stopped, so a
request that trickles in byte by byte costs one pass in all. `pos` counts from the request's
first byte; the caller keeps those bytes, or, when it streams a large request, forwards the
first `pos` of them and calls `scanner_forwarded`.

Every rule and error text is the server's own (networking.c of Valkey 9 and Redis 7): numbers
are strict (no sign, blank or leading zero), a count of zero or less is an empty request, a
header line is at most 64 KiB. One rule is Valkey 9's: each payload and header line must end in
CR LF. Redis 7 skips those two bytes unread, and a proxy that did so too could be made to see
other boundaries than the server behind it.
"""
from libc.string cimport memchr, memcpy
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from sidecar.core.memory cimport buffer_append, buffer_release

cdef enum:
    LINE_MAX = 65536    # PROTO_INLINE_MAX_SIZE: longest inline request and header line
    BAD_NUMBER = -2     # what read_number gives for text that is no strict number
    CR = 13
    LF = 10

cdef uint64_t LARGEST = (<uint64_t>1 << 63) - 1

TEXTS = {
    ERR_INLINE_SIZE: b"too big inline request",
    ERR_QUOTES: b"unbalanced quotes in request",
    ERR_COUNT_SIZE: b"too big mbulk count string",
    ERR_COUNT: b"invalid multibulk length",
    ERR_UNAUTH_COUNT: b"unauthenticated multibulk length",
    ERR_BULK_SIZE: b"too big bulk count string",
    ERR_BULK: b"invalid bulk length",
    ERR_UNAUTH_BULK: b"unauthenticated bulk length",
    ERR_CRLF: b"invalid CRLF in request",
}


cdef bytes error_text(int error, char found):
    """The error reply, CR LF included, that the server gives for this protocol error."""
    cdef bytes c
    if error == ERR_MEMORY:
        return b"-ERR sidecar: out of memory\r\n"
    if error == ERR_DOLLAR:
        c = found.to_bytes(1, "big", signed=True)
        # The server's error replies turn line breaks into blanks.
        c = c.replace(b"\r", b" ").replace(b"\n", b" ")
        return b"-ERR Protocol error: expected '$', got '" + c + b"'\r\n"
    return b"-ERR Protocol error: " + TEXTS[error] + b"\r\n"


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


cdef int read_header(Scanner* s, const char* p, size_t n, int64_t* value,
                     int too_long) noexcept nogil:
    """Read `<type><number>CRLF` at pos: SCAN_DONE moves past it and sets value.

    A number that is none gives SCAN_DONE with value BAD_NUMBER-like False: the caller learns it
    through s.error, since which error it is depends on the kind of line.
    """
    cdef size_t at = s.pos
    cdef size_t i = at + 1
    cdef int64_t v = 0
    cdef const char* cr
    cdef size_t line
    # The usual case: one to nine digits without a leading zero, then CR LF.
    while i < n and i - at < 10 and p[i] >= c'0' and p[i] <= c'9':
        v = v * 10 + (p[i] - c'0')
        i += 1
    if i + 1 < n and p[i] == CR and i > at + 1 and (p[at + 1] != c'0' or i == at + 2):
        if p[i + 1] != LF:
            s.error = ERR_CRLF
            return SCAN_ERROR
        value[0] = v
        s.pos = i + 2
        return SCAN_DONE
    cr = <const char*>memchr(p + at, CR, n - at)
    if cr == NULL:
        if n - at > LINE_MAX:
            s.error = too_long
            return SCAN_ERROR
        return SCAN_MORE
    line = cr - (p + at)
    if line > LINE_MAX:
        s.error = too_long
        return SCAN_ERROR
    if at + line + 1 >= n:
        return SCAN_MORE
    s.error = ERR_NONE
    if p[at + line + 1] != LF:
        s.error = ERR_CRLF
        return SCAN_ERROR
    if line == 0 or not read_number(p + at + 1, line - 1, value):
        value[0] = BAD_NUMBER
        s.error = ERR_COUNT
        if line == 0:
            return SCAN_DONE
    s.pos = at + line + 2
    return SCAN_DONE


cdef int scan_inline(Scanner* s, const char* p, size_t n) noexcept nogil:
    """One line. A NUL hides what follows it from the server, so it does here too."""
    cdef const char* lf = <const char*>memchr(p, LF, n)
    if lf != NULL and memchr(p, 0, lf - p) != NULL:
        lf = NULL
    if lf == NULL or lf - p > LINE_MAX:
        if n > LINE_MAX:
            s.error = ERR_INLINE_SIZE
            return SCAN_ERROR
        return SCAN_MORE
    s.pos = lf - p + 1
    if s.pos == 1 or (s.pos == 2 and p[0] == CR):
        return SCAN_EMPTY
    return SCAN_INLINE


cdef int scan_count(Scanner* s, const char* p, size_t n, const Limits* limits,
                    bint authenticated) noexcept nogil:
    """The request's first line. SCAN_DONE: go on with the arguments."""
    cdef int64_t value = 0
    cdef int r
    if p[0] != c'*':
        return scan_inline(s, p, n)
    s.error = ERR_NONE
    r = read_header(s, p, n, &value, ERR_COUNT_SIZE)
    if r != SCAN_DONE:
        return r
    if s.error == ERR_NONE and value > limits.count:
        s.error = ERR_COUNT
    elif s.error == ERR_NONE and not authenticated and value > limits.unauth_count:
        s.error = ERR_UNAUTH_COUNT
    if s.error != ERR_NONE:
        return SCAN_ERROR
    if value <= 0:
        return SCAN_EMPTY
    s.argc = s.left = value
    return SCAN_DONE


cdef int scan_request(Scanner* s, const char* p, size_t n, const Limits* limits,
                      bint authenticated) noexcept nogil:
    """Go on scanning the request that begins at p, of which n bytes are there."""
    cdef int64_t value = 0
    cdef size_t rest
    cdef int r
    if n == 0:
        return SCAN_MORE
    if s.argc < 0:
        r = scan_count(s, p, n, limits, authenticated)
        if r != SCAN_DONE:
            return r
    while True:
        if s.bulk >= 0:
            rest = n - s.pos if n > s.pos else 0
            if <int64_t>rest < s.bulk + 2:
                if <int64_t>rest > s.bulk:
                    if p[s.pos + s.bulk] != CR:
                        s.error = ERR_CRLF
                        return SCAN_ERROR
                    rest = s.bulk
                s.pos += rest
                s.bulk -= rest
                return SCAN_MORE
            s.pos += s.bulk
            if p[s.pos] != CR or p[s.pos + 1] != LF:
                s.error = ERR_CRLF
                return SCAN_ERROR
            s.pos += 2
            s.bulk = -1
            s.left -= 1
        if s.left == 0:
            return SCAN_DONE
        if s.pos >= n:
            return SCAN_MORE
        if p[s.pos] != c'$':
            # The server looks at the mark only once the line is there.
            if memchr(p + s.pos, CR, n - s.pos) == NULL and n - s.pos <= LINE_MAX:
                return SCAN_MORE
            s.found = p[s.pos]
            s.error = ERR_DOLLAR if memchr(p + s.pos, CR, n - s.pos) != NULL else ERR_BULK_SIZE
            return SCAN_ERROR
        s.error = ERR_NONE
        r = read_header(s, p, n, &value, ERR_BULK_SIZE)
        if r != SCAN_DONE:
            return r
        if s.error != ERR_NONE or value < 0 or value > limits.bulk:
            s.error = ERR_BULK
            return SCAN_ERROR
        if not authenticated and value > limits.unauth_bulk:
            s.error = ERR_UNAUTH_BULK
            return SCAN_ERROR
        s.bulk = value
        if s.left == s.argc:
            s.name_at = <uint32_t>s.pos
            s.name_len = <uint32_t>value


cdef bint next_argument(const char* p, size_t n, size_t* at, const char** arg,
                        size_t* size) noexcept nogil:
    """Walk the arguments of a whole request: start with at = 0; False after the last.

    p[0:n] must be one request that scan_request has found whole.
    """
    cdef size_t i = at[0]
    cdef size_t v = 0
    if i == 0:
        i = <size_t>(<const char*>memchr(p, LF, n) - p) + 1
    if i >= n:
        return False
    i += 1
    while p[i] != CR:
        v = v * 10 + <size_t>(p[i] - c'0')
        i += 1
    i += 2
    arg[0] = p + i
    size[0] = v
    at[0] = i + v + 2
    return True


cdef int hex_value(char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    if c'A' <= c <= c'F':
        return c - c'A' + 10
    return -1


cdef bint is_blank(char c) noexcept nogil:
    return c == c' ' or (c >= 9 and c <= 13)


cdef char unescape(char c) noexcept nogil:
    if c == c'n':
        return 10
    if c == c'r':
        return 13
    if c == c't':
        return 9
    if c == c'b':
        return 8
    if c == c'a':
        return 7
    return c


cdef Py_ssize_t split_word(const char* p, size_t n, size_t* at, char* out) noexcept nogil:
    """Copy the word at `at` without its quotes to out: its length, or -1 for bad quotes."""
    cdef size_t i = at[0]
    cdef Py_ssize_t k = 0
    cdef char quote = 0
    while True:
        if quote:
            if i >= n:
                return -1
            if quote == c'"' and p[i] == c'\\' and i + 3 < n and p[i + 1] == c'x' \
                    and hex_value(p[i + 2]) >= 0 and hex_value(p[i + 3]) >= 0:
                out[k] = <char>(hex_value(p[i + 2]) * 16 + hex_value(p[i + 3]))
                k += 1
                i += 3
            elif quote == c'"' and p[i] == c'\\' and i + 1 < n:
                i += 1
                out[k] = unescape(p[i])
                k += 1
            elif quote == c"'" and p[i] == c'\\' and i + 1 < n and p[i + 1] == c"'":
                i += 1
                out[k] = c"'"
                k += 1
            elif p[i] == quote:
                if i + 1 < n and not is_blank(p[i + 1]):
                    return -1
                at[0] = i + 1
                return k
            else:
                out[k] = p[i]
                k += 1
        else:
            if i >= n or is_blank(p[i]):
                at[0] = i
                return k
            if p[i] == c'"' or p[i] == c"'":
                quote = p[i]
            else:
                out[k] = p[i]
                k += 1
        i += 1


cdef int inline_to_multibulk(const char* p, size_t n, Buffer* out) noexcept nogil:
    """Write the inline line p[0:n] (with its line end) as a multibulk request.

    Returns SCAN_DONE, SCAN_EMPTY (only blanks), or SCAN_ERROR (quotes, or memory is out).
    """
    cdef Buffer body
    cdef char head[32]
    cdef char* word
    cdef size_t at = 0
    cdef Py_ssize_t k
    cdef int argc = 0
    cdef int result = SCAN_DONE
    body.data = NULL
    body.start = body.end = body.cap = 0
    n -= 1
    if n > 0 and p[n - 1] == CR:
        n -= 1
    word = <char*>malloc(n + 1)
    if word == NULL:
        return SCAN_ERROR
    while True:
        while at < n and is_blank(p[at]):
            at += 1
        if at >= n:
            break
        k = split_word(p, n, &at, word)
        if k < 0 or buffer_append(&body, head, snprintf(head, 32, b"$%zd\r\n", k)) < 0 \
                or buffer_append(&body, word, k) < 0 or buffer_append(&body, b"\r\n", 2) < 0:
            result = SCAN_ERROR
            break
        argc += 1
    if result == SCAN_DONE:
        if argc == 0:
            result = SCAN_EMPTY
        elif buffer_append(out, head, snprintf(head, 32, b"*%d\r\n", argc)) < 0 \
                or buffer_append(out, body.data + body.start, body.end - body.start) < 0:
            result = SCAN_ERROR
    buffer_release(&body)
    free(word)
    return result


cdef class RequestDecoder:
    """The scanner as Python sees it: for tests and tools, not for the data path.

    feed(data) gives the events that the new bytes complete: ("request", [arguments], raw bytes),
    ("empty",) and, once, ("error", reply bytes); after that it must not be fed again.
    """
    cdef Scanner scanner
    cdef Limits limits
    cdef bytearray pending
    cdef bint authenticated

    def __init__(self, *, int64_t max_bulk=512 * 1024 * 1024, bint authenticated=True):
        scanner_reset(&self.scanner)
        self.limits.bulk = max_bulk
        self.limits.count = 2147483647
        self.limits.unauth_bulk = 16384
        self.limits.unauth_count = 10
        self.authenticated = authenticated
        self.pending = bytearray()

    def feed(self, bytes data):
        cdef list events = []
        cdef int r
        cdef bytes raw
        self.pending += data
        while self.pending:
            r = scan_request(&self.scanner, self.pending, len(self.pending), &self.limits,
                             self.authenticated)
            if r == SCAN_MORE:
                break
            if r == SCAN_ERROR:
                events.append(("error", error_text(self.scanner.error, self.scanner.found)))
                break
            raw = bytes(self.pending[:self.scanner.pos])
            del self.pending[:self.scanner.pos]
            scanner_reset(&self.scanner)
            if r == SCAN_EMPTY:
                events.append(("empty",))
            elif r == SCAN_INLINE:
                event = self.inline(raw)
                events.append(event)
                if event[0] == "error":
                    break
            else:
                events.append(("request", split_arguments(raw), raw))
        return events

    cdef tuple inline(self, bytes raw):
        cdef bytes multibulk = normalise_inline(raw)
        if multibulk is None:
            return ("error", error_text(ERR_QUOTES, 0))
        if not multibulk:
            return ("empty",)
        return ("request", split_arguments(multibulk), raw)


def normalise_inline(bytes line):
    """An inline line as a multibulk request; b"" when it is blank, None for unbalanced quotes."""
    cdef Buffer out
    cdef int r
    out.data = NULL
    out.start = out.end = out.cap = 0
    r = inline_to_multibulk(line, len(line), &out)
    if r == SCAN_ERROR:
        return None
    result = b"" if r == SCAN_EMPTY else out.data[out.start:out.end]
    buffer_release(&out)
    return result


def split_arguments(bytes raw):
    """The arguments of one whole multibulk request."""
    cdef size_t at = 0
    cdef const char* arg = NULL
    cdef size_t size = 0
    cdef list args = []
    while next_argument(raw, len(raw), &at, &arg, &size):
        args.append(arg[:size])
    return args
