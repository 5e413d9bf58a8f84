"""Giving a client's requests the server's names (see requests.pyx)."""
from libc.stddef cimport size_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.rewrite.giving cimport Giving

cdef bytes unknown_command(const char* p, size_t n)

cdef class RequestRewriter(Giving):
    cdef readonly bint waits    # for a reply, before more is rewritten
    cdef bint in_multi          # MULTI has been sent, and nothing that ends it

    cdef int request(self, const char* p, size_t n) except -1
    cdef int renamed(self, Command* c, const char* p, size_t n) except -1
    cdef int rewrite(self, Command* c, const char* p, size_t n) except -1
    cdef int special(self, Command* c, int act, const char* p, size_t n) except -1
    cdef bytes subcommand(self, const char* p, size_t n)
    cdef bint allowed(self, Command* c, const char* p, size_t n) except -1
    cdef int place_argument(self, const char* p, size_t n, int index, bint rest=*) except -1
    cdef bint keys_of(self, const Command* c, const char* p, size_t n) except -1
    cdef int sort(self, const char* p, size_t n) except -1
    cdef bint streams(self, const char* p, size_t n) except -1
    cdef int scan_keys(self, const char* p, size_t n) except -1
    cdef int random_key(self) except -1
    cdef int subscribe(self, const Command* c, const char* p, size_t n) except -1
    cdef int pubsub(self, const char* p, size_t n) except -1
    cdef int client(self, const char* p, size_t n) except -1
