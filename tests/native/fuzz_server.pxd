"""The servers of a fuzzed world, and what has really happened in it (see fuzz_server.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from sidecar.core.protocol.commands cimport CommandTable
from tests.native.fuzz_decoders cimport Text
from sidecar.core.memory cimport Buffer
from sidecar.core.records cimport Link
from sidecar.core.protocol.request cimport Limits

cdef enum:
    NUMBERS = 65536         # request numbers come round again
    QUEUE_MAX = 64          # commands in a transaction
    WAITING_MAX = 1024      # writes between two WAITs

cdef enum Fate:
    """What has become of a numbered request."""
    FATE_NONE = 0
    FATE_DONE = 1           # executed
    FATE_SAFE = 2           # and enough replicas have it
    FATE_SHORT = 3          # and too few of them have

cdef enum Role:
    ROLE_MASTER = 0
    ROLE_REPLICA = 1        # refuses writes
    ROLE_STALE = 2          # a replica without a master, or one that is loading: refuses all
    ROLE_LOADING = 3
    ROLES = 4

cdef struct Truth:
    uint64_t chance
    int number              # the last request's
    int acks                # replicas that must have a write
    bint follows            # servers lose their role
    bint losses             # connections break
    uint8_t fate[NUMBERS]

cdef struct Wire:
    Link* link
    Buffer up               # bytes on their way to the server
    Buffer down
    int role                # of the server at the other end
    bint pushes             # it sends pushes now and then
    bint refused            # something outside of a transaction: what it refuses now is "late"
    bint in_multi
    bint dirty              # EXEC will abort
    bint queued_write
    int queued              # in the transaction
    int queue[QUEUE_MAX]    # their numbers; -1: a read
    int waiting             # executed since the last WAIT
    int unacked[WAITING_MAX]

cdef void wire_connected(Wire* wire) noexcept
cdef void wire_closed(Wire* wire) noexcept
cdef void reply_text(Text* t, int number, char letter) noexcept
cdef int serve(Truth* truth, Wire* wire, CommandTable table, const Limits* limits) except -1
