"""The clients of a fuzzed world: what they say and what they must get (see fuzz_client.pyx)."""
from libc.stdint cimport uint32_t
from sidecar.core.protocol.commands cimport CommandTable
from tests.native.fuzz_server cimport Truth
from sidecar.core.memory cimport Buffer
from sidecar.core.records cimport Session
from sidecar.core.protocol.reply cimport Framer

cdef enum:
    DUE_MAX = 256           # replies one client may wait for

cdef struct Due:
    int number              # -1: none, `letter` is the reply
    int body                # EXEC, DISCARD: so many replies before it are for what they end
    char letter
    bint read               # outside of a transaction on the shared link never -UNCERTAIN
    bint write              # answered once replicas have it
    bint in_multi

cdef struct Peer:
    Session* s
    Buffer script           # what it has yet to send
    Buffer got              # replies not yet whole
    Framer framer
    Due due[DUE_MAX]
    uint32_t head
    uint32_t tail

cdef const char* CACHED         # a reply that is made without the server

cdef void expect_cached(Peer* p) noexcept
cdef int more_to_say(Peer* p, Truth* truth, CommandTable table) except -1
cdef int check_replies(Peer* p, Truth* truth, bint shared) except -1
