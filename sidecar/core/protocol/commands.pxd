"""The command table (see commands.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t

cdef enum Route:
    ROUTE_SHARED = 0        # ordinary: one request, one reply, no state of the connection
    ROUTE_BLOCKING = 1      # may block: dedicated link until it has answered
    # From here on a request's arguments may change its row (dispatch.pyx).
    ROUTE_MAYBE_BLOCKING = 2    # blocks only with a BLOCK argument: XREAD, XREADGROUP
    ROUTE_SCRIPTS = 3       # SCRIPT, FUNCTION: ordinary, but for subcommands with their own route
    ROUTE_MULTI = 4
    ROUTE_EXEC = 5
    ROUTE_DISCARD = 6
    ROUTE_WATCH = 7
    ROUTE_UNWATCH = 8
    ROUTE_PIN = 9           # replies no longer match requests one to one
    ROUTE_ONCE = 10         # dedicated link, thrown away afterwards: DEBUG, unknown commands
    ROUTE_SESSION = 11      # the sidecar serves it: SELECT, SCRIPT KILL
    ROUTE_AUTH = 12         # likewise, and the session's user changes
    ROUTE_HELLO = 13        # likewise, if it has credentials
    ROUTE_CLIENT = 14       # likewise; CLIENT may name other clients by the sidecar's ids
    ROUTE_RESET = 15
    ROUTE_QUIT = 16
    ROUTE_WAIT = 17         # about the writes this client made before
    ROUTE_HANG_UP = 18      # "POST" and "Host:": somebody's browser is being abused
    ROUTE_ANNOUNCEMENTS = 19    # CLIENT MAINT_NOTIFICATIONS: the sidecar's affair, on any link

cdef enum CommandFlag:
    COMMAND_READ = 1        # the server flags it readonly: may be sent again
    COMMAND_WRITES = 2      # may change data: held back in a failover, acknowledged by replicas
    COMMAND_CACHEABLE = 4   # a pure function of its arguments and of one key's value
    COMMAND_CACHEABLE_EACH = 8  # the same for each of its keys: MGET
    COMMAND_OPAQUE = 16     # a script's or module's: its error may say anything, whatever was done
    COMMAND_AUDITED = 32    # the audit stream records it (see audit_notes.pyx)
    COMMAND_TELLS = 64      # its reply may tell of changes to keys it does not name (see fence.pyx)
    COMMAND_MAY_BE_HELD = 128  # a read that CLIENT PAUSE ... WRITE holds back: PFCOUNT
    COMMAND_SPLIT = 256     # on a cluster: may be split over several slots (gather.pyx)
    COMMAND_FANS_OUT = 512  # on a cluster: concerns more than one shard, or none: the shell serves it
    COMMAND_BY_CHANNEL = 1024  # on a cluster: goes by the slot of a channel, its first argument

cdef enum KeyForm:          # where a command's keys are (the low bits of Command.keys)
    FORM_UNKNOWN = 0        # can't be known
    FORM_NONE = 1
    FORM_ONE = 2            # argument 1
    FORM_REST = 3           # argument 1 and all that follow
    FORM_SPECS = 4          # rules.specs say
    FORM_CONTAINER = 5      # the subcommand's rules say
    FORM_ANY = 6            # none named, any meant: FLUSHALL
    FORM_MASK = 15
    FORM_WRITES = 16        # of FORM_ONE and FORM_REST: the keys may change

cdef enum KeyFind:          # what follows the place that a specification names
    FIND_RANGE = 0
    FIND_KEYNUM = 1
    FIND_SORT_STORE = 2     # see keys.pyx for these three
    FIND_GEO_STORE = 3
    FIND_MIGRATE = 4

cdef enum KeyFlag:
    KEY_WRITES = 1          # these keys may change
    KEY_OPTIONAL = 2        # FIND_KEYNUM: a count of 0 is allowed (scripts)

cdef enum:
    NAME_MAX = 47           # a name is shorter: so that a Command fills a cache line
    MAX_COMMANDS = 2048
    SLOTS = 8192
    MAX_SPECS = 4           # servers have 3 at most
    KEYWORD_MAX = 12        # longest: "storedist"
    SUBCOMMAND_MAX = 28     # longest: "set-config-epoch"
    MAX_ROUTES = 4          # subcommands of one command that have their own: 2 at most

cdef struct KeySpec:
    char keyword[KEYWORD_MAX]   # search for this word from `at` on; none: `at` is the place
    uint8_t keyword_len
    uint8_t find
    uint8_t flags
    int16_t at
    int16_t last            # range: the last key, from the first or (negative) from the end
    int16_t step            #   and every how many arguments there is one
    int16_t limit           #   and into how many parts the arguments are split (XREAD: 2)
    int16_t count_at        # keynum: where the count stands
    int16_t first           #   and where the first key does

cdef struct SubcommandRoute:
    char name[SUBCOMMAND_MAX]
    uint8_t name_len
    uint8_t route
    int16_t arity           # as the server counts it: -3 means 3 or more

# What only some commands have.
cdef struct Rules:
    char name[SUBCOMMAND_MAX]   # of a subcommand
    uint8_t name_len
    uint8_t keys            # KeyForm
    uint8_t specs_len
    uint8_t subs_len
    uint8_t routes_len
    KeySpec specs[MAX_SPECS]
    Rules* subs             # where the keys of each subcommand are
    SubcommandRoute routes[MAX_ROUTES]  # of the subcommands that do not take the command's own

# 64 bytes: a cache line. What only some commands have lies behind `rules`.
cdef struct Command:
    char name[NAME_MAX - 1]
    uint8_t name_len
    uint8_t route
    uint16_t flags          # CommandFlag
    uint8_t family
    uint8_t keys            # KeyForm
    uint16_t id
    int16_t arity
    Rules* rules            # NULL: its route and its form of keys say all

cdef inline char lower(char c) noexcept nogil:
    return c + 32 if c >= c'A' and c <= c'Z' else c

cdef inline bint is_name(const char* p, const char* name, size_t n) noexcept nogil:
    """Whether p[0:n], in whatever case, is this name, which is in lower case."""
    cdef size_t i
    for i in range(n):
        if lower(p[i]) != name[i]:
            return False
    return True

cdef class CommandTable:
    cdef void* block
    cdef Command* commands
    cdef uint16_t* slots
    cdef uint32_t seed
    cdef readonly int count
    cdef readonly list families
    cdef Command* find(self, const char* name, size_t n) noexcept nogil
    cdef int put(self, bytes name, tuple row) except -1
    cdef tuple routes_of(self, const Command* c)
