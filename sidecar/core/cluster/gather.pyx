# cython: language_level=3, cdivision=True
"""MGET, MSET, DEL, UNLINK, EXISTS and TOUCH over several slots: one part for each slot, one reply.

Servers of a cluster take only keys of one slot in a command. The parts are sent side by side, each with
a record of its own, on the links that the client's branches are on. So the order of its commands for
one key is kept: a part stands behind what the client sent to that shard before. A part may be
redirected by itself (redirection.pyx). The client gets its reply when all parts have theirs, in its
turn; if any is an error, it gets the first of these. What the others did stays done: such a command is
atomic for each slot only.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from sidecar.core.cluster.branches cimport (Apart, Branches, Turn, add_turn, apart_begin, apart_end,
    branch_at, branch_waits, reserve_turn)
from sidecar.core.cluster.redirection cimport follow, pass_request
from sidecar.core.protocol.slots cimport SLOT_COUNT, Slots, slot_of
from sidecar.core.link.pending cimport link_push
from sidecar.core.link.receiver cimport session_settle_borrowed
from sidecar.core.memory cimport Buffer, buffer_append, buffer_head, buffer_release, buffer_size
from sidecar.core.protocol.commands cimport FORM_MASK, FORM_REST
from sidecar.core.protocol.cursor cimport Cursor, cursor_next, put_header, read_line_number
from sidecar.core.protocol.reply cimport FRAME_REPLY, Framer, frame_reply, framer_reset
from sidecar.core.protocol.request cimport arguments_of
from sidecar.core.records cimport (Link, STALL_LINK, STALL_NONE, STALL_PROTOCOL_ERROR, STALL_REPLIES,
    link_fed)

# Which part has a slot, while one request is being split: valid where `stamped` says `stamp`.
cdef uint32_t[SLOT_COUNT] part_at
cdef uint32_t[SLOT_COUNT] stamped
cdef uint32_t stamp = 0

cdef struct Draft:          # of a part
    uint32_t keys
    uint16_t slot
    Buffer request


cdef struct Splitting:
    Command* command
    const char* request
    size_t size
    int step                # arguments for each key: 2 for MSET
    uint32_t keys
    uint32_t parts
    uint32_t* part_of       # of each key
    Draft* drafts


cdef int gather_push(Session* s, Command* c, const char* p, size_t n) noexcept nogil:
    """Split the whole request p[0:n], and queue its parts: STALL_NONE, or what the session waits for
    first. NOT_SPLIT: all its keys have one slot, or the server will refuse it."""
    cdef Splitting x
    cdef Slots* slots = <Slots*>s.core.slots
    cdef Branches* b = <Branches*>s.branches
    cdef int r
    memset(&x, 0, sizeof(x))
    x.command, x.request, x.size = c, p, n
    x.step = 1 if c.keys & FORM_MASK == FORM_REST else 2
    if s.scan.argc < 1 + 2 * x.step or (s.scan.argc - 1) % x.step:
        return NOT_SPLIT
    x.keys = <uint32_t>((s.scan.argc - 1) // x.step)
    x.part_of = <uint32_t*>malloc(x.keys * sizeof(uint32_t))
    if x.part_of == NULL:
        return STALL_PROTOCOL_ERROR
    find_parts(s, &x)
    if x.parts < 2:
        r = NOT_SPLIT
    elif s.outstanding and (b.seen != slots.changes or s.redirected):
        r = STALL_REPLIES
    else:
        b.seen = slots.changes
        x.drafts = <Draft*>calloc(x.parts, sizeof(Draft))
        r = STALL_PROTOCOL_ERROR if x.drafts == NULL else make_parts(s, &x)
    free_splitting(&x, r == STALL_NONE)
    return r


cdef void find_parts(Session* s, Splitting* x) noexcept nogil:
    """Number the slots that the keys have, in their order."""
    global stamp
    cdef Cursor a
    cdef uint16_t slot
    cdef uint32_t i
    cdef int more
    stamp += 1
    arguments_of(&a, x.request, x.size, &s.scan)
    for i in range(x.keys):
        cursor_next(&a)
        slot = slot_of(a.arg, a.size)
        if stamped[slot] != stamp:
            stamped[slot] = stamp
            part_at[slot] = x.parts
            x.parts += 1
        x.part_of[i] = part_at[slot]
        for more in range(x.step - 1):
            cursor_next(&a)


cdef int make_parts(Session* s, Splitting* x) noexcept nogil:
    """Write the parts' requests, see that each has a link, and queue them all."""
    cdef uint32_t i
    cdef uint16_t shard
    cdef int r
    if write_parts(s, x) < 0:
        return STALL_PROTOCOL_ERROR
    for i in range(x.parts):
        shard = (<Slots*>s.core.slots).shard[x.drafts[i].slot]
        r = branch_at(s, shard)
        if r != STALL_NONE:
            return r
        if branch_waits(s, shard):
            return STALL_LINK
    return queue_parts(s, x)


