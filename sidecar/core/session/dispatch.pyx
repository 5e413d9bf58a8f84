# cython: language_level=3
"""Deciding on one request: where it goes, or what its session waits for.

The table in actions.pyx says what a session may do; this file does it. Whole and inline requests come
here through `dispatch`, requests too large to be kept through `begin_stream`.

MULTI on the shared link is a bet that EXEC is already in the buffer: the commands are queued as
they come, and if the block turns out not to be whole, or to contain anything that is not
ordinary, everything since MULTI is taken back (nothing is flushed before the parse is over) and
the session asks for a dedicated link.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from sidecar.core.cluster.branches cimport (Branches, branch_at, branch_for, branch_push,
    branch_waits, slot_for)
from sidecar.core.cluster.gather cimport NOT_SPLIT, gather_push
from sidecar.core.cluster.redirection cimport pass_request
from sidecar.core.protocol.slots cimport Slots
from sidecar.core.link.replica_acks cimport link_seal
from sidecar.core.observe.audit_notes cimport audit_begin, audit_command, audit_take_back
from sidecar.core.link.barrier cimport barriers_undo
from sidecar.core.cache.past cimport cache_pass, cache_pass_part, cache_touch, cache_touch_part
from sidecar.core.cache.serve cimport ASK, FILLING, NOT_SERVED, PUT_OFF, SERVED, cache_serve
from sidecar.core.cache.fill cimport cache_check_due
from sidecar.core.cache.store cimport Cache, Value, fill_of
from sidecar.core.cache.tracked_requests cimport tracked_ask, tracked_check
from sidecar.core.protocol.keys cimport KeySpan, find_keys, first_key
from sidecar.core.protocol.commands cimport (COMMAND_AUDITED, COMMAND_CACHEABLE,
    COMMAND_CACHEABLE_EACH, COMMAND_MAY_BE_HELD, COMMAND_OPAQUE, COMMAND_READ, COMMAND_WRITES,
    Command, COMMAND_FANS_OUT, COMMAND_SPLIT, ROUTE_BLOCKING, ROUTE_DISCARD, ROUTE_EXEC, ROUTE_HANG_UP,
    ROUTE_MAYBE_BLOCKING, ROUTE_QUIT, ROUTE_RESET, SubcommandRoute)
from sidecar.core.link.pending cimport link_bytes, link_entry, link_push
from sidecar.core.link.receiver cimport session_say
from sidecar.core.link.reset_mark cimport reset_mark
from sidecar.core.link.scripts cimport scripts_see
from sidecar.core.records cimport (Core, ENTRY_IN_MULTI, ENTRY_LAST, Entry, HOLD_ALL, HOLD_WRITES, Link,
    MODE_DEDICATED, MODE_PINNED, MODE_SHARED,
    STALL_DEDICATED, STALL_FILL, STALL_HANG_UP, STALL_HEAVY, STALL_HELD, STALL_LINK, STALL_NONE, STALL_ONCE,
    STALL_PIN, STALL_PROTOCOL_ERROR, STALL_REPLIES, STALL_SESSION_COMMAND, STALL_SHELL,
    STALL_WAIT_COMMAND)
from sidecar.core.memory cimport buffer_append, buffer_release, buffer_size, buffer_truncate
from sidecar.core.stats cimport BLOCKING_FAMILY
from sidecar.core.hotkeys.sketch cimport Sketch, sketch_add, sketch_due, sketch_hash
from sidecar.core.observe.trace_records cimport (TRACED_CONTEXT, TRACED_FILL, TRACED_FOLLOW,
    TRACED_PICKED, TRACED_WAITED, TRACE_FILLED, TRACE_WAITED, trace_begin, trace_draw, trace_drop,
    trace_local, trace_queued, trace_refused)
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, is_word
from sidecar.core.protocol.request cimport ERR_MEMORY, arguments_of
from sidecar.core.session.actions cimport (BEGIN_MULTI, BEGIN_WATCH, CLOSE_PIECE, END_MULTI,
    END_WATCH, HANG_UP, IN_TURN, KEEP, OPEN_PIECE, ORDINARY, PARTIAL, PASS, PASS_CLIENT, PASS_RESET,
    PIN, QUEUE, SERVE, SERVE_WAIT, TAINT, WANT_ONCE, WANT_OWN, WANT_PINNED, WHOLE, row_of)
from sidecar.core.guard.guard cimport guard_passed
from sidecar.core.session.judge cimport PASSES, guard_judge, has_block
from sidecar.core.session.mode cimport DEDICATED, GATHERING, SHARED, session_use, situation_of

cdef enum:
    SAMPLED_KEYS = 16       # of one command; one that names more is not counted


cdef int route_of_subcommand(const Session* s, const Command* c, const char* p,
                             size_t n) noexcept nogil:
    """The route of a whole request's subcommand, if it has one of its own, or the command's."""
    cdef const SubcommandRoute* sub
    cdef Cursor word
    cdef int i
    arguments_of(&word, p, n, &s.scan)
    if not cursor_next(&word):
        return c.route
    for i in range(c.rules.routes_len):
        sub = &c.rules.routes[i]
        if is_word(&word, sub.name, sub.name_len) and (
                s.scan.argc == sub.arity or s.scan.argc >= -sub.arity > 0):
            return sub.route
    return c.route


cdef int refuse(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    session_say(s, s.link.refusal, s.link.refusal_len)
    trace_refused(s.core, s, c, p, n, s.link.refusal, s.link.refusal_len)
    s.core.stats.errors_local += 1
    return STALL_NONE


cdef int out_of_memory(Session* s) noexcept nogil:
    s.scan.error = ERR_MEMORY
    return STALL_PROTOCOL_ERROR


cdef inline int push(Session* s, Command* c, const char* p, size_t n, uint16_t flags) noexcept nogil:
    if link_push(s.link, s, c, p, n, flags) < 0:
        return out_of_memory(s)
    if s.core.cache != NULL:
        cache_pass(s.link, c, p, n, &s.scan)
    if c.flags & COMMAND_AUDITED:
        audit_command(s, c, p, n)
    return STALL_NONE


cdef int from_cache(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """SERVED, FILLING, or NOT_SERVED."""
    cdef Value* ask = NULL
    cdef Value* after
    cdef int r = cache_serve(s, c, p, n, &s.scan, &ask)
    if r == SERVED:
        if ask != NULL and cache_check_due(<Cache*>s.core.cache):
            tracked_check(ask, <Cache*>s.core.cache, p, n)
        return r
    while ask != NULL:
        after = fill_of(ask).next
        tracked_ask(ask, <Cache*>s.core.cache)
        ask = after
    if r == PUT_OFF:
        return NOT_SERVED
    return FILLING if r == ASK else r


cdef int open_piece(Session* s, Command* c, const char* p, size_t n, size_t at) noexcept nogil:
    """MULTI on a shared link: remember how to take it back."""
    s.piece_at = at
    s.piece_out = buffer_size(&s.link.out)
    s.piece_first = s.link.tail
    audit_begin(s)
    s.in_multi = True
    return push(s, c, p, n, ENTRY_IN_MULTI)


cdef void take_back_piece(Session* s) noexcept nogil:
    """Undo everything since MULTI: nothing of it has left the link's buffer."""
    cdef Link* l = s.link
    s.outstanding -= l.tail - s.piece_first
    barriers_undo(l, s.piece_first)
    l.tail = s.piece_first
    buffer_truncate(&l.out, s.piece_out)
    audit_take_back(s)
    s.in_multi = False


