"""Proofs that a space has all invalidations, and who waits for one (see proof.pyx)."""
from libc.stdint cimport uint16_t, uint64_t
from sidecar.core.cache.store cimport Cache, Space
from sidecar.core.records cimport Session

cdef void wait_for_proof(Session* s, uint16_t number) noexcept nogil
cdef void stop_waiting(Session* s) noexcept nogil
cdef void space_proved(Space* space, uint64_t at, uint64_t number) noexcept nogil
cdef void space_lost(Space* space) noexcept nogil
cdef void space_pass_by(Space* space) noexcept nogil

cdef inline bint is_proved(const Cache* k, const Session* s, uint16_t space) noexcept nogil:
    """Whether a space has all that was told before the session's request came."""
    return k.spaces[space].answered_request > s.fence_seen or s.proof_space == space

cdef inline void space_used(Cache* k, Space* space) noexcept nogil:
    """Something is served from the space, or waits to be: the next fence is to be proved at once."""
    if not space.awake:
        space.awake = True
        space.next_awake = k.awake
        k.awake = space
