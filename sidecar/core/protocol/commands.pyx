# cython: language_level=3, cdivision=True
"""The command table: what the data path must know of a command, by name.

Rows come from the server's own COMMAND reply by way of `sidecar.policy.routing`, and the rules for
their keys by way of `sidecar.policy.keyspecs`; this file only stores and finds them. `keys.pyx`
follows the rules, `dispatch.pyx` the routes. Names are found whatever their case. The hash is seeded,
since the names looked up are a client's bytes. Rows are changed in place and never removed, so that
ids (indices of the counters) and pointers stay good when the table is refreshed from a server.
"""
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from sidecar.core.hashing cimport sidecar_name_hash

cdef enum:
    CACHE_LINE = 64

# Row 0 stands for every command the table does not know.
UNKNOWN = 0


cdef void free_rules(Rules* rules) noexcept:
    if rules != NULL:
        free(rules.subs)        # these have none of their own
        free(rules)


cdef int fill_spec(KeySpec* to, tuple spec) except -1:
    cdef bytes keyword = spec[0]
    cdef size_t n = len(keyword)
    if n > KEYWORD_MAX:
        raise ValueError("keyword too long")
    memcpy(to.keyword, <const char*>keyword, n)
    to.keyword_len = <uint8_t>n
    to.at, to.find, to.flags, to.last, to.step, to.limit, to.count_at, to.first = spec[1:]
    return 0


cdef int fill_rules(Rules* to, tuple rule) except -1:
    """Fill zeroed memory, which is good for free_rules at any time."""
    cdef tuple specs = rule[1], subs = rule[2]
    cdef bytes name
    cdef int i
    if len(specs) > MAX_SPECS or len(subs) > 255:
        raise ValueError("too many key specifications")
    to.keys = rule[0]
    for i, spec in enumerate(specs):
        fill_spec(&to.specs[i], spec)
    to.specs_len = <uint8_t>len(specs)
    if subs:
        to.subs = <Rules*>calloc(len(subs), sizeof(Rules))
        if to.subs == NULL:
            raise MemoryError
    for i, (name, inner) in enumerate(subs):
        if len(name) > SUBCOMMAND_MAX or inner[2]:
            raise ValueError("bad subcommand")
        memcpy(to.subs[i].name, <const char*>name, len(name))
        to.subs[i].name_len = <uint8_t>len(name)
        fill_rules(&to.subs[i], inner)
        to.subs_len = <uint8_t>(i + 1)
    return 0


cdef int fill_routes(Rules* to, tuple routes) except -1:
    cdef bytes name
    cdef int i
    if len(routes) > MAX_ROUTES:
        raise ValueError("too many routes of subcommands")
    for i, (name, route, arity) in enumerate(routes):
        if len(name) > SUBCOMMAND_MAX:
            raise ValueError("bad subcommand")
        memcpy(to.routes[i].name, <const char*>name, len(name))
        to.routes[i].name_len = <uint8_t>len(name)
        to.routes[i].route = route
        to.routes[i].arity = arity
    to.routes_len = <uint8_t>len(routes)
    return 0


cdef int set_rules(Command* c, tuple rule, tuple routes) except -1:
    """Give a row these rules for its keys, and its subcommands these routes."""
    cdef Rules* rules = NULL
    if rule[1] or rule[2] or routes:
        rules = <Rules*>calloc(1, sizeof(Rules))
        if rules == NULL:
            raise MemoryError
        try:
            fill_rules(rules, rule)
            fill_routes(rules, routes)
        except BaseException:
            free_rules(rules)
            raise
    free_rules(c.rules)
    c.rules = rules
    c.keys = rule[0]
    return 0


