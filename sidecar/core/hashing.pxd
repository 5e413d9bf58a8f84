"""Hashes and chance: one hash for keys, one generator of random numbers.

Keys are a client's bytes, so every hash has a seed that nobody outside knows. The hash folds 128-bit
products, as the wyhash family does. Words of the key are XORed with the seed first: so a chosen word
never meets a known one, and nobody can choose keys that collide.
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
    /* The ends of p[0:n] as two words: the first and last 8 or 4 bytes. They may overlap, so that no
       byte beyond p[0:n] is read; up to 16 bytes are all in them. */
    static inline void sidecar_ends(const char *p, size_t n, uint64_t *first, uint64_t *last) {
        const char *end = p + n;
        *first = *last = 0;
        if (n >= 8) {
            *first = sidecar_word(p);
            *last = sidecar_word(end - 8);
        } else if (n >= 4) {
            *first = sidecar_half(p);
            *last = sidecar_half(end - 4);
        } else if (n) {
            *first = (uint64_t)(unsigned char)p[0] << 16
                | (uint64_t)(unsigned char)p[n >> 1] << 8 | (unsigned char)end[-1];
        }
    }
    /* Of a name, whatever its case. Names that are equal in length and at both ends collide. */
    static inline uint64_t sidecar_name_hash(uint64_t seed, const char *p, size_t n) {
        const uint64_t lower = 0x2020202020202020ull;
        uint64_t first, last;
        sidecar_ends(p, n, &first, &last);
        return sidecar_fold((first | lower) ^ 0x9e3779b97f4a7c15ull, (last | lower) ^ seed ^ n);
    }
    /* Every byte is in the words folded; the length tells apart the rest. */
    static inline uint64_t sidecar_hash(uint64_t seed, const char *p, size_t n) {
        const uint64_t secret = seed ^ 0x9e3779b97f4a7c15ull, last = seed ^ 0xd1b54a32d192ed03ull;
        const char *end = p + n;
        uint64_t h = seed, a = 0, b = 0;
        if (n > 16) {
            for (; end - p > 16; p += 16)
                h = sidecar_fold(sidecar_word(p) ^ secret, sidecar_word(p + 8) ^ h);
            a = sidecar_word(end - 16);
            b = sidecar_word(end - 8);
        } else {
            sidecar_ends(p, n, &a, &b);
        }
        h = sidecar_fold(a ^ secret, b ^ h);
        return sidecar_fold(h ^ last, secret ^ n);
    }
    """
    uint64_t sidecar_fold(uint64_t a, uint64_t b)
    uint64_t sidecar_hash(uint64_t seed, const char* p, size_t n)
    uint64_t sidecar_name_hash(uint64_t seed, const char* p, size_t n)


cdef inline uint64_t next_random(uint64_t* state) noexcept nogil:
    """splitmix64: also makes secrets of seeds, so that seeds close together give unlike ones."""
    cdef uint64_t x
    state[0] += <uint64_t>11400714819323198485
    x = state[0]
    x = (x ^ (x >> 30)) * <uint64_t>13787848793156543929
    x = (x ^ (x >> 27)) * <uint64_t>10723151780598845931
    return x ^ (x >> 31)
