# cython: language_level=3, cdivision=True
"""Records of single commands, from which the shell makes spans afterwards.

A command gets a record for one of three reasons. Without a record it costs next to nothing.

sampled     a countdown in the core has come to 0, or the application wants its commands in a
            trace of its own. The record is begun with the request at hand, and lies in `open`
            until the reply comes; its entry has the record's number in one byte.
slow        its reply has come late. Seen where latencies are counted anyway, once for all
            commands that were read at the same time. What the request was is still known on a
            shared link, which keeps requests until they are answered; elsewhere its key is not.
failed      its reply is an error, made by the server or here.

    open[number] --reply--> kept (a ring) --take(), every 50 ms--> spans

The shell allows a number of records in each of its ticks (`allow`). Those beyond it are only counted,
which costs a comparison: so a server that answers every command with an error does no harm. The
sampler leaves a quarter of that to slow and failed commands.

An entry may be dropped without an answer (its client has gone, a transaction was taken back), and its
record stays `open`, until no other is free. So the record that an entry's number leads to counts as
the entry's own only if command, client and time agree.

Time spent waiting before a command could be put on a link (no master, no free connection, a value
being read for the near cache) is the session's: `waiting_since`, from trace_waits on.
"""
from libc.math cimport log
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from sidecar.core.hashing cimport next_random
from sidecar.core.protocol.commands cimport (Command, CommandTable, FORM_NONE, ROUTE_BLOCKING,
    ROUTE_MAYBE_BLOCKING, ROUTE_WAIT)
from sidecar.core.protocol.keys cimport KeySpan, find_keys
from sidecar.core.memory cimport buffer_head, buffer_size
from sidecar.core.records cimport Core, ENTRY_LOCAL, ENTRY_UNCERTAIN, Entry, Link, Session

cdef enum:
    KEYS_LOOKED_AT = 64     # a command that names more is recorded without a key
    FORGOTTEN = 1000000     # microseconds
    LOOK_AGAIN = 10000      # after none was free

SAMPLED, SLOW, FAILED = TRACE_SAMPLED, TRACE_SLOW, TRACE_FAILED
CACHED, FILLED, WAITED, RESENT, LOCAL = (
    TRACE_CACHED, TRACE_FILLED, TRACE_WAITED, TRACE_RESENT, TRACE_LOCAL)


cdef inline uint64_t full(const Core* core, uint32_t at) noexcept nogil:
    """A moment of the recent past, in microseconds that do not wrap."""
    return core.clock - <uint32_t>(core.now - at)


cdef void trace_draw(Core* core) noexcept nogil:
    """How many commands until the next that is sampled."""
    cdef Tracer* t = <Tracer*>core.tracer
    cdef double skip
    core.trace_skip = UINT32_MAX
    if t == NULL or t.share <= 0:
        return
    if t.share >= 1:
        core.trace_skip = 1
        return
    # The gaps between independent picks are geometric.
    skip = 1 + log(<double>((next_random(&t.random) >> 11) + 1) / 9007199254740993.0) \
        / log(1 - t.share)
    core.trace_skip = <uint32_t>skip if skip < UINT32_MAX else UINT32_MAX


cdef int free_slot(Tracer* t, uint64_t now) noexcept nogil:
    """An open record that is not used, or -1.

    What has been open for long is taken for forgotten once there is no other: its entry, if it is
    still there, was queued at another time than the new one, and so is not taken for its own.
    """
    cdef int i
    if t.full_at and now < t.full_at + LOOK_AGAIN:
        return -1
    t.full_at = 0
    for i in range(TRACES_OPEN):
        t.cursor = t.cursor + 1 if t.cursor + 1 < TRACES_OPEN else 0
        if not t.used[t.cursor]:
            return <int>t.cursor
    for i in range(TRACES_OPEN):
        if t.open[i].queued + FORGOTTEN < now:
            t.used[i] = False
    t.full_at = now
    return -1


cdef void note_key(Tracer* t, Trace* r, const Command* c, const char* p, size_t n) noexcept nogil:
    """Keep the first key of a whole request."""
    cdef KeySpan keys[KEYS_LOOKED_AT]
    cdef size_t size
    if not t.keys or c.keys == FORM_NONE or find_keys(c, p, n, keys, KEYS_LOOKED_AT) <= 0:
        return
    size = keys[0].n if keys[0].n < TRACE_KEY else TRACE_KEY
    memcpy(r.key, keys[0].p, size)
    r.key_size = <uint32_t>keys[0].n


