# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The hot-key detector, as the control plane sees it: made, told the time, asked.

It owns a sketch (sketch.pyx), which the data path feeds directly.
"""
from libc.math cimport exp
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from sidecar.core.hotkeys.sketch cimport (Ranked, cells_least, find, renew_budget, sizes_fit,
    sketch_add, sketch_due, sketch_free, sketch_hash, sketch_hot, sketch_memory, sketch_new,
    sketch_tick)

cdef enum:
    PREFIX = 16
    NAMED = 24

cdef const char* PREFIX_TEXT = b"session:user:id:"


def name_of(uint64_t number):
    """The key that `HotKeys.drive` makes of a number: 24 bytes."""
    return PREFIX_TEXT[:PREFIX] + (<const char*>&number)[:8]


cdef class HotKeys:
    """A sketch for the shell: the plane counts by way of `sketch`, the shell ticks and asks.

    `window` is in seconds; a key with `hot_share` of the traffic becomes hot, and cools below
    `cool_share`. Times are seconds of a clock that does not go back. Bad sizes: ValueError.
    """

    def __cinit__(self, uint64_t seed, *, uint32_t width=16384, uint32_t depth=4,
                  uint32_t top=256, double window=1.0, double samples_per_second=200000,
                  double hot_share=0.005, double cool_share=0.0025, uint32_t key_max=128):
        if not sizes_fit(width, depth, top, key_max):
            raise ValueError("sizes: width a power of two from 256 to 65536, depth * log2(width) "
                             "<= 64, top and key_max <= 4096")
        self.sketch = sketch_new(seed, width, depth, top, key_max)
        if self.sketch == NULL:
            raise MemoryError
        self.use(window=window, samples_per_second=samples_per_second, hot_share=hot_share,
                 cool_share=cool_share)

    def __dealloc__(self):
        sketch_free(self.sketch)

    def use(self, *, double window, double samples_per_second, double hot_share,
            double cool_share):
        """Count by these from now on; what has been counted stays."""
        if not (0 < cool_share <= hot_share <= 1 and 0.1 <= window <= 3600
                and 100 <= samples_per_second <= 1e9):
            raise ValueError("0 < cool_share <= hot_share <= 1, window from 0.1 to 3600 s, "
                             "samples_per_second from 100 to 1e9")
        self.sketch.window = <uint64_t>(window * 1e6)
        self.sketch.samples_per_second = samples_per_second
        self.sketch.hot_share, self.sketch.cool_share = hot_share, cool_share
        renew_budget(self.sketch)

    def tick(self, double now):
        """The time; to be called about every 50 ms."""
        if not 0 <= now < 1e12:
            raise ValueError("now")
        sketch_tick(self.sketch, <uint64_t>(now * 1e6 + 0.5))

    def add(self, uint32_t space, bytes key, bint write=False):
        """What the data path does for a command with one key."""
        cdef const char* p = key
        cdef size_t n = len(key)
        if sketch_due(self.sketch):
            sketch_add(self.sketch, sketch_hash(self.sketch, space, p, n), space, p, n, write)

    def drive(self, const uint32_t[::1] picks, uint32_t space=0, bint write=False,
              bint hash_only=False):
        """As `add`, of `name_of` each number, natively: for tests and measurements."""
        cdef Sketch* s = self.sketch
        cdef char key[NAMED]
        cdef uint64_t number, h
        cdef uint64_t sum = 0
        cdef Py_ssize_t i
        memcpy(key, PREFIX_TEXT, PREFIX)
        with nogil:
            for i in range(picks.shape[0]):
                if hash_only or sketch_due(s):
                    number = picks[i]
                    memcpy(key + PREFIX, &number, 8)
                    h = sketch_hash(s, space, key, NAMED)
                    sum += h
                    if not hash_only:
                        sketch_add(s, h, space, key, NAMED, write)
        return sum

    def hash(self, uint32_t space, bytes key):
        """The number that stands for a key."""
        return sketch_hash(self.sketch, space, <const char*>key, len(key))

    def is_hot(self, uint32_t space, bytes key):
        """Whether the key was hot at the last tick."""
        return bool(sketch_hot(self.sketch, self.hash(space, key)))

    def estimate(self, uint32_t space, bytes key):
        """The count of a key in the slow window: never too small but by less than one."""
        cdef uint64_t hash = self.hash(space, key)
        cdef int row = find(self.sketch, hash)
        if row >= 0:
            return self.sketch.counts[row]
        return float(cells_least(&self.sketch.slow, hash))

    cdef bytes key(self, uint32_t row):
        """A key as it is shown: one that is longer than key_max, and so not whole, says so."""
        cdef Sketch* s = self.sketch
        cdef const char* p = s.keys + <size_t>row * s.key_max
        if s.table[row].size <= s.key_max:
            return p[:s.table[row].size]
        return p[:s.key_max] + b"...(%d bytes)" % s.table[row].size

    def top(self, Py_ssize_t n):
        """The n keys with most of the traffic, most first.

        Each is (space, key, share, keys per second, reads per second, writes per second, hot).
        Shares and rates are those of the slow window. A key longer than key_max is cut there and
        has "...(N bytes)" behind it: what is longer than key_max is no key.
        """
        cdef Sketch* s = self.sketch
        cdef Ranked* e
        rows = sorted((-s.counts[i], i) for i in range(s.used) if s.counts[i] >= 0.5)
        found = []
        for negative, i in rows[:max(n, 0)]:
            e = s.table + <uint32_t>i
            rate = -negative / s.span if s.span > 0 else 0.0
            known = rate / max(e.reads + e.writes, 1e-9)
            found.append((e.space, self.key(i), -negative / s.total, rate, e.reads * known,
                          e.writes * known, bool(e.hot)))
        return found

    def take_events(self):
        """What has changed since the last call, as (kind, space, key, share).

        Kind is "hot" or "cool", and they take turns for a key. The share is the larger of the
        two windows'. A key that has cooled keeps its place until it was told here.
        """
        cdef Ranked* e
        events = []
        for row in range(self.sketch.used):
            e = self.sketch.table + <uint32_t>row
            if e.hot != e.event_told:
                e.event_told = e.hot
                events.append(("hot" if e.hot else "cool", e.space, self.key(row), e.share))
        return events

    def stats(self):
        """Counters, the state of sampling, and what the estimates are worth.

        An estimate is more than `error` too large with a probability of `error_probability`.
        """
        cdef Sketch* s = self.sketch
        return {
            "total": int(s.weight), "sampled": s.sampled, "interval": s.interval,
            "window_total": s.total, "admitted": s.admitted, "ranked": s.used,
            "hot": sum(s.table[i].hot for i in range(s.used)),
            "error": exp(1) / (1 << s.slow.bits) * s.total,
            "error_probability": exp(-<double>s.slow.depth), "memory": sketch_memory(s),
        }
