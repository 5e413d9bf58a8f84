"""The command table (see commands.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int8_t, int16_t, uint8_t, uint16_t, uint32_t

cdef enum Route:
    ROUTE_SHARED = 0        # ordinary: one request, one reply, no state of the connection
    ROUTE_BLOCKING = 1      # may block: dedicated link until it has answered
    ROUTE_MAYBE_BLOCKING = 2  # blocks only with a BLOCK argument (XREAD, XREADGROUP)
    ROUTE_MULTI = 3
    ROUTE_EXEC = 4
    ROUTE_DISCARD = 5
    ROUTE_WATCH = 6
    ROUTE_UNWATCH = 7
    ROUTE_PIN = 8           # replies no longer match requests one to one
    ROUTE_ONCE = 9          # dedicated link, thrown away afterwards (DEBUG, unknown commands)
    ROUTE_LOCAL = 10        # session state the sidecar keeps: AUTH, HELLO, SELECT, CLIENT
    ROUTE_RESET = 11
    ROUTE_QUIT = 12
    ROUTE_WAIT = 13         # about the writes this client made before
    ROUTE_HANG_UP = 14      # "POST" and "Host:": somebody's browser is being abused

cdef enum CommandFlag:
    COMMAND_READ = 1        # the server flags it readonly: may be sent again
    COMMAND_WRITES = 2      # may change data: held back in a failover, acknowledged by replicas

cdef enum:
    NAME_MAX = 48
    MAX_COMMANDS = 2048
    SLOTS = 8192

cdef struct Command:
    char name[NAME_MAX]
    uint8_t name_len
    uint8_t route
    uint8_t flags
    uint8_t family
    uint16_t id
    int16_t arity
    int16_t first_key
    int16_t last_key
    int16_t key_step

cdef class CommandTable:
    cdef Command* commands
    cdef uint16_t* slots
    cdef uint32_t seed
    cdef readonly int count
    cdef readonly list families
    cdef Command* find(self, const char* name, size_t n) noexcept nogil
    cdef uint32_t hash(self, const char* name, size_t n) noexcept nogil
    cdef int put(self, bytes name, tuple row) except -1
