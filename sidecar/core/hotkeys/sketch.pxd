"""Hot keys: a sampled count-min sketch with a table of the most frequent keys (see sketch.pyx).

    if sketch_due(s):                           every command that has keys
        hash = sketch_hash(s, space, key, n)    each key of a command that is due
        sketch_add(s, hash, space, key, n, write)
    sketch_tick(s, now_us)                      every 50 ms or so
"""
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_DEPTH = 8               # a row takes log2(256) bits and more of a 64-bit hash

cdef struct Ranked:
    uint64_t hash           # stands for (space, key): the key itself is only kept to be shown
    double reads            # of its present stay in the table
    double writes
    double closed_count     # count in the closed generation of the fast window
    float share             # at the last tick, the larger of the two windows'
    uint32_t space
    uint32_t size           # of the key; beyond key_max only its beginning is kept
    uint8_t hot
    uint8_t event_told      # what the last take_events said

cdef struct Cells:
    uint32_t* data          # depth rows of 2**bits counters
    uint32_t bits
    uint32_t depth

cdef struct Sketch:
    uint32_t skip           # commands until the next that is due, itself included
    uint32_t interval       # one in this many commands is sampled
    uint32_t budget         # samples until the interval is doubled without waiting for a tick
    uint32_t used           # of the table
    uint32_t index_bits
    uint64_t secret[3]
    uint16_t* index         # hash -> place in the table, plus one
    Ranked* table
    double* counts          # slow window, one for each row of the table; apart for the scan
    double* fast_counts     # open generation of the fast window
    double floor            # no row that may go has a smaller count
    double fast_floor       # a count in the open generation that is worth a look
    double total            # slow window
    double fast_total       # open generation
    double closed_total     # closed generation
    Cells slow
    Cells fast
    char* keys              # top * key_max bytes
    uint32_t top
    uint32_t key_max
    uint64_t random
    # Time.
    bint started
    uint64_t last           # tick, microseconds
    uint64_t generation     # when the open one began
    uint64_t decayed        # when the slow window was last halved
    double span             # seconds that `total` stands for
    uint32_t coarse         # largest interval in the slow window
    uint32_t interval_before  # in the closed generation
    # Settings.
    uint64_t window         # microseconds
    double samples_per_second
    double hot_share
    double cool_share
    # Since the start.
    double weight           # keys seen, as far as the samples tell
    uint64_t sampled
    uint64_t admitted       # how often the table took a key

cdef Sketch* sketch_new(uint64_t seed, uint32_t width, uint32_t depth, uint32_t top,
                        uint32_t key_max) noexcept nogil
cdef void sketch_free(Sketch* s) noexcept nogil
cdef uint64_t sketch_hash(const Sketch* s, uint32_t space, const char* key,
                          size_t n) noexcept nogil
cdef void sketch_draw(Sketch* s) noexcept nogil
cdef void sketch_add(Sketch* s, uint64_t hash, uint32_t space, const char* key, size_t n,
                     bint write) noexcept nogil
cdef void sketch_tick(Sketch* s, uint64_t now_us) noexcept nogil
cdef size_t sketch_memory(const Sketch* s) noexcept nogil
cdef bint sizes_fit(uint32_t width, uint32_t depth, uint32_t top, uint32_t key_max) noexcept nogil
cdef void renew_budget(Sketch* s) noexcept nogil

cdef inline bint sketch_due(Sketch* s) noexcept nogil:
    """Whether this command is to be sampled; asked once for each."""
    if s.skip > 1:
        s.skip -= 1
        return False
    sketch_draw(s)
    return True

cdef inline uint32_t* cell(const Cells* c, uint32_t row, uint64_t hash) noexcept nogil:
    """The key's counter in a row: each row takes bits of its own from the hash."""
    return c.data + ((<size_t>row << c.bits) + (hash >> row * c.bits & ((1 << c.bits) - 1)))

cdef inline uint32_t cells_least(const Cells* c, uint64_t hash) noexcept nogil:
    """The estimate."""
    cdef uint32_t least = UINT32_MAX
    cdef uint32_t row
    for row in range(c.depth):
        least = min(least, cell(c, row, hash)[0])
    return least

cdef inline uint32_t cells_add(Cells* c, uint64_t hash, uint32_t weight) noexcept nogil:
    """Make the estimate larger by `weight`, raising only what is less; the new one."""
    cdef uint32_t* at[MAX_DEPTH]
    cdef uint32_t least = UINT32_MAX
    cdef uint32_t row
    for row in range(c.depth):
        at[row] = cell(c, row, hash)
        least = min(least, at[row][0])
    least += weight
    for row in range(c.depth):
        at[row][0] = max(at[row][0], least)
    return least

cdef inline void cells_raise(Cells* c, uint64_t hash, uint32_t count) noexcept nogil:
    """Make the estimate `count`, if it is less."""
    cdef uint32_t row
    for row in range(c.depth):
        cell(c, row, hash)[0] = max(cell(c, row, hash)[0], count)

cdef inline uint32_t index_slot(const Sketch* s, uint64_t hash) noexcept nogil:
    return <uint32_t>(hash >> (64 - s.index_bits))

cdef inline int find(const Sketch* s, uint64_t hash) noexcept nogil:
    """The key's row of the table, or -1."""
    cdef uint32_t slot = index_slot(s, hash)
    cdef uint32_t mask = (1 << s.index_bits) - 1
    while s.index[slot]:
        if s.table[s.index[slot] - 1].hash == hash:
            return s.index[slot] - 1
        slot = (slot + 1) & mask
    return -1

cdef inline bint sketch_hot(const Sketch* s, uint64_t hash) noexcept nogil:
    """Whether the key was hot at the last tick."""
    cdef int row = find(s, hash)
    return row >= 0 and s.table[row].hot
