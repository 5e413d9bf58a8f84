"""One deliberate bug each: what to change where, and what has to notice.

`load` names the faults under which the checker is to see it; `tests` what pytest -k is given, for
bugs that no load of one user and one database can show. A text that is not found, or found more
than once, is an error: the source has moved on, and so must this table.
"""

from __future__ import annotations

from dataclasses import dataclass

CACHE = "sidecar/core/cache/serve.pyx"
PAST = "sidecar/core/cache/past.pyx"
FENCE = "sidecar/core/link/fence.pxd"
STORE = "sidecar/core/cache/store.pyx"
FILLS = "sidecar/core/cache/fill.pyx"
BARS = "sidecar/core/link/barrier.pyx"
LOOSE = "sidecar/core/link/barrier.pxd"
TRACKED = "sidecar/core/cache/tracked.pyx"
ASKED = "sidecar/core/cache/tracked_requests.pyx"
WATCHED = "sidecar/core/cache/slot_watch.pyx"
GATHERED = "sidecar/core/cluster/gather.pyx"
BRANCHES = "sidecar/core/cluster/branches.pyx"
SESSION = "sidecar/core/session/dispatch.pyx"
KEEPER = "sidecar/proxy/nearcache/keeper.py"
VERSION = "sidecar/policy/server_version.py"

CROSSED = ("requests delayed, and values on their way back",)
SLOW = ("tracked delayed", "tracked delayed more than shared", "shared delayed")
HELD = ("tracked held towards the sidecar", "tracked held, long", "tracked delayed, then held")


@dataclass(frozen=True)
class Bug:
    """A change to a copy of the source."""

    name: str
    file: str
    old: str
    new: str
    load: tuple[str, ...] = ()
    tests: str = ""


