# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Hot keys: which keys get most of the traffic, and which have just begun to.

    command -> due? -> hash -> in the table? --yes--> its own counters
               1 in N                        --no---> count-min cells -> more than the
                                                      table's least? -> it takes that place

THE TABLE counts its keys (256 of them) exactly from the moment they come in. All others are
counted in a count-min sketch: `depth` rows of `width` counters, one of each row for a key, the
least of them is the estimate. Only counters below the new estimate are raised (conservative
update), and keys of the table do not touch them, so the heaviest traffic spoils no estimate. A
key that leaves the table leaves its count in the sketch.

The bound: beside the key's own count a counter holds that of others, N/width on average, so
e*N/width or more with probability 1/e at most (Markov), and all rows do with e^-depth. So an
estimate is never too small, and too large by more than 2.718/width of the traffic with that
probability only: 0.017 % and 1.8 % for 16384 x 4. Rows are independent, since each takes bits of
its own from one 64-bit hash (depth * log2(width) <= 64). Conservative update and the table only
make it better. A key of the first twenty comes in within its first few commands, while its cells
hold next to nothing of others: the ranking is far better than the bound.

TWO WINDOWS, because a second is too long to notice a jump and a tenth too short to rank:

    slow    all counts are halved once per window (1 s): a moving average, for the ranking
    fast    the open generation and the closed one before it, about 50 ms each, for detection

The fast window has cells of its own, few and emptied with each generation: a key that jumps is
found there long before its slow count reaches the table's least. Halving rounds cells down, so
an estimate may fall short of the decayed truth by less than one command.

HOT is a key with at least `hot_share` of the slow window, the open generation or the fast
window, if chance does not explain it, until it has less than `cool_share` of both windows.
Counts of samples are Poisson (variance = mean), so by Chernoff one of mean m comes to c with
probability exp(-(c ln(c/m) - c + m)) at most, and a steady key, whose m samples are spread evenly,
has c of them in the last share q of the window with exp(-(c ln(c/mq) + (m-c) ln((m-c)/m(1-q)))).
EVIDENCE is what these exponents must be; 20 stands for 2e-9, one false name in a day if a hundred
keys were on the verge at every tick. What must be refuted:

    slow window    that the key has cool_share: no key below it is named, however small the numbers
    fast window    that the key is steady: none is named by it on any uniform load. A new key
                   needs 7 samples or so, and BURST by decree: commands come in pipelines, and
                   one pipeline is one decision of one client

SAMPLING: every command up to `samples_per_second`, else one in N, with weight N. The gap to the
next is random, 1 to 2N - 1 commands, so that periodic traffic does not fall in step. A count c
is then off by sqrt(c * (N - 1)), which at a million commands a second costs a place or two at the
end of the twenty. Rejected: geometric gaps (a logarithm each, for nothing measurable), and
counting the table's keys in every command (the hash alone would double the cost).

HOSTILE KEYS. Without the seed nobody can choose keys whose hashes collide. The hash stands for the
key: two keys of the table are confused with probability 2**-64. Keys that are all different fill the
cells evenly, and the few that rise above the table's least push out only the least. Memory is taken
once, in sketch_new. Keys longer than `key_max` are ranked like others; only their beginning is kept.

