"""Keeps the warm set for the next start: in a snapshot file, and in a sorted set on the server that
the fleet shares. Keeps names of keys and reads, never values.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import hiredis
import structlog
from hiredis import pack_command

from sidecar.policy.warm_set import (
    Entry,
    HotSet,
    SnapshotError,
    decode,
    encode,
    from_member,
    member,
    score,
)
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.tracked_link import in_use
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection, is_error
from sidecar.proxy.nearcache.keeper import NearCacheKeeper
from sidecar.settings.sections.cache import Warm

log = structlog.get_logger()

# A longer file is no snapshot: this is a million entries of 256 bytes.
FILE_MOST = 256 << 20
# Members in one request: more would block the server for too long.
CHUNK = 500
# Seconds after which the fleet's set expires if nobody adds to it.
FLEET_TTL = 86400
# Slots of the cache, and entries, that are handled without yielding to the loop.
SLOTS = 512
TURN = 200
# Seconds that sharing may take when the sidecar stops.
LAST_TIME = 1.0


@dataclass(frozen=True)
class OwnUser:
    """The sidecar's own user: its login; `connect` opens a connection to a shard, by its number, or
    with None to the home node, and raises Refused and Unreachable; `bring_up` waits for its shared
    link and returns the error reply if that does not come up. `shards`: the numbers of all shards,
    and `shard_of`: that of a key's; None where the upstream is no cluster."""

    login: Callable[[], Login]
    connect: Callable[[int | None], Awaitable[ServerConnection]]
    bring_up: Callable[[], Awaitable[bytes | None]]
    shards: Callable[[], Sequence[int | None]]
    shard_of: Callable[[bytes], int | None]


class SnapshotFile:
    """The snapshot file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).absolute()

    def read(self) -> list[tuple[Entry, float]]:
        """Read what was saved. Raises SnapshotError, or OSError if it cannot be read."""
        if self.path.exists() and not self.path.is_file():
            raise SnapshotError("not a file")
        with self.path.open("rb") as file:
            data = file.read(FILE_MOST + 1)
        if len(data) > FILE_MOST:
            raise SnapshotError("too large for a snapshot")
        return decode(data)

    def write(self, data: bytes) -> None:
        """Replace the file's content by `data`, completely or not at all. Raises OSError."""
        folder = self.path.parent
        descriptor, fresh = tempfile.mkstemp(".tmp", f".{self.path.name}.", folder)  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh)
            raise
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


class Fleet:
    """The sorted set that the fleet shares: reads of the sidecars' own user, by score.

    `ZADD GT` keeps the highest score of each, so sidecars need not know each other.
    """

    def __init__(self, own: OwnUser, key: str, most: int) -> None:
        self._own = own
        self.key = key.encode()
        self.most = most

    async def _connect(self) -> ServerConnection:
        return await self._own.connect(self._own.shard_of(self.key))

    async def read(self) -> list[Entry]:
        """Read what the fleet uses most. Raises Refused and Unreachable."""
        request = pack_command((b"ZRANGE", self.key, b"0", str(self.most - 1), b"REV"))
        connection = await self._connect()
        try:
            found = parsed(await connection.ask(request))[0]
        finally:
            connection.close()
        return [entry for data in found if (entry := from_member(data)) is not None]

    async def share(self, entries: Sequence[Entry]) -> None:
        """Add what this sidecar uses, the most used first. Raises Refused and Unreachable."""
        connection = await self._connect()
        try:
            seconds, _ = parsed(await connection.ask(pack_command((b"TIME",))))[0]
            for request in self._requests(entries, float(seconds)):
                parsed(await connection.ask(request))
        finally:
            connection.close()

    def _requests(self, entries: Sequence[Entry], now: float) -> Iterator[bytes]:
        for at in range(0, len(entries), CHUNK):
            words: list[bytes | str] = [b"ZADD", self.key, b"GT"]
            for rank, entry in enumerate(entries[at : at + CHUNK], at):
                words += (repr(score(rank, now)), member(entry))
            yield pack_command(tuple(words))
        yield pack_command((b"ZREMRANGEBYRANK", self.key, b"0", str(-self.most - 1)))
        yield pack_command((b"EXPIRE", self.key, str(FLEET_TTL)))