cdef class CommandTable:
    """Commands by name.

    CommandTable(seed, families): `seed` is any 32-bit number, chosen at random by the process;
    `families` are the names of the groups that latencies are kept for.
    """

    def __cinit__(self, uint32_t seed, families):
        self.block = calloc(MAX_COMMANDS + 1, sizeof(Command))
        self.slots = <uint16_t*>calloc(SLOTS, sizeof(uint16_t))
        if self.block == NULL or self.slots == NULL:
            raise MemoryError
        self.commands = <Command*>((<uintptr_t>self.block + CACHE_LINE - 1)
                                   & ~<uintptr_t>(CACHE_LINE - 1))
        self.seed = seed
        self.families = list(families)
        self.commands[0].route = ROUTE_ONCE
        self.commands[0].flags = COMMAND_WRITES | COMMAND_OPAQUE | COMMAND_TELLS
        self.count = 1

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free_rules(self.commands[i].rules)
        free(self.block)
        free(self.slots)

    cdef Command* find(self, const char* name, size_t n) noexcept nogil:
        """The row for this name; row 0 when there is none."""
        cdef uint32_t slot
        cdef Command* c
        if n >= NAME_MAX:
            return self.commands
        slot = <uint32_t>(sidecar_name_hash(self.seed, name, n) % SLOTS)
        while self.slots[slot]:
            c = self.commands + self.slots[slot]
            if c.name_len == n and is_name(name, c.name, n):
                return c
            slot = (slot + 1) % SLOTS
        return self.commands

    cdef int put(self, bytes name, tuple row) except -1:
        cdef Command* c
        cdef uint32_t slot
        cdef size_t n = len(name)
        if n == 0 or n >= NAME_MAX:
            return 0
        name = name.lower()
        c = self.find(name, n)
        if c == self.commands:
            if self.count == MAX_COMMANDS:
                return 0
            slot = <uint32_t>(sidecar_name_hash(self.seed, name, n) % SLOTS)
            while self.slots[slot]:
                slot = (slot + 1) % SLOTS
            c = self.commands + self.count
            c.id = self.count
            self.slots[slot] = self.count
            self.count += 1
            memcpy(c.name, <const char*>name, n)
            c.name_len = <uint8_t>n
        c.route, c.flags, c.family, c.arity = row[:4]
        if row[4] is not None:
            set_rules(c, row[4], row[5])
        return 1

    def update(self, rows):
        """Add or change rows: name -> (route, flags, family, arity, keys, subcommands).

        `keys` is a rule of `sidecar.policy.keyspecs`; None keeps what the row has of keys and
        subcommands, and is "unknown" for a new one. `subcommands` are (name, route, arity) of those
        that have a route of their own.

        Names of 47 bytes and more, and rows beyond the table's size, are left out: such
        commands count as unknown, which is slower but safe.
        """
        for name, row in rows.items():
            self.put(name, row)

    def lookup(self, bytes name):
        """The row for a name as a dict, None when the table does not know it."""
        cdef Command* c = self.find(name, len(name))
        if c == self.commands:
            return None
        return {"name": c.name[:c.name_len], "route": c.route, "flags": c.flags,
                "family": self.families[c.family], "arity": c.arity,
                "keys": c.keys & FORM_MASK, "subcommands": self.routes_of(c)}

    cdef tuple routes_of(self, const Command* c):
        cdef const Rules* rules = c.rules
        if rules == NULL:
            return ()
        return tuple([(rules.routes[i].name[:rules.routes[i].name_len], rules.routes[i].route,
                       rules.routes[i].arity) for i in range(rules.routes_len)])

    def name(self, int command_id):
        """The name of the row with this id; "unknown" for row 0."""
        cdef Command* c
        if not 0 < command_id < self.count:
            return "unknown"
        c = self.commands + command_id
        return c.name[:c.name_len].decode("latin-1")


ROUTES = {
    "shared": ROUTE_SHARED, "blocking": ROUTE_BLOCKING, "maybe_blocking": ROUTE_MAYBE_BLOCKING,
    "scripts": ROUTE_SCRIPTS,
    "multi": ROUTE_MULTI, "exec": ROUTE_EXEC, "discard": ROUTE_DISCARD, "watch": ROUTE_WATCH,
    "unwatch": ROUTE_UNWATCH, "pin": ROUTE_PIN, "once": ROUTE_ONCE, "session": ROUTE_SESSION,
    "auth": ROUTE_AUTH, "hello": ROUTE_HELLO, "client": ROUTE_CLIENT,
    "reset": ROUTE_RESET, "quit": ROUTE_QUIT, "wait": ROUTE_WAIT, "hang_up": ROUTE_HANG_UP,
    "announcements": ROUTE_ANNOUNCEMENTS,
}
READ = COMMAND_READ
WRITES = COMMAND_WRITES
CACHEABLE = COMMAND_CACHEABLE
CACHEABLE_EACH = COMMAND_CACHEABLE_EACH
OPAQUE = COMMAND_OPAQUE
AUDITED = COMMAND_AUDITED
TELLS = COMMAND_TELLS
SPLIT = COMMAND_SPLIT
FANS_OUT = COMMAND_FANS_OUT
BY_CHANNEL = COMMAND_BY_CHANNEL
MAY_BE_HELD = COMMAND_MAY_BE_HELD

# What rules for keys are made of.
FORMS = {
    "unknown": FORM_UNKNOWN, "none": FORM_NONE, "one": FORM_ONE, "rest": FORM_REST,
    "specs": FORM_SPECS, "container": FORM_CONTAINER, "any": FORM_ANY, "writes": FORM_WRITES,
}
FINDS = {
    "range": FIND_RANGE, "keynum": FIND_KEYNUM, "sort_store": FIND_SORT_STORE,
    "geo_store": FIND_GEO_STORE, "migrate": FIND_MIGRATE,
}
SPEC_WRITES = KEY_WRITES
SPEC_OPTIONAL = KEY_OPTIONAL
MOST_SPECS = MAX_SPECS
LONGEST_KEYWORD = KEYWORD_MAX
LONGEST_SUBCOMMAND = SUBCOMMAND_MAX
