# cython: language_level=3
"""How the end of RESET is known on a pinned link. Not seen from Python.

A client leaves its pinned link when the server has done its RESET. Mostly `+RESET` tells. But behind
CLIENT REPLY SKIP the server gives no reply, and where earlier replies are due, one of them may look
like it (a script may return any status). So where requests are due that seem to be unanswered, a
*mark* is sent behind RESET: HELLO with an option that no server has. Servers answer it whatever the
connection's state is, also before a login. Its error, which echoes the option, tells the end, and is
not for the client:

    client     CLIENT REPLY SKIP   RESET
    link       CLIENT REPLY SKIP   RESET   HELLO 2 sidecar-after-reset
    server                                 ERR Syntax error in HELLO option 'sidecar-after-reset'
"""
from libc.string cimport memcmp, strlen
from sidecar.core.link.pending cimport link_bytes

cdef const char* MARK = b"*3\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$19\r\nsidecar-after-reset\r\n"
cdef const char* ANSWER = b"-ERR Syntax error in HELLO option 'sidecar-after-reset'\r\n"


cdef int reset_mark(Link* l) noexcept nogil:
    """Send the mark behind the RESET that has just passed: 0, or -1 without memory for it."""
    l.reset_marked = True
    l.raw_requests_due += 1
    return link_bytes(l, MARK, strlen(MARK))


cdef bint may_be_reset_mark(const Link* l, const char* p, size_t n) noexcept nogil:
    """Whether the bytes p[0:n] may be the beginning of the answer to a mark that is due."""
    cdef size_t size = strlen(ANSWER)
    return l.reset_marked and n < size and memcmp(p, ANSWER, n) == 0


cdef bint is_reset_mark(const Link* l, const char* p, size_t n) noexcept nogil:
    """Whether the whole reply p[0:n] is the answer to a mark that is due."""
    cdef size_t size = strlen(ANSWER)
    return l.reset_marked and n == size and memcmp(p, ANSWER, size) == 0
