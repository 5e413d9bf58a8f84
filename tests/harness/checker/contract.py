"""Did anybody see what the near cache's contract forbids? Pure: a history in, violations out.

Keys are judged one by one, each in one pass over its rows in the order of time. The state of the
pass is, for each site, the newest version that an operation of that site has written or returned:
whoever begins after that operation ended must not be told of an older one. A read gives

    own       through one sidecar: older than what an operation of the same sidecar, which had
              ended, wrote or returned (read-your-writes and monotonic reads, of all its clients)
    order     the same within one client's pipeline, in the order of its requests
    foreign   older than what somebody elsewhere was told more than `bound` before the read began
    expired   a value whose TTL was over
    strict    older than what anybody was told before, though no cache stands between (the server
              itself, a transaction, a client named `fresh`)
    unwritten a version that nobody had begun to write when the read ended
    garbled   a value that nobody wrote, or halves of two

and an increment `lost` (it returned less than was known before) or `twice` (two returned the
same), which are no failures of the cache, and show that the rest can be trusted.

"Absent" may be one of several versions. The read is accused only if none fits, and is taken for
the oldest that does, so that nothing later is accused wrongly. Cost: sorting, and a search.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .history import ABSENT, DIRECT, GARBLED, NEVER, PRESENT, UNKNOWN, WIPED, History, Kind

RULES = (
    "own", "order", "foreign", "expired", "strict", "unwritten", "garbled", "lost", "twice",
)  # fmt: skip

READ, WRITE, DELETE, EXPIRY, COUNT = (int(kind) for kind in Kind)
MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What is promised. Times in nanoseconds."""

    bound: int
    """max_staleness."""
    slack: int = 10 * MILLISECOND
    """Between a request's sending and the sidecar's look at its clock."""
    expiry_slack: int = 10 * MILLISECOND
    """Between two looks at the clock, each rounded to milliseconds."""
    bounds: Mapping[int, int] = field(default_factory=dict)
    """Sites whose bound is another."""
    handover: int = 0
    """Of a cluster: how long a server that has lost a slot may still answer reads of it, until it
    has heard of that. Who reads past a cache may then miss what others were told."""

    def of(self, site: int) -> int:
        """How long a foreign write may go unseen at a site, slack included."""
        return self.bounds.get(site, self.bound) + self.slack


@dataclass(frozen=True)
class Violation:
    """One row that breaks a rule, and the row that shows it (-1: none)."""

    rule: str
    row: int
    seen: int
    needed: int
    because: int
    late: int
    """Nanoseconds from when the newer version was known to the read's beginning."""


@dataclass
class Verdict:
    """What a check found."""

    operations: int = 0
    reads: int = 0
    violations: list[Violation] = field(default_factory=list)
    stale_at: array[int] = field(default_factory=lambda: array("q"))
    """For each write and each sidecar it did not go through: when it was known,"""
    stale_for: array[int] = field(default_factory=lambda: array("q"))
    """how long after that a read there began that did not see it,"""
    stale_site: array[int] = field(default_factory=lambda: array("B"))
    """and which sidecar."""

    def count(self) -> dict[str, int]:
        """Violations by rule."""
        found = [violation.rule for violation in self.violations]
        return {rule: found.count(rule) for rule in RULES if rule in found}


def check(history: History, limits: Limits) -> Verdict:
    """Judge a whole history."""
    verdict = Verdict()
    for key, rows in enumerate(history.rows_by_key()):
        _Key(history, key, rows, limits, verdict).judge()
    verdict.violations.sort(key=lambda violation: history.begin[violation.row])
    return verdict


