# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reading a client's requests and deciding where each goes.

A session is in one of three modes:

SHARED      requests go down the link it shares with all clients of its identity;
DEDICATED   it has a link of its own for as long as it needs connection state (WATCH, MULTI
            that did not arrive whole, a blocking command, a large request); one reply each;
PINNED      it has a link of its own for good (SUBSCRIBE, MONITOR, CLIENT TRACKING ..., or
            session pooling); bytes pass both ways, replies are not matched with requests.

Requests are taken in order. One that can't go on now stops the parse: `want` says what it
waits for, and it stays at the head of `in_` with all that follows. The shell acts on `want`
only when no reply is outstanding (`session_ready`), so a session never has requests on two
links, and its commands never overtake each other. Then the same request is looked at afresh.

MULTI on the shared link is a bet that EXEC is already in the buffer: the commands are queued as
they come, and if the block turns out not to be whole, or to contain anything that is not
ordinary, everything since MULTI is taken back (nothing is flushed before the parse is over) and
the session asks for a dedicated link.

A request larger than `request_buffer` is not collected: on a dedicated or pinned link its
pieces are passed on as they arrive (`streaming`). Its entry is queued with the first piece.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from sidecar.core.link.replica_acks cimport link_seal
from sidecar.core.observe.audit_notes cimport audit_begin, audit_command, audit_take_back
from sidecar.core.link.barrier cimport barriers_abandon, barriers_undo
from sidecar.core.cache.past cimport cache_pass, cache_pass_part, cache_touch
from sidecar.core.cache.serve cimport ASK, FILLING, PASS, PUT_OFF, SERVED, cache_serve
from sidecar.core.cache.fill cimport cache_check_due
from sidecar.core.cache.store cimport Cache, Value, fill_of
from sidecar.core.protocol.keys cimport KeySpan, find_keys, first_key
from sidecar.core.protocol.commands cimport (COMMAND_AUDITED, COMMAND_CACHEABLE,
    COMMAND_CACHEABLE_EACH, COMMAND_WRITES, Command, NAME_MAX, ROUTE_DISCARD,
    ROUTE_EXEC, ROUTE_HANG_UP, ROUTE_SESSION, ROUTE_MAYBE_BLOCKING, ROUTE_MULTI, ROUTE_ONCE,
    ROUTE_PIN, ROUTE_QUIT, ROUTE_RESET, ROUTE_SHARED, ROUTE_UNWATCH, ROUTE_WAIT, ROUTE_WATCH)
from sidecar.core.link.pending cimport link_bytes, link_entry, link_push, session_mark, session_say
from sidecar.core.records cimport (Core, DEDICATED_PAUSE, ENTRY_IN_MULTI, ENTRY_LAST, Link,
    MODE_DEDICATED, MODE_PINNED, MODE_SHARED, STALL_DEDICATED, STALL_PROTOCOL_ERROR, STALL_FILL, STALL_HANG_UP, STALL_HELD,
    STALL_LINK, STALL_SESSION_COMMAND, STALL_NONE, STALL_ONCE, STALL_PIN, STALL_ROOM, STALL_SHELL, STALL_WAIT_COMMAND,
    link_unsent)
from sidecar.core.memory cimport (Buffer, buffer_append, buffer_drop, buffer_release,
    buffer_reserve, buffer_size, buffer_truncate)
from sidecar.core.hotkeys.sketch cimport Sketch, sketch_add, sketch_due, sketch_hash
from sidecar.core.observe.trace_records cimport (TRACED_CONTEXT, TRACED_FILL, TRACED_FOLLOW, TRACED_PICKED,
    TRACED_WAITED, TRACE_FILLED, TRACE_WAITED, trace_begin, trace_draw, trace_drop, trace_local,
    trace_queued, trace_refused, trace_waits)
from sidecar.core.cache.tracked cimport tracked_ask, tracked_check, tracked_prepare

cdef enum:
    SAMPLED_KEYS = 16       # of one command; one that names more is not counted