cdef void note_error(Trace* r, const char* p, size_t n) noexcept nogil:
    """Keep the first word of an error reply. The rest may quote keys and values."""
    cdef size_t i = 0
    while i + 1 < n and i < TRACE_ERROR - 1 and (
            c'A' <= p[i + 1] <= c'Z' or c'0' <= p[i + 1] <= c'9' or p[i + 1] == c'_'):
        r.error[i] = p[i + 1]
        i += 1
    if i == 0:
        memcpy(r.error, b"ERR", 3)
        i = 3
    r.error[i] = 0


cdef void describe(Trace* r, const Core* core, const Session* s, uint16_t command,
                   uint32_t since, uint8_t flags) noexcept nogil:
    memset(r, 0, sizeof(Trace) - TRACE_KEY)
    r.start = full(core, since)
    r.command = command
    r.flags = flags
    r.client = s.client_number
    r.db = s.db
    if s.traced & TRACED_CONTEXT:
        r.flags |= TRACE_HAS_CONTEXT
        memcpy(r.context, s.trace_context, TRACE_CONTEXT)


cdef int trace_begin(Core* core, Session* s, const Command* c, const char* p, size_t n,
                     uint32_t since, uint8_t flags, bint sampled) noexcept nogil:
    """A command was picked, or is late already: its record's number, or -1 if there may be none.
    """
    cdef Tracer* t = <Tracer*>core.tracer
    cdef Trace* r
    cdef int slot
    if t.allowed <= (t.reserve if sampled else 0):
        t.dropped += 1
        return -1
    slot = free_slot(t, core.clock)
    if slot < 0:
        t.dropped += 1
        return -1
    t.allowed -= 1
    r = t.open + slot
    t.used[slot] = True
    describe(r, core, s, c.id, since, flags)
    r.why = TRACE_SAMPLED if sampled else 0
    r.request = <uint32_t>n if n < UINT32_MAX else UINT32_MAX
    note_key(t, r, c, p, n)
    return slot


cdef void trace_drop(Core* core, int slot) noexcept nogil:
    """It is not to be recorded after all, or not yet."""
    cdef Tracer* t = <Tracer*>core.tracer
    t.used[slot] = False
    t.allowed += 1


cdef void trace_queued(Core* core, int slot, Link* l, Entry* e) noexcept nogil:
    """The command of a record is this entry."""
    cdef Trace* r = (<Tracer*>core.tracer).open + slot
    e.record = <uint8_t>(slot + 1)
    r.queued = full(core, e.read_at)
    r.link = <void*>l
    r.server = l.server
    if l.shared:
        r.flags |= TRACE_SHARED
    if e.flags & ENTRY_LOCAL:
        r.flags |= TRACE_CACHED | TRACE_LOCAL
    else:
        l.records_unsent = True


cdef Trace* keep(Tracer* t) noexcept nogil:
    """Room for one that is finished, or NULL."""
    if t.tail - t.head >= TRACES_KEPT:
        t.dropped += 1
        return NULL
    t.tail += 1
    return t.kept + ((t.tail - 1) & (TRACES_KEPT - 1))


cdef void count(Tracer* t, Trace* r, const Core* core) noexcept nogil:
    """It is over: note why it is worth keeping, and count it."""
    r.end = core.clock
    if r.end - r.start >= core.slow_from and not may_block(t, r):
        r.why |= TRACE_SLOW
    if r.error[0]:
        r.why |= TRACE_FAILED
    t.counts[0] += r.why & TRACE_SAMPLED != 0
    t.counts[1] += r.why & TRACE_SLOW != 0
    t.counts[2] += r.why & TRACE_FAILED != 0


cdef bint may_block(const Tracer* t, const Trace* r) noexcept nogil:
    """Whether it may take long because it was asked to."""
    cdef uint8_t route = t.commands[r.command].route
    return route == ROUTE_BLOCKING or route == ROUTE_WAIT \
        or (route == ROUTE_MAYBE_BLOCKING and not r.flags & TRACE_SHARED)


cdef void finish(Tracer* t, int slot, const Core* core) noexcept nogil:
    cdef Trace* r = keep(t)
    t.used[slot] = False
    if r != NULL:
        memcpy(r, t.open + slot, sizeof(Trace))
        count(t, r, core)


