"""The server of a fuzzed world with a near cache, and what it ever did (see fuzz_cache_server.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from sidecar.core.cache.tracked_requests cimport Tracked
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.request cimport Limits
from sidecar.core.records cimport Link
from tests.native.fuzz_decoders cimport Text

cdef enum:
    KEYS = 10
    DBS = 2
    USERS = 2
    PLACES = 20             # KEYS * DBS
    EVENTS_MAX = 65536
    FIRST = 1000000000      # numbers of events have ten digits, and are found by that in a reply
    QUEUE_MAX = 8           # commands of a transaction
    PUSHES_MAX = 1024       # invalidations on their way on one connection
    CONNECTIONS_MAX = 32
    NO_KEY = -1
    ALL = 1 << 30           # requests
    NEVER = 8               # this key, by its prefix,
    SHORT = 7               # and this one
    EVER = 1 << 62

cdef enum Op:
    # Reads of one key, cacheable up to OP_GEOPOS.
    OP_GET = 0
    OP_STRLEN = 1
    OP_SMEMBERS = 2
    OP_ZSCORE = 3
    OP_ZRANK = 4
    OP_GEOPOS = 5
    OP_DUMP = 6
    OP_MGET = 7             # two keys
    # Writes.
    OP_SET = 8
    OP_SET_LARGE = 9
    OP_SET_PX = 10
    OP_DEL = 11
    OP_MSET = 12            # two keys
    OP_BLPOP = 13
    OP_EVAL = 14            # of a key that it does not name
    OP_FLUSHALL = 15
    OP_ACL = 16
    # The rest.
    OP_MULTI = 17
    OP_EXEC = 18
    OP_WATCH = 19
    OP_UNWATCH = 20
    OP_PTTL = 21
    OP_PING = 22
    OP_SUBSCRIBE = 23
    OP_CLIENT = 24
    OP_WAIT = 25
    OP_TOUCH = 26           # of keys in use, by the sidecar itself
    OPS = 27

cdef struct Ask:
    int op
    int key
    int key2
    int arg                 # milliseconds to live; EVAL: the key

cdef struct Event:
    int64_t at
    int64_t expires         # EVER: never
    int op
    int place               # db * KEYS + key; -1: may be any
    int connection          # number of it, not its slot
    uint32_t version        # of a read: the event that wrote what it found; 0: missing
    uint8_t user
    uint8_t db
    bint write
    bint own                # through the sidecar, which still has the connection
    bint tracked

cdef struct Push:
    uint64_t end            # of its bytes, in all that the connection ever sent
    int key                 # NO_KEY: all
    uint32_t number

cdef struct Wire:
    Link* link
    Tracked* tracked
    int number              # of the connection, ever fresh; 0: none
    int user
    int db
    int proto
    bint up_link            # a shared one: it is connected
    bint own
    bint replica            # its server refuses writes
    bint aborts             # EXEC of the open transaction will not execute
    Buffer up               # bytes on their way to the server
    Buffer down
    uint64_t sent           # by the server, ever
    uint64_t arrived
    bint in_multi
    bint subscribed
    int queued
    Ask queue[QUEUE_MAX]
    Push pushes[PUSHES_MAX]
    uint32_t push_head
    uint32_t push_tail

cdef struct Server:
    uint64_t chance
    int64_t now
    uint32_t count          # events
    Event* events
    uint32_t version[PLACES]
    int64_t expires[PLACES]
    uint32_t tracked[KEYS]  # wires that have read the key, by bit
    bint denied[USERS]
    bint no_ttl[USERS]
    int pad[KEYS]           # bytes that its values have beside
    int acks
    Wire* wires
    int writes              # of 16 commands, so many write
    int reads               # the first so many of the commands that read are sent
    bint rare               # commands that may touch any key are sent, too
    bint plain              # only reads and writes of named keys are sent, for now
    int first_key           # the keys that this world is about,
    int keys                # and how many
    int connections         # ever

cdef int some_key(Server* sv) noexcept
cdef void connected(Server* sv, int w, int user, int db, int proto, bint tracking) noexcept
cdef void parted(Server* sv, int w, bint executed, const Limits* limits) except *
cdef int serve(Server* sv, int w, const Limits* limits, int most) except -1
cdef uint32_t write_one(Server* sv, int op, int place, int64_t expires, const Wire* wire) except 0
cdef int invalidate(Server* sv, int key, uint32_t number) except -1
cdef int publish(Server* sv) except -1
cdef int change(Server* sv, const Wire* wire, const Ask* ask, Text* t) except -1
cdef void put_ask(Text* t, const Ask* ask) noexcept
cdef void render(const Server* sv, const Event* e, int op, int proto, Text* t) noexcept