cdef uint16_t expect(Session* s, const Command* c, int action) noexcept nogil:
    """What is to be expected once the server has accepted this request: its entry's flags."""
    cdef uint16_t flags = ENTRY_IN_MULTI if s.in_multi else 0
    if action == BEGIN_MULTI:
        s.in_multi = True
        flags = ENTRY_IN_MULTI
    elif action == END_MULTI:
        s.in_multi = s.watching = False
        s.discard_due = s.core.acks and c.route == ROUTE_DISCARD
        flags = ENTRY_IN_MULTI | ENTRY_LAST
    elif action == BEGIN_WATCH:
        s.watching = True
    elif action == END_WATCH:
        s.watching = False
    elif action == TAINT:
        s.link.tainted = True
    elif action == KEEP:
        s.kept = s.link.tainted = True
    return flags


cdef int queue_asked(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """Queue the whole request p[0:n], which the shell sends for the session: 0, or -1 without
    memory. In a transaction it is a part of that, or its end. A cluster's client is on a branch
    (`branch_at`) whose link is up."""
    if s.branches != NULL and s.mode == MODE_SHARED:
        if branch_push(s, (<Branches*>s.branches).wanted, c, p, n) < 0:
            return -1
        pass_request(s.link, c, p, n)
        return 0
    if not s.in_multi:
        return link_push(s.link, s, c, p, n, 0)
    if c.route != ROUTE_EXEC:
        return link_push(s.link, s, c, p, n, ENTRY_IN_MULTI)
    if link_push(s.link, s, c, p, n, expect(s, c, END_MULTI)) < 0:
        return -1
    pass_request(s.link, c, p, n)
    return 0


cdef int pass_bytes(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """A pinned session's request, or the beginning of one: its bytes go on as they are."""
    if s.core.cache != NULL:
        if s.streaming:
            cache_touch_part(s.core, s.link, NULL, c, p, n)
        else:
            cache_touch(s.core, s.link, NULL, c, p, n, &s.scan)
    s.core.stats.calls[c.id] += 1
    s.link.raw_requests_due += 1
    if s.guard != NULL:
        guard_passed(s, c, n)
    if c.flags & COMMAND_AUDITED:
        audit_command(s, c, p, n)
    return STALL_NONE if link_bytes(s.link, p, n) == 0 else out_of_memory(s)


cdef int wait_for_others(Session* s, int action) noexcept nogil:
    """What the session waits for, by an action that queues nothing."""
    if action == WANT_OWN:
        return STALL_DEDICATED
    if action == WANT_ONCE:
        return STALL_ONCE
    if action == WANT_PINNED:
        return STALL_PIN
    if action == SERVE:
        return STALL_SESSION_COMMAND
    if action == SERVE_WAIT:
        return STALL_WAIT_COMMAND
    if action == HANG_UP:
        return STALL_HANG_UP
    return STALL_REPLIES


cdef int act(Session* s, Command* c, int action, const char* p, size_t n,
             size_t at) noexcept nogil:
    """Do with the whole request p[0:n] what the table says."""
    cdef bint doubtful
    if action == ORDINARY:
        return push(s, c, p, n, 0)
    if action == QUEUE:
        return push(s, c, p, n, ENTRY_IN_MULTI if s.in_multi else 0)
    if action == OPEN_PIECE:
        return open_piece(s, c, p, n, at)
    if action == CLOSE_PIECE:
        s.in_multi = False
        return push(s, c, p, n, ENTRY_IN_MULTI | ENTRY_LAST)
    if action < PASS:
        if action == BEGIN_MULTI and link_seal(s.link) < 0:
            return out_of_memory(s)     # nothing of the sidecar's own may follow until EXEC
        return push(s, c, p, n, expect(s, c, action))
    if action == PASS_CLIENT and s.translates_ids and s.scan.argc > 2:
        return STALL_SESSION_COMMAND    # CLIENT ... may name clients by the sidecar's ids
    if action == PIN:
        session_use(s, s.link, MODE_PINNED)
    if action <= PIN:
        s.reset_due = s.reset_due or action == PASS_RESET
        doubtful = action == PASS_RESET and s.link.raw_requests_due
        if pass_bytes(s, c, p, n) != STALL_NONE or (doubtful and reset_mark(s.link) < 0):
            return STALL_PROTOCOL_ERROR
        return STALL_SHELL if action == PASS_RESET else STALL_NONE
    if action == IN_TURN and s.outstanding == 0:
        return push(s, c, p, n, 0)
    return wait_for_others(s, action)


cdef int apart(const Session* s, const Command* c, int action) noexcept nogil:
    """Whether a command that is ordinary on a shared link needs a link of its own for now, since
    it may be held back by the server (recovery.pyx), or its reply may be large (weight.pyx)."""
    if action != ORDINARY and action != QUEUE and action != OPEN_PIECE:
        return STALL_NONE
    if s.link.cautious and (not c.flags & COMMAND_READ or c.flags & COMMAND_MAY_BE_HELD):
        return STALL_DEDICATED
    return STALL_HEAVY if s.heavy else STALL_NONE


cdef int to_shard(Session* s, Command* c, int action, const char* p, size_t n) noexcept nogil:
    """A cluster's client: queue an ordinary request at the shard of its keys."""
    cdef uint16_t shard
    cdef int r
    if action == OPEN_PIECE:
        return STALL_DEDICATED          # where its keys are is not known yet
    if c.flags & COMMAND_FANS_OUT:
        return STALL_SESSION_COMMAND
    if c.flags & COMMAND_SPLIT and (<Slots*>s.core.slots).splits:
        r = gather_push(s, c, p, n)
        if r != NOT_SPLIT:
            return judged(s, c, p, n, r)
    r = branch_for(s, c, p, n, &shard)
    if r == STALL_NONE and branch_waits(s, shard):
        r = STALL_LINK
    if r != STALL_NONE:
        return judged(s, c, p, n, r)
    if s.heavy or s.link.cautious:
        r = apart(s, c, action)
        if r != STALL_NONE:
            return r
    if branch_push(s, shard, c, p, n) < 0:
        return out_of_memory(s)
    if s.core.cache != NULL:
        cache_pass(s.link, c, p, n, &s.scan)
    if c.flags & COMMAND_AUDITED:
        audit_command(s, c, p, n)
    return STALL_NONE


cdef int of_cluster(Session* s, Command* c, int situation, int action, const char* p,
                    size_t n) noexcept nogil:
    """Decide on a request of a cluster's client that has nothing open. On a link of its own, which
    leads to one shard, it has one request at a time; STALL_NONE: this is the one."""
    if situation == DEDICATED:
        if s.outstanding:
            return STALL_REPLIES
        buffer_release(&s.under_way)
        s.link.first_slot = slot_for(c, p, n, &s.scan)
        return STALL_NONE if buffer_append(&s.under_way, p, n) == 0 else out_of_memory(s)
    if s.multi_unsent and not (ROUTE_RESET <= c.route <= ROUTE_QUIT or c.route == ROUTE_HANG_UP):
        return STALL_DEDICATED
    if action == ORDINARY or action == QUEUE or action == OPEN_PIECE:
        return to_shard(s, c, action, p, n)
    if action == WANT_ONCE and c.flags & COMMAND_FANS_OUT:
        return STALL_SESSION_COMMAND    # DEBUG
    return wait_for_others(s, action)


cdef int judged(Session* s, const Command* c, const char* p, size_t n, int r) noexcept nogil:
    """What `r` from a branch means for the request: a link that refuses has it refused."""
    if r == STALL_PROTOCOL_ERROR:
        return out_of_memory(s)
    if r == STALL_LINK and s.link != NULL and not s.link.up and s.link.refusal != NULL \
            and s.outstanding == 0 and not s.link.retired:
        return refuse(s, c, p, n)
    return r


cdef inline int not_yet(Session* s, const Command* c, int situation, int action) noexcept nogil:
    """What the session waits for first, whatever the table says; STALL_NONE: nothing."""
    if situation <= GATHERING:
        if s.link != NULL and s.link.up and (not s.link.retired or s.outstanding):
            if situation == SHARED and (s.heavy or s.link.cautious):
                return apart(s, c, action)
            return STALL_NONE
        return STALL_NONE if action == SERVE or action == HANG_UP else STALL_LINK
    elif s.core.acks and s.outstanding and (s.discard_due or action == PIN):
        # Replies that are withheld are given out before the link is pinned, and no WAIT goes into
        # a transaction that DISCARD may not have ended.
        return STALL_REPLIES
    elif s.branches != NULL and s.outstanding and s.mode == MODE_DEDICATED \
            and buffer_size(&s.under_way) and s.link.transaction == 0:
        return STALL_REPLIES        # WATCH may be sent elsewhere: nothing is to overtake it
    return STALL_NONE


cdef void sample(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    """Count the keys of this command: it is one of those that are looked at."""
    cdef Sketch* k = <Sketch*>s.core.sketch
    cdef KeySpan keys[SAMPLED_KEYS]
    cdef int i
    cdef int count = 1
    if not first_key(c, p, n, &s.scan, keys):
        count = find_keys(c, p, n, keys, SAMPLED_KEYS)
    for i in range(count):
        sketch_add(k, sketch_hash(k, s.tenant, keys[i].p, keys[i].n), s.tenant, keys[i].p,
                   keys[i].n, keys[i].write)


cdef int dispatch(Session* s, CommandTable table, const char* p, size_t n,
                  size_t at) noexcept nogil:
    """Decide on the whole request p[0:n], which begins at `at` in this parse."""
    cdef Command* c = table.find(p + s.scan.name_at, s.scan.name_len)
    cdef int r
    if s.guard != NULL:
        r = guard_judge(s, c, p, n, True)
        if r != PASSES:
            return r
    s.core.trace_skip -= 1
    if s.core.trace_skip == 0 or s.traced:
        return dispatch_traced(s, c, p, n, at)
    return decide(s, c, p, n, at)


cdef int dispatch_traced(Session* s, Command* c, const char* p, size_t n,
                         size_t at) noexcept nogil:
    """Decide on a request that may get a record (see trace_records.pyx)."""
    cdef Core* core = s.core
    cdef bint waited = s.traced & TRACED_WAITED
    cdef uint32_t since = s.waiting_since if waited else core.now
    cdef uint8_t flags = (TRACE_WAITED if waited else 0) | (
        TRACE_FILLED if s.traced & TRACED_FILL else 0)
    cdef bint picked = core.trace_skip == 0
    cdef Link* l = s.link
    cdef uint32_t tail = l.tail if l != NULL else 0
    cdef uint64_t errors = core.stats.errors_local
    cdef size_t said = buffer_size(&s.out) + s.borrowed_len
    cdef int slot = -1
    cdef int r
    if picked:
        trace_draw(core)
    if core.tracer == NULL:
        return decide(s, c, p, n, at)
    if s.traced & TRACED_CONTEXT:
        picked = s.traced & TRACED_FOLLOW       # the application has decided
    picked |= s.traced & TRACED_PICKED
    if picked or core.now - since >= core.slow_from:
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
    elif core.stats.errors_local == errors and buffer_size(&s.out) + s.borrowed_len > said:
        trace_local(core, slot, buffer_size(&s.out) + s.borrowed_len - said)
    else:
        trace_drop(core, slot)
    return r


cdef int row_by_arguments(const Session* s, const Command* c, const char* p,
                          size_t n) noexcept nogil:
    """The row of a whole request that the name alone does not tell."""
    if c.route == ROUTE_MAYBE_BLOCKING:
        return ROUTE_BLOCKING if has_block(p, n) else ROUTE_MAYBE_BLOCKING
    if c.rules != NULL and c.rules.routes_len:
        return route_of_subcommand(s, c, p, n)
    return row_of(c.route, s.scan.argc)


cdef inline void waits(Entry* e) noexcept nogil:
    """XREAD with BLOCK: its time counts among those of blocking commands."""
    e.route = ROUTE_BLOCKING
    e.family = BLOCKING_FAMILY


cdef bint is_held(Session* s, const Command* c) noexcept nogil:
    """Whether this command waits for the end of a hold. A pause lets open transactions come to their
    end: who waits for them would wait in vain otherwise. What stands behind EXEC is no part of one,
    whether or not that has been answered."""
    s.held_in_round = s.core.hold_round
    if s.core.holds & HOLD_WRITES and c.flags & COMMAND_WRITES:
        return True
    if not s.core.holds & HOLD_ALL or c.route == ROUTE_HANG_UP:
        return False
    return s.mode != MODE_DEDICATED or not (s.in_multi or s.watching)


cdef int decide(Session* s, Command* c, const char* p, size_t n, size_t at) noexcept nogil:
    """Decide on a request, whether or not it gets a record."""
    cdef int situation = situation_of(s)
    cdef int row = c.route
    cdef int action
    cdef int r
    cdef bint blocks = False
    s.core.key_hashed = False
    s.last_command = c.id
    if s.core.sketch != NULL and sketch_due(<Sketch*>s.core.sketch):
        sample(s, c, p, n)
    if s.core.holds and is_held(s, c):
        return STALL_HELD
    if row >= ROUTE_MAYBE_BLOCKING:
        row = row_by_arguments(s, c, p, n)
        blocks = row == ROUTE_BLOCKING
    action = WHOLE[row][situation]
    if s.rewrites_exec and row == ROUTE_EXEC:
        action = SERVE
    if action == KEEP and s.core.acks:
        action = PIN                    # replies are withheld, and nothing may overtake them
    if action == ORDINARY and s.space and not s.fresh and not (s.redirected or s.multi_unsent) \
            and c.flags & (COMMAND_CACHEABLE | COMMAND_CACHEABLE_EACH):
        r = from_cache(s, c, p, n)
        if r != NOT_SERVED:
            return STALL_NONE if r == SERVED else STALL_FILL
    if s.branches != NULL and situation <= DEDICATED:
        if c.flags & COMMAND_OPAQUE and s.core.scripts != NULL:
            scripts_see(s.core.scripts, c, p, n, &s.scan)
        r = of_cluster(s, c, situation, action, p, n)
        if r != STALL_NONE or situation <= GATHERING:
            return r
    elif s.branches != NULL and s.mode == MODE_DEDICATED and s.link.first_slot < 0:
        s.link.first_slot = slot_for(c, p, n, &s.scan)
    r = not_yet(s, c, situation, action)
    if r == STALL_NONE:
        r = act(s, c, action, p, n, at)
        if blocks and r == STALL_NONE and s.mode == MODE_DEDICATED:
            waits(s.link.ring + ((s.link.tail - 1) & s.link.mask))
        return r
    if r == STALL_LINK and s.link != NULL and not s.link.up and s.link.refusal != NULL \
            and s.outstanding == 0 and not s.link.retired:
        return refuse(s, c, p, n)
    return r


cdef int begin_stream(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """Decide on a request of which p[0:n] is there, its name included, and whose rest will be
    passed on as it arrives. STALL_NONE: p[0:n] is queued or has passed."""
    cdef int situation = situation_of(s)
    cdef int action = PARTIAL[row_of(c.route, s.scan.argc)][situation]
    cdef int r
    if s.guard != NULL:
        r = guard_judge(s, c, p, n, False)
        if r != PASSES:
            return r
    if s.core.holds and is_held(s, c):
        return STALL_HELD
    r = not_yet(s, c, situation, action) if situation > GATHERING else STALL_NONE
    if r != STALL_NONE:
        return r
    if action > PIN:
        return wait_for_others(s, action)
    s.streaming = True
    if action == PIN:
        session_use(s, s.link, MODE_PINNED)
    if action >= PASS:
        return pass_bytes(s, c, p, n)
    if link_seal(s.link) < 0 or link_entry(s.link, s, c, expect(s, c, action)) < 0:
        return out_of_memory(s)
    if s.core.cache != NULL:
        cache_pass_part(s.link, c, p, n)
    if c.flags & COMMAND_AUDITED:
        audit_command(s, c, p, n)
    return STALL_NONE if link_bytes(s.link, p, n) == 0 else out_of_memory(s)