cdef Trace* opened(Tracer* t, Link* l, const Entry* e, const Session* s) noexcept nogil:
    """The record that an entry was given, if it is still its own."""
    cdef Trace* r
    if not e.record or not t.used[e.record - 1]:
        return NULL
    r = t.open + e.record - 1
    if r.command != e.command or r.link != <void*>l or r.queued != full(l.core, e.read_at) \
            or (s != NULL and r.client != s.client_number):
        return NULL
    return r


cdef Trace* unforeseen(Link* l, const Entry* e, const Session* s) noexcept nogil:
    """Begin the finished record of an entry that was not picked; NULL: there may be none."""
    cdef Tracer* t = <Tracer*>l.core.tracer
    cdef Trace* r
    if t.allowed == 0:
        t.dropped += 1
        return NULL
    r = keep(t)
    if r == NULL:
        return NULL
    t.allowed -= 1
    describe(r, l.core, s, e.command, e.read_at, 0)
    r.queued = r.start
    r.server = l.server
    r.request = e.size
    if l.shared:
        r.flags |= TRACE_SHARED
    return r


cdef void trace_answered(Link* l, const Entry* e, Session* s, size_t at, const char* p, size_t n,
                         size_t size, bint error) noexcept nogil:
    """An entry was answered that has a record, was slow, or failed.

    p[0:n] is the beginning of the reply, as far as it is at hand; the whole has `size` bytes. On a
    shared link the request lies at `at` in `out`.
    """
    cdef Tracer* t = <Tracer*>l.core.tracer
    cdef Trace* r
    if t == NULL:
        return
    r = opened(t, l, e, s)
    if r != NULL:
        r.reply = <uint32_t>size if size < UINT32_MAX else UINT32_MAX
        if error:
            note_error(r, p, n)
        finish(t, e.record - 1, l.core)
        return
    if s == NULL or not ((error and t.failed) or l.core.now - e.read_at >= l.core.slow_from):
        return
    if not error and not l.shared and t.commands[e.command].route in (
            ROUTE_BLOCKING, ROUTE_MAYBE_BLOCKING, ROUTE_WAIT):
        return
    r = unforeseen(l, e, s)
    if r == NULL:
        return
    r.reply = <uint32_t>size if size < UINT32_MAX else UINT32_MAX
    if error:
        note_error(r, p, n)
    if l.shared and e.size and at + e.size <= buffer_size(&l.out):
        note_key(t, r, t.commands + e.command, buffer_head(&l.out) + at, e.size)
    count(t, r, l.core)


cdef void trace_ready(Link* l, const Entry* e) noexcept nogil:
    """An entry was answered here in its turn: from the near cache, or -UNCERTAIN."""
    cdef Tracer* t = <Tracer*>l.core.tracer
    cdef Trace* r
    if t == NULL:
        return
    if e.flags & ENTRY_UNCERTAIN:
        trace_failed(l, e, b"-UNCERTAIN", 10)
        return
    r = opened(t, l, e, e.session)
    if r != NULL:
        r.reply = e.withheld_size
        finish(t, e.record - 1, l.core)


cdef void trace_failed(Link* l, const Entry* e, const char* error, size_t n) noexcept nogil:
    """An entry was answered with an error made here."""
    cdef Tracer* t = <Tracer*>l.core.tracer
    cdef Trace* r
    if t == NULL:
        return
    r = opened(t, l, e, e.session)
    if r != NULL:
        note_error(r, error, n)
        finish(t, e.record - 1, l.core)
    elif e.session != NULL and t.failed:
        r = unforeseen(l, e, e.session)
        if r != NULL:
            note_error(r, error, n)
            count(t, r, l.core)


cdef void trace_refused(Core* core, Session* s, const Command* c, const char* p, size_t n,
                        const char* error, size_t size) noexcept nogil:
    """A request was answered with an error instead of being put on a link. p NULL: not known."""
    cdef Tracer* t = <Tracer*>core.tracer
    cdef Trace* r
    if t == NULL or not t.failed:
        return
    if t.allowed == 0:
        t.dropped += 1
        return
    r = keep(t)
    if r == NULL:
        return
    t.allowed -= 1
    describe(r, core, s, c.id, s.waiting_since if s.traced & TRACED_WAITED else core.now,
             TRACE_LOCAL | (TRACE_WAITED if s.traced & TRACED_WAITED else 0))
    r.request = <uint32_t>n if n < UINT32_MAX else UINT32_MAX
    r.reply = <uint32_t>size
    note_error(r, error, size)
    if p != NULL:
        note_key(t, r, c, p, n)
    count(t, r, core)