cdef int write_parts(Session* s, Splitting* x) noexcept nogil:
    """The request of each part: the command's name, and its keys with what belongs to them."""
    cdef Cursor a
    cdef Draft* draft
    cdef const char* begin
    cdef const char* name
    cdef size_t name_len
    cdef uint32_t i
    cdef int more
    cdef int failed = 0
    for i in range(x.keys):
        x.drafts[x.part_of[i]].keys += 1
    arguments_of(&a, x.request, x.size, &s.scan)
    name = x.request + s.scan.name_at
    name_len = s.scan.name_len
    for i in range(x.keys):
        draft = x.drafts + x.part_of[i]
        begin = a.at
        cursor_next(&a)
        if buffer_size(&draft.request) == 0:
            draft.slot = slot_of(a.arg, a.size)
            failed |= put_header(&draft.request, c'*', 1 + <size_t>x.step * draft.keys)
            failed |= put_header(&draft.request, c'$', name_len)
            failed |= buffer_append(&draft.request, name, name_len)
            failed |= buffer_append(&draft.request, b"\r\n", 2)
        for more in range(x.step - 1):
            cursor_next(&a)
        failed |= buffer_append(&draft.request, begin, <size_t>(a.at - begin))
    return failed


cdef int queue_parts(Session* s, Splitting* x) noexcept nogil:
    cdef Branches* b = <Branches*>s.branches
    cdef Gathered* g = <Gathered*>calloc(1, sizeof(Gathered))
    cdef Turn* turn
    cdef Link* l
    cdef Draft* draft
    cdef uint32_t i
    if g == NULL or reserve_turn(b) < 0:
        free(g)
        return STALL_PROTOCOL_ERROR
    g.parts = <Apart*>calloc(x.parts, sizeof(Apart))
    if g.parts == NULL:
        free(g)
        return STALL_PROTOCOL_ERROR
    g.rule = rule_of(x)
    g.keys, g.count, g.part_of = x.keys, x.parts, x.part_of
    turn = add_turn(b)
    turn.gathered = g
    s.outstanding += 1
    for i in range(x.parts):
        draft = x.drafts + i
        l = b.of[(<Slots*>s.core.slots).shard[draft.slot]].session.link
        if apart_begin(g.parts + i, s) < 0 or link_push(
                l, g.parts[i].session, x.command, buffer_head(&draft.request),
                buffer_size(&draft.request), 0) < 0:
            s.must_close = True         # some parts are queued already
            return STALL_NONE
        g.parts[i].session.link = l
        link_fed(l)
        pass_request(l, x.command, buffer_head(&draft.request), buffer_size(&draft.request))
    return STALL_NONE


cdef inline int rule_of(const Splitting* x) noexcept nogil:
    """By the command's name: only six commands are split."""
    if x.command.name[0] != c'm':
        return RULE_SUM                 # del, unlink, exists, touch
    return RULE_SAME if x.step == 2 else RULE_EACH


cdef void free_splitting(Splitting* x, bint queued) noexcept nogil:
    cdef uint32_t i
    if x.drafts != NULL:
        for i in range(x.parts):
            buffer_release(&x.drafts[i].request)
        free(x.drafts)
    if not queued:
        free(x.part_of)


