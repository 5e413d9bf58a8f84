# cython: language_level=3
"""Whether a key fits a pattern, as the server judges it for KEYS and for ACL keys.

    *       any bytes, or none          [abc]   one of these
    ?       one byte                    [a-c]   one of a range, whichever end stands first
    \\x      x itself                    [^a]    one that is none of these

What a pattern leaves open is read as the server reads it: a class that is not closed ends with the
pattern, and a backslash at the end of the pattern stands for itself. The empty key alone is seen
differently: here a star fits it, for servers not always.

After a mismatch only the latest star is tried with one byte more: an earlier one could do no better.
So the time is at most the product of both lengths, where the server's own recursion takes longer.
"""


cdef bint in_class(const char* pattern, size_t m, size_t* at, unsigned char c) noexcept nogil:
    """Whether c is in the class whose '[' stands before pattern[at]; `at` goes behind its ']'."""
    cdef size_t i = at[0]
    cdef bint negated = i < m and pattern[i] == c'^'
    cdef bint found = False
    cdef unsigned char low, high
    i += negated
    while i < m and pattern[i] != c']':
        if pattern[i] == c'\\' and m - i >= 2:
            i += 1
            found |= <unsigned char>pattern[i] == c
        elif m - i >= 3 and pattern[i + 1] == c'-':
            low = <unsigned char>pattern[i]
            high = <unsigned char>pattern[i + 2]
            if low > high:
                low, high = high, low
            found |= low <= c <= high
            i += 2
        else:
            found |= <unsigned char>pattern[i] == c
        i += 1
    at[0] = i + 1 if i < m else m
    return found != negated


cdef bint glob_matches(const char* pattern, size_t m, const char* key, size_t n) noexcept nogil:
    """Whether key[0:n] fits pattern[0:m]."""
    cdef size_t i = 0
    cdef size_t k = 0
    cdef size_t star = 0        # behind the latest star,
    cdef size_t taken = 0       #   and the key's bytes up to where it ends
    cdef bint starred = False
    cdef bint fits
    while k < n or i < m:
        fits = False
        if i < m and pattern[i] == c'*':
            i += 1
            star, taken, starred = i, k, True
            continue
        if i < m and k < n:
            if pattern[i] == c'?':
                fits = True
                i += 1
            elif pattern[i] == c'[':
                i += 1
                fits = in_class(pattern, m, &i, <unsigned char>key[k])
            else:
                i += pattern[i] == c'\\' and m - i >= 2
                fits = pattern[i] == key[k]
                i += 1
            k += 1
        if fits:
            continue
        if not starred or taken == n:
            return False
        taken += 1
        i, k = star, taken
    return True


def matches(bytes pattern, bytes key):
    """Whether a key fits a pattern, as KEYS and ACL patterns of the server have it."""
    return glob_matches(pattern, len(pattern), key, len(key))
