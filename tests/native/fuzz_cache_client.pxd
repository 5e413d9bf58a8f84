"""What the clients of a fuzzed world with a near cache say (see fuzz_cache_client.pyx)."""
from tests.native.fuzz_cache_judge cimport Judge, Peer
from tests.native.fuzz_cache_server cimport Server

cdef int more_to_say(Judge* j, Peer* p) except -1
cdef int elsewhere(Server* sv) except -1
cdef int say(Judge* j, Peer* p, int op) except -1
