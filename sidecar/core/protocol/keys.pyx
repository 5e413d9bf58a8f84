# cython: language_level=3, cdivision=True
"""Which keys a request names.

Where a command has its keys is what the server's COMMAND says: key specifications, each of which
begins at an argument or behind a word (STREAMS) and takes a range of arguments, or as many as a
count among them says. `sidecar.policy.keyspecs` has made the rules in the table of them.
Three commands can't be described that way; the rules name what the server does for them:

sort_store   SORT: the argument behind the last STORE, passing over those of LIMIT, GET and BY
geo_store    GEORADIUS...: the argument behind the last STORE or STOREDIST
migrate      MIGRATE: argument 3, or all behind KEYS

The answer is what the server's COMMAND GETKEYS gives, but for requests that the server will
refuse, for which it is "unknown" or what can be found, and these (tests/compat/test_keys.py):

* SORT k STORE limit STORE d: the server's GETKEYS loses its way at a key called like an option.
  The key that SORT itself will write is given.
* XREADGROUP with a group or consumer called "streams" before STREAMS: servers take the wrong
  argument for the key, and so does this. Nothing is written there.

Nothing here trusts the request: it may be any bytes, and is never read beyond its end.
"""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from sidecar.core.protocol.commands cimport (CommandTable, FIND_GEO_STORE, FIND_KEYNUM, FIND_MIGRATE,
    FIND_SORT_STORE, FORM_ANY, FORM_CONTAINER, FORM_NONE, FORM_SPECS, KEY_OPTIONAL,
    KEY_WRITES, KeySpec, Rules, is_name)
from sidecar.core.protocol.cursor cimport (Cursor, cursor_begin, cursor_next, is_word, read_number)
from sidecar.core.protocol.request cimport (Limits, SCAN_DONE, Scanner, scan_request, scanner_reset)

cdef enum:
    ABSENT = 0              # what `behind` gives for a word that is not there
    GEO_OPTIONS = 5         # where the server begins to look for these options
    SORT_OPTIONS = 2
    MIGRATE_KEY = 3
    MIGRATE_OPTIONS = 6

UNKNOWN = KEYS_UNKNOWN
TOO_MANY = KEYS_TOO_MANY
UNDECLARED = KEYS_UNDECLARED
ANY = KEYS_ANY


# Reading arguments

cdef struct Args:
    Cursor cursor       # `cursor.arg` is the argument read last
    const char* first   # where argument 0 begins
    int64_t count       # arguments that the request says it has
    int64_t next        # which argument is next


cdef bint args_begin(Args* a, const char* p, size_t n) noexcept nogil:
    a.count = cursor_begin(&a.cursor, p, n)
    a.first = a.cursor.at
    a.next = 0
    return a.count >= 0


cdef bint args_read(Args* a, int64_t index) noexcept nogil:
    """Read this argument; False when there is none. Reading forwards is cheap."""
    if index >= a.count:
        return False
    if index < a.next:
        a.next = 0
        a.cursor.at = a.first
    while a.next <= index:
        if not cursor_next(&a.cursor):
            return False
        a.next += 1
    return True


# Following rules

cdef struct Found:
    KeySpan* out
    int count
    int most


cdef int take(Args* a, int64_t first, int64_t last, int64_t step, bint write,
              Found* f) noexcept nogil:
    """Every step-th argument from first to last is a key."""
    cdef KeySpan* key
    if last >= a.count:
        return KEYS_UNKNOWN
    if first > last:
        return 0
    if (last - first) // step >= f.most - f.count:
        return KEYS_TOO_MANY
    while first <= last:
        if not args_read(a, first):
            return KEYS_UNKNOWN
        key = f.out + f.count
        key.p = a.cursor.arg
        key.n = a.cursor.size
        key.write = write
        f.count += 1
        first += step
    return 0


cdef int64_t behind(Args* a, const KeySpec* spec) noexcept nogil:
    """The index behind the specification's keyword, ABSENT, or KEYS_UNKNOWN."""
    cdef int64_t i = spec.at
    while i < a.count:
        if not args_read(a, i):
            return KEYS_UNKNOWN
        if is_word(&a.cursor, spec.keyword, spec.keyword_len):
            return i + 1
        i += 1
    return ABSENT