class Memory:
    """Saves what the near cache uses. `others` are the snapshot files of the other workers: who
    connects again after a restart may reach any of them."""

    def __init__(
        self,
        plane: Plane,
        near: NearCacheKeeper,
        settings: Warm,
        own: OwnUser,
        others: Sequence[str] = (),
    ) -> None:
        self._table = plane.table
        self._near = near
        self._own_user = own.login().user
        self.interval = settings.interval
        self.most = settings.keys
        self.file = SnapshotFile(settings.snapshot) if settings.snapshot else None
        self._others = [SnapshotFile(path) for path in others] if self.file else []
        self.fleet = Fleet(own, settings.fleet_key, settings.keys) if settings.fleet else None
        self._hot_set = HotSet(settings.keys)
        self._restored = False
        self._saving = asyncio.Lock()
        self._failed = False

    async def restore(self) -> list[Entry]:
        """Read the last warm set, the most used first; a bad file is logged and ignored."""
        weights = await self._read(self.file) if self.file is not None else []
        if self._others:
            best = dict(weights)
            for file in self._others:
                for entry, weight in await self._read(file):
                    best[entry] = max(weight, best.get(entry, weight))
            weights = sorted(best.items(), key=itemgetter(1), reverse=True)[: self.most]
        self._hot_set.restore(weights, time.monotonic())
        self._restored = True
        return [entry for entry, _ in weights]

    async def _read(self, file: SnapshotFile) -> list[tuple[Entry, float]]:
        try:
            return await asyncio.to_thread(file.read)
        except FileNotFoundError:
            return []
        except (SnapshotError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            log.warning("warm snapshot ignored", reason=reason)
            return []

    async def keep(self) -> None:
        """Save at intervals. Ends only when there is nothing to save to."""
        while self.file is not None or self.fleet is not None:
            await asyncio.sleep(self.interval * random.uniform(0.9, 1.1))
            await self.save()

    async def save(self, *, last: bool = False) -> None:
        """Save what is in use now; `last`: the sidecar stops, so do it quickly."""
        in_use = await self._in_use()
        if self.file is not None:
            async with self._saving:
                await self._write(self.file, in_use)
        if self.fleet is not None:
            own = [entry for entry in in_use if entry.user is None]
            try:
                async with asyncio.timeout(LAST_TIME if last else self.interval):
                    await self.fleet.share(own)
            except Refused as error:
                self.refused(error)
            except (Unreachable, TimeoutError) as error:
                log.debug("warm fleet exchange failed", reason=str(error))

    def refused(self, error: Refused) -> None:
        """The server refuses the fleet's key: stop using it."""
        if self.fleet is None:
            return  # a second refusal of requests under way at the same time
        self.fleet = None
        log.warning("warm fleet disabled", reason=str(error))

    async def _in_use(self) -> list[Entry]:
        """What the near cache holds, the most used first. Yields to the loop in between."""
        found: list[tuple[int, int, str, bytes]] = []
        first = least = 0
        while (part := in_use(self._near.cache, self._table, first, SLOTS, least)) is not None:
            found += part
            if len(found) > self.most + TURN:
                least = 1 + _keep_best(found, self.most)
            first += SLOTS
            await asyncio.sleep(0)
        _keep_best(found, self.most)
        spaces = self._near.spaces.items()
        places = {part.number: key for key, space in spaces for part in space.parts.values()}
        entries = []
        for _, number, command, arguments in found:
            user, db = places[number]
            user = None if user == self._own_user else user
            entries.append(Entry(user, db, command.encode(), arguments))
            if len(entries) % TURN == 0:
                await asyncio.sleep(0)
        return entries

    async def _write(self, file: SnapshotFile, in_use: Sequence[Entry]) -> None:
        now = time.monotonic()
        for at in range(0, len(in_use), TURN):
            self._hot_set.seen(in_use[at : at + TURN], now, at)
            await asyncio.sleep(0)
        weights = self._hot_set.weights(now)
        if not self._restored or not weights:
            return  # keep the old file rather than an empty one
        try:
            await asyncio.to_thread(lambda: file.write(encode(weights)))
        except OSError as error:
            if not self._failed:
                log.error("warm snapshot save failed", reason=error.strerror or str(error))
            self._failed = True
        else:
            self._failed = False


def _keep_best(found: list[tuple[int, int, str, bytes]], most: int) -> int:
    """Keep the `most` most used; returns how often the last of them was used."""
    found.sort(key=itemgetter(0), reverse=True)
    del found[most:]
    return found[-1][0] if found else 0


def parsed(replies: Sequence[bytes]) -> list[Any]:
    """Replies as Python values. Raises Refused for the first error among them."""
    reader = hiredis.Reader()
    for reply in replies:
        if is_error(reply):
            raise Refused(reply)
        reader.feed(reply)
    return [reader.gets() for _ in replies]
