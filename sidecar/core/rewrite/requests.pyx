# cython: language_level=3, cdivision=True
"""Giving a client's whole requests the server's names: a prefix before each key and channel, a
renamed command's name.

Where the keys are is known from the command table, and for some commands from here: those that have
patterns or channels, and XREAD, where the server's own specification is wrong (keys.pyx).
"""
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp
from sidecar.core.protocol.commands cimport (FORM_ANY, FORM_MASK, FORM_NONE, FORM_UNKNOWN, MAX_SPECS)
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next, is_word
from sidecar.core.protocol.keys cimport (KEYS_ANY, KEYS_TOO_MANY, KeySpan, find_keys, first_key)
from sidecar.core.protocol.request cimport arguments_of, scan_request, scanner_reset
from sidecar.core.rewrite.replies cimport (CHANNELS, DUE_CONFIRMED, DUE_DISCARD, DUE_EXEC, DUE_LOGIN,
    DUE_MULTI, DUE_RANDOM, DUE_RESET, DUE_SAME, DUE_SHAPED, PATTERNS, SHARD_CHANNELS)
from sidecar.core.rewrite.rules cimport (ACT_CHANNEL, ACT_CLIENT, ACT_CLUSTER, ACT_EXEC, ACT_KEEP,
    ACT_KEYS, ACT_LOGIN, ACT_MULTI, ACT_PATTERN, ACT_PUBSUB, ACT_RANDOM, ACT_RAW, ACT_RESET,
    ACT_SCAN, ACT_SORT, ACT_STREAMS, ACT_SUBCOMMANDS, ACT_SUBSCRIBE, RewriteRules, SHAPE_EACH,
    SHAPE_EVEN, SHAPE_SCAN, SHAPE_TRACKING)

cdef bytes NOT_APART = b"-NOPERM the sidecar can't keep '%b' within a key prefix\r\n"
cdef const char* OF_KEY = b"__keyspace@"
cdef const char* OF_EVENT = b"__keyevent@"
cdef const char* OF_ANY_EVENT = b"__key*__:*"
cdef const char* OF_TRACKING = b"__redis__:invalidate"
cdef const char* ANYTHING = b"*"


cdef bytes unknown_command(const char* p, size_t n):
    """The server's error for a command that it does not know, of which p[0:n] has come."""
    cdef Cursor c
    cdef bytes name
    cdef bytes args = b""
    cursor_begin(&c, p, n)
    name = c.arg[:min(c.size, 128)] if cursor_next(&c) else b""
    while len(args) < 128 and cursor_next(&c):
        args += b"'" + c.arg[:min(c.size, <size_t>(128 - len(args)))].partition(b"\0")[0] + b"' "
    text = b"unknown command '" + name.partition(b"\0")[0] + b"', with args beginning with: " + args
    return b"-ERR " + text.replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n"


cdef int64_t place_of_channel(const char* p, size_t n, bint pattern) noexcept nogil:
    """Where a channel gets the prefix; -1: nowhere, since the server publishes there for all. What
    others' keys are told of there is dropped (replies.pyx)."""
    cdef size_t i
    if n >= 11 and memcmp(p, OF_EVENT, 11) == 0:
        return -1
    if n == 20 and memcmp(p, OF_TRACKING, 20) == 0:
        return -1
    if pattern and n == 10 and memcmp(p, OF_ANY_EVENT, 10) == 0:
        return -1
    if n >= 11 and memcmp(p, OF_KEY, 11) == 0:
        for i in range(11, n - 2):
            if memcmp(p + i, b"__:", 3) == 0:
                return i + 3
    return 0