from sidecar.core.protocol.request cimport (ERR_MEMORY, ERR_QUOTES, SCAN_DONE, SCAN_EMPTY, SCAN_ERROR,
    SCAN_INLINE, SCAN_MORE, inline_to_multibulk, next_argument, scan_request, scanner_reset)


cdef bint session_ready(const Session* s) noexcept nogil:
    """Whether what the session wants may be done now."""
    if s.stall == STALL_NONE or s.stall == STALL_SHELL:
        return False
    if s.stall == STALL_LINK or s.stall == STALL_ROOM:
        return True
    if s.stall == STALL_FILL:
        return s.value == NULL
    if s.stall == STALL_PROTOCOL_ERROR and s.streaming:
        return s.outstanding == 1       # the request it is in the middle of: nothing will come
    return s.outstanding == 0


cdef size_t session_room_hint(const Session* s) noexcept nogil:
    """How many bytes the request at the head still lacks, as far as its headers tell."""
    if s.scan.bulk > 0:
        return <size_t>s.scan.bulk + 2
    return 0


cdef inline bint is_word(const char* p, size_t n, const char* word, size_t size) noexcept nogil:
    cdef size_t i
    if n != size:
        return False
    for i in range(n):
        if (p[i] | 32) != word[i]:
            return False
    return True


cdef bint has_block(const char* p, size_t n) noexcept nogil:
    """Whether a whole XREAD or XREADGROUP has a BLOCK option before its STREAMS."""
    cdef size_t at = 0
    cdef const char* arg = NULL
    cdef size_t size = 0
    while next_argument(p, n, &at, &arg, &size):
        if is_word(arg, size, b"block", 5):
            return True
        if is_word(arg, size, b"streams", 7):
            return False
    return False