class _Key:
    """The pass over one key."""

    def __init__(
        self, history: History, key: int, rows: Sequence[int], limits: Limits, verdict: Verdict
    ) -> None:
        self.h, self.limits, self.verdict = history, limits, verdict
        self.counter = key in history.counters
        closed = history.closed.get(key, NEVER)
        kind, end = history.kind, history.end
        self.rows = rows
        self.done = [r for r in rows if end[r] < closed and kind[r] != EXPIRY]
        self.first: dict[int, int] = {0: 0}
        self._learn_versions(rows)
        # Per site: the newest version known there, and the row that told it.
        self.known: dict[int, tuple[int, int]] = {}
        self.everywhere = (0, -1)
        self.by_client: dict[int, tuple[int, int]] = {}
        # Each step of `everywhere`, and for each site how far its bound lets it look.
        self.steps_end: list[int] = []
        self.steps: list[tuple[int, int]] = []
        self.looked: dict[tuple[int, int], int] = {}
        self.expired = (0, -1)
        self.needs: dict[int, tuple[int, int, str]] = {}
        self.counted: set[int] = set()
        self.seen_by: dict[int, list[tuple[int, int]]] = {}

    def _learn_versions(self, rows: Sequence[int]) -> None:
        """When each version began to be possible; which are absence, which a value."""
        h = self.h
        absent, present = [0], list[int]()
        begun, expiries = list[int](), list[int]()
        for row in rows:
            kind, version = h.kind[row], h.version[row]
            if kind == READ:
                continue
            if kind == COUNT:
                begun.append(h.begin[row])
                if version != UNKNOWN:
                    self.first.setdefault(version, h.begin[row])
                continue
            self.first[version] = h.begin[row]
            (present if kind == WRITE else absent).append(version)
            if kind == EXPIRY and h.end[row] != NEVER:
                expiries.append(row)
        self.absent, self.present = sorted(absent), sorted(present)
        self.begun = sorted(begun)
        self.expiries = sorted(expiries, key=lambda row: h.end[row])
        self.expiry_at = 0

    def judge(self) -> None:
        """The pass, and what it tells of staleness."""
        h = self.h
        begins = sorted(self.done, key=h.begin.__getitem__)
        ends = sorted(self.done, key=h.end.__getitem__)
        ends = ends[: bisect_left(ends, NEVER, key=h.end.__getitem__)]
        at, most = 0, len(begins)
        begin, end = h.begin, h.end
        for row in ends:
            limit = end[row]
            # At the same moment: begun first, so that neither is taken for the other's past.
            while at < most and begin[begins[at]] <= limit:
                self._begun(begins[at])
                at += 1
            self._ended(row)
        self.verdict.operations += len(ends)
        for site, reads in self.seen_by.items():
            self._measure(site, reads)

    # One operation

    def _begun(self, row: int) -> None:
        """What an operation that begins now must not be older than."""
        h = self.h
        kind, site, begin = h.kind[row], h.site[row], h.begin[row]
        if kind in (WRITE, DELETE):
            return
        expiries = self.expiries
        while self.expiry_at < len(expiries):
            gone = expiries[self.expiry_at]
            if h.end[gone] + self.limits.expiry_slack >= begin:
                break
            if h.version[gone] > self.expired[0]:
                self.expired = (h.version[gone], gone)
            self.expiry_at += 1
        past = site == DIRECT or h.strict[row]
        if kind == COUNT or (past and not self.limits.handover):
            needed, because = self.everywhere
            rule = "lost" if kind == COUNT else "strict"
        else:
            needed, because = self.known.get(site, (0, -1))
            rule = "strict" if past else "own"
            limit = self.limits.handover if past else self.limits.of(site)
            late = self._elsewhere(site, begin, limit)
            if late[0] > needed:
                needed, because = late
                rule = "strict" if past else "foreign"
        if self.expired[0] > needed:
            needed, because = self.expired
            rule = "expired"
        self.needs[row] = (needed, because, rule)

    def _elsewhere(self, site: int, begin: int, within: int) -> tuple[int, int]:
        """The newest version anybody was told longer ago than that."""
        limit = begin - within
        at = self.looked.get((site, within), 0)
        while at < len(self.steps_end) and self.steps_end[at] < limit:
            at += 1
        self.looked[site, within] = at
        return self.steps[at - 1] if at else (0, -1)

    def _ended(self, row: int) -> None:
        h = self.h
        kind, version = h.kind[row], h.version[row]
        if kind == READ:
            self.verdict.reads += 1
            version = self._read(row, version)
            if version < 0:
                return
        elif kind == COUNT:
            self._increment(row, version)
        site, end = h.site[row], h.end[row]
        told = (version, row)
        if told[0] > self.known.get(site, (0, -1))[0]:
            self.known[site] = told
        if told[0] > self.by_client.get(h.client[row], (0, -1))[0]:
            self.by_client[h.client[row]] = told
        if told[0] > self.everywhere[0]:
            self.everywhere = told
            self.steps_end.append(end)
            self.steps.append(told)

    def _increment(self, row: int, version: int) -> None:
        needed, because, rule = self.needs.pop(row)
        if version in self.counted:
            self._accuse("twice", row, version, version, -1)
        elif version <= needed:
            self._accuse(rule, row, version, needed, because)
        self.counted.add(version)

    def _read(self, row: int, seen: int) -> int:
        """Judge a read: the version it is taken for, negative if that is not known."""
        h = self.h
        needed, because, rule = self.needs.pop(row)
        mine = self.by_client.get(h.client[row])
        if mine is not None and mine[0] > needed:
            needed, because = mine
            rule = "order"
        end = h.end[row]
        if seen >= 0:
            version = seen
            possible = self._possible(seen, end)
        elif seen == GARBLED:
            self._accuse("garbled", row, seen, needed, because)
            return -1
        else:
            version, possible = self._one_of(seen, needed, end)
        if not possible:
            self._accuse("unwritten", row, seen, needed, because)
            return -1
        if version < needed:
            self._accuse(rule, row, seen, needed, because)
        if h.site[row] != DIRECT and not h.strict[row]:
            self.seen_by.setdefault(h.site[row], []).append((h.begin[row], version))
        return version

    def _possible(self, version: int, end: int) -> bool:
        """Whether somebody had begun to write this version by then."""
        begun = self.first.get(version)
        if begun is not None:
            return begun <= end
        # An increment that was not acknowledged, but happened; or one whose reply is under way.
        return self.counter and version <= bisect_right(self.begun, end)

    def _one_of(self, seen: int, needed: int, end: int) -> tuple[int, bool]:
        """The oldest version of this class that is not too old; if none is, the newest."""
        if seen == PRESENT and self.counter:
            return max(needed, 1) if needed < WIPED else 1, bool(self.begun)
        versions = self.absent if seen == ABSENT else self.present
        at = bisect_left(versions, needed)
        if at < len(versions) and self.first[versions[at]] <= end:
            return versions[at], True
        return (versions[at - 1], True) if at else (-1, False)

    def _accuse(self, rule: str, row: int, seen: int, needed: int, because: int) -> None:
        late = self.h.begin[row] - self.h.end[because] if because >= 0 else 0
        self.verdict.violations.append(Violation(rule, row, seen, needed, because, late))

    # Staleness

    def _measure(self, site: int, reads: list[tuple[int, int]]) -> None:
        """For each write elsewhere: how long after it was known somebody here began a read that
        did not see it."""
        h = self.h
        writes = []
        for row in self.rows:
            kind = h.kind[row]
            if kind in (WRITE, DELETE, COUNT) and h.site[row] != site and h.end[row] != NEVER:
                writes.append(h.version[row])
        writes.sort()
        newest = [version for version, _ in self.steps]
        reads.sort(reverse=True)
        last_read = reads[0][0]
        at = len(writes)
        for begin, version in reads:
            while at and writes[at - 1] > version:
                at -= 1
                step = bisect_left(newest, writes[at])
                if step < len(newest) and self.steps_end[step] < last_read:
                    self._late(site, self.steps_end[step], begin)
        for version in writes[:at]:
            step = bisect_left(newest, version)
            if step < len(newest) and self.steps_end[step] < last_read:
                self._late(site, self.steps_end[step], 0)

    def _late(self, site: int, known: int, begin: int) -> None:
        self.verdict.stale_at.append(known)
        self.verdict.stale_for.append(max(0, begin - known))
        self.verdict.stale_site.append(site)
