# cython: language_level=3
"""Counters and latency histograms of the data path.

They are plain C numbers, which the data path writes and the shell reads. Latencies are counted in
buckets that end at 2**e and 1.5 * 2**e microseconds, up to 2**23 us (8.4 s), and one beyond.
"""

cdef int latency_bucket(uint32_t us) noexcept nogil:
    """The bucket for a latency: bucket b holds (bound(b - 1), bound(b)] microseconds."""
    cdef int e = 0
    cdef uint32_t v
    cdef uint32_t rest
    if us <= 1:
        return 0
    v = rest = us - 1
    while rest >= 256:
        rest >>= 8
        e += 8
    while rest > 1:
        rest >>= 1
        e += 1
    # 2**e <= v < 2**(e+1); the bit below the leading one tells the halves apart.
    e = 2 * e + (2 if e == 0 or v >> (e - 1) & 1 else 1)
    return e if e < BUCKETS - 1 else BUCKETS - 1


def bucket_bounds():
    """Upper bounds of the buckets in seconds; the last bucket has none (infinity)."""
    bounds = [1e-6]
    for b in range(1, BUCKETS - 1):
        e, upper = divmod(b - 1, 2)
        bounds.append((2.0 ** (e + 1) if upper else 1.5 * 2.0 ** e) * 1e-6)
    return bounds


def bucket_of(uint32_t us):
    """The bucket a latency of `us` microseconds is counted in."""
    return latency_bucket(us)