cdef class RequestRewriter(Giving):
    """The whole requests of one client."""

    cdef int request(self, const char* p, size_t n) except -1:
        """Rewrite the whole request p[0:n], which has just been scanned."""
        cdef RewriteRules rules = self.rules
        cdef Command* c = rules.table.find(p + self.scan.name_at, self.scan.name_len)
        if rules.known < rules.table.count:
            rules.learn()
        if c.id == 0 or rules.marks[c.id]:
            return self.renamed(c, p, n)
        return self.rewrite(c, p, n)

    cdef int renamed(self, Command* c, const char* p, size_t n) except -1:
        """A command that the table does not know, or that clients call by another name."""
        cdef bytes name = p[self.scan.name_at:self.scan.name_at + self.scan.name_len].lower()
        cdef bytes to = self.rules.renames.get(name)
        cdef bytes request
        cdef size_t end = <size_t>self.scan.name_at + self.scan.name_len
        if to is not None:
            request = b"*%d\r\n$%d\r\n%b%b" % (self.scan.argc, len(to), to, p[end:n])
            scanner_reset(&self.scan)
            scan_request(&self.scan, request, len(request), self.limits, True)
            c = self.rules.table.find(to, len(to))
            if c.id or not self.rules.size:
                return self.rewrite(c, request, len(request))
        elif c.id == 0 and not self.rules.size and name not in self.rules.renames.values():
            return self.give(p, n)
        return self.refuse(unknown_command(p, n))

    cdef int rewrite(self, Command* c, const char* p, size_t n) except -1:
        """Pass on the whole request p[0:n] for `c`."""
        cdef int act = self.rules.acts[c.id]
        cdef int shape = self.rules.shapes[c.id]
        cdef int form = c.keys & FORM_MASK
        cdef KeySpan key
        if act > ACT_PUBSUB or act == ACT_SUBSCRIBE:
            return self.special(c, act, p, n)
        if act == ACT_KEEP or self.rules.size == 0:
            return self.give(p, n)
        if act == ACT_KEYS and not (form == FORM_NONE or form == FORM_UNKNOWN or form == FORM_ANY):
            if first_key(c, p, n, &self.scan, &key):
                self.place(key.p, key.n)
            elif self.keys_of(c, p, n):
                return self.refuse(NOT_APART % c.name[:c.name_len])
        elif act == ACT_STREAMS:
            if not self.streams(p, n):
                self.keys_of(c, p, n)
        elif act == ACT_SORT:
            self.sort(p, n)
        elif act == ACT_SCAN:
            return self.scan_keys(p, n)
        elif act == ACT_PUBSUB:
            return self.pubsub(p, n)
        elif act == ACT_PATTERN or act == ACT_CHANNEL:
            self.place_argument(p, n, 1)
        elif act == ACT_RANDOM and self.scan.argc == 1 and not self.in_multi:
            self.waits = True
            self.replies.cursor = self.replies.random_cursor(self.rules.from_start)
            return self.random_key()
        elif act == ACT_SUBCOMMANDS and self.allowed(c, p, n):
            return self.give(p, n)
        elif act != ACT_RANDOM or self.scan.argc == 1:
            return self.refuse(NOT_APART % c.name[:c.name_len])
        return self.give_placed(p, n, DUE_SHAPED if shape else DUE_SAME, shape)

    cdef int special(self, Command* c, int act, const char* p, size_t n) except -1:
        """A command that concerns the connection, or a subcommand that may."""
        cdef int argc = <int>min(self.scan.argc, 3)
        if act == ACT_CLIENT:
            return self.client(p, n)
        if act == ACT_CLUSTER:
            if self.rules.size and not self.allowed(c, p, n):
                return self.refuse(NOT_APART % c.name[:c.name_len])
            if self.rules.size and self.subcommand(p, n) == b"keyslot":
                self.place_argument(p, n, 2)
            return self.give_placed(p, n)
        if act == ACT_SUBSCRIBE:
            return self.subscribe(c, p, n)
        if act == ACT_RAW:
            if self.rules.size:
                return self.refuse(NOT_APART % c.name[:c.name_len])
            return self.give_raw(p, n)
        if act == ACT_LOGIN or act == ACT_RESET:
            if self.raw:
                return self.give(p, n)
            self.waits = True
            self.in_multi = self.in_multi and act == ACT_LOGIN
            return self.give(p, n, DUE_LOGIN if act == ACT_LOGIN else DUE_RESET)
        if act == ACT_EXEC:
            self.in_multi = False
            return self.give(p, n, DUE_EXEC)
        if argc == 1:
            self.in_multi = act == ACT_MULTI
            return self.give(p, n, DUE_MULTI if act == ACT_MULTI else DUE_DISCARD)
        return self.give(p, n)

    cdef bytes subcommand(self, const char* p, size_t n):
        """The subcommand of a request, in lower case; b"" without one. For old servers a NUL ends it."""
        cdef Cursor a
        cdef bytes word
        arguments_of(&a, p, n, &self.scan)
        if not cursor_next(&a):
            return b""
        word = a.arg[:a.size]
        return word.partition(b"\0")[0].lower()

    cdef bint allowed(self, Command* c, const char* p, size_t n) except -1:
        """Whether the subcommand is one that may pass; without one the server refuses it."""
        return self.scan.argc == 1 or self.rules.allows(c, self.subcommand(p, n))

    cdef int place_argument(self, const char* p, size_t n, int index, bint rest=False) except -1:
        """The prefix goes before this argument, and before all that follow."""
        cdef Cursor a
        arguments_of(&a, p, n, &self.scan)
        while cursor_next(&a):
            index -= 1
            if index == 0 or (rest and index < 0):
                self.place(a.arg, a.size)
        return 0

    cdef bint keys_of(self, const Command* c, const char* p, size_t n) except -1:
        """The prefix goes before the keys that the command table finds. True: any key is meant. Where
        a request makes no sense, the server refuses it, too, and gets it as it is; so it does with
        a script that declares no keys."""
        cdef size_t most = <size_t>self.scan.argc + MAX_SPECS
        cdef KeySpan* keys = <KeySpan*>malloc(most * sizeof(KeySpan))
        cdef int count, i
        if keys == NULL:
            raise MemoryError
        try:
            count = find_keys(c, p, n, keys, <int>most)
            for i in range(count):
                self.place(keys[i].p, keys[i].n)
        finally:
            free(keys)
        return count == KEYS_ANY or count == KEYS_TOO_MANY

    cdef int sort(self, const char* p, size_t n) except -1:
        """SORT: its key, that of STORE, and the patterns of BY and GET which lead to keys."""
        cdef Cursor a
        cdef bint pattern = False
        cdef bint key = True
        cdef int skip = 0
        arguments_of(&a, p, n, &self.scan)
        while cursor_next(&a):
            if key or (pattern and memchr(a.arg, c'*', a.size) != NULL):
                self.place(a.arg, a.size)
                key = pattern = False
            elif pattern or skip:
                pattern = False
                skip -= skip != 0
            elif is_word(&a, b"by", 2) or is_word(&a, b"get", 3):
                pattern = True
            elif is_word(&a, b"limit", 5):
                skip = 2
            elif is_word(&a, b"store", 5):
                key = True
        return 0

    cdef bint streams(self, const char* p, size_t n) except -1:
        """XREAD, XREADGROUP: the keys behind STREAMS. False: it has an option that is not known."""
        cdef Cursor a
        cdef int64_t left = self.scan.argc - 1
        cdef int skip = 0
        arguments_of(&a, p, n, &self.scan)
        while cursor_next(&a):
            left -= 1
            if skip:
                skip -= 1
            elif is_word(&a, b"streams", 7):
                break
            elif is_word(&a, b"group", 5):
                skip = 2
            elif is_word(&a, b"count", 5) or is_word(&a, b"block", 5) or is_word(&a, b"claim", 5):
                skip = 1
            elif not is_word(&a, b"noack", 5):
                return False
        left //= 2                      # an odd number is refused
        while left > 0 and cursor_next(&a):
            self.place(a.arg, a.size)
            left -= 1
        return True

    cdef int scan_keys(self, const char* p, size_t n) except -1:
        """SCAN: its pattern, or one where it has none."""
        cdef Cursor a
        cdef bint cursor = True
        cdef bint pattern = False
        cdef bint skip = False
        cdef bint found = False
        cdef const char* options = NULL
        arguments_of(&a, p, n, &self.scan)
        while cursor_next(&a):
            if cursor:
                cursor = False
                options = a.at
            elif pattern:
                self.place(a.arg, a.size)
                pattern, found = False, True
            elif skip:
                skip = False
            elif is_word(&a, b"match", 5):
                pattern = True
            else:
                skip = is_word(&a, b"count", 5) or is_word(&a, b"type", 4)
        if found or cursor:
            return self.give_placed(p, n, DUE_SHAPED, SHAPE_SCAN)
        # Before all options, so that one without its value is still the last word.
        self.give_placed(p, <size_t>(options - p), DUE_SHAPED, SHAPE_SCAN, 2)
        self.put_argument(b"MATCH", 5, NULL, 0)
        self.put_argument(self.rules.text, self.rules.size, ANYTHING, 1)
        return self.put(options, <size_t>(p + n - options))

    cdef int random_key(self) except -1:
        """Scan, or scan on, in the place of RANDOMKEY."""
        cdef bytes cursor = self.replies.cursor
        self.replies.cursor = None
        self.put(b"*6\r\n", 4)
        self.put_argument(b"SCAN", 4, NULL, 0)
        self.put_argument(cursor, len(cursor), NULL, 0)
        self.put_argument(b"MATCH", 5, NULL, 0)
        self.put_argument(self.rules.text, self.rules.size, ANYTHING, 1)
        self.put_argument(b"COUNT", 5, NULL, 0)
        self.put_argument(b"1000", 4, NULL, 0)
        return self.replies.expect(DUE_RANDOM)

    cdef int subscribe(self, const Command* c, const char* p, size_t n) except -1:
        """SUBSCRIBE and the like. In a transaction its confirmations would stand among the replies in
        EXEC's array, which they break."""
        cdef Cursor a
        cdef bint pattern = c.name[0] == c'p'
        cdef bint more = c.name_len < 11        # (p|s)subscribe, not (p|s)unsubscribe
        cdef int kind = PATTERNS if pattern else CHANNELS
        cdef int64_t at
        if c.name[0] == c's' and not (c.name_len == 9 and c.name[1] == c'u'):
            kind = SHARD_CHANNELS
        if self.rules.size == 0 and (self.in_multi or self.raw):
            return self.give_raw(p, n)
        if self.in_multi:
            return self.refuse(NOT_APART % c.name[:c.name_len])
        if self.scan.argc == 1 and more:
            return self.give(p, n)      # the server refuses it
        arguments_of(&a, p, n, &self.scan)
        while self.rules.size and cursor_next(&a):
            at = place_of_channel(a.arg, a.size, pattern)
            if at >= 0:
                self.place(a.arg, a.size, <size_t>at)
        return self.give_placed(p, n, DUE_CONFIRMED, kind << 1 | more, 0,
                                <uint32_t>(self.scan.argc - 1))

    cdef int pubsub(self, const char* p, size_t n) except -1:
        cdef bytes sub = self.subcommand(p, n)
        if sub == b"numsub" or sub == b"shardnumsub":
            self.place_argument(p, n, 2, True)
            return self.give_placed(p, n, DUE_SHAPED, SHAPE_EVEN)
        if sub != b"channels" and sub != b"shardchannels":
            return self.give(p, n)
        self.place_argument(p, n, 2)
        if self.scan.argc > 2:
            return self.give_placed(p, n, DUE_SHAPED, SHAPE_EACH)
        self.give_placed(p, n, DUE_SHAPED, SHAPE_EACH, 1)
        return self.put_argument(self.rules.text, self.rules.size, ANYTHING, 1)

    cdef int client(self, const char* p, size_t n) except -1:
        """CLIENT: TRACKING may name prefixes, and REPLY has replies left out."""
        cdef Cursor a
        cdef bytes sub = self.subcommand(p, n)
        cdef bint broadcast = False
        cdef bint named = False
        cdef bint skip = False
        if sub == b"reply":
            if self.rules.size == 0:
                return self.give_raw(p, n)
            return self.refuse(NOT_APART % b"client|reply")
        if self.rules.size == 0 or not (sub == b"tracking" or sub == b"trackinginfo"):
            return self.give(p, n)
        if sub == b"trackinginfo":
            return self.give(p, n, DUE_SHAPED, SHAPE_TRACKING)
        arguments_of(&a, p, n, &self.scan)
        cursor_next(&a)
        while cursor_next(&a):
            if named and skip:
                self.place(a.arg, a.size)
                skip = False
            elif skip:
                skip = False
            elif is_word(&a, b"prefix", 6):
                named = skip = True
            elif is_word(&a, b"redirect", 8):
                skip = True
            broadcast = broadcast or is_word(&a, b"bcast", 5)
        if named or not broadcast:
            return self.give_placed(p, n)
        self.give_placed(p, n, DUE_SAME, 0, 2)
        self.put_argument(b"PREFIX", 6, NULL, 0)
        return self.put_argument(self.rules.text, self.rules.size, NULL, 0)
