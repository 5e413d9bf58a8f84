# cython: language_level=3
"""Slots of a cluster: which one has a key, and which shard has it.

A key's slot is the CRC16 (the XMODEM one) of the key, or of what stands between its first brace and
the next closing one, if that is not empty, modulo 16384: the cluster specification's.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

cdef uint16_t[256] TABLE


cdef void fill_table() noexcept:
    cdef int i, bit
    cdef uint16_t crc
    for i in range(256):
        crc = <uint16_t>(i << 8)
        for bit in range(8):
            crc = <uint16_t>((crc << 1) ^ (0x1021 if crc & 0x8000 else 0))
        TABLE[i] = crc


fill_table()


cdef uint16_t slot_of(const char* p, size_t n) noexcept nogil:
    """The slot of this key."""
    cdef uint16_t crc = 0
    cdef size_t i
    cdef size_t left
    cdef const char* tag = <const char*>memchr(p, c'{', n) if n else NULL
    cdef const char* end
    if tag != NULL:
        tag += 1
        left = <size_t>(p + n - tag)
        end = <const char*>memchr(tag, c'}', left) if left else NULL
        if end != NULL and end != tag:
            p, n = tag, <size_t>(end - tag)
    for i in range(n):
        crc = <uint16_t>((crc << 8) ^ TABLE[(crc >> 8) ^ <uint8_t>p[i]])
    return crc & (SLOT_COUNT - 1)


cdef uint16_t shard_at(const Slots* slots, const char* p, size_t n) noexcept nogil:
    """The shard at this address, NO_SHARD if none is known to be there. Only redirections ask."""
    cdef uint16_t i
    for i in range(slots.count):
        if slots.addresses[i].size == n and memcmp(slots.addresses[i].text, p, n) == 0:
            return i
    return NO_SHARD


cdef void slots_put(Slots* slots, uint16_t slot, uint16_t shard) noexcept nogil:
    """From now on this shard has the slot."""
    if slots.shard[slot] != shard:
        slots.shard[slot] = shard
        slots.changes += 1


def slot(bytes key):
    """The slot of a key."""
    return slot_of(key, len(key))
