# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The command table: what the data path must know of a command, by name.

Rows come from the server's own COMMAND reply by way of `sidecar.policy.routing`; this file
only stores and finds them. Names are found whatever their case. The hash is seeded, since the
names looked up are a client's bytes. Rows are changed in place and never removed, so that ids
(indices of the counters) and pointers stay good when the table is refreshed from a server.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

# Row 0 stands for every command the table does not know.
UNKNOWN = 0


cdef inline char lower(char c) noexcept nogil:
    return c + 32 if c >= c'A' and c <= c'Z' else c


cdef class CommandTable:
    """Commands by name.

    CommandTable(seed, families): `seed` is any 32-bit number, chosen at random by the process;
    `families` are the names of the groups that latencies are kept for.
    """

    def __cinit__(self, uint32_t seed, families):
        self.commands = <Command*>calloc(MAX_COMMANDS, sizeof(Command))
        self.slots = <uint16_t*>calloc(SLOTS, sizeof(uint16_t))
        if self.commands == NULL or self.slots == NULL:
            raise MemoryError
        self.seed = seed
        self.families = list(families)
        self.commands[0].route = ROUTE_ONCE
        self.commands[0].flags = COMMAND_WRITES
        self.count = 1

    def __dealloc__(self):
        free(self.commands)
        free(self.slots)

    cdef uint32_t hash(self, const char* name, size_t n) noexcept nogil:
        cdef uint32_t h = self.seed
        cdef size_t i
        for i in range(n):
            h = (h ^ <unsigned char>lower(name[i])) * <uint32_t>16777619
        return h ^ (h >> 15)

    cdef Command* find(self, const char* name, size_t n) noexcept nogil:
        """The row for this name; row 0 when there is none."""
        cdef uint32_t slot
        cdef Command* c
        cdef size_t i
        if n >= NAME_MAX:
            return self.commands
        slot = self.hash(name, n) % SLOTS
        while self.slots[slot]:
            c = self.commands + self.slots[slot]
            if c.name_len == n:
                i = 0
                while i < n and c.name[i] == lower(name[i]):
                    i += 1
                if i == n:
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
            slot = self.hash(name, n) % SLOTS
            while self.slots[slot]:
                slot = (slot + 1) % SLOTS
            c = self.commands + self.count
            c.id = self.count
            self.slots[slot] = self.count
            self.count += 1
            memcpy(c.name, <const char*>name, n)
            c.name_len = <uint8_t>n
        c.route, c.flags, c.family, c.arity, c.first_key, c.last_key, c.key_step = row
        return 1

    def update(self, rows):
        """Add or change rows: name -> (route, flags, family, arity, first, last, step).

        Names of 48 bytes and more, and rows beyond the table's size, are left out: such
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
                "keys": (c.first_key, c.last_key, c.key_step)}

    def name(self, int command_id):
        """The name of the row with this id; "unknown" for row 0."""
        cdef Command* c
        if not 0 < command_id < self.count:
            return "unknown"
        c = self.commands + command_id
        return c.name[:c.name_len].decode("latin-1")


ROUTES = {
    "shared": ROUTE_SHARED, "blocking": ROUTE_BLOCKING, "maybe_blocking": ROUTE_MAYBE_BLOCKING,
    "multi": ROUTE_MULTI, "exec": ROUTE_EXEC, "discard": ROUTE_DISCARD, "watch": ROUTE_WATCH,
    "unwatch": ROUTE_UNWATCH, "pin": ROUTE_PIN, "once": ROUTE_ONCE, "local": ROUTE_LOCAL,
    "reset": ROUTE_RESET, "quit": ROUTE_QUIT, "wait": ROUTE_WAIT, "hang_up": ROUTE_HANG_UP,
}
READ = COMMAND_READ
WRITES = COMMAND_WRITES
