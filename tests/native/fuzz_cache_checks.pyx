# cython: language_level=3
"""What must hold of a near cache's own records (see fuzz_cache_world.pyx): for tests only."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memset
from sidecar.core.cache.store cimport (CACHE_RULES, Cache, KeyRecord, NamedKey, Value, block,
    slot_of, value_size)
from sidecar.core.link.barrier cimport bucket_of
from sidecar.core.records cimport BUCKETS_OF_KEYS, Barriers


cdef int check_barriers(const Barriers* b) except -1:
    """Nothing is under way: nothing is barred."""
    cdef int i
    if b.pending_all or b.loose[0] or b.loose[1]:
        raise AssertionError(f"barred: {b.pending_all}, loose: {b.loose[0]}, {b.loose[1]}")
    for i in range(BUCKETS_OF_KEYS):
        if b.sets[i].pending or b.sets[i].writing:
            raise AssertionError(f"bucket {i} is barred")
    return 0


cdef int check_store(Cache* k, const Barriers* b) except -1:
    """Count the store over: what it holds, and what it says of itself."""
    cdef uint8_t[BUCKETS_OF_KEYS] known     # records by bucket
    cdef KeyRecord* r
    cdef Value* v
    cdef uint32_t slot
    cdef uint32_t count = 0
    cdef uint32_t of_keys = 0
    cdef size_t size = 0
    memset(known, 0, sizeof(known))
    for slot in range(k.slots):
        v = k.values[slot]
        while v != NULL:
            if slot_of(k, v.hash) != slot:
                raise AssertionError("a value lies in another's chain")
            count += 1
            size += value_size(v)
            v = v.next
        r = k.keys[slot]
        while r != NULL:
            if slot_of(k, r.hash) != slot:
                raise AssertionError("a record lies in another's chain")
            if r.values == NULL and not r.wanted:
                raise AssertionError("a record is of no use")
            known[bucket_of(r.hash)] += 1
            size += block(sizeof(KeyRecord)) if k.mode == CACHE_RULES \
                else block(sizeof(NamedKey) + (<NamedKey*>r).size)
            v = r.values
            while v != NULL:
                if v.key != r:
                    raise AssertionError("a value is of another key")
                of_keys += 1
                v = v.sibling
            r = r.next
    if count != k.count or of_keys != count:
        raise AssertionError(f"{k.count} values, {count} in chains, {of_keys} of keys")
    if size != k.bytes:
        raise AssertionError(f"{k.bytes} bytes by its own account, {size} counted")
    if memcmp(known, b.known, sizeof(known)) != 0:
        raise AssertionError("records that are not known, or known ones that are not there")
    return 0