Cost (python -m bench.hotkeys): a command that is not due is one decrement, a sample 20 to 30 ns, 2
to 5 of them the hash. A tick takes some 5 us for the table, and 15 more when it halves the cells.
"""
from libc.math cimport ceil, log
from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from sidecar.core.hashing cimport next_random, sidecar_fold, sidecar_hash

cdef enum:
    MAX_TOP = 4096              # the index holds 16-bit numbers, and a tick looks at all
    MAX_KEY = 4096
    MAX_INTERVAL = 65536
    FAST_SHIFT = 2              # the fast cells: two rows of a quarter of the width
    FAST_DEPTH = 2
    GENERATION_US = 40000       # a tick closes a generation that is at least this old
    MAX_HALVINGS = 32           # after so many nothing is left of a 32-bit count
    BURST = 16                  # samples
    NOTICED = 4                 # samples in a generation that are worth a look

cdef double EVIDENCE = 20.0
cdef double FULL = 2147483648.0     # the slow window is halved early rather than overflow
cdef double PER_TICK = 0.1          # of samples_per_second: twice what a tick of 50 ms expects
cdef double SLACK = 1.05            # a rate this much above the setting does not double the gap


# Hash and chance.

cdef uint64_t sketch_hash(const Sketch* s, uint32_t space, const char* key,
                          size_t n) noexcept nogil:
    """What stands for a key. The space comes last, where it meets only what nobody outside knows."""
    return sidecar_fold(sidecar_hash(s.secret[0], key, n) ^ s.secret[1],
                        s.secret[2] ^ (<uint64_t>space << 32))


cdef void sketch_draw(Sketch* s) noexcept nogil:
    """The gap to the next command that is due: 1 to 2N - 1, N on average."""
    cdef uint64_t choices = 2 * <uint64_t>s.interval - 1
    if choices == 1:
        s.skip = 1
    else:
        s.skip = 1 + <uint32_t>((next_random(&s.random) >> 32) * choices >> 32)


# Cells and table: how they are looked up stands in sketch.pxd.

cdef void cells_halve(Cells* c) noexcept nogil:
    """Halve every counter, two at a time."""
    cdef uint64_t* p = <uint64_t*>c.data
    cdef uint64_t mask = (<uint64_t>0x7fffffff << 32) | 0x7fffffff
    cdef size_t i
    for i in range((<size_t>c.depth << c.bits) >> 1):
        p[i] = p[i] >> 1 & mask


cdef void index_put(Sketch* s, uint64_t hash, uint32_t row) noexcept nogil:
    cdef uint32_t slot = index_slot(s, hash)
    while s.index[slot]:
        slot = (slot + 1) & ((1 << s.index_bits) - 1)
    s.index[slot] = <uint16_t>(row + 1)


cdef void index_remove(Sketch* s, uint64_t hash) noexcept nogil:
    """Take a key out; those behind it that were pushed on move up, so no gap is left."""
    cdef uint32_t mask = (1 << s.index_bits) - 1
    cdef uint32_t gap = index_slot(s, hash)
    cdef uint32_t at, home
    while s.table[s.index[gap] - 1].hash != hash:
        gap = (gap + 1) & mask
    at = (gap + 1) & mask
    while s.index[at]:
        home = index_slot(s, s.table[s.index[at] - 1].hash)
        if ((at - home) & mask) >= ((at - gap) & mask):
            s.index[gap] = s.index[at]
            gap = at
        at = (at + 1) & mask
    s.index[gap] = 0


cdef inline double noticed(const Sketch* s, double n) noexcept nogil:
    """The count in a generation of n commands from which a key's jump is worth a place.

    Below a quarter of hot_share it is of no use; below four times what a cell holds by chance,
    or a few samples, it is noise.
    """
    cdef double share = max(s.hot_share / 4, 4.0 / (1 << s.fast.bits))
    return max(share * n, <double>NOTICED * s.interval)


cdef int find_least(Sketch* s) noexcept nogil:
    """The row with the smallest slow count that may go, or -1; sets the floor.

    Rows that are hot stay, and so do those that the shell thinks are (it would never hear that
    they cooled) and those that are on the way there. So the floor is that of the rest.
    """
    cdef double few = noticed(s, max(s.fast_total, s.closed_total))
    cdef double least = FULL
    cdef int row = -1
    cdef uint32_t i
    for i in range(s.used):
        if s.counts[i] < least and s.fast_counts[i] < few:
            if not (s.table[i].hot or s.table[i].event_told or s.table[i].closed_count >= few):
                least = s.counts[i]
                row = i
    s.floor = least
    return row


cdef int admit(Sketch* s, uint64_t hash, uint32_t space, const char* key, size_t n,
               uint32_t count, uint32_t fast) noexcept nogil:
    """Give a key a row, if it has more than the least of the table or has just jumped; or -1."""
    cdef Ranked* e
    cdef int row
    cdef bint risen
    if s.used < s.top:
        row = s.used
        s.used += 1
    else:
        risen = fast >= noticed(s, max(s.fast_total, s.closed_total))
        if count <= s.floor and not risen:
            return -1
        row = find_least(s)
        if row < 0:
            s.fast_floor = 2.0 * fast       # until the next tick: don't look again for nothing
        if row < 0 or (count <= s.floor and not risen):
            return -1
        s.floor = min(s.floor, <double>count)
        e = s.table + row
        cells_raise(&s.slow, e.hash, <uint32_t>ceil(s.counts[row]))
        cells_raise(&s.fast, e.hash, <uint32_t>s.fast_counts[row])
        index_remove(s, e.hash)
    e = s.table + row
    memset(e, 0, sizeof(Ranked))
    e.hash, e.space = hash, space
    e.size = <uint32_t>min(n, <size_t>UINT32_MAX)
    s.counts[row], s.fast_counts[row] = count, fast
    if n:
        memcpy(s.keys + <size_t>row * s.key_max, key, min(n, <size_t>s.key_max))
    index_put(s, hash, row)
    s.admitted += 1
    return row


cdef void sketch_add(Sketch* s, uint64_t hash, uint32_t space, const char* key, size_t n,
                     bint write) noexcept nogil:
    """Count a key of a command that is due. `hash` is sketch_hash of the same space and key."""
    cdef uint32_t weight = s.interval
    cdef uint32_t count, fast
    cdef int row = find(s, hash)
    s.total += weight
    s.fast_total += weight
    s.weight += weight
    s.sampled += 1
    if row >= 0:
        s.counts[row] += weight
        s.fast_counts[row] += weight
    else:
        count = cells_add(&s.slow, hash, weight)
        fast = cells_add(&s.fast, hash, weight)
        if count > s.floor or fast >= s.fast_floor:
            row = admit(s, hash, space, key, n, count, fast)
    if row >= 0:
        if write:
            s.table[row].writes += weight
        else:
            s.table[row].reads += weight
    s.budget -= 1
    if s.budget == 0:
        s.interval = min(2 * s.interval, <uint32_t>MAX_INTERVAL)
        renew_budget(s)
    if s.total >= FULL:
        halve(s)


# Time.

cdef void renew_budget(Sketch* s) noexcept nogil:
    """How many samples may come before the next tick: a burst does not wait for it."""
    s.budget = max(<uint32_t>(s.samples_per_second * PER_TICK), <uint32_t>1)
    s.coarse = max(s.coarse, s.interval)


cdef void halve(Sketch* s) noexcept nogil:
    """Halve the slow window."""
    cdef uint32_t i
    cells_halve(&s.slow)
    for i in range(s.used):
        s.counts[i] *= 0.5
        s.table[i].reads *= 0.5
        s.table[i].writes *= 0.5
    s.total *= 0.5
    s.span *= 0.5
    s.floor *= 0.5
    s.coarse = s.interval


cdef void close_generation(Sketch* s, double seconds) noexcept nogil:
    """Begin a new generation of the fast window; set the interval to the rate of the last."""
    cdef uint32_t i
    cdef double want = s.fast_total / (seconds * s.samples_per_second * SLACK)
    s.interval_before = s.interval
    s.interval = <uint32_t>min(max(ceil(want), 1.0), <double>MAX_INTERVAL)
    if s.skip >= 2 * s.interval:
        sketch_draw(s)
    for i in range(s.used):
        s.table[i].closed_count = s.fast_counts[i]
        s.fast_counts[i] = 0
    s.closed_total = s.fast_total
    s.fast_total = 0
    memset(s.fast.data, 0, (<size_t>s.fast.depth << s.fast.bits) * sizeof(uint32_t))


cdef inline bint above(double count, double mean, double weight) noexcept nogil:
    """Whether a count shows that more than `mean` is to be expected (see the head)."""
    cdef double c = count / weight
    cdef double m = max(mean / weight, 1e-9)
    return c > m and c * log(c / m) - c + m >= EVIDENCE


cdef bint jumped(const Sketch* s, uint32_t row, double count, double n) noexcept nogil:
    """Whether `count` of the last n commands make a key hot that was not (see the head)."""
    cdef double weight = max(s.interval, s.interval_before)
    cdef double older = max(s.counts[row] - count, 0.0)
    cdef double share = n / max(s.total, n)
    cdef double evidence
    if count < s.hot_share * n or count < BURST * weight or count <= (count + older) * share:
        return False
    evidence = count * log(count / ((count + older) * share))
    if older > 0:
        evidence += older * log(older / ((count + older) * (1 - share)))
    return evidence >= EVIDENCE * weight


cdef void judge(Sketch* s, uint32_t row) noexcept nogil:
    """Name a key hot, or take it back."""
    cdef Ranked* e = s.table + row
    cdef double count = s.counts[row]
    cdef double fast = s.fast_counts[row] + e.closed_count
    cdef double fast_total = s.fast_total + s.closed_total
    if count < 1:
        e.hot = False               # all traffic has ceased: shares say nothing any more
    elif e.hot:
        e.hot = count >= s.cool_share * s.total or (fast > 0
                                                    and fast >= s.cool_share * fast_total)
    else:
        e.hot = ((count >= s.hot_share * s.total
                  and above(count, s.cool_share * s.total, s.coarse))
                 or jumped(s, row, s.fast_counts[row], s.fast_total)
                 or jumped(s, row, fast, fast_total))
    e.share = <float>(max(count / s.total, fast / max(fast_total, 1.0)) if s.total > 0 else 0)


cdef void sketch_tick(Sketch* s, uint64_t now_us) noexcept nogil:
    """It is `now_us`, by a clock that never goes back; the first call only sets it."""
    cdef uint32_t i
    if not s.started:
        s.started = True
        s.last = s.generation = s.decayed = now_us
        return
    if now_us <= s.last:
        return
    s.span += <double>(now_us - s.last) * 1e-6
    s.last = now_us
    for i in range(s.used):
        judge(s, i)
    if now_us - s.generation >= GENERATION_US:
        close_generation(s, <double>(now_us - s.generation) * 1e-6)
        s.generation = now_us
    renew_budget(s)
    if now_us - s.decayed > MAX_HALVINGS * s.window:
        s.decayed = now_us - MAX_HALVINGS * s.window
    while now_us - s.decayed >= s.window:
        s.decayed += s.window
        halve(s)
    if s.used == s.top:
        find_least(s)
    s.fast_floor = noticed(s, max(s.fast_total, s.closed_total))


# Life.

cdef int make_cells(Cells* c, uint32_t width, uint32_t depth) noexcept nogil:
    c.depth = depth
    while (1 << c.bits) < width:
        c.bits += 1
    c.data = <uint32_t*>calloc(<size_t>depth << c.bits, sizeof(uint32_t))
    return 0 if c.data != NULL else -1


cdef Sketch* sketch_new(uint64_t seed, uint32_t width, uint32_t depth, uint32_t top,
                        uint32_t key_max) noexcept nogil:
    """A sketch with the usual settings, which may be changed; NULL: no memory, or bad sizes.

    `width` is a power of two from 256 to 65536, and depth * log2(width) is 64 at most.
    """
    cdef Sketch* s
    cdef int i
    if not sizes_fit(width, depth, top, key_max):
        return NULL
    s = <Sketch*>calloc(1, sizeof(Sketch))
    if s == NULL:
        return NULL
    s.top, s.key_max = top, key_max
    s.index_bits = 2
    while (1 << s.index_bits) < 4 * top:
        s.index_bits += 1
    s.index = <uint16_t*>calloc(<size_t>1 << s.index_bits, sizeof(uint16_t))
    s.table = <Ranked*>calloc(top, sizeof(Ranked))
    s.counts = <double*>calloc(top, sizeof(double))
    s.fast_counts = <double*>calloc(top, sizeof(double))
    s.keys = <char*>calloc(top, key_max)
    i = make_cells(&s.slow, width, depth) + make_cells(&s.fast, width >> FAST_SHIFT, FAST_DEPTH)
    if (i < 0 or s.index == NULL or s.table == NULL or s.counts == NULL or s.fast_counts == NULL
            or s.keys == NULL):
        sketch_free(s)
        return NULL
    s.random = seed
    for i in range(3):
        s.secret[i] = next_random(&s.random)
    s.skip = s.interval = s.interval_before = 1
    s.window = 1000000
    s.samples_per_second = 200000
    s.hot_share, s.cool_share = 0.005, 0.0025
    s.fast_floor = NOTICED
    renew_budget(s)
    return s


cdef bint sizes_fit(uint32_t width, uint32_t depth, uint32_t top,
                    uint32_t key_max) noexcept nogil:
    cdef uint32_t bits = 0
    while bits < 16 and (1 << bits) < width:
        bits += 1
    return (width >= 256 and width == <uint32_t>1 << bits and 1 <= depth <= MAX_DEPTH
            and depth * bits <= 64 and 1 <= top <= MAX_TOP and 1 <= key_max <= MAX_KEY)


cdef void sketch_free(Sketch* s) noexcept nogil:
    if s != NULL:
        free(s.index)
        free(s.table)
        free(s.counts)
        free(s.fast_counts)
        free(s.keys)
        free(s.slow.data)
        free(s.fast.data)
        free(s)


cdef size_t sketch_memory(const Sketch* s) noexcept nogil:
    """Bytes taken; they do not change."""
    return (sizeof(Sketch) + (sizeof(uint16_t) << s.index_bits)
            + s.top * (sizeof(Ranked) + 2 * sizeof(double) + <size_t>s.key_max)
            + (<size_t>s.slow.depth << s.slow.bits) * sizeof(uint32_t)
            + (<size_t>s.fast.depth << s.fast.bits) * sizeof(uint32_t))
