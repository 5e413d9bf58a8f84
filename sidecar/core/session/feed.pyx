# cython: language_level=3, cdivision=True
"""Reading a client's requests, one after the other.

Requests are taken in order. One that can't go on now stops the parse: `stall` says what it
waits for, and it stays at the head of `unread` with all that follows. The shell acts on it
only when no reply is outstanding (`session_ready`), so a session never has requests on two
links, and its commands never overtake each other. Then the same request is decided on again.

What is done with each is decided in dispatch.pyx. An inline line is decided on as the multibulk
request it stands for. A request larger than `request_buffer` is not collected: on a dedicated or
pinned link its pieces are passed on as they arrive (`streaming`). Its entry is queued with the
first piece.
"""
from libc.string cimport strlen
from sidecar.core.cluster.branches cimport early_bytes
from sidecar.core.guard.guard cimport guard_ready, guard_take_back
from sidecar.core.link.limited cimport limit_streamed
from sidecar.core.link.pending cimport link_bytes
from sidecar.core.link.receiver cimport session_mark
from sidecar.core.link.weight cimport window_full, window_has_room, window_widen
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_release, buffer_size)
from sidecar.core.observe.trace_records cimport trace_waits
from sidecar.core.observe.audit_notes cimport audit_command
from sidecar.core.protocol.commands cimport COMMAND_AUDITED, Command, NAME_MAX
from sidecar.core.protocol.request cimport (ERR_BULK, ERR_CRLF, ERR_MEMORY, ERR_QUOTES, SCAN_DONE, SCAN_EMPTY,
    SCAN_ERROR, SCAN_INLINE, SCAN_MORE, inline_to_multibulk, scan_request, scanner_reset)
from sidecar.core.records cimport (DEDICATED_PAUSE, MODE_PINNED, MODE_SHARED, STALL_DEDICATED,
    STALL_FILL, STALL_HANG_UP, STALL_HELD, STALL_LIMIT, STALL_LINK, STALL_NONE, STALL_PROTOCOL_ERROR, STALL_ROOM,
    STALL_SESSION_COMMAND, STALL_SHELL, link_unsent)
from sidecar.core.session.dispatch cimport begin_stream, dispatch, take_back_piece


cdef bint session_ready(const Session* s) noexcept nogil:
    """Whether what the session wants may be done now."""
    if s.stall == STALL_NONE or s.stall == STALL_SHELL:
        return False
    if s.stall == STALL_LINK:
        return s.branches == NULL or s.outstanding == 0     # others are due from other links
    if s.stall == STALL_ROOM:
        return window_has_room(s)
    if s.stall == STALL_FILL:
        return s.awaited == NULL
    if s.stall == STALL_LIMIT:
        return guard_ready(s)
    if s.stall == STALL_PROTOCOL_ERROR and s.streaming and not s.discarding:
        return s.outstanding == 1       # the request it is in the middle of: nothing will come
    return s.outstanding == 0


cdef size_t session_room_hint(const Session* s) noexcept nogil:
    """How many bytes the request at the head still lacks, as far as its headers tell."""
    if s.scan.bulk > 0:
        return <size_t>s.scan.bulk + 2
    return 0


cdef int dispatch_inline(Session* s, CommandTable table, const char* p, size_t n,
                         size_t at) noexcept nogil:
    """An inline line: the server gets it as the multibulk request it stands for."""
    cdef Buffer line
    cdef int r
    cdef size_t length = s.scan.pos
    line.data = NULL
    line.start = line.end = line.cap = 0
    r = inline_to_multibulk(p, n, &line, s.core.limits.joined_quotes)
    if r == SCAN_ERROR:
        s.scan.error = ERR_QUOTES
        r = STALL_PROTOCOL_ERROR
    elif r == SCAN_EMPTY:
        r = STALL_NONE
    else:
        scanner_reset(&s.scan)
        scan_request(&s.scan, line.data + line.start, buffer_size(&line), &s.core.limits, True)
        # A run may not point into this buffer: small pieces are copied, and so are these.
        r = dispatch(s, table, line.data + line.start, buffer_size(&line), at)
        if s.link != NULL and s.link.borrowed_len:
            if buffer_append(&s.link.out, s.link.borrowed, s.link.borrowed_len) < 0:
                r = STALL_PROTOCOL_ERROR
            s.link.borrowed = NULL
            s.link.borrowed_len = 0
    buffer_release(&line)
    s.scan.pos = length
    return r