cdef int by_range(Args* a, const KeySpec* spec, int64_t first, Found* f) noexcept nogil:
    cdef int64_t last
    if first >= a.count:
        return 0                        # the end of what may be left out: PFMERGE k
    if spec.last >= 0:
        last = first + spec.last
    elif spec.limit > 1:
        last = first + (a.count - first) // spec.limit - 1
    else:
        last = a.count + spec.last
    return take(a, first, last, spec.step, spec.flags & KEY_WRITES != 0, f)


cdef int by_count(Args* a, const KeySpec* spec, int64_t first, Found* f) noexcept nogil:
    cdef int64_t n = 0
    if not args_read(a, first + spec.count_at) \
            or not read_number(a.cursor.arg, a.cursor.size, &n):
        return KEYS_UNKNOWN
    if n == 0 and spec.flags & KEY_OPTIONAL:
        return KEYS_UNDECLARED
    if n <= 0 or n > a.count:
        return KEYS_UNKNOWN
    first += spec.first
    return take(a, first, first + (n - 1) * spec.step, spec.step, spec.flags & KEY_WRITES != 0, f)


cdef int sort_store(Args* a, Found* f) noexcept nogil:
    cdef int64_t i = SORT_OPTIONS
    cdef int64_t store = 0
    while i < a.count:
        if not args_read(a, i):
            return KEYS_UNKNOWN
        if is_word(&a.cursor, b"limit", 5):
            i += 2
        elif is_word(&a.cursor, b"get", 3) or is_word(&a.cursor, b"by", 2):
            i += 1
        elif is_word(&a.cursor, b"store", 5) and i + 1 < a.count:
            i += 1
            store = i
        i += 1
    return take(a, store, store, 1, True, f) if store else 0


cdef int geo_store(Args* a, Found* f) noexcept nogil:
    cdef int64_t i = GEO_OPTIONS
    cdef int64_t store = 0
    while i + 1 < a.count:
        if not args_read(a, i):
            return KEYS_UNKNOWN
        if is_word(&a.cursor, b"store", 5) or is_word(&a.cursor, b"storedist", 9):
            i += 1
            store = i
        i += 1
    return take(a, store, store, 1, True, f) if store else 0


cdef int migrate(Args* a, Found* f) noexcept nogil:
    cdef int64_t i = MIGRATE_OPTIONS
    while i < a.count:
        if not args_read(a, i):
            return KEYS_UNKNOWN
        if is_word(&a.cursor, b"keys", 4):
            if not args_read(a, MIGRATE_KEY) or a.cursor.size:
                return KEYS_UNKNOWN     # both forms in one: the server will refuse it
            return take(a, i + 1, a.count - 1, 1, True, f)
        if is_word(&a.cursor, b"auth", 4):
            i += 1
        elif is_word(&a.cursor, b"auth2", 5):
            i += 2
        i += 1
    return take(a, MIGRATE_KEY, MIGRATE_KEY, 1, True, f)


cdef int by_spec(Args* a, const KeySpec* spec, Found* f) noexcept nogil:
    cdef int64_t first = spec.at
    if spec.find == FIND_SORT_STORE:
        return sort_store(a, f)
    if spec.find == FIND_GEO_STORE:
        return geo_store(a, f)
    if spec.find == FIND_MIGRATE:
        return migrate(a, f)
    if spec.keyword_len:
        first = behind(a, spec)
        if first <= ABSENT:
            return <int>first
    if spec.find == FIND_KEYNUM:
        return by_count(a, spec, first, f)
    return by_range(a, spec, first, f)


cdef int by_rules(Args* a, uint8_t keys, const Rules* rules, Found* f) noexcept nogil:
    """0, or a negative code, for the FORM_ in `keys`. A container's subcommands contain none."""
    cdef int form = keys & FORM_MASK
    cdef int i
    cdef int r
    if form == FORM_NONE:
        return 0
    if form == FORM_ONE:
        return take(a, 1, 1, 1, keys & FORM_WRITES != 0, f)
    if form == FORM_REST:
        return take(a, 1, a.count - 1, 1, keys & FORM_WRITES != 0, f)
    if form == FORM_ANY:
        return KEYS_ANY
    if form != FORM_SPECS or rules == NULL:
        return KEYS_UNKNOWN
    for i in range(rules.specs_len):
        r = by_spec(a, &rules.specs[i], f)
        if r < 0:
            return r
    return 0


