"""What is asked on a tracked link (see tracked_requests.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from sidecar.core.cache.store cimport Cache, Value
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.reply cimport Framer

cdef struct Check:
    uint64_t hash           # of the value
    uint32_t args           # its arguments' bytes, which follow the record
    uint16_t command

cdef struct Asked:
    Value* value            # NULL: a heartbeat
    uint64_t at             # when it was queued, microseconds of Core.clock
    uint64_t number         # and as which of all (Barriers.tracked_requests)
    Check* check            # or a value that is here and is read again, to compare; TOUCH: a TOUCH;
    uint16_t slot           #   WATCH: a SSUBSCRIBE for this slot

cdef struct Tracked:
    Cache* cache
    void* owner             # the shell's connection
    Asked* ring
    uint32_t mask
    uint32_t head
    uint32_t tail
    uint16_t space
    bint no_ttl             # the server refused to tell the TTL; and why:
    bint not_allowed
    bint ttl_came           # of the two replies to the oldest piece, the first has come:
    int64_t ttl             # this was it
    uint64_t newest_request  # number of what was queued last
    bint passing            # the reply being read is too large: its bytes are passed over
    bint due                # something was queued since the shell last looked
    Framer framer
    Buffer out              # not sent yet
    Buffer partial_reply    # what has come of the reply being read
    Buffer touching         # keys that the next TOUCH will name,
    uint32_t touching_count  # how many
    bint no_touch           # its user may not use TOUCH
    const char* user        # of a cluster: whose links these are, for names of channels (slot_watch.pyx);
    size_t user_len         #   borrowed from the shell
    Buffer beat_key         # of a cluster: a key that was read, as an argument (heartbeats ask for it)
    uint64_t received
    uint64_t pushes

# Asked.check of a TOUCH, whose reply tells nothing, and of a SSUBSCRIBE.
cdef Check* TOUCH
cdef Check* WATCH

cdef void use_beat_key(Tracked* t, Value* v) noexcept nogil
cdef void tracked_ask(Value* v, Cache* k) noexcept nogil
cdef void tracked_check(Value* v, Cache* k, const char* p, size_t n) noexcept nogil
cdef void tracked_ask_due(Cache* k) noexcept nogil
cdef int tracked_beat(Tracked* t) noexcept nogil
cdef int tracked_say(Tracked* t, const char* p, size_t n) noexcept nogil
cdef uint32_t tracked_touch(Tracked* t) noexcept nogil
