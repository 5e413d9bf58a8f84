# cython: language_level=3
"""Native fuzzers of the decoders: for tests only.

Inputs are made from the grammar and then damaged, a million and more a second, so that long
runs reach numbers that Python could not. The oracle is the code itself: whatever the bytes are,
decoding them in one piece and in random pieces must give the same events. Each input lies in a
block of its own size, so that an AddressSanitizer build sees a byte read too far.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, strlen
from sidecar.core.memory cimport Buffer, buffer_release
from sidecar.core.protocol.reply cimport FRAME_ERROR, FRAME_MORE, Framer, frame_reply, framer_reset
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next
from sidecar.core.protocol.request cimport (Limits, SCAN_DONE, SCAN_ERROR, SCAN_INLINE, SCAN_MORE, Scanner,
    inline_to_multibulk, scan_request, scanner_reset)
from tests.native.chance cimport below, seeded

cdef extern from * nogil:
    """
    static const char *const fuzz_words[] = {
        "GET", "set", "MULTI", "EXEC", "k", "", "a b", "\\r\\n", "$1", "*1\\r\\n", "\\"q\\"",
        "xread", "BLOCK", "'s'", "0123456789012345678901234567890123456789"};
    static const char *const fuzz_lines[] = {
        "PING\\r\\n", "get k\\n", "set k \\"a\\\\x41\\\\n\\"\\r\\n", "set 'a b' c\\r\\n", "\\r\\n",
        "  \\r\\n", "get \\"a\\"b\\r\\n", "get \\"a\\r\\n", "\\n", "*0\\r\\n", "*-1\\r\\n",
        "*1\\r\\n$-1\\r\\n", "*3000000000\\r\\n", "*9223372036854775807\\r\\n",
        "*-9223372036854775808\\r\\n", "*1\\r\\n$0\\r\\n\\r\\n"};
    static const char *const fuzz_tokens[] = {
        "\\r", "\\n", "\\r\\n", "*", "$", "-", "0", "1", "9", "\\"", "'", "\\\\", " ", ";", "?", ".",
        "%", "~", ">", "|", "=", "!", "_", "#", ",", "(", "+", ":", "*?\\r\\n", "$?\\r\\n",
        ";0\\r\\n", ".\\r\\n", "999999999", "\\xff", "|1\\r\\n"};
    static const char *const fuzz_scalars[] = {
        "+OK\\r\\n", "-ERR x\\r\\n", ":1\\r\\n", "_\\r\\n", "#t\\r\\n", ",1.5\\r\\n", "(12345\\r\\n",
        "$-1\\r\\n", "*-1\\r\\n", "$0\\r\\n\\r\\n", "$3\\r\\na\\r\\n\\r\\n", "=7\\r\\ntxt:abc\\r\\n",
        "!5\\r\\nERR x\\r\\n", "$?\\r\\n;2\\r\\nab\\r\\n;0\\r\\n", "*0\\r\\n", "%0\\r\\n"};
    #define FUZZ_COUNT(a) ((unsigned)(sizeof(a) / sizeof(*(a))))
    """
    const char* const* fuzz_words
    const char* const* fuzz_lines
    const char* const* fuzz_tokens
    const char* const* fuzz_scalars
    unsigned FUZZ_COUNT(const char* const* a)


cdef void put(Text* t, const char* p, size_t n) noexcept nogil:
    """Append what fits."""
    if n > TEXT_MAX - t.n:
        n = TEXT_MAX - t.n
    memcpy(t.data + t.n, p, n)
    t.n += n


cdef void put_text(Text* t, const char* p) noexcept nogil:
    put(t, p, strlen(p))


cdef void put_header(Text* t, char kind, int64_t n) noexcept nogil:
    cdef char head[32]
    put(t, head, snprintf(head, 32, b"%c%lld\r\n", kind, <long long>n))


cdef void make_requests(uint64_t* r, Text* t) noexcept nogil:
    cdef int count = 1 + below(r, 3)
    cdef int i, j, argc
    cdef const char* word
    for i in range(count):
        if below(r, 4) == 0:
            put_text(t, fuzz_lines[below(r, FUZZ_COUNT(fuzz_lines))])
            continue
        argc = 1 + below(r, 3)
        put_header(t, c'*', argc)
        for j in range(argc):
            word = fuzz_words[below(r, FUZZ_COUNT(fuzz_words))]
            put_header(t, c'$', strlen(word))
            put_text(t, word)
            put_text(t, b"\r\n")


cdef void make_reply(uint64_t* r, Text* t, int depth) noexcept nogil:
    cdef uint32_t kind = below(r, 12)
    cdef int n = below(r, 3)
    cdef int i
    if kind < 6 or depth == 0:
        put_text(t, fuzz_scalars[below(r, FUZZ_COUNT(fuzz_scalars))])
    elif kind < 8:
        put_header(t, (<const char*>b"*~>")[below(r, 3)], n)
        for i in range(n):
            make_reply(r, t, depth - 1)
    elif kind < 10:
        put_header(t, c'%' if kind == 8 else c'|', n)
        for i in range(2 * n + (0 if kind == 8 else 1)):
            make_reply(r, t, depth - 1)
    else:
        put_text(t, b"*?\r\n" if kind == 10 else b"%?\r\n")
        for i in range(2 * n):
            make_reply(r, t, depth - 1)
        put_text(t, b".\r\n")


cdef void damage(uint64_t* r, Text* t) noexcept nogil:
    """One small change somewhere."""
    cdef size_t at
    cdef size_t n
    cdef Text rest
    if t.n == 0:
        return
    at = below(r, <uint32_t>t.n)
    n = 1 + below(r, 4)
    if n > t.n - at:
        n = t.n - at
    if below(r, 4) == 0:
        t.data[at] = <char>below(r, 256)
    elif below(r, 3) == 0:
        memmove(t.data + at, t.data + at + n, t.n - at - n)
        t.n -= n
    else:
        rest.n = t.n - at
        memcpy(rest.data, t.data + at, rest.n)
        t.n = at
        put_text(t, fuzz_tokens[below(r, FUZZ_COUNT(fuzz_tokens))])
        put(t, rest.data, rest.n)


cdef inline uint64_t mix(uint64_t h, uint64_t v) noexcept nogil:
    h = (h ^ v) * <uint64_t>1099511628211
    return h ^ (h >> 29)


cdef bint walk(const char* p, size_t n, int64_t argc) noexcept nogil:
    """Whether the arguments of a whole request fill it exactly."""
    cdef Cursor c
    cdef int64_t count = 0
    if cursor_begin(&c, p, n) != argc:
        return False
    while cursor_next(&c):
        count += 1
    return c.at == p + n and count == argc


cdef bint rewrite(const char* p, size_t n, uint64_t* h) noexcept nogil:
    """Whether an inline line becomes one well-formed request, or none."""
    cdef Buffer out
    cdef Scanner scan
    cdef Limits limits
    cdef bint good = True
    cdef int r
    out.data = NULL
    out.start = out.end = out.cap = 0
    r = inline_to_multibulk(p, n, &out, p[0] & 1)
    h[0] = mix(h[0], r)
    if r == SCAN_DONE:
        limits.bulk = limits.count = limits.unauth_bulk = limits.unauth_count = 1 << 30
        scanner_reset(&scan)
        good = scan_request(&scan, out.data + out.start, out.end - out.start, &limits,
                            True) == SCAN_DONE
        good = good and scan.pos == out.end - out.start and walk(out.data + out.start, scan.pos,
                                                                 scan.argc)
    buffer_release(&out)
    return good


cdef bint scan_pieces(uint64_t* r, const char* p, size_t n, const Limits* limits, bint whole,
                      uint64_t* h) noexcept nogil:
    """Scan p[0:n], arriving at once or in random pieces: a digest of the events.

    False: an event contradicts itself.
    """
    cdef Scanner s
    cdef size_t begin = 0
    cdef size_t there = n if whole else 0
    cdef int got = SCAN_MORE
    scanner_reset(&s)
    h[0] = 0
    while True:
        if got == SCAN_MORE and not whole:
            there += 1 + below(r, 1 + below(r, 40))
            if there > n:
                there = n
        got = scan_request(&s, p + begin, there - begin, limits, True)
        if got == SCAN_MORE:
            if there == n:
                break
            continue
        h[0] = mix(mix(h[0], got), begin + (s.error if got == SCAN_ERROR else s.pos))
        if got == SCAN_ERROR:
            break
        if begin + s.pos > there or s.pos == 0:
            return False
        if got == SCAN_DONE and not walk(p + begin, s.pos, s.argc):
            return False
        if got == SCAN_INLINE and not rewrite(p + begin, s.pos, h):
            return False
        begin += s.pos
        scanner_reset(&s)
    return True


cdef bint frame_pieces(uint64_t* r, const char* p, size_t n, bint whole,
                       uint64_t* h) noexcept nogil:
    cdef Framer f
    cdef size_t at = 0
    cdef size_t there = n if whole else 0
    cdef int got = FRAME_MORE
    cdef size_t before
    framer_reset(&f)
    h[0] = 0
    while True:
        if got == FRAME_MORE and not whole:
            there += 1 + below(r, 1 + below(r, 40))
            if there > n:
                there = n
        before = at
        got = frame_reply(&f, p, there, &at)
        if at > there or (got == FRAME_MORE and at != there) or at < before:
            return False
        if got == FRAME_MORE:
            if there == n:
                return True
            continue
        # Where in a bad length the error is noticed may differ; that it is, may not.
        h[0] = mix(mix(h[0], got), 0 if got == FRAME_ERROR else at)
        if got == FRAME_ERROR:
            return True
        f.first = 0


cdef int judge(uint64_t* r, bint replies, const Limits* limits, const Text* t) noexcept nogil:
    """Try an input whole and in pieces: 0, or -1 when the oracle objects."""
    cdef uint64_t whole = 0
    cdef uint64_t pieces = 0
    cdef bint good
    cdef char* block = <char*>malloc(t.n + 1 if t.n == 0 else t.n)
    if block == NULL:
        return 0
    memcpy(block, t.data, t.n)
    if replies:
        good = frame_pieces(r, block, t.n, True, &whole) and frame_pieces(
            r, block, t.n, False, &pieces)
    else:
        good = scan_pieces(r, block, t.n, limits, True, &whole) and scan_pieces(
            r, block, t.n, limits, False, &pieces)
    free(block)
    return 0 if good and whole == pieces else -1


cdef int one(uint64_t* r, bint replies, const Limits* limits, Text* t) noexcept nogil:
    """Make an input and try it: 0, or -1 when the oracle objects; t is the input."""
    cdef int i
    t.n = 0
    if replies:
        for i in range(1 + below(r, 3)):
            make_reply(r, t, 3)
    else:
        make_requests(r, t)
    for i in range(below(r, 4)):
        damage(r, t)
    return judge(r, replies, limits, t)


cdef void set_limits(Limits* limits) noexcept nogil:
    limits.bulk = 512 * 1024 * 1024
    limits.count = 2147483647
    limits.unauth_bulk = 16384
    limits.unauth_count = 10


cdef int run(uint64_t seed, long long n, bint replies) except -1:
    cdef uint64_t state = seeded(seed)
    cdef Limits limits
    cdef Text t
    cdef long long i
    set_limits(&limits)
    for i in range(n):
        if one(&state, replies, &limits, &t) < 0:
            raise AssertionError(f"input {i} of seed {seed} depends on how it is split: "
                                 f"{t.data[:t.n]!r}")
    return 0


def try_input(bytes data, bint replies):
    """Try one input: requests, or replies; what is longer than TEXT_MAX is cut. AssertionError: it
    depends on how it is split."""
    cdef uint64_t state = seeded(len(data))
    cdef Limits limits
    cdef Text t
    set_limits(&limits)
    t.n = 0
    put(&t, data, len(data))
    if judge(&state, replies, &limits, &t) < 0:
        raise AssertionError(f"depends on how it is split: {data!r}")


def fuzz_requests(uint64_t seed, long long n):
    """Try n inputs on the request scanner. AssertionError: the input and its number."""
    run(seed, n, False)


def fuzz_replies(uint64_t seed, long long n):
    """Try n inputs on the reply framer. AssertionError: the input and its number."""
    run(seed, n, True)


def sample(uint64_t seed, int n, bint replies):
    """Inputs as the fuzzers make them, for the tests against the oracles in Python."""
    cdef uint64_t state = seeded(seed)
    cdef Text t
    cdef int i, j
    found = []
    for i in range(n):
        t.n = 0
        if replies:
            make_reply(&state, &t, 3)
        else:
            make_requests(&state, &t)
        for j in range(below(&state, 4)):
            damage(&state, &t)
        found.append(t.data[:t.n])
    return found
