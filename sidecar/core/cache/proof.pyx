# cython: language_level=3
"""Proofs that a space has all invalidations, and the reads that wait for one.

sidecar/core/link/fence.pyx explains what a proof is, when one is needed, and why it is enough. This
is what it costs. A read that finds its value behind a fence waits for the proof, one round trip, like
a miss but without work for the server; so a dense stream of news does not push out what is cached. It
waits only if nothing of its client is under way. Otherwise it would hold up the rest of a pipeline,
and goes past the cache.

    news --> fence raised --> spaces that served since their last heartbeat: a heartbeat at once
    read behind it --> waits --> its space: a heartbeat, unless one is on its way since the fence
    answer --> those whose fence it proves go on, whatever was raised meanwhile

So heartbeats are sent for spaces that are read only, at most one for each in an iteration of the
loop, and by themselves (without a read that waits) only one at a time.
"""
from libc.stdint cimport uint16_t, uint64_t
from sidecar.core.cache.store cimport Cache, Space
from sidecar.core.link.receiver cimport session_mark
from sidecar.core.records cimport Session


cdef void wait_for_proof(Session* s, uint16_t number) noexcept nogil:
    """The session waits until this space has proved the fence of its request."""
    cdef Cache* k = <Cache*>s.core.cache
    cdef Space* space = &k.spaces[number]
    s.awaited = space
    s.awaits_proof = True
    s.fence_awaited = s.fence_seen
    s.next_waiting = space.waiting
    space.waiting = s
    space_used(k, space)
    k.due = True


cdef void stop_waiting(Session* s) noexcept nogil:
    """The session is closed: it waits for a proof no more."""
    cdef Session** slot = &(<Space*>s.awaited).waiting
    while slot[0] != s:
        slot = &slot[0].next_waiting
    slot[0] = s.next_waiting
    s.awaited = NULL
    s.awaits_proof = False


cdef inline void go_on(Session* s, Space* space, bint proved) noexcept nogil:
    s.proof_space = <uint16_t>(space - (<Cache*>s.core.cache).spaces) if proved else 0
    s.awaited = NULL
    s.awaits_proof = False
    s.bypass_next = not proved
    session_mark(s)


cdef void space_proved(Space* space, uint64_t at, uint64_t number) noexcept nogil:
    """The request `number`, queued at this moment, has been answered on the space's tracked link."""
    cdef Session* s = space.waiting
    cdef Session* after
    space.proved_at = at
    space.answered_request = number
    space.waiting = NULL
    while s != NULL:
        after = s.next_waiting
        if s.fence_awaited < number:
            go_on(s, space, True)
        else:
            s.next_waiting = space.waiting
            space.waiting = s
        s = after


cdef void space_pass_by(Space* space) noexcept nogil:
    """No proof will come soon: sessions that wait for one go past the cache."""
    cdef Session* s = space.waiting
    cdef Session* after
    space.waiting = NULL
    while s != NULL:
        after = s.next_waiting
        go_on(s, space, False)
        s = after


cdef void space_lost(Space* space) noexcept nogil:
    """Nothing is proved of the space any more."""
    space.proved_at = space.answered_request = 0
    space_pass_by(space)
