"""What the hashes of the sketch and of the near cache are made of.

Keys are a client's bytes, so every hash has a seed that nobody outside knows.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

cdef extern from * nogil:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    /* Both halves of a 128-bit product, folded; where the compiler has none, from four halves. */
    static inline uint64_t sidecar_fold(uint64_t a, uint64_t b) {
    #ifdef __SIZEOF_INT128__
        unsigned __int128 r = (unsigned __int128)a * b;
        return (uint64_t)r ^ (uint64_t)(r >> 64);
    #else
        uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
        uint64_t low = al * bl, mid = ah * bl + (low >> 32), mid2 = al * bh + (uint32_t)mid;
        return ((mid2 << 32) | (uint32_t)low) ^ (ah * bh + (mid >> 32) + (mid2 >> 32));
    #endif
    }
    /* The words read may lie at any address. */
    static inline uint64_t sidecar_word(const char *p) {
        uint64_t v; memcpy(&v, p, 8); return v;
    }
    static inline uint64_t sidecar_half(const char *p) {
        uint32_t v; memcpy(&v, p, 4); return v;
    }
    static inline uint64_t sidecar_hash(uint64_t seed, const char *p, size_t n) {
        const uint64_t k = 0x9e3779b97f4a7c15ull;
        uint64_t h = seed ^ (n * k), w = 0;
        for (; n >= 8; p += 8, n -= 8)
            h = sidecar_fold(h ^ sidecar_word(p), k ^ seed);
        memcpy(&w, p, n);
        h = sidecar_fold(h ^ w, k ^ seed);
        return sidecar_fold(h, seed ^ k);
    }
    """
    uint64_t sidecar_fold(uint64_t a, uint64_t b)
    uint64_t sidecar_word(const char* p)
    uint64_t sidecar_half(const char* p)
    uint64_t sidecar_hash(uint64_t seed, const char* p, size_t n)