cdef int refuse(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    session_say(s, s.link.refusal, s.link.refusal_len)
    trace_refused(s.core, s, c, p, n, s.link.refusal, s.link.refusal_len)
    s.core.stats.errors_local += 1
    return STALL_NONE


cdef int push(Session* s, Command* c, const char* p, size_t n, int flags) noexcept nogil:
    if link_push(s.link, s, c, p, n, flags) < 0:
        s.scan.error = ERR_MEMORY
        return STALL_PROTOCOL_ERROR
    if s.core.cache != NULL:
        cache_pass(s.link, c, p, n, &s.scan)
    if c.flags & COMMAND_AUDITED:
        audit_command(s, c, p, n)
    return STALL_NONE


cdef int from_cache(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """SERVED, FILLING, or PASS."""
    cdef Value* ask = NULL
    cdef Value* after
    cdef int count = 0
    cdef int r = cache_serve(s, c, p, n, &s.scan, &ask, &count)
    while count:
        count -= 1
        after = fill_of(ask).after
        tracked_prepare(ask, <Cache*>s.core.cache, p, n)
        if r == ASK:
            tracked_ask(ask, <Cache*>s.core.cache)
        ask = after
    if r == SERVED:
        if ask != NULL and cache_check_due(<Cache*>s.core.cache):
            tracked_check(ask, <Cache*>s.core.cache, p, n)
        return r
    if r == PUT_OFF:
        return PASS
    return FILLING if r == ASK else r


cdef int open_multi(Session* s, Command* c, const char* p, size_t n, size_t at) noexcept nogil:
    """MULTI on a shared link: remember how to take it back."""
    s.multi_at = at
    s.multi_out = buffer_size(&s.link.out)
    s.multi_pending = s.link.tail - s.link.head
    audit_begin(s)
    s.in_multi = True
    return push(s, c, p, n, ENTRY_IN_MULTI)


cdef void take_back_multi(Session* s) noexcept nogil:
    """Undo everything since MULTI: nothing of it has left the link's buffer."""
    cdef Link* l = s.link
    cdef uint32_t before = l.head + s.multi_pending
    s.outstanding -= l.tail - before
    barriers_undo(l, before)
    l.tail = before
    buffer_truncate(&l.out, s.multi_out)
    audit_take_back(s)
    s.in_multi = False


cdef int dispatch_shared(Session* s, Command* c, int route, const char* p, size_t n,
                         size_t at) noexcept nogil:
    cdef int r
    if route == ROUTE_SESSION or route == ROUTE_RESET or route == ROUTE_QUIT:
        return STALL_SESSION_COMMAND if not s.in_multi else STALL_DEDICATED
    if s.space and route == ROUTE_SHARED and not s.in_multi and not s.fresh \
            and c.flags & (COMMAND_CACHEABLE | COMMAND_CACHEABLE_EACH):
        r = from_cache(s, c, p, n)
        if r != PASS:
            return STALL_NONE if r == SERVED else STALL_FILL
    if s.link == NULL or (s.link.retired and s.outstanding == 0):
        return STALL_LINK
    if not s.link.up:
        return STALL_LINK if s.link.refusal == NULL or s.outstanding \
            else refuse(s, c, p, n)
    if route == ROUTE_SHARED:
        return push(s, c, p, n, ENTRY_IN_MULTI if s.in_multi else 0)
    if s.in_multi:
        if (route == ROUTE_EXEC or route == ROUTE_DISCARD) and s.scan.argc == 1:
            s.in_multi = False
            return push(s, c, p, n, ENTRY_IN_MULTI | ENTRY_LAST)
        return STALL_DEDICATED
    if route == ROUTE_EXEC or route == ROUTE_DISCARD or route == ROUTE_UNWATCH:
        return push(s, c, p, n, 0)      # without MULTI: an error or OK, and no state
    if route == ROUTE_MULTI and s.scan.argc == 1:
        return open_multi(s, c, p, n, at)
    if route == ROUTE_MAYBE_BLOCKING:
        return STALL_DEDICATED if has_block(p, n) else push(s, c, p, n, 0)
    if route == ROUTE_PIN:
        return STALL_PIN
    if route == ROUTE_ONCE:
        return STALL_ONCE
    if route == ROUTE_WAIT:
        return STALL_WAIT_COMMAND
    if route == ROUTE_MULTI:
        return push(s, c, p, n, 0)      # wrong number of arguments: an error
    return STALL_DEDICATED


cdef int pin(Session* s, const char* p, size_t n) noexcept nogil:
    """From here on the session has its dedicated link for good.

    Entries of the sidecar's own requests stay, so that their replies are still swallowed; they
    come before any of the client's.
    """
    cdef Link* l = s.link
    cdef uint32_t i = l.head
    while i != l.tail and l.ring[i & l.mask].session == NULL:
        i += 1
    barriers_undo(l, i)
    l.tail = i
    barriers_abandon(l, i, i)           # of a transaction that is not over
    s.mode = MODE_PINNED
    l.raw = True
    s.outstanding = 0
    if link_bytes(s.link, p, n) < 0:
        s.scan.error = ERR_MEMORY
        return STALL_PROTOCOL_ERROR
    return STALL_NONE


cdef int dispatch_dedicated(Session* s, Command* c, int route, const char* p,
                            size_t n) noexcept nogil:
    cdef bint stateful = s.in_multi or s.watching
    cdef int flags = ENTRY_IN_MULTI if s.in_multi else 0
    if route == ROUTE_RESET or route == ROUTE_QUIT:
        return STALL_SESSION_COMMAND
    if not stateful and (route == ROUTE_SESSION or route == ROUTE_PIN
                         or (route == ROUTE_WAIT and s.outstanding)):
        # Once the replies are in, the link goes back and the command is looked at afresh.
        return STALL_SESSION_COMMAND
    if route == ROUTE_SESSION or route == ROUTE_PIN:
        if s.core.acks and s.outstanding:
            return STALL_HELD            # replies that are withheld must be given out first
        if c.flags & COMMAND_AUDITED:
            audit_command(s, c, p, n)
        return pin(s, p, n)
    if route == ROUTE_MULTI and s.scan.argc == 1:
        if link_seal(s.link) < 0:       # nothing of the sidecar's own may follow until EXEC
            s.scan.error = ERR_MEMORY
            return STALL_PROTOCOL_ERROR
        s.in_multi = True
        flags = ENTRY_IN_MULTI
    elif (route == ROUTE_EXEC or route == ROUTE_DISCARD) and s.scan.argc == 1:
        s.in_multi = s.watching = False
        flags |= ENTRY_LAST
    elif route == ROUTE_WATCH and not s.in_multi:
        s.watching = True
    elif route == ROUTE_UNWATCH and not s.in_multi:
        s.watching = False
    elif route == ROUTE_ONCE:
        s.link.tainted = True
    return push(s, c, p, n, flags)


cdef void sample(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    """Count the keys of this command: it is one of those that are looked at."""
    cdef Sketch* k = <Sketch*>s.core.sketch
    cdef KeySpan keys[SAMPLED_KEYS]
    cdef int i
    cdef int count = 1
    if not first_key(c, p, s.scan.name_at, s.scan.name_len, s.scan.argc, keys):
        count = find_keys(c, p, n, keys, SAMPLED_KEYS)
    for i in range(count):
        sketch_add(k, sketch_hash(k, s.tenant, keys[i].p, keys[i].n), s.tenant, keys[i].p,
                   keys[i].n, keys[i].write)


cdef int dispatch(Session* s, CommandTable table, const char* p, size_t n,
                  size_t at) noexcept nogil:
    """Decide on the whole request p[0:n], which begins at `at` in this parse."""
    cdef Command* c = table.find(p + s.scan.name_at, s.scan.name_len)
    s.core.trace_skip -= 1
    if s.core.trace_skip == 0 or s.traced:
        return dispatch_traced(s, c, p, n, at)
    return decide(s, c, p, n, at)


cdef int dispatch_traced(Session* s, Command* c, const char* p, size_t n,
                         size_t at) noexcept nogil:
    """Decide on a request that may get a record (see trace_records.pyx)."""
    cdef Core* core = s.core
    cdef bint waited = s.traced & TRACED_WAITED
    cdef uint32_t since = s.since if waited else core.now
    cdef uint8_t flags = (TRACE_WAITED if waited else 0) | (
        TRACE_FILLED if s.traced & TRACED_FILL else 0)
    cdef bint picked = core.trace_skip == 0
    cdef Link* l = s.link
    cdef uint32_t tail = l.tail if l != NULL else 0
    cdef uint64_t errors = core.stats.errors_local
    cdef size_t said = buffer_size(&s.out) + s.run_len
    cdef int slot = -1
    cdef int r
    if picked:
        trace_draw(core)
    if core.tracer == NULL:
        return decide(s, c, p, n, at)
    if s.traced & TRACED_CONTEXT:
        picked = s.traced & TRACED_FOLLOW       # the application has decided
    picked |= s.traced & TRACED_PICKED
    if picked or core.now - since >= core.slow:
        slot = trace_begin(core, s, c, p, n, since, flags, picked)
    r = decide(s, c, p, n, at)
    if r != STALL_NONE:
        if slot >= 0:
            trace_drop(core, slot)
        if picked:
            s.traced |= TRACED_PICKED           # until it is looked at again, or skipped
        return r
    s.traced &= TRACED_CONTEXT | TRACED_FOLLOW
    if slot < 0:
        return r
    l = s.link
    if s.mode != MODE_PINNED and l != NULL and l.tail != tail and core.stats.errors_local == errors:
        trace_queued(core, slot, l, l.ring + ((l.tail - 1) & l.mask))
    elif core.stats.errors_local == errors and buffer_size(&s.out) + s.run_len > said:
        trace_local(core, slot, buffer_size(&s.out) + s.run_len - said)
    else:
        trace_drop(core, slot)
    return r


cdef int decide(Session* s, Command* c, const char* p, size_t n, size_t at) noexcept nogil:
    """Decide on a request, whether or not it gets a record."""
    cdef int route = c.route
    s.core.hashed = False
    if s.core.sketch != NULL and sketch_due(<Sketch*>s.core.sketch):
        sample(s, c, p, n)
    if s.core.hold_writes and c.flags & COMMAND_WRITES:
        return STALL_HELD
    if s.mode == MODE_SHARED:
        if route == ROUTE_HANG_UP:
            return STALL_HANG_UP
        return dispatch_shared(s, c, route, p, n, at)
    if s.mode == MODE_DEDICATED:
        if route == ROUTE_HANG_UP:
            return STALL_HANG_UP
        return dispatch_dedicated(s, c, route, p, n)
    if route == ROUTE_SESSION and s.translating and s.scan.argc > 2 and s.scan.name_len == 6:
        return STALL_SESSION_COMMAND               # CLIENT ... may name clients by the sidecar's ids
    s.core.stats.calls[c.id] += 1
    if c.flags & COMMAND_AUDITED:
        audit_command(s, c, p, n)
    if s.core.cache != NULL:
        cache_touch(s.core, s.link, NULL, c, p, n, &s.scan)
    if link_bytes(s.link, p, n) < 0:
        s.scan.error = ERR_MEMORY
        return STALL_PROTOCOL_ERROR
    if route == ROUTE_RESET and s.scan.argc == 1:
        s.reset_due = True
        return STALL_SHELL
    return STALL_NONE


cdef int dispatch_inline(Session* s, CommandTable table, const char* p, size_t n,
                         size_t at) noexcept nogil:
    """An inline line: the server gets it as the multibulk request it stands for."""
    cdef Buffer line
    cdef int r
    cdef size_t length = s.scan.pos
    line.data = NULL
    line.start = line.end = line.cap = 0
    r = inline_to_multibulk(p, n, &line)
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
        if s.link != NULL and s.link.run_len:
            if buffer_append(&s.link.out, s.link.run, s.link.run_len) < 0:
                r = STALL_PROTOCOL_ERROR
            s.link.run = NULL
            s.link.run_len = 0
    buffer_release(&line)
    s.scan.pos = length
    return r


cdef size_t stream(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """Part of a request that is not whole: how many bytes of it can be dealt with.

    Before streaming begins the name must be there, and the session needs a link of its own.
    """
    cdef Command* c
    cdef size_t k = s.scan.pos
    cdef size_t total = s.scan.pos + session_room_hint(s)
    if not s.streaming:
        if total <= s.core.request_buffer or k == 0 or s.scan.argc < 0:
            return 0
        if s.scan.left == s.scan.argc:
            # Still in the first argument. One this long names no command.
            if s.scan.name_len < NAME_MAX:
                return 0
            s.scan.name_len = NAME_MAX
        c = table.find(p + s.scan.name_at, s.scan.name_len)
        if s.core.hold_writes and c.flags & COMMAND_WRITES:
            s.stall = STALL_HELD
            return 0
        if s.mode == MODE_SHARED:
            s.stall = STALL_SESSION_COMMAND if c.route == ROUTE_SESSION else (
                STALL_PIN if c.route == ROUTE_PIN else STALL_DEDICATED)
            return 0
        if s.mode == MODE_DEDICATED:
            if c.route == ROUTE_SESSION or c.route == ROUTE_PIN:
                s.stall = STALL_SESSION_COMMAND
                return 0
            if link_seal(s.link) < 0 \
                    or link_entry(s.link, s, c, ENTRY_IN_MULTI if s.in_multi else 0) < 0:
                s.must_close = True
                return 0
            if s.core.cache != NULL:
                cache_pass_part(s.link, c, p, k)
            if c.flags & COMMAND_AUDITED:
                audit_command(s, c, p, k)
            if c.route == ROUTE_ONCE:
                s.link.tainted = True
            elif c.route == ROUTE_WATCH:
                s.watching = True
        s.streaming = True
    if link_bytes(s.link, p, k) < 0:
        s.must_close = True
    s.scan.pos = 0
    return k


cdef size_t parse(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """Deal with requests until the bytes end or one has to wait: how many bytes are done."""
    cdef size_t at = 0
    cdef int r
    if s.raw_in:
        link_bytes(s.link, p, n)
        return n
    while at < n:
        r = scan_request(&s.scan, p + at, n - at, &s.core.limits, s.authenticated)
        if r == SCAN_MORE:
            at += stream(s, table, p + at, n - at)
            break
        if s.streaming and r == SCAN_DONE:
            link_bytes(s.link, p + at, s.scan.pos)
            s.streaming = False
        elif r == SCAN_DONE:
            s.core.more = at + s.scan.pos < n
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
        scanner_reset(&s.scan)
        if s.stall == STALL_SHELL or s.must_close:
            break
    if s.mode == MODE_SHARED and s.in_multi:
        take_back_multi(s)
        at = s.multi_at
        if s.stall == STALL_NONE or s.stall > STALL_LINK:
            s.stall = STALL_DEDICATED
    if s.stall == STALL_PROTOCOL_ERROR and s.mode == MODE_PINNED and s.scan.error != ERR_MEMORY:
        # The server says what it thinks of it, in its turn.
        s.stall = STALL_NONE
        s.raw_in = True
        link_bytes(s.link, p + at, n - at)
        at = n
    if s.stall == STALL_NONE and not session_has_room(s, 1):
        s.stall = STALL_ROOM
    elif s.stall != STALL_NONE and s.stall != STALL_PROTOCOL_ERROR and s.stall != STALL_SHELL:
        scanner_reset(&s.scan)
    return at


cdef bint session_has_room(const Session* s, size_t share) noexcept nogil:
    """Whether the session may go on: neither its link nor itself has too much waiting to be sent.

    `share` divides the limits: who has been stopped goes on only at half of them.
    """
    cdef size_t limit = s.core.link_pause
    if s.link != NULL:
        if not s.link.shared and limit > DEDICATED_PAUSE:
            limit = DEDICATED_PAUSE
        if link_unsent(s.link) > limit // share:
            return False
    return buffer_size(&s.out) <= s.core.output_pause // share


cdef int after(Session* s) noexcept nogil:
    if s.stall != STALL_NONE or s.must_close:
        session_mark(s)
    return 0


cdef int session_feed(Session* s, CommandTable table, const char* p, size_t n) noexcept nogil:
    """Bytes from the client: 0, or -1 when memory is out (close it)."""
    cdef size_t done
    s.core.stats.client_bytes_in += n
    s.heard = s.core.seconds
    if s.core.barriers != NULL:
        s.fence = s.core.barriers.fence
        s.proved = False
    if s.in_.end == s.in_.start and s.stall == STALL_NONE:
        done = parse(s, table, p, n)
        if done < n and buffer_append(&s.in_, p + done, n - done) < 0:
            return -1
        return after(s)
    if buffer_append(&s.in_, p, n) < 0:
        return -1
    if s.stall != STALL_NONE:
        return 0
    return session_resume(s, table)


cdef int session_resume(Session* s, CommandTable table) noexcept nogil:
    """Go on with what lies in `in_`; the shell has done what was wanted and reset `want`."""
    cdef size_t done
    cdef size_t n = buffer_size(&s.in_)
    if n == 0:
        return 0
    done = parse(s, table, s.in_.data + s.in_.start, n)
    # The shell sends or settles a link's run before `in_` is touched; but `in_` is touched here.
    if s.link != NULL and s.link.run_len:
        if buffer_append(&s.link.out, s.link.run, s.link.run_len) < 0:
            return -1
        s.link.run = NULL
        s.link.run_len = 0
    if done:
        buffer_drop(&s.in_, done)
    return after(s)
