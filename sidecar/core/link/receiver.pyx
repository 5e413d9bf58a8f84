# cython: language_level=3
"""A session as the receiver of replies: its record, and the bytes on their way to its client.

A record outlives its client until the last reply due to it has passed. So every reply that is taken
off a queue comes here, even when its client has gone; the last one frees the record.

Reply bytes are not copied if they can be sent from the receive buffer: `borrowed` remembers where they
lie, as long as they lie side by side. The shell sends or settles a run before that buffer is used
again.
"""
from libc.stdlib cimport calloc, free
from sidecar.core.memory cimport buffer_append, buffer_release
from sidecar.core.protocol.request cimport scanner_reset


cdef Session* session_new(Core* core, void* owner) noexcept nogil:
    """A record for a new client, or NULL when memory is out."""
    cdef Session* s = <Session*>calloc(1, sizeof(Session))
    if s == NULL:
        return NULL
    s.core = core
    s.owner = owner
    s.authenticated = True
    s.window = core.new_session_window
    s.active_at = core.seconds
    scanner_reset(&s.scan)
    return s


cdef void session_free(Session* s) noexcept nogil:
    buffer_release(&s.unread)
    buffer_release(&s.out)
    buffer_release(&s.under_way)
    buffer_release(&s.turned_back)
    free(s)


cdef void session_drop(Session* s) noexcept nogil:
    """The client has gone. The record goes too, now or with its last reply."""
    s.owner = NULL
    s.link = NULL
    s.awaited = NULL
    buffer_release(&s.unread)
    buffer_release(&s.out)
    s.borrowed = NULL
    s.borrowed_len = 0
    if s.outstanding == 0 and not s.dirty:
        session_free(s)


cdef void session_mark(Session* s) noexcept nogil:
    """Have the shell look at this session before the current event is over. A branch has it look at
    the client's session."""
    if s.trunk != NULL:
        if not s.dirty:
            s.dirty = True
            s.next_dirty = s.trunk.news
            s.trunk.news = s
        s = s.trunk
    if not s.dirty:
        s.dirty = True
        s.next_dirty = s.core.dirty
        s.core.dirty = s


cdef int session_settle_borrowed(Session* s) noexcept nogil:
    if s.borrowed_len:
        if buffer_append(&s.out, s.borrowed, s.borrowed_len) < 0:
            s.must_close = True
            return -1
        s.borrowed = NULL
        s.borrowed_len = 0
    return 0


cdef int session_say(Session* s, const char* p, size_t n) noexcept nogil:
    """Append reply bytes for a client. Out of memory closes it."""
    if s.owner == NULL or s.must_close:
        return 0
    session_mark(s)
    if session_settle_borrowed(s) < 0 or buffer_append(&s.out, p, n) < 0:
        s.must_close = True
        return -1
    return 0


cdef void deliver(Session* s, const char* p, size_t n) noexcept nogil:
    """Give a session reply bytes from the receive buffer: they are borrowed if they can be, else
    copied."""
    if s == NULL or n == 0:
        return
    if s.owner == NULL:
        if s.outstanding == 0 and not s.dirty:
            session_free(s)
        return
    if s.must_close:
        return
    session_mark(s)
    if s.borrowed_len == 0 and s.out.end == s.out.start:
        s.borrowed = p
        s.borrowed_len = n
    elif s.borrowed_len and s.borrowed + s.borrowed_len == p:
        s.borrowed_len += n
    else:
        session_say(s, p, n)


cdef void answer(Session* s, const char* p, size_t n) noexcept nogil:
    """Give a session one reply made here. If its client has gone and no reply is due, free the
    record."""
    if s.owner != NULL:
        session_say(s, p, n)
    elif s.outstanding == 0 and not s.dirty:
        session_free(s)


cdef void session_mark_live(Session* s) noexcept nogil:
    if s.owner != NULL:
        session_mark(s)
