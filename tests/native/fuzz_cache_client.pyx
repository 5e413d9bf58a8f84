# cython: language_level=3
"""What the clients of a fuzzed world with a near cache say (see fuzz_cache_world.pyx): for tests
only.

And what is said elsewhere, to the server itself.
"""
from libc.stdint cimport uint32_t, uint64_t
from sidecar.core.memory cimport buffer_append
from tests.native.fuzz_cache_judge cimport Judge, Peer, expect
from tests.native.fuzz_cache_server cimport (Ask, NO_KEY, OP_ACL, OP_BLPOP, OP_CLIENT, OP_DEL,
    OP_EVAL, OP_EXEC, OP_FLUSHALL, OP_MGET, OP_MSET, OP_MULTI, OP_SET, OP_SET_PX, OP_SUBSCRIBE,
    OP_UNWATCH, OP_WATCH, Server, USERS, change, invalidate, publish, put_ask, some_key)
from tests.native.chance cimport below
from tests.native.fuzz_decoders cimport Text


cdef int say(Judge* j, Peer* p, int op) except -1:
    """One request more for a client's script."""
    cdef uint64_t* r = &j.server.chance
    cdef Ask ask
    cdef int m, count
    if op == OP_MULTI:
        count = 1 + <int>below(r, 3)
        say_one(j, p, OP_MULTI, False, 0)
        for m in range(count):
            say_one(j, p, some_op(j.server), True, 0)
        return say_one(j, p, OP_EXEC, False, count)
    if op == OP_WATCH:
        say_one(j, p, OP_WATCH, False, 0)
        say_one(j, p, some_op(j.server), False, 0)
        return say_one(j, p, OP_UNWATCH, False, 0)
    return say_one(j, p, op, False, 0)


cdef int some_op(Server* sv) noexcept:
    """A read, or a write of named keys."""
    cdef uint64_t* r = &sv.chance
    if <int>below(r, 16) < sv.writes:
        return OP_SET + <int>below(r, OP_BLPOP - OP_SET)
    return <int>below(r, <uint32_t>sv.reads)


cdef int say_one(Judge* j, Peer* p, int op, bint in_multi, int body) except -1:
    cdef uint64_t* r = &j.server.chance
    cdef Ask ask
    cdef Text t
    ask.op, ask.arg = op, 1 + <int>below(r, 400)
    ask.key = ask.key2 = NO_KEY
    if op < OP_EVAL or op == OP_WATCH:
        ask.key = some_key(j.server)
    if op == OP_MGET or op == OP_MSET:
        ask.key2 = some_key(j.server)
    if op == OP_EVAL:
        ask.arg = some_key(j.server)
    elif op == OP_ACL:
        ask.arg = <int>below(r, USERS)
    expect(j, p, &ask, in_multi, body)
    t.n = 0
    put_ask(&t, &ask)
    buffer_append(&p.script, t.data, t.n)
    return 0


cdef int more_to_say(Judge* j, Peer* p) except -1:
    """Some new requests for a client's script, unless it waits for much already."""
    cdef uint64_t* r = &j.server.chance
    cdef int k
    cdef int kind
    if p.tail - p.head > 30:
        return 0
    for k in range(1 + <int>below(r, 4)):
        kind = 79 if j.server.plain else <int>below(r, 80)
        if kind == 0 and not p.pinned:
            say(j, p, OP_MULTI)
        elif kind == 1:
            say(j, p, OP_WATCH)
        elif kind == 2 and j.server.rare:
            say(j, p, OP_EVAL + <int>below(r, 3))
        elif kind == 3:
            say(j, p, OP_CLIENT)
        elif kind == 4:
            say(j, p, OP_SUBSCRIBE if below(r, 8) == 0 else OP_BLPOP)
        else:
            say(j, p, some_op(j.server))
    return 0


cdef int elsewhere(Server* sv) except -1:
    """Somebody writes at the server, and may tell of it, or it forgets whom it should have told."""
    cdef uint64_t* r = &sv.chance
    cdef Ask ask
    cdef Text t
    cdef int kind = <int>below(r, 16)
    t.n = 0
    ask.key, ask.key2, ask.arg = some_key(sv), <int>below(r, 2), 1 + <int>below(r, 400)
    ask.op = OP_SET
    if kind == 0:
        ask.op = OP_FLUSHALL
    elif kind == 1:
        return invalidate(sv, ask.key, 0)
    elif kind < 5:
        ask.op = OP_DEL
    elif kind < 8:
        ask.op = OP_SET_PX
    change(sv, NULL, &ask, &t)
    return publish(sv) if below(r, 2) else 0
