# cython: language_level=3
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
from libc.string cimport memchr
from libc.stdlib cimport free, malloc
from sidecar.core.memory cimport buffer_append, buffer_release
from sidecar.core.protocol.cursor cimport (cursor_begin, cursor_next, put_header, read_header,
    read_number)

cdef enum:
    LINE_MAX = 65536    # PROTO_INLINE_MAX_SIZE: longest inline request and header line
    CR = 13
    LF = 10

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


cdef int read_line(Scanner* s, const char* p, size_t n, int64_t* value, int too_long) noexcept nogil:
    """Read `<type><number> CR LF` at pos, which read_header has not found there.

    SCAN_DONE moves past it and sets value; s.error is set, too, where the number is none: which
    error that is depends on the kind of line.
    """
    cdef size_t at = s.pos
    cdef const char* cr = <const char*>memchr(p + at, CR, n - at)
    cdef size_t line
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
        s.pos = at + line + 2
        s.error = ERR_CRLF
        return SCAN_ERROR
    if not read_number(p + at + 1, line - 1, value):
        s.error = ERR_COUNT
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
    cdef size_t count = 0
    cdef int r
    if p[0] != c'*':
        return scan_inline(s, p, n)
    s.error = ERR_NONE
    s.pos = read_header(p, n, c'*', &count)
    value = <int64_t>count
    if s.pos == 0:
        r = read_line(s, p, n, &value, ERR_COUNT_SIZE)
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
    cdef int r
    if n == 0:
        return SCAN_MORE
    if s.argc < 0:
        r = scan_count(s, p, n, limits, authenticated)
        if r != SCAN_DONE:
            return r
    if s.bulk < 0 and s.pos < n:
        scan_whole(s, p, n, limits, authenticated)
        if s.left == 0:
            return SCAN_DONE
    return scan_rest(s, p, n, limits, authenticated)


cdef inline void scan_whole(Scanner* s, const char* p, size_t n, const Limits* limits,
                            bint authenticated) noexcept nogil:
    """Pass the arguments that are there as a whole, and have nothing wrong."""
    cdef Cursor c
    cdef size_t most = <size_t>limits.bulk
    if not authenticated and <size_t>limits.unauth_bulk < most:
        most = <size_t>limits.unauth_bulk
    cursor_on(&c, p + s.pos, n - s.pos)
    while s.left and cursor_next(&c) and c.size <= most:
        if s.left == s.argc:
            s.name_at = <uint32_t>(c.arg - p)
            s.name_len = <uint32_t>c.size
        s.left -= 1
        s.pos = <size_t>(c.at - p)


cdef int scan_rest(Scanner* s, const char* p, size_t n, const Limits* limits,
                   bint authenticated) noexcept nogil:
    """Go on with an argument that comes in parts, or say what is wrong with it."""
    cdef int64_t value = 0
    cdef size_t rest
    cdef int r
    while True:
        if s.bulk >= 0:
            rest = n - s.pos if n > s.pos else 0
            if <int64_t>rest < s.bulk + 2:
                if <int64_t>rest > s.bulk:
                    if p[s.pos + s.bulk] != CR:
                        s.pos = n
                        s.error = ERR_CRLF
                        return SCAN_ERROR
                    rest = s.bulk
                s.pos += rest
                s.bulk -= rest
                return SCAN_MORE
            s.pos += s.bulk
            if p[s.pos] != CR or p[s.pos + 1] != LF:
                s.pos += 2
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
        r = read_line(s, p, n, &value, ERR_BULK_SIZE)
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


cdef bint ends_word(char c) noexcept nogil:
    """Of the blanks, vertical tab and form feed do not end a word that has begun."""
    return c == c' ' or c == 9 or c == 10 or c == 13


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


cdef Py_ssize_t split_word(const char* p, size_t n, size_t* at, char* out,
                           bint joined) noexcept nogil:
    """Copy the word at `at` without its quotes to out: its length, or -1 for bad quotes.

    `joined`: a word may go on behind its closing quote, as in a shell (Limits.joined_quotes). Then
    an escape that ends the line is none."""
    cdef size_t i = at[0]
    cdef size_t last = n - joined if n else 0   # an escape must end before here
    cdef Py_ssize_t k = 0
    cdef char quote = 0
    while True:
        if quote:
            if i >= n:
                return -1
            if quote == c'"' and p[i] == c'\\' and i + 3 < last and p[i + 1] == c'x' \
                    and hex_value(p[i + 2]) >= 0 and hex_value(p[i + 3]) >= 0:
                out[k] = <char>(hex_value(p[i + 2]) * 16 + hex_value(p[i + 3]))
                k += 1
                i += 3
            elif quote == c'"' and p[i] == c'\\' and i + 1 < last:
                i += 1
                out[k] = unescape(p[i])
                k += 1
            elif quote == c"'" and p[i] == c'\\' and i + 1 < last and p[i + 1] == c"'":
                i += 1
                out[k] = c"'"
                k += 1
            elif p[i] == quote and joined:
                quote = 0
            elif p[i] == quote:
                if i + 1 < n and not is_blank(p[i + 1]):
                    return -1
                at[0] = i + 1
                return k
            else:
                out[k] = p[i]
                k += 1
        else:
            if i >= n or ends_word(p[i]):
                at[0] = i
                return k
            if p[i] == c'"' or p[i] == c"'":
                quote = p[i]
            else:
                out[k] = p[i]
                k += 1
        i += 1


cdef int inline_to_multibulk(const char* p, size_t n, Buffer* out,
                             bint joined) noexcept nogil:
    """Write the inline line p[0:n] (with its line end) as a multibulk request.

    Returns SCAN_DONE, SCAN_EMPTY (only blanks), or SCAN_ERROR (quotes, or memory is out).
    """
    cdef Buffer body
    cdef char* word
    cdef size_t at = 0
    cdef Py_ssize_t k
    cdef size_t argc = 0
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
        k = split_word(p, n, &at, word, joined)
        if k < 0 or put_header(&body, c'$', <size_t>k) < 0 \
                or buffer_append(&body, word, k) < 0 or buffer_append(&body, b"\r\n", 2) < 0:
            result = SCAN_ERROR
            break
        argc += 1
    if result == SCAN_DONE:
        if argc == 0:
            result = SCAN_EMPTY
        elif put_header(out, c'*', argc) < 0 \
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


def normalise_inline(bytes line, bint joined=False):
    """An inline line as a multibulk request; b"" when it is blank, None for unbalanced quotes.

    `joined`: a word may go on behind its closing quote, as Valkey 9 has it."""
    cdef Buffer out
    cdef int r
    out.data = NULL
    out.start = out.end = out.cap = 0
    r = inline_to_multibulk(line, len(line), &out, joined)
    if r == SCAN_ERROR:
        return None
    result = b"" if r == SCAN_EMPTY else out.data[out.start:out.end]
    buffer_release(&out)
    return result


def split_arguments(bytes raw):
    """The arguments of one whole multibulk request."""
    cdef Cursor c
    cdef list args = []
    cursor_begin(&c, raw, len(raw))
    while cursor_next(&c):
        args.append(c.arg[:c.size])
    return args
