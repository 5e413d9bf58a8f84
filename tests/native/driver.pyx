# cython: language_level=3
"""Rounds of the same requests and replies, without Python in between: for bench/instructions.py.

Valgrind counts nothing but these rounds (callgrind, --instr-atstart=no). That needs its header
when this is compiled; without it, COUNTABLE is False.
"""
from libc.stdint cimport UINT32_MAX
from sidecar.core.link.pending cimport link_sent
from sidecar.core.link.receive cimport link_receive
from sidecar.core.memory cimport buffer_release
from sidecar.core.records cimport Link, Session, link_unsent
from sidecar.core.session.feed cimport session_feed
from tests.native.loopback cimport Loopback

cdef extern from *:
    """
    #if defined(__has_include) && __has_include(<valgrind/callgrind.h>)
    #include <valgrind/callgrind.h>
    #define COUNTABLE 1
    #else
    #define CALLGRIND_START_INSTRUMENTATION
    #define CALLGRIND_STOP_INSTRUMENTATION
    #define COUNTABLE 0
    #endif
    static inline void count_from_here(void) { CALLGRIND_START_INSTRUMENTATION; }
    static inline void count_to_here(void) { CALLGRIND_STOP_INSTRUMENTATION; }
    """
    int HEADER "COUNTABLE"
    void count_from_here()
    void count_to_here()

cdef enum:
    WARM_UP = 8             # rounds that are not counted: buffers grow, tables fill

COUNTABLE = HEADER != 0


def drive(Loopback loopback, Py_ssize_t session, Py_ssize_t link, bytes requests, bytes replies,
          int rounds):
    """Each round: the client sends `requests`, all is passed on, the server answers `replies`.

    Some rounds are not counted, and come before. Returns what the client got in the last round.
    """
    cdef Session* s = loopback.session(session)
    cdef Link* l = loopback.link(link)
    cdef const char* request = requests
    cdef const char* reply = replies
    cdef size_t n = len(requests)
    cdef size_t m = len(replies)
    cdef bytes got = b""
    cdef bint failed = False
    cdef int i
    loopback.core.slow_from = UINT32_MAX
    for i in range(WARM_UP + rounds):
        if i == WARM_UP:
            count_from_here()
        failed |= session_feed(s, loopback.table, request, n) < 0
        link_sent(l, link_unsent(l))
        failed |= m and link_receive(l, reply, m) < 0
        if i == WARM_UP + rounds - 1:
            count_to_here()
            loopback.settle()
            got = loopback.take(session)
        s.dirty, s.borrowed, s.borrowed_len, loopback.core.dirty = False, NULL, 0, NULL
        buffer_release(&s.out)
        if failed or s.outstanding or s.stall:
            raise RuntimeError("not all was answered")
    return got
