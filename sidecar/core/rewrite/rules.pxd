"""What is done with each command of a client whose names are rewritten (see rules.pyx)."""
from libc.stdint cimport uint8_t
from sidecar.core.protocol.commands cimport Command, CommandTable

cdef enum Act:
    # How a command's request is rewritten. Unless it says otherwise one reply is due.
    ACT_KEYS = 0            # a prefix for each key that the command table finds
    ACT_KEEP = 1            # nothing: it names no key
    ACT_REFUSE = 2          # it can't be kept within the prefix
    ACT_SUBCOMMANDS = 3     # as ACT_KEEP for the subcommands that are allowed, else as ACT_REFUSE
    ACT_PATTERN = 4         # argument 1 is a pattern of keys: KEYS
    ACT_SCAN = 5            # MATCH and its pattern, which are added where there is none
    ACT_RANDOM = 6          # RANDOMKEY, in whose place the keys with the prefix are scanned
    ACT_SORT = 7            # keys, and the patterns of BY and GET
    ACT_STREAMS = 8         # XREAD, XREADGROUP: the first half of what stands behind STREAMS
    ACT_CHANNEL = 9         # argument 1 is a channel: PUBLISH
    ACT_SUBSCRIBE = 10      # all arguments are channels; so many confirmations are due
    ACT_PUBSUB = 11
    ACT_CLIENT = 12
    ACT_CLUSTER = 13
    ACT_MULTI = 14
    ACT_EXEC = 15
    ACT_DISCARD = 16
    ACT_LOGIN = 17          # AUTH, HELLO: other rules may hold for what follows
    ACT_RESET = 18          # likewise
    ACT_RAW = 19            # after it replies can't be matched: MONITOR, SYNC. Refused with a prefix

cdef enum Shape:
    # Where a reply has keys or channels.
    SHAPE_NONE = 0          # nowhere
    SHAPE_ERROR = 1         # in an error that says that a stream has no such group
    SHAPE_KEY = 2           # the reply is one
    SHAPE_EACH = 3          # each element of an array
    SHAPE_SCAN = 4          # each element of the array that is its second element
    SHAPE_FIRST = 5         # the first element: BLPOP, LMPOP
    SHAPE_EVEN = 6          # every other element: PUBSUB NUMSUB
    SHAPE_STREAMS = 7       # the first element of each element, or the keys of a map: XREAD
    SHAPE_TRACKING = 8      # each element of the sixth: CLIENT TRACKINGINFO

cdef enum Mark:
    MARK_NONE = 0
    MARK_HIDDEN = 1         # clients call it by another name only
    MARK_ALIAS = 2          # what clients call another command by

cdef class RewriteRules:
    cdef readonly CommandTable table
    cdef readonly bytes prefix
    cdef bint from_start    # RANDOMKEY scans from the start
    cdef const char* text   # of the prefix,
    cdef size_t size        #   and its size; 0: names of keys stay as they are
    cdef uint8_t* acts      # of each command, by its number
    cdef uint8_t* shapes
    cdef uint8_t* marks
    cdef int known          # commands of the table for which these are filled
    cdef dict given
    cdef dict renames       # what clients call a command, in lower case -> what the server does
    cdef int learn(self) except -1
    cdef bint allows(self, const Command* c, bytes subcommand) except -1
