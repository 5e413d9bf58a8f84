# cython: language_level=3
"""What is done with each command of a client whose names are rewritten.

One RewriteRules is for all clients with the same prefix and the same renamed commands. What a command
needs is given by name (policy/prefixing.py); what nothing is given for gets the prefix at the keys that
the command table finds, or is refused if those are not known. So a command that a newer server has is
rewritten or refused, and never passed on as it is.
"""
from libc.stdlib cimport calloc, free
from sidecar.core.protocol.commands cimport MAX_COMMANDS

ACTS = {
    "keys": ACT_KEYS, "keep": ACT_KEEP, "refuse": ACT_REFUSE, "subcommands": ACT_SUBCOMMANDS,
    "pattern": ACT_PATTERN, "scan": ACT_SCAN, "random": ACT_RANDOM, "sort": ACT_SORT,
    "streams": ACT_STREAMS, "channel": ACT_CHANNEL, "subscribe": ACT_SUBSCRIBE,
    "pubsub": ACT_PUBSUB, "client": ACT_CLIENT, "cluster": ACT_CLUSTER, "multi": ACT_MULTI,
    "exec": ACT_EXEC, "discard": ACT_DISCARD, "login": ACT_LOGIN, "reset": ACT_RESET,
    "raw": ACT_RAW,
}
SHAPES = {
    "none": SHAPE_NONE, "error": SHAPE_ERROR, "key": SHAPE_KEY, "each": SHAPE_EACH,
    "scan": SHAPE_SCAN, "first": SHAPE_FIRST, "even": SHAPE_EVEN, "streams": SHAPE_STREAMS,
    "tracking": SHAPE_TRACKING,
}


cdef class RewriteRules:
    """RewriteRules(table, given, prefix, renames, from_start).

    `given`: name of a command -> (act, shape, subcommands that are allowed). `prefix`: what keys and
    channels begin with at the server; b"": names of keys stay as they are. `renames`: what clients
    call a command -> what the server calls it; the server's own name is then unknown to them.
    `from_start`: RANDOMKEY scans from the start, since a cursor by chance is none (of a cluster).
    """

    def __cinit__(self, CommandTable table not None, given, bytes prefix=b"", renames=None,
                  bint from_start=False):
        self.acts = <uint8_t*>calloc(MAX_COMMANDS, 3)
        if self.acts == NULL:
            raise MemoryError
        self.shapes = self.acts + MAX_COMMANDS
        self.marks = self.shapes + MAX_COMMANDS
        self.table, self.prefix = table, prefix
        self.text, self.size = self.prefix, len(prefix)
        self.given = dict(given)
        self.renames = {name.lower(): to.lower() for name, to in (renames or {}).items()}
        self.from_start = from_start
        self.learn()

    def __dealloc__(self):
        free(self.acts)

    cdef int learn(self) except -1:
        """Fill in what the table has learnt of meanwhile."""
        cdef bytes name
        hidden = frozenset(self.renames.values())
        while self.known < self.table.count:
            name = self.table.name(self.known).encode("latin-1")
            act, shape, _ = self.given.get(name, (ACT_KEYS, SHAPE_NONE, None))
            self.acts[self.known], self.shapes[self.known] = act, shape
            if name in self.renames:
                self.marks[self.known] = MARK_ALIAS
            elif name in hidden:
                self.marks[self.known] = MARK_HIDDEN
            self.known += 1
        return 0

    cdef bint allows(self, const Command* c, bytes subcommand) except -1:
        """Whether this subcommand of a command with ACT_SUBCOMMANDS is allowed."""
        return subcommand.lower() in self.given[c.name[:c.name_len]][2]
