# cython: language_level=3
"""What a command policy allows: by command, by subcommand, and by the keys that a request names.

`sidecar.policy.command_policy` makes the rules: it knows the ACL categories and the server's flags.
Here a command is one byte in a table, by its number; only commands with rules for subcommands, and those
that the table does not know, are looked at by name.

Keys are found as for routing (keys.pyx). A request whose keys cannot be known is refused if it might
touch one that is denied, and if it might change one that is read-only: a script without declared keys,
FLUSHALL, a module's command. So is SORT with a pattern, whose keys the server alone finds.

Of a request that is too large to be kept only the beginning is there. It is judged by its only key; one
that may name more is refused where there are rules for keys.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy
from sidecar.core.protocol.commands cimport (COMMAND_READ, FIND_RANGE, FORM_MASK, FORM_NONE, FORM_ONE, is_name,
    lower)
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, is_word
from sidecar.core.protocol.glob cimport glob_matches
from sidecar.core.protocol.keys cimport KEYS_TOO_MANY, KeySpan, find_keys, key_in_part
from sidecar.core.protocol.request cimport (Limits, SCAN_DONE, Scanner, arguments_of, scan_request,
    scanner_reset)

cdef enum:
    FEW_KEYS = 32           # of one command: more are looked for in memory of their own


cdef bint any_matches(const Patterns* patterns, const KeySpan* key) noexcept nogil:
    cdef uint32_t i
    for i in range(patterns.count):
        if glob_matches(patterns.all[i].text, patterns.all[i].n, key.p, key.n):
            return True
    return False


cdef bint key_denied(const PolicyRules* r, const KeySpan* key) noexcept nogil:
    return any_matches(&r.keys, key) or (key.write and any_matches(&r.read_only, key))


cdef inline bint denied_unless_known(const PolicyRules* r, const Command* c) noexcept nogil:
    """What becomes of a request whose keys are not known: it might mean any."""
    return r.keys.count != 0 or not c.flags & COMMAND_READ


cdef bint uses_pattern(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    """Whether it is SORT with keys that are made from a pattern: BY x*, GET x*."""
    cdef Cursor a
    if c.name_len < 4 or memcmp(c.name, b"sort", 4) != 0:
        return False
    arguments_of(&a, p, n, &s.scan)
    if not cursor_next(&a):
        return False
    while cursor_next(&a):
        if is_word(&a, b"by", 2) or is_word(&a, b"get", 3):
            return True
        if is_word(&a, b"store", 5) and not cursor_next(&a):    # a key may be called like an option
            break
    return False


cdef bint keys_denied(const PolicyRules* r, Session* s, const Command* c, const char* p,
                      size_t n) noexcept nogil:
    """Whether the whole request p[0:n] names a key that it may not name, or may mean one."""
    cdef KeySpan few[FEW_KEYS]
    cdef KeySpan* keys = few
    cdef KeySpan* many = NULL
    cdef bint denied = False
    cdef int count, i
    if c.keys & FORM_MASK == FORM_NONE:
        return False
    count = find_keys(c, p, n, few, FEW_KEYS)
    if count == KEYS_TOO_MANY and 0 < s.scan.argc < <long long>(1 << 30):
        many = <KeySpan*>malloc(<size_t>s.scan.argc * sizeof(KeySpan))
        if many == NULL:
            return True
        keys = many
        count = find_keys(c, p, n, many, <int>s.scan.argc)
    if count < 0:
        denied = denied_unless_known(r, c)
    for i in range(count):
        if key_denied(r, keys + i):
            denied = True
            break
    free(many)
    return denied or (r.keys.count != 0 and uses_pattern(s, c, p, n))


cdef bint part_denied(const PolicyRules* r, const Command* c, const char* p, size_t n) noexcept nogil:
    """Likewise, of a request of which only the beginning is there."""
    cdef KeySpan key
    cdef int form = c.keys & FORM_MASK
    if form == FORM_NONE:
        return False
    if (form != FORM_ONE and (c.rules == NULL or c.rules.specs_len != 1 or c.rules.specs[0].last
                              or c.rules.specs[0].find != FIND_RANGE)) \
            or not key_in_part(c, p, n, &key):
        return denied_unless_known(r, c)
    return key_denied(r, &key)


cdef bint subcommand_denied(const PolicyRules* r, Session* s, const Command* c, const char* p,
                            size_t n) noexcept nogil:
    """Whether the second word of a request is a subcommand that is denied. So is one that has not come
    yet."""
    cdef Cursor word
    cdef uint32_t i
    cdef bint others = True
    cdef const Subcommand* sub
    arguments_of(&word, p, n, &s.scan)
    if not cursor_next(&word):
        return s.scan.argc != 1
    for i in range(r.subcommands_len):
        sub = r.subcommands + i
        if sub.command != c.id:
            continue
        if sub.name_len == 0:
            others = sub.denied
        elif is_word(&word, sub.name, sub.name_len):
            return sub.denied
    return others


cdef bint name_denied(const PolicyRules* r, Session* s, const char* p) noexcept nogil:
    """Whether the name of a command that the table does not know is denied."""
    cdef uint32_t i
    for i in range(r.names_len):
        if r.names[i].n == s.scan.name_len and is_name(p + s.scan.name_at, r.names[i].text,
                                                       r.names[i].n):
            return True
    return False


cdef int rules_judge(const PolicyRules* r, Session* s, const Command* c, const char* p, size_t n,
                     bint whole) noexcept nogil:
    """The Verdict on the request p[0:n] of this session, of which the name is there, and all of it if
    it is `whole`."""
    cdef int verdict = r.commands[c.id] & ~HAS_SUBCOMMANDS
    if verdict == BY_SUBCOMMAND:
        verdict = DENIED if subcommand_denied(r, s, c, p, n) else ALLOWED
    elif verdict == ALLOWED and c.id == 0 and r.names_len:
        verdict = DENIED if name_denied(r, s, p) else ALLOWED
    if verdict == ALLOWED and (r.keys.count or r.read_only.count):
        if keys_denied(r, s, c, p, n) if whole else part_denied(r, c, p, n):
            verdict = DENIED_KEY
    return verdict


cdef size_t full_name(Session* s, bint with_subcommand, const char* p, size_t n, char* out,
                      size_t room) noexcept nogil:
    """The name of a request's command as the server's refusals have it, in lower case: `get`,
    `config|set`. It is written to `out`, which has so much room; its length."""
    cdef size_t i
    cdef size_t size = min(<size_t>s.scan.name_len, room)
    cdef Cursor word
    for i in range(size):
        out[i] = printable(p[s.scan.name_at + i])
    if not with_subcommand:
        return size
    arguments_of(&word, p, n, &s.scan)
    if cursor_next(&word) and word.size <= SUBCOMMAND_MAX and size + 1 + word.size <= room:
        out[size] = c'|'
        for i in range(word.size):
            out[size + 1 + i] = printable(word.arg[i])
        size += 1 + word.size
    return size


cdef inline char printable(char c) noexcept nogil:
    """In lower case, and nothing that would break a line."""
    return lower(c) if c'!' <= c <= c'~' else c'?'


cdef int put_patterns(Patterns* to, list patterns) except -1:
    cdef bytes text
    cdef uint32_t i
    for i in range(to.count):
        free(to.all[i].text)
    free(to.all)
    to.all = NULL
    to.count = 0
    if not patterns:
        return 0
    to.all = <Pattern*>calloc(len(patterns), sizeof(Pattern))
    if to.all == NULL:
        raise MemoryError
    for text in patterns:
        to.all[to.count].text = <char*>malloc(max(len(text), 1))
        if to.all[to.count].text == NULL:
            raise MemoryError
        memcpy(to.all[to.count].text, <const char*>text, len(text))
        to.all[to.count].n = len(text)
        to.count += 1
    return 0


cdef class Policy:
    """What clients may do, by command, subcommand and key."""

    def __cinit__(self, CommandTable table):
        self.table = table

    def __dealloc__(self):
        self.release()
        put_patterns(&self.rules.keys, [])
        put_patterns(&self.rules.read_only, [])

    cdef void release(self) noexcept:
        free(self.rules.subcommands)
        free(self.rules.names)
        self.rules.subcommands = NULL
        self.rules.names = NULL
        self.rules.subcommands_len = self.rules.names_len = 0

    def put(self, denied, subcommands, *, containers=(), bint unknown_denied=False, deny_keys=(),
            read_only_keys=()):
        """Deny these commands; of others these subcommands (name: {subcommand: denied}; b"" stands
        for all that are not named). `containers` are the commands that have subcommands.
        `unknown_denied`: commands that the table does not know are denied, too.
        No request may name keys that fit `deny_keys`, or change those that fit `read_only_keys`.
        It holds at once, also for clients that are connected."""
        cdef bytes name, sub
        cdef Command* c
        cdef Subcommand* to
        cdef int i
        cdef list unknown = []
        put_patterns(&self.rules.keys, list(deny_keys))
        put_patterns(&self.rules.read_only, list(read_only_keys))
        self.release()
        for i in range(MAX_COMMANDS):
            self.rules.commands[i] = ALLOWED
        if unknown_denied:
            self.rules.commands[0] = DENIED
        for name in denied:
            c = self.table.find(name, len(name))
            if c.id:
                self.rules.commands[c.id] = DENIED
            elif 0 < len(name) < 256:
                unknown.append(name.lower())
        self.rules.names = <Name*>calloc(max(len(unknown), 1), sizeof(Name))
        self.rules.subcommands = <Subcommand*>calloc(
            max(sum([len(subs) for subs in subcommands.values()]), 1), sizeof(Subcommand))
        if self.rules.names == NULL or self.rules.subcommands == NULL:
            raise MemoryError
        for name in unknown:
            self.rules.names[self.rules.names_len].n = <uint8_t>len(name)
            memcpy(self.rules.names[self.rules.names_len].text, <const char*>name, len(name))
            self.rules.names_len += 1
        for name, subs in subcommands.items():
            c = self.table.find(name, len(name))
            if c.id == 0 or self.rules.commands[c.id] == DENIED:
                continue
            self.rules.commands[c.id] = BY_SUBCOMMAND
            for sub, is_denied in subs.items():
                if len(sub) > SUBCOMMAND_MAX:
                    continue                # it is denied, as one that is not named
                to = self.rules.subcommands + self.rules.subcommands_len
                to.command, to.denied, to.name_len = c.id, is_denied, <uint8_t>len(sub)
                memcpy(to.name, <const char*>sub, len(sub))
                self.rules.subcommands_len += 1
        for name in containers:
            c = self.table.find(name, len(name))
            if c.id:
                self.rules.commands[c.id] |= HAS_SUBCOMMANDS

    def judge(self, bytes request):
        """What becomes of this whole request: "allowed", "denied" or "denied key"."""
        cdef Session s
        cdef Limits limits
        cdef Command* c
        limits.bulk = limits.count = limits.unauth_bulk = limits.unauth_count = 1 << 30
        limits.joined_quotes = False
        scanner_reset(&s.scan)
        if scan_request(&s.scan, request, len(request), &limits, True) != SCAN_DONE:
            raise ValueError("no request")
        c = self.table.find(<const char*>request + s.scan.name_at, s.scan.name_len)
        return ("allowed", "denied", "denied key")[
            rules_judge(&self.rules, &s, c, request, len(request), True)]
