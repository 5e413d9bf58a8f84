# cython: language_level=3, cdivision=True
"""The near cache of one plane, as the control plane sees it: made, given rules, asked, emptied.

It owns the memory of the store (store.pxd). The data path does not come here: it serves values through
serve.pyx.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from sidecar.core.protocol.slots cimport SLOT_COUNT
from sidecar.core.cache.fill cimport draw_check
from sidecar.core.cache.proof cimport space_lost
from sidecar.core.cache.store cimport (CACHE_HOT, CACHE_OBSERVE, CACHE_RULES, Counts, KeyRecord,
    RULES_MAX, Rule, SPACES, Space, USED_MOST, Value, cache_drop_all, cache_drop_key, cache_drop_space,
    drop_values, drop_what_is_due, find_key, free_value, make_key, sidecar_hash, unlink_value,
    value_bytes)

cdef enum:
    SLOTS_LEAST = 1024      # chains of the tables, to begin with


def by_use(found):
    """Sorts what `dump` has found."""
    return found[:2]


cdef class NearCache:
    """The near cache of one plane, as the control plane sees it.

    NearCache(seed, *, mode, budget, value_max, staleness, ttl_max, ttl_missing): `mode` is
    "observe", "hot" or "rules"; sizes in bytes, times in seconds; `check` is the share of answers
    that are compared with the server's, from 1e-9 to 1, or 0.
    """

    def __cinit__(self, uint64_t seed, *, str mode, size_t budget, size_t value_max,
                  double staleness, double ttl_max, double ttl_missing, double check=0.0):
        cdef uint32_t slots = SLOTS_LEAST
        cdef Cache* k = <Cache*>calloc(1, sizeof(Cache))
        if k == NULL:
            raise MemoryError
        self.cache = k
        while slots < budget // 512 and slots < 1 << 24:
            slots *= 2
        k.keys = <KeyRecord**>calloc(slots, sizeof(KeyRecord*))
        k.values = <Value**>calloc(slots, sizeof(Value*))
        k.used = <uint32_t*>malloc(USED_MOST * sizeof(uint32_t))
        if k.keys == NULL or k.values == NULL or k.used == NULL:
            raise MemoryError
        k.slots, k.slots_max, k.mask = SLOTS_LEAST, slots, SLOTS_LEAST - 1
        k.seed = seed
        k.random = seed
        k.mode = {"observe": CACHE_OBSERVE, "hot": CACHE_HOT, "rules": CACHE_RULES}[mode]
        self.set_bounds(budget=budget, value_max=value_max, staleness=staleness, ttl_max=ttl_max,
                        ttl_missing=ttl_missing, check=check)
        k.spaces[0].used = True         # 0 is "none"

    def set_bounds(self, *, size_t budget, size_t value_max, double staleness, double ttl_max,
                   double ttl_missing, double check):
        """Change what the constructor was given. The values that are here were kept by other bounds: to
        be followed by `drop_all`, once the cache is in use."""
        cdef Cache* k = self.cache
        k.check_every = <uint32_t>(1 / check) if check > 0 else 0
        if k.check_every:
            draw_check(k)
        k.budget, k.value_max = budget, value_max
        k.staleness = <uint64_t>(staleness * 1e6)
        k.ttl_max, k.ttl_missing = <uint64_t>(ttl_max * 1e6), <uint64_t>(ttl_missing * 1e6)

    def forget_rules(self):
        """Take all rules back."""
        cdef Cache* k = self.cache
        cdef int i
        for i in range(k.rule_count):
            free(k.rules[i].prefix)
        k.rule_count = 0

    def __dealloc__(self):
        cdef int i
        cdef uint32_t slot
        cdef KeyRecord* r
        cdef Value* v
        cdef Cache* k = self.cache
        if k == NULL:
            return
        if k.keys != NULL and k.values != NULL:
            for slot in range(k.slots):
                while k.values[slot] != NULL:
                    v = k.values[slot]
                    unlink_value(k, v)
                    free_value(v)
                while k.keys[slot] != NULL:
                    r = k.keys[slot]
                    k.keys[slot] = r.next
                    free(r)
        for i in range(k.rule_count):
            free(k.rules[i].prefix)
        for i in range(SPACES):
            free(k.spaces[i].parts)
            free(k.spaces[i].slots)
        free(k.used)
        free(k.keys)
        free(k.values)
        free(k)

    cdef void attach(self, Core* core, Barriers* barriers, CommandTable table) noexcept:
        """Serve this core's sessions from now on. Its clock is set; `barriers`, all zero, outlive
        its links."""
        cdef Cache* k = self.cache
        k.core = core
        k.start = core.clock
        k.commands = table.commands
        k.get_id = table.find(b"get", 3).id
        k.geopos_id = table.find(b"geopos", 6).id
        k.zrank_id = table.find(b"zrank", 5).id
        k.zrevrank_id = table.find(b"zrevrank", 8).id
        k.acl_id = table.find(b"acl", 3).id
        core.barriers = barriers
        core.cache = <void*>k

    def rule(self, bytes prefix, *, bint never=False, double ttl=0.0, double staleness=0.0):
        """Add a rule for keys that begin with `prefix`; the first that fits counts.

        `ttl` and `staleness` in seconds, 0 for the cache's own; they can only be shorter.
        """
        cdef Rule* rule
        if self.cache.rule_count == RULES_MAX:
            raise ValueError(f"more than {RULES_MAX} rules")
        rule = &self.cache.rules[self.cache.rule_count]
        rule.size = len(prefix)
        rule.prefix = <char*>malloc(len(prefix) + 1)
        if rule.prefix == NULL:
            raise MemoryError
        memcpy(rule.prefix, <const char*>prefix, len(prefix))
        rule.never, rule.ttl = never, <uint64_t>(ttl * 1e6)
        rule.staleness = <uint64_t>(staleness * 1e6)
        self.cache.rule_count += 1

    def want(self, bytes key, bint yes):
        """Whether this key is one to be cached (hot, or to be warmed), where no rules say so."""
        cdef Cache* k = self.cache
        cdef const char* p = key
        if k.core == NULL:
            raise ValueError("no plane uses this near cache yet")
        cdef uint64_t hash = sidecar_hash(k.seed, p, len(key))
        cdef KeyRecord* r
        if k.mode == CACHE_RULES:
            return
        if yes:
            r = make_key(k, hash, p, len(key))
            if r != NULL:
                r.wanted = True
            return
        r = find_key(k, hash, p, len(key))
        if r != NULL:
            r.wanted = False
            k.counts.dropped_here += drop_values(k, r, False)

    def dump(self, table, size_t most):
        """What is here, the most used first: (space, command's name, its arguments' bytes), at
        most so many."""
        cdef Cache* k = self.cache
        cdef uint32_t i
        cdef Value* v
        found = []
        for i in range(k.slots):
            v = k.values[i]
            while v != NULL:
                if not v.reading and not v.large:
                    found.append((v.used, v.served, v.space, table.name(v.command),
                                  value_bytes(v)[:v.args_size]))
                v = v.next
        found.sort(key=by_use, reverse=True)
        return [(space, name, args) for _, _, space, name, args in found[:most]]

    def holds(self, bytes key):
        """How many values of this key are here."""
        cdef Cache* k = self.cache
        cdef KeyRecord* r = find_key(k, sidecar_hash(k.seed, key, len(key)), key, len(key))
        cdef Value* v
        cdef int count = 0
        if r != NULL:
            v = r.values
            while v != NULL:
                count += not v.reading and not v.large
                v = v.sibling
        return count

    def open_space(self):
        """A new space: its number, 0 when there are no more."""
        cdef int i
        for i in range(1, SPACES):
            if not self.cache.spaces[i].used:
                self.cache.spaces[i].used = True
                self.cache.spaces[i].proved_at = self.cache.spaces[i].answered_request = 0
                self.cache.spaces[i].link = NULL
                return i
        return 0

    def divide(self, uint16_t space, int shard, uint16_t part):
        """On a cluster, `space` serves the keys of this shard from `part`, a space of its own; 0: from
        none any more."""
        cdef Space* whole = &self.cache.spaces[space]
        cdef Space* of = &self.cache.spaces[part]
        cdef uint16_t* parts
        if shard >= whole.part_count:
            parts = <uint16_t*>realloc(whole.parts, (shard + 1) * sizeof(uint16_t))
            if parts == NULL:
                raise MemoryError
            memset(parts + whole.part_count, 0, (shard + 1 - whole.part_count) * sizeof(uint16_t))
            whole.parts, whole.part_count = parts, <uint16_t>(shard + 1)
        if part and of.slots == NULL:
            of.slots = <uint8_t*>calloc(SLOT_COUNT, 1)
            if of.slots == NULL:
                raise MemoryError
        whole.parts[shard] = part

    def close_space(self, uint16_t space):
        """Nobody uses this space any more."""
        cdef Space* of = &self.cache.spaces[space]
        self.drop_space(space)
        of.used = False
        free(of.parts)
        free(of.slots)
        of.parts, of.part_count, of.slots = NULL, 0, NULL

    def join_cluster(self, bint yes):
        """Whether the server belongs to a cluster: it then refuses reads of keys of several slots."""
        self.cache.in_cluster = yes

    def drop_all(self):
        """Drop every value."""
        cache_drop_all(self.cache)

    def drop_space(self, uint16_t space):
        """Drop every value of a space; nothing is proved of it any more."""
        space_lost(&self.cache.spaces[space])
        cache_drop_space(self.cache, space)

    def drop(self, bytes key):
        """Drop a key's values."""
        cache_drop_key(self.cache, key, len(key), False)

    def proof_age(self, uint16_t space, double now):
        """Seconds since the newest proof that the space has all invalidations; None without one."""
        cdef uint64_t proved = self.cache.spaces[space].proved_at
        return None if proved == 0 else now - <double>proved / 1e6

    @property
    def mismatches(self):
        """Values that were here and not what the server had, as far as it was asked."""
        return self.cache.counts.mismatched

    def snapshot(self):
        """Counters since the start, and what is here now."""
        if self.cache.core != NULL:
            drop_what_is_due(self.cache)
        cdef Counts* n = &self.cache.counts
        return {
            "entries": self.cache.count, "bytes": self.cache.bytes, "budget": self.cache.budget,
            "hits": n.hits, "observed_hits": n.ghost_hits, "fills": n.fills,
            "stored": n.stored, "evicted": n.evicted, "expired": n.expired,
            "flushed": n.flushed, "invalidated_here": n.dropped_here,
            "invalidated_pushed": n.dropped_pushed, "proof_waits": n.waited,
            "misses": {"cold": n.miss_cold, "lease": n.miss_lease, "barred": n.miss_barred,
                       "filling": n.miss_filling, "told": n.miss_told, "size": n.miss_size,
                       "error": n.miss_error, "bypassed": n.bypassed},
            "touched": n.touched,
            "checks": {"same": n.checked - n.mismatched, "different": n.mismatched},
        }