cdef void pass_rest(Session* s, const char* p, size_t n) noexcept nogil:
    """Bytes of a request whose beginning has been passed on. Without memory for them nothing may follow
    that the server would take for them: the client is closed, and its link with it."""
    if s.discarding:
        return
    if s.guard != NULL and s.streaming and limit_streamed(s, n):
        return
    if s.must_close or link_bytes(s.link, p, n) < 0:
        s.must_close = True


cdef size_t stream(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """Part of a request that is not whole: how many bytes of it can be dealt with.

    Before streaming begins the name must be there.
    """
    cdef Command* c
    cdef size_t k = s.scan.pos
    cdef size_t total = s.scan.pos + session_room_hint(s)
    if s.streaming:
        pass_rest(s, p, k)
        s.scan.pos = 0
        return k
    if total <= s.core.request_buffer or k == 0 or s.scan.argc < 0:
        return 0
    if s.scan.left == s.scan.argc:
        # Still in the first argument. One this long names no command.
        if s.scan.name_len < NAME_MAX:
            return 0
        s.scan.name_len = NAME_MAX
    c = table.find(p + s.scan.name_at, s.scan.name_len)
    s.stall = begin_stream(s, c, p, k)
    if s.stall == STALL_PROTOCOL_ERROR:
        s.stall = STALL_NONE
        s.must_close = True             # memory is out
    if not s.streaming:
        return 0
    s.scan.pos = 0
    return k


cdef inline bint must_pause(Session* s) noexcept nogil:
    """Whether the next request waits for replies to come, or to be read."""
    if s.streaming or s.in_multi:
        return False
    if window_full(s):
        window_widen(s)
        return True
    return buffer_size(&s.out) + early_bytes(s) > s.core.output_pause


cdef const char* END_OF_LINE_AND_INPUT = b"\r\n*1\r\n!\r\n"


cdef void pass_wrong(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """A pinned client's request breaks the protocol: pass it on, so that the server answers it in its
    turn. Some servers accept it and execute it, so it is noted for the audit stream. Nothing behind
    it is passed on: nobody here knows where the next request begins. In its place goes what no server
    accepts, so that the connection ends in its turn, which may be long after: the client may be
    blocked."""
    cdef Command* c
    cdef const char* end = END_OF_LINE_AND_INPUT
    if s.scan.error == ERR_CRLF or s.scan.error == ERR_BULK:
        n = min(n, s.scan.pos)
        end += 2                        # no line is open
    if s.scan.name_len and s.scan.name_at + s.scan.name_len <= n and not s.streaming:
        c = table.find(p + s.scan.name_at, s.scan.name_len)
        if c.flags & COMMAND_AUDITED:
            audit_command(s, c, p, n)
    # A guard has not judged what is no request; servers may execute it all the same.
    if s.guard == NULL or s.streaming:
        pass_rest(s, p, n)
    s.streaming = s.discarding = False
    s.input_broken = True
    pass_rest(s, end, strlen(end))


cdef size_t parse(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """Deal with requests until the bytes end or one has to wait: how many bytes are done."""
    cdef size_t at = 0
    cdef int r
    if s.input_broken:
        return n                        # nothing more of it goes anywhere
    while at < n:
        if must_pause(s):
            s.stall = STALL_ROOM
            break
        r = scan_request(&s.scan, p + at, n - at, &s.core.limits,
                         s.authenticated or s.mode == MODE_PINNED)
        if r == SCAN_MORE:
            at += stream(s, table, p + at, n - at)
            break
        if s.streaming and r == SCAN_DONE:
            pass_rest(s, p + at, s.scan.pos)
            s.streaming = s.discarding = False
        elif r == SCAN_DONE:
            s.core.more_requests = at + s.scan.pos < n
            s.stall = dispatch(s, table, p + at, s.scan.pos, at)
        elif r == SCAN_INLINE:
            s.stall = dispatch_inline(s, table, p + at, s.scan.pos, at)
        elif r == SCAN_ERROR:
            s.stall = STALL_PROTOCOL_ERROR
        if s.stall != STALL_NONE and s.stall != STALL_SHELL:
            if s.stall < STALL_SESSION_COMMAND or s.stall >= STALL_HELD:
                trace_waits(s, s.stall == STALL_FILL)
            break
        at += s.scan.pos
        s.command_count += 1
        scanner_reset(&s.scan)
        if s.stall == STALL_SHELL or s.must_close:
            break
    if s.mode == MODE_SHARED and s.in_multi:
        take_back_piece(s)
        if s.guard != NULL:
            guard_take_back(s)
        at = s.piece_at
        if s.stall != STALL_LINK and s.stall != STALL_HANG_UP:
            s.stall = STALL_DEDICATED
    if s.stall == STALL_PROTOCOL_ERROR and s.mode == MODE_PINNED and s.scan.error != ERR_MEMORY:
        s.stall = STALL_NONE
        pass_wrong(s, table, p + at, n - at)
        at = n
    if s.stall == STALL_NONE and not session_has_room(s, 1):
        s.stall = STALL_ROOM
    elif s.stall != STALL_NONE and s.stall != STALL_PROTOCOL_ERROR and s.stall != STALL_SHELL:
        scanner_reset(&s.scan)
    return at


cdef bint session_has_room(const Session* s, size_t share) noexcept nogil:
    """Whether the session may go on: neither its link nor itself has too much waiting to be sent.

    `share` divides the limits: a session that was stopped goes on only below half of them.
    """
    cdef size_t limit = s.core.link_pause
    if s.link != NULL:
        if not s.link.shared and limit > DEDICATED_PAUSE:
            limit = DEDICATED_PAUSE
        if link_unsent(s.link) > limit // share:
            return False
    return buffer_size(&s.out) + early_bytes(s) <= s.core.output_pause // share


cdef int after(Session* s) noexcept nogil:
    if s.stall != STALL_NONE or s.must_close:
        session_mark(s)
    return 0


cdef int session_feed(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """Bytes from the client: 0, or -1 when memory is out (close it)."""
    cdef size_t done
    s.core.stats.client_bytes_in += n
    s.received_bytes += n
    s.active_at = s.core.seconds
    if s.core.barriers != NULL:
        s.fence_seen = s.core.barriers.fence
        s.proof_space = 0
    if s.unread.end == s.unread.start and s.stall == STALL_NONE:
        done = parse(s, table, p, n)
        if done < n and buffer_append(&s.unread, p + done, n - done) < 0:
            return -1
        return after(s)
    if buffer_append(&s.unread, p, n) < 0:
        return -1
    if s.stall != STALL_NONE:
        return 0
    return session_resume(s, table)


cdef int session_resume(Session* s, CommandTable table) noexcept nogil:
    """Go on with what lies in `unread`; the shell has done what was wanted and reset `stall`."""
    cdef size_t done
    cdef size_t n = buffer_size(&s.unread)
    if n == 0:
        return 0
    done = parse(s, table, s.unread.data + s.unread.start, n)
    # A link may have borrowed bytes of `unread`, which is changed below: copy them first.
    if s.link != NULL and s.link.borrowed_len:
        if buffer_append(&s.link.out, s.link.borrowed, s.link.borrowed_len) < 0:
            return -1
        s.link.borrowed = NULL
        s.link.borrowed_len = 0
    if done:
        buffer_drop(&s.unread, done)
    return after(s)