cdef const Rules* subcommand(Args* a, const Rules* rules) noexcept nogil:
    """The rules of the subcommand that the request names; NULL when it is unknown."""
    cdef int i
    if rules == NULL or not args_read(a, 1):
        return NULL
    for i in range(rules.subs_len):
        if rules.subs[i].name_len == a.cursor.size \
                and is_name(a.cursor.arg, rules.subs[i].name, a.cursor.size):
            return &rules.subs[i]
    return NULL


cdef int find_keys(const Command* c, const char* request, size_t n, KeySpan* out,
                   int most) noexcept nogil:
    """Write the keys that a whole multibulk request for `c` names to out[0:most].

    Returns their number or one of the negative KEYS_ codes, on which any key has to be taken for
    touched, and what is in `out` means nothing.
    """
    cdef Args a
    cdef Found f
    cdef const Rules* rules = c.rules
    cdef uint8_t keys = c.keys
    cdef int r
    if keys == FORM_NONE:
        return 0
    if not args_begin(&a, request, n):
        return KEYS_UNKNOWN
    if keys == FORM_CONTAINER:
        rules = subcommand(&a, rules)
        if rules == NULL:
            return KEYS_UNKNOWN
        keys = rules.keys
    f.out = out
    f.count = 0
    f.most = most
    r = by_rules(&a, keys, rules, &f)
    return r if r < 0 else f.count


# For the control plane and for tests

cdef int find_in(CommandTable table, const char* p, size_t n, KeySpan* out, int most) noexcept:
    cdef Cursor a
    if cursor_begin(&a, p, n) < 1 or not cursor_next(&a):
        return KEYS_UNKNOWN
    return find_keys(table.find(a.arg, a.size), p, n, out, most)


def found_keys(CommandTable table, bytes request, int most=1024):
    """[(key, whether it may change), ...], or one of the codes of this module."""
    cdef size_t n = len(request)
    cdef char* p = NULL
    cdef KeySpan* out = NULL
    cdef int i
    cdef int k
    if most < 0:
        raise ValueError("most is negative")
    try:
        # Not one byte more than is needed, so that a sanitizer sees what goes beyond.
        p = <char*>malloc(n if n else 1)
        out = <KeySpan*>malloc(most * sizeof(KeySpan) if most else 1)
        if p == NULL or out == NULL:
            raise MemoryError
        memcpy(p, <const char*>request, n)
        k = find_in(table, p, n, out, most)
        if k < 0:
            return k
        return [(out[i].p[:out[i].n], out[i].write != 0) for i in range(k)]
    finally:
        free(out)
        free(p)


def keys_of(CommandTable table, bytes request, int most=1024):
    """The keys a whole multibulk request names; None when any key may be touched."""
    found = found_keys(table, request, most)
    return [key for key, _ in found] if isinstance(found, list) else None


def first_key_of(CommandTable table, bytes request):
    """(key, whether it may change) when the request names one key, as its first argument.

    None when it does not, or is not one whole multibulk request.
    """
    cdef Scanner s
    cdef Limits limits
    cdef KeySpan key
    cdef const char* p = request
    limits.bulk = limits.count = limits.unauth_bulk = limits.unauth_count = 1 << 30
    scanner_reset(&s)
    if scan_request(&s, p, len(request), &limits, True) != SCAN_DONE or s.pos != len(request):
        return None
    if not first_key(table.find(p + s.name_at, s.name_len), p, len(request), &s, &key):
        return None
    return key.p[:key.n], key.write != 0


cdef bint key_in_part(const Command* c, const char* request, size_t n, KeySpan* key) noexcept nogil:
    """The first key of a request of which only the beginning request[0:n] is there. False: the key is not
    there, or where it is cannot be told without the rest."""
    cdef Args a
    cdef const KeySpec* spec
    cdef int64_t index = 1
    cdef int form = c.keys & FORM_MASK
    if form == FORM_SPECS and c.rules.specs_len and c.rules.specs[0].keyword_len == 0:
        spec = c.rules.specs
        index = spec.at + (spec.first if spec.find == FIND_KEYNUM else 0)
    elif form != FORM_ONE and form != FORM_REST:
        return False
    if not args_begin(&a, request, n) or not args_read(&a, index):
        return False
    key.p = a.cursor.arg
    key.n = a.cursor.size
    key.write = True
    return True