BUGS = (
    Bug(
        "own commands drop nothing",
        PAST,
        "            k.counts.dropped_here += drop_values(k, r, e != NULL and not entry_writes(e))",
        "            pass",
        load=SLOW,
    ),
    Bug(
        "stored although a command was under way",
        FILLS,
        "return not f.doomed and b.sets[bucket_of(v.key.hash)].begun == f.begun \\\n"
        "        and b.begun_all == f.begun_all",
        "return not f.doomed",
        load=CROSSED,
    ),
    Bug(
        "stored although invalidated while read",
        FILLS,
        "return not f.doomed and b.sets",
        "return b.sets",
        tests="test_a_key_changed_between_its_ttl_and_its_value",
    ),
    Bug(
        "commands under way when it was asked for are forgotten",
        FILLS,
        "barrier.pending != 0 or not settled(k, v.key))",
        "not settled(k, v.key))",
        load=CROSSED,
    ),
    Bug(
        "loose commands are not waited for",
        LOOSE,
        "    while b.epoch - since < 2 and",
        "    return True\n    while b.epoch - since < 2 and",
        tests="test_a_write_older_than_its_key_is_hot",
    ),
    Bug(
        "no lease",
        CACHE,
        "return k.core.clock < k.spaces[space].proved_at + bound",
        "return True",
        load=HELD,
        tests="test_a_shorter_staleness_for_some",
    ),
    Bug(
        "proved when answered, not when asked",
        TRACKED,
        "asked.at, asked.number)\n        if asked.check",
        "t.cache.core.clock, asked.number)\n        if asked.check",
        load=("tracked delayed, then held",),
        tests="test_a_proof_counts_from_when_it_was_asked_for",
    ),
    Bug(
        "TTL ignored",
        FILLS,
        "if ttl >= 0 and <uint64_t>ttl * 1000 < life:",
        "if False:",
        tests="test_logical_expiry",
    ),
    Bug(
        "pushes ignored",
        TRACKED,
        "        cache_drop_key(t.cache, c.arg, c.size, True)\n",
        "        pass\n",
        load=("tracked delayed",),
    ),
    Bug(
        "only the first key of a push",
        TRACKED,
        "        cache_drop_key(t.cache, c.arg, c.size, True)\n",
        "        cache_drop_key(t.cache, c.arg, c.size, True)\n        return 0\n",
        tests="test_an_invalidation_of_several_keys",
    ),
    Bug(
        "null pushes ignored",
        TRACKED,
        "        cache_drop_all(t.cache)\n        return 0",
        "        return 0",
        load=("FLUSHALL", "FLUSHDB"),
    ),
    Bug(
        "a lost connection's values stay",
        TRACKED,
        "    cache_drop_space(t.cache, t.space)",
        "    pass",
        load=("tracked link cut", "CLIENT KILL tracked"),
    ),
    Bug(
        "only the first key of a command",
        PAST,
        "    for i in range(count):\n        pass_key",
        "    for i in range(min(count, 1)):\n        pass_key",
        load=SLOW,
    ),
    Bug(
        "commands that mean all keys bar nothing",
        PAST,
        "    if count == KEYS_ANY or (c.id",
        "    if (c.id",
        load=("FLUSHALL", *SLOW),
    ),
    Bug(
        "a flush that is answered drops nothing",
        BARS,
        "        b.drop_all = True",
        "        pass",
        tests="test_permissions_changed",
    ),
    Bug(
        "hits go on while a flush is under way",
        CACHE,
        "    if k.core.barriers.drops_pending:",
        "    if False:",
        load=("FLUSHALL", *SLOW),
    ),
    Bug(
        "no fence",
        FENCE,
        "        b.fence = b.tracked_requests\n",
        "        pass\n",
        tests="test_nearcache_news",
    ),
    Bug(
        "a fence lasts until anything is answered",
        TRACKED,
        "space_proved(&t.cache.spaces[t.space], asked.at, asked.number)\n        if asked.check",
        "space_proved(&t.cache.spaces[t.space], asked.at, t.newest_request)\n"
        "        if asked.check",
        tests="test_nearcache_news",
    ),
    Bug(
        "reads behind a script are answered at once",
        CACHE,
        "    if s.telling_replies:\n",
        "    if False:\n",
        tests="test_reads_behind_a_script",
    ),
    Bug(
        "scripts tell nothing",
        PAST,
        "    if c.flags & COMMAND_TELLS:\n",
        "    if False:\n",
        tests="test_a_script_writes_what_it_does_not_name",
    ),
    Bug(
        "a transaction's bars end when it is queued",
        BARS,
        "cdef bint later = e.flags & ENTRY_IN_MULTI and not e.flags & ENTRY_LAST",
        "cdef bint later = False",
        load=SLOW,
        tests="test_a_transaction_bars_until_exec",
    ),
    Bug(
        "large requests pass unseen",
        SESSION,
        "        cache_pass_part(s.link, c, p, n)",
        "        pass",
        load=SLOW,
        tests="test_a_large_write",
    ),
    Bug(
        "clients named fresh are answered from here",
        SESSION,
        " and not s.fresh and not (",
        " and not (",
        load=SLOW,
    ),
    Bug(
        "errors are kept",
        FILLS,
        "    if p[0] == c'-' or p[0] == c'|' or p[0] == c'!':\n        k.counts",
        "    if False:\n        k.counts",
        tests="test_errors_are_never_cached",
    ),
    Bug(
        "one form for both protocols",
        CACHE,
        "if proto != 2 or v.resp2_size == 0:",
        "if True:",
        tests="test_one_value_serves_both_protocols",
    ),
    Bug(
        "users share their values",
        KEEPER,
        "(login.user, login.db)",
        "(None, login.db)",
        tests="test_nearcache_access",
    ),
    Bug(
        "everybody is answered from the first space",
        CACHE,
        "    if s.bypass_next:\n        s.bypass_next = False\n",
        "    s.space = 1\n    if s.bypass_next:\n        s.bypass_next = False\n",
        tests="test_databases_are_kept_apart",
    ),
    Bug(
        "databases share their values",
        KEEPER,
        "(login.user, login.db)",
        "(login.user, 0)",
        tests="test_databases_are_kept_apart",
    ),
    Bug(
        "changed permissions drop nothing",
        PAST,
        "count == KEYS_ANY or (c.id == k.acl_id and may_change_access(p, n)):",
        "count == KEYS_ANY:",
        tests="test_permissions_changed",
    ),
    Bug(
        "values of any size are kept",
        FILLS,
        "if n > k.value_max:",
        "if False:",
        tests="test_values_that_are_too_large",
    ),
    Bug(
        "a slot that has left is not noticed",
        WATCHED,
        "        space.slots[slot] = SLOT_STALE",
        "        pass",
        tests="test_a_slot_that_moves_and_comes_back",
    ),
    Bug(
        "what does not exist is kept, of a cluster",
        FILLS,
        "    if ttl == -2 and k.core.slots != NULL:",
        "    if False:",
        tests="test_what_does_not_exist_is_not_kept",
    ),
    Bug(
        "a cluster's heartbeat is PING",
        ASKED,
        "    if t.cache.spaces[t.space].slots == NULL or not has_beat_key(t):",
        "    if True:",
        tests="test_a_server_cut_off",
    ),
    Bug(
        "parts of a split command bar nothing",
        GATHERED,
        "        pass_request(l, x.command, buffer_head(&draft.request), "
        "buffer_size(&draft.request))",
        "        pass",
        tests="test_own_writes_are_seen",
    ),
    Bug(
        "reads overtake a request that has still to be sent again",
        BRANCHES,
        "    elif b.seen != slots.changes or s.redirected:",
        "    elif b.seen != slots.changes:",
        tests="test_a_write_that_waits",
    ),
    Bug(
        "no eviction",
        FILLS,
        "        evict(k, size)\n        if k.bytes + size > k.budget:\n            return NULL\n",
        "        pass\n",
        tests="test_memory_is_bounded",
    ),
    Bug(
        "old servers are used",
        VERSION,
        "return self._major >= OLDEST_TO_TRACK",
        "return True",
        tests="test_servers_that_are_too_old",
    ),
    Bug(
        "no single flight",
        CACHE,
        "return NOT_SERVED if fill_of(v).waiting_for_quiet and not has_time(s) else FILLING",
        "return NOT_SERVED",
        tests="test_a_stampede",
    ),
    Bug(
        "never is not heeded",
        STORE,
        "return not rule.never",
        "return True",
        tests="test_rules",
    ),
)
