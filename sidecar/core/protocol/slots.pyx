# cython: language_level=3
"""Slots of a cluster: which one has a key, and which shard has it.

A key's slot is the CRC16 (the XMODEM one) of the key, or of what stands between its first brace and
the next closing one, if that is not empty, modulo 16384: the cluster specification's.
"""
cimport cython
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy

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


cdef const ServerAddress* server_at(const Slots* slots, const char* p, size_t n) noexcept nogil:
    """The server at this address, NULL if it is not known. Only redirections ask. A server that does
    not know its own host names the port only: that is enough if no other server has it."""
    cdef const ServerAddress* found = NULL
    cdef const ServerAddress* at
    cdef uint32_t i
    cdef bint no_host = n > 0 and p[0] == c':'
    if n > 1 and p[0] == c'?' and p[1] == c':':
        p, n, no_host = p + 1, n - 1, True
    for i in range(slots.count):
        at = slots.addresses + i
        if no_host and at.size > n and memcmp(at.text + at.size - n, p, n) == 0:
            if found != NULL and found.shard != at.shard:
                return NULL
            found = at
        elif at.size == n and memcmp(at.text, p, n) == 0:
            return at
    return found


cdef const ServerAddress* redirection_target(const Slots* slots, const char* p, size_t n,
                                             int* slot) noexcept nogil:
    """The server that "-MOVED slot address" or "-ASK slot address" points to, and the slot; NULL if
    it is not known."""
    cdef const char* word = <const char*>memchr(p, c' ', n)
    cdef const char* end = p + n - 2
    cdef int number = 0
    if word == NULL:
        return NULL
    word += 1
    while word < end and c'0' <= word[0] <= c'9' and number < SLOT_COUNT:
        number = number * 10 + word[0] - c'0'
        word += 1
    if word >= end or word[0] != c' ' or number >= SLOT_COUNT:
        return NULL
    slot[0] = number
    return server_at(slots, word + 1, <size_t>(end - word - 1))


cdef void slots_put(Slots* slots, uint16_t slot, uint16_t shard) noexcept nogil:
    """From now on this shard has the slot."""
    if slots.shard[slot] != shard:
        slots.shard[slot] = shard
        slots.changes += 1


@cython.no_gc_clear
cdef class SlotTable:
    """The slots of one cluster, and the addresses of its servers. The shell writes it whenever it has
    learnt more; redirections change single slots. `splits`: commands over several slots are split."""

    def __cinit__(self, bint splits=True):
        cdef int i
        self.slots = <Slots*>calloc(1, sizeof(Slots))
        if self.slots == NULL:
            raise MemoryError
        self.slots.splits = splits
        for i in range(SLOT_COUNT):
            self.slots.shard[i] = NO_SHARD

    def __dealloc__(self):
        free(self.slots.addresses)
        free(self.slots)

    def put(self, const uint16_t[::1] owners not None):
        """The shard of each slot is this one; NO_SHARD: nobody has it."""
        cdef int i
        if owners.shape[0] != SLOT_COUNT:
            raise ValueError("one shard for each slot")
        for i in range(SLOT_COUNT):
            slots_put(self.slots, <uint16_t>i, owners[i])

    def use_addresses(self, addresses):
        """The addresses of all servers: [(as servers write it, shard, whether links lead there)]."""
        cdef ServerAddress* fresh
        cdef bytes text
        cdef uint32_t count = 0
        cdef list known = list(addresses)
        fresh = <ServerAddress*>calloc(max(len(known), 1), sizeof(ServerAddress))
        if fresh == NULL:
            raise MemoryError
        for text, shard, in_use in known:
            if len(text) > ADDRESS_MAX:
                continue                # nobody can be told of it
            memcpy(fresh[count].text, <const char*>text, len(text))
            fresh[count].size = <uint16_t>len(text)
            fresh[count].shard = shard
            fresh[count].in_use = in_use
            count += 1
        free(self.slots.addresses)
        self.slots.addresses, self.slots.count = fresh, count

    def owner(self, int number):
        """The shard that has a slot; None if nobody has it."""
        cdef uint16_t shard = self.slots.shard[number % SLOT_COUNT]
        return None if shard == NO_SHARD else shard

    def follow(self, bytes error):
        """Where "-MOVED slot address" or "-ASK slot address" points: (the shard; None if no link leads
        there, whether it is ASK). The slot of MOVED has its shard from now on. None: it is another
        answer."""
        cdef const ServerAddress* to
        cdef int slot = -1
        if error[:7] != b"-MOVED " and error[:5] != b"-ASK ":
            self.slots.refused += 1
            return None
        to = redirection_target(self.slots, error, len(error), &slot)
        ask = error[:2] == b"-A"
        self.slots.moved += not ask
        self.slots.asked += ask
        if to == NULL or not to.in_use:
            self.slots.unknown += 1
            return None, ask
        if not ask:
            slots_put(self.slots, <uint16_t>slot, to.shard)
        return to.shard, ask

    @property
    def covered(self):
        """How many slots some shard has."""
        return sum([self.slots.shard[i] != NO_SHARD for i in range(SLOT_COUNT)])

    @property
    def changes(self):
        """How often a slot has changed its shard."""
        return self.slots.changes

    @property
    def redirections(self):
        """Answers so far that sent a request elsewhere: (MOVED, ASK, of these to servers to which no
        link leads, other answers that mean "not now")."""
        return self.slots.moved, self.slots.asked, self.slots.unknown, self.slots.refused

    @property
    def waits(self):
        """Whether redirected requests wait."""
        return self.slots.waiting != NULL


def slot(bytes key):
    """The slot of a key."""
    return slot_of(key, len(key))