# The reply

cdef bint gathered_ready(Session* s, Gathered* g) noexcept nogil:
    """Whether all parts have their replies. Those that were redirected are sent on."""
    cdef Apart* a
    while g.given < g.count and not s.must_close:
        a = g.parts + g.given
        if a.waits or a.session.outstanding:
            return False
        if session_settle_borrowed(a.session) < 0 or a.session.must_close:
            s.must_close = True
        elif buffer_size(&a.session.unread):
            if follow(s, a, buffer_head(&a.session.out), buffer_size(&a.session.out)) < 0:
                s.must_close = True
            return s.must_close
        g.given += 1
    return True


cdef inline void say(Session* s, const char* p, size_t n) noexcept nogil:
    if session_settle_borrowed(s) < 0 or buffer_append(&s.out, p, n) < 0:
        s.must_close = True


cdef void gathered_give(Session* s, Gathered* g) noexcept nogil:
    """Give the client the reply that the parts' replies make."""
    cdef Buffer* out
    cdef uint32_t i
    for i in range(g.count):
        out = &g.parts[i].session.out
        if buffer_size(out) and buffer_head(out)[0] == c'-':
            say(s, buffer_head(out), buffer_size(out))
            return
    if g.rule == RULE_SUM:
        give_sum(s, g)
    elif g.rule == RULE_EACH:
        give_each(s, g)
    else:
        out = &g.parts[0].session.out
        say(s, buffer_head(out), buffer_size(out))


cdef void give_sum(Session* s, Gathered* g) noexcept nogil:
    cdef char[32] text
    cdef int64_t sum = 0
    cdef int64_t number
    cdef Buffer* out
    cdef uint32_t i
    for i in range(g.count):
        out = &g.parts[i].session.out
        if buffer_size(out) < 4 or buffer_head(out)[0] != c':' \
                or not read_line_number(buffer_head(out) + 1, buffer_size(out) - 1, &number):
            s.must_close = True
            return
        sum += number
    say(s, text, <size_t>snprintf(text, sizeof(text), b":%lld\r\n", <long long>sum))


cdef void give_each(Session* s, Gathered* g) noexcept nogil:
    """One array: for each key, the next element of its part's array."""
    cdef Buffer merged
    cdef size_t* at = <size_t*>calloc(g.count, sizeof(size_t))
    cdef Buffer* out
    cdef Framer framer
    cdef uint32_t i
    cdef size_t begin
    memset(&merged, 0, sizeof(merged))
    if at == NULL or put_header(&merged, c'*', g.keys) < 0:
        s.must_close = True
        free(at)
        return
    for i in range(g.keys):
        out = &g.parts[g.part_of[i]].session.out
        begin = at[g.part_of[i]]
        if begin == 0:
            begin = header_of(out)
        at[g.part_of[i]] = begin
        framer_reset(&framer)
        if begin == 0 or frame_reply(&framer, buffer_head(out), buffer_size(out),
                                     at + g.part_of[i]) != FRAME_REPLY \
                or buffer_append(&merged, buffer_head(out) + begin,
                                 at[g.part_of[i]] - begin) < 0:
            s.must_close = True
            break
    if not s.must_close:
        say(s, buffer_head(&merged), buffer_size(&merged))
    buffer_release(&merged)
    free(at)


cdef inline size_t header_of(const Buffer* out) noexcept nogil:
    """Where the first element of an array begins, 0 if it is none."""
    cdef size_t i = 1
    cdef size_t n = buffer_size(out)
    if n < 4 or buffer_head(out)[0] != c'*':
        return 0
    while i < n and buffer_head(out)[i] != c'\n':
        i += 1
    return i + 1 if i < n else 0


cdef void gathered_end(Session* s, Gathered* g) noexcept nogil:
    """Its reply has been given."""
    cdef uint32_t i
    for i in range(g.count):
        if g.parts[i].session != NULL:
            apart_end(g.parts + i, s)
    free(g.parts)
    free(g.part_of)
    free(g)
