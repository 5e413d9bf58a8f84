# cython: language_level=3
"""Requests that are refused behind others on a link of the client's own. Not seen from Python.

In a transaction, and on a link for good, a refusal has to reach the client in its turn, and the server
has to know of it: it ends a transaction in which something was refused with EXECABORT. So a *stand-in*
is sent in the place of the request: a command that no server has, and whose name is a number of the
link's own. The server refuses it, and its refusal is exchanged for the sidecar's:

    client          MULTI   FLUSHALL                EXEC
    link            MULTI   sidecar-refused-0       EXEC
    server          OK      ERR unknown command     EXECABORT
    client          OK      NOPERM ...              EXECABORT

The server echoes the name, so its refusal is known even where replies are not matched with requests,
and where some do not come (CLIENT REPLY OFF): then the error kept for that number is dropped when the
next one is said.
"""
from libc.stdint cimport uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp, strlen
from sidecar.core.link.pending cimport link_bytes, link_push
from sidecar.core.link.receiver cimport session_say
from sidecar.core.memory cimport buffer_append, buffer_drop, buffer_head, buffer_size
from sidecar.core.protocol.commands cimport COMMAND_READ, Command
from sidecar.core.records cimport ENTRY_IN_MULTI, ENTRY_REFUSED, MODE_PINNED

cdef enum:
    # Bytes of errors that wait. So many only where no answers come: whoever goes on there is closed.
    MOST_WAITING = 1048576

cdef const char* BEFORE = b"-ERR unknown command "     # and a quote, which differs between servers
cdef const char* NAME = b"sidecar-refused-"
cdef size_t BEFORE_LEN = strlen(BEFORE)
cdef size_t NAME_LEN = strlen(NAME)

# What the stand-in is to the link: nothing that the server would execute.
cdef Command STAND_IN
STAND_IN.flags = COMMAND_READ


cdef int link_refuse(Link* l, Session* s, uint16_t command, const char* error,
                     size_t n) noexcept nogil:
    """Send a stand-in for a request that is refused with the line error[0:n]: 0, or -1 without memory
    for it. The session is in a transaction on this link, or pinned to it."""
    cdef char name[64]
    cdef char request[128]
    cdef int size = snprintf(name, sizeof(name), b"%s%llu", NAME, <unsigned long long>l.refusals_made)
    size = snprintf(request, sizeof(request), b"*1\r\n$%d\r\n%s\r\n", size, name)
    if buffer_size(&l.refusals) > MOST_WAITING or buffer_append(&l.refusals, error, n) < 0:
        return -1
    l.refusals_made += 1
    if s.mode == MODE_PINNED:
        l.raw_requests_due += 1
        return link_bytes(l, request, <size_t>size)
    if link_push(l, s, &STAND_IN, request, <size_t>size, ENTRY_IN_MULTI | ENTRY_REFUSED) < 0:
        return -1
    l.ring[(l.tail - 1) & l.mask].command = command
    return 0


cdef bint may_be_stand_in(const char* p, size_t n) noexcept nogil:
    """Whether the bytes p[0:n] may be the beginning of a server's refusal of a stand-in."""
    cdef size_t k = BEFORE_LEN if n > BEFORE_LEN else n
    if memcmp(p, BEFORE, k) != 0:
        return False
    if n <= BEFORE_LEN + 1:
        return True
    k = NAME_LEN if n > BEFORE_LEN + 1 + NAME_LEN else n - BEFORE_LEN - 1
    return memcmp(p + BEFORE_LEN + 1, NAME, k) == 0


cdef bint is_stand_in(const Link* l, const char* p, size_t n) noexcept nogil:
    """Whether the whole line p[0:n] is a server's refusal of a stand-in of this link's."""
    return l.refusals_made != l.refusals_said and n > BEFORE_LEN + 1 + NAME_LEN \
        and may_be_stand_in(p, n)


cdef void say_refusal(Link* l, Session* s, const char* p, size_t n) noexcept nogil:
    """The server's refusal p[0:n] of a stand-in has come: give the client the error that is kept for
    it."""
    cdef uint64_t number = 0
    cdef size_t at = BEFORE_LEN + 1 + NAME_LEN
    cdef const char* head
    cdef const char* end
    cdef size_t size
    while at < n and c'0' <= p[at] <= c'9':
        number = 10 * number + <uint64_t>(p[at] - c'0')
        at += 1
    while l.refusals_said <= number and buffer_size(&l.refusals):
        head = buffer_head(&l.refusals)
        end = <const char*>memchr(head, c'\n', buffer_size(&l.refusals))
        size = <size_t>(end - head) + 1 if end != NULL else buffer_size(&l.refusals)
        if l.refusals_said == number and s != NULL:
            session_say(s, head, size)
        buffer_drop(&l.refusals, size)
        l.refusals_said += 1
