# cython: language_level=3
"""Chance for the native fuzzers: for tests only.

Numbers come from a generator, by a seed; or from a tape, bytes that a guided fuzzer has chosen, so
that it decides what a world does next and learns what came of it. When the tape is used up, the
generator goes on: a world always comes to its end.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef const uint8_t* tape = NULL
cdef size_t tape_left = 0


cdef uint64_t seeded(uint64_t seed) noexcept nogil:
    """A state of the generator: seeds that lie close together give streams that do not."""
    cdef uint64_t x = seed + <uint64_t>11400714819323198485
    x = (x ^ (x >> 30)) * <uint64_t>13787848793156543929
    x = (x ^ (x >> 27)) * <uint64_t>10723151780598845931
    x ^= x >> 31
    return x if x else 1


cdef uint64_t draw(uint64_t* state) noexcept nogil:
    """xorshift64*: 64 random bits; the state is never zero."""
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * <uint64_t>2685821657736338717


cdef uint32_t off_tape(uint32_t n) noexcept nogil:
    """A number below n, of as few bytes of the tape as can tell it."""
    global tape, tape_left
    cdef uint32_t found = 0
    cdef uint32_t most = n - 1
    while most and tape_left:
        found = found << 8 | tape[0]
        tape += 1
        tape_left -= 1
        most >>= 8
    return found % n


cdef uint32_t below(uint64_t* state, uint32_t n) noexcept nogil:
    """A number from 0 to n - 1."""
    if tape_left:
        return off_tape(n)
    return <uint32_t>(draw(state) >> 33) % n


def on_tape(bytes data, run, *args, **kwargs):
    """What `run` returns while chance comes from these bytes. Raises what it raises."""
    global tape, tape_left
    tape = data
    tape_left = len(data)
    try:
        return run(*args, **kwargs)
    finally:
        tape = NULL
        tape_left = 0