cdef void trace_local(Core* core, int slot, size_t size) noexcept nogil:
    """A command was answered from the near cache at once."""
    cdef Tracer* t = <Tracer*>core.tracer
    t.open[slot].flags |= TRACE_CACHED | TRACE_LOCAL
    t.open[slot].reply = <uint32_t>size if size < UINT32_MAX else UINT32_MAX
    finish(t, slot, core)


cdef void trace_sent(Link* l) noexcept nogil:
    """All that the link had to send has been given to the socket, just now."""
    cdef Tracer* t = <Tracer*>l.core.tracer
    cdef int i
    l.records_unsent = False
    if t == NULL:
        return
    for i in range(TRACES_OPEN):
        if t.used[i] and t.open[i].link == <void*>l and t.open[i].sent == 0:
            t.open[i].sent = l.core.clock


cdef void trace_moved(Link* l, const Entry* e) noexcept nogil:
    """An entry is queued again, perhaps on another link."""
    cdef Tracer* t = <Tracer*>l.core.tracer
    cdef Trace* r
    if t == NULL:
        return
    r = t.open + e.record - 1
    if t.used[e.record - 1] and r.command == e.command and r.queued == full(l.core, e.read_at):
        r.link = <void*>l
        r.server = l.server
        r.sent = 0
        r.flags |= TRACE_RESENT
        l.records_unsent = True


cdef void trace_waits(Session* s, bint fill) noexcept nogil:
    """The command at the head can't go on now; it will be decided on again."""
    if s.core.tracer == NULL:
        return
    if not s.traced & TRACED_WAITED:
        s.waiting_since = s.core.now
        s.traced |= TRACED_WAITED
    if fill:
        s.traced |= TRACED_FILL


cdef class Traces:
    """The records of one core. `share` of the commands are sampled; `failed` ones are recorded, or
    not; with `keys`, the first key of each is. Nothing is recorded before `allow`."""

    def __cinit__(self, CommandTable table, uint64_t seed, *, double share=0, bint failed=True,
                  bint keys=False):
        if not 0 <= share <= 1:
            raise ValueError("share")
        self.tracer = <Tracer*>calloc(1, sizeof(Tracer))
        if self.tracer == NULL:
            raise MemoryError
        self.table = table
        self.tracer.commands = table.commands
        self.tracer.random = seed
        self.tracer.share, self.tracer.failed, self.tracer.keys = share, failed, keys

    def use(self, *, double share, bint failed, bint keys):
        """Record by these from now on (see the class)."""
        if not 0 <= share <= 1:
            raise ValueError("share")
        self.tracer.share, self.tracer.failed, self.tracer.keys = share, failed, keys

    def __dealloc__(self):
        free(self.tracer)

    def allow(self, uint32_t records, uint32_t reserve=0):
        """From now on so many may be recorded; of those, `reserve` are not for sampled ones."""
        self.tracer.allowed, self.tracer.reserve = records, reserve

    @property
    def allowed(self):
        """How many may still be recorded."""
        return self.tracer.allowed

    def take(self):
        """What has finished since the last call, oldest first, as tuples:

        (command, why, flags, client, db, server, start, queued, sent, end, request bytes, reply
        bytes, error, key, size of the key, context). Times in microseconds of the core's clock; 0:
        there is none. A key is cut at 128 bytes. The context is trace id and span id, or empty.
        """
        cdef Tracer* t = self.tracer
        cdef Trace* r
        cdef uint32_t kept
        found = []
        while t.head != t.tail:
            r = t.kept + (t.head & (TRACES_KEPT - 1))
            t.head += 1
            kept = r.key_size if r.key_size < TRACE_KEY else TRACE_KEY
            found.append((
                self.table.name(r.command), r.why, r.flags, r.client, r.db, r.server, r.start,
                r.queued, r.sent, r.end, r.request, r.reply, (<bytes>r.error).decode("ascii"),
                r.key[:kept], r.key_size,
                (<char*>r.context)[:TRACE_CONTEXT] if r.flags & TRACE_HAS_CONTEXT else b"",
            ))
        return found

    def stats(self):
        """Since the start: recorded for each reason (a record may have several), and not, because
        there were too many."""
        cdef Tracer* t = self.tracer
        return {"sampled": t.counts[0], "slow": t.counts[1], "failed": t.counts[2],
                "dropped": t.dropped}
