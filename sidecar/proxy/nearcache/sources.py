"""The sources of a warm start: snapshot, fleet, a file of keys, SCAN.

A source that cannot be read is logged and left out: a warm start never fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog
from hiredis import pack_command

from sidecar.core.protocol.commands import CACHEABLE, CommandTable
from sidecar.policy.warm_set import Entry, merge, parse_key_file, read_of
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import ServerConnection, is_error
from sidecar.proxy.nearcache.snapshot import Memory, OwnUser, parsed
from sidecar.settings.cache_rules import parse_rules
from sidecar.settings.sections.cache import Cache, Warm

log = structlog.get_logger()

# Seconds that reading one source may take.
SOURCE_TIME = 30.0
KEY_FILE_MOST = 64 << 20
# Keys in one request for their types, and COUNT of one SCAN.
CHUNK = 500
SCAN_STEP = 1000

Key = tuple[int, bytes]
"""(database, key)"""


class Sources:
    """Reads every configured source, as the sidecar's own user."""

    def __init__(
        self,
        memory: Memory,
        warm: Warm,
        cache: Cache,
        table: CommandTable,
        own: OwnUser,
    ) -> None:
        self._table = table
        self._own = own
        self._db = own.login().db
        self.memory = memory
        self.settings = warm
        self.cache = cache
        self._rules = parse_rules(cache.rules)

    async def gather(self, restored: Sequence[Entry]) -> tuple[list[Entry], dict[str, int]]:
        """The entries to load, the most important first, and how many each source gave."""
        found: dict[str, Sequence[Entry]] = {}
        if self.settings.snapshot:
            found["snapshot"] = restored
        if self.memory.fleet is not None:
            found["fleet"] = await self._read("fleet", self.memory.fleet.read)
        if self.settings.key_file:
            found["key_file"] = await self._read("key_file", self._named)
        if self.settings.scan:
            found["scan"] = await self._read("scan", self._scanned)
        return merge(found, self.settings.keys, self._may_cache)

    async def _read(self, name: str, read: Callable[[], Awaitable[list[Entry]]]) -> list[Entry]:
        try:
            async with asyncio.timeout(SOURCE_TIME):
                return await read()
        except (Refused, Unreachable, OSError) as error:
            if name == "fleet" and isinstance(error, Refused):
                self.memory.refused(error)
                return []
            reason = "it took too long" if isinstance(error, TimeoutError) else str(error)
            log.warning("warm start source ignored", source=name, reason=reason)
            return []

    async def _named(self) -> list[Entry]:
        text = await asyncio.to_thread(self._key_file)
        found = parse_key_file(text, self._cacheable)
        if found.wrong:
            log.warning("warm start lines ignored", first=found.wrong[0], all=len(found.wrong))
        return await self._typed(found.wants[: self.settings.keys])

    def _key_file(self) -> bytes:
        with open(self.settings.key_file, "rb") as file:
            return file.read(KEY_FILE_MOST)

    async def _scanned(self) -> list[Entry]:
        """Scan up to `scan_count` keys; takes at most as many as are to be loaded."""
        found: dict[Key, None] = {}
        left = self.settings.scan_count
        for shard in self._own.shards():
            left = await self._scan(shard, found, left)
        return await self._typed(list(found)[: self.settings.keys])

    async def _scan(self, shard: int | None, found: dict[Key, None], left: int) -> int:
        """Scan up to `left` keys of one node; returns how many are left to scan."""
        cursor = b"0"
        connection = await self._own.connect(shard)
        try:
            while left > 0 and len(found) < self.settings.keys:
                step = str(min(left, SCAN_STEP))
                words = (b"SCAN", cursor, b"MATCH", self.settings.scan, b"COUNT", step)
                cursor, keys = parsed(await connection.ask(pack_command(words)))[0]
                found.update(dict.fromkeys((self._db, key) for key in keys))
                left -= SCAN_STEP
                if cursor == b"0":
                    break
        finally:
            connection.close()
        return left

    async def _typed(self, wants: Sequence[Entry | Key]) -> list[Entry]:
        """Replace each bare key by the read that returns its whole value."""
        kinds: dict[Key, Entry | None] = {}
        at_shard: dict[int | None, list[Key]] = {}
        for want in wants:
            if not isinstance(want, Entry):
                at_shard.setdefault(self._own.shard_of(want[1]), []).append(want)
        for shard, bare in at_shard.items():
            connection = await self._own.connect(shard)
            try:
                kinds |= await self._read_kinds(connection, bare)
            finally:
                connection.close()
        found = [want if isinstance(want, Entry) else kinds.get(want) for want in wants]
        return [entry for entry in found if entry is not None]

    async def _read_kinds(
        self, connection: ServerConnection, bare: Sequence[Key]
    ) -> dict[Key, Entry | None]:
        """The read for each of these keys of one node, as `_kinds`."""
        kinds: dict[Key, Entry | None] = {}
        for db in dict.fromkeys(db for db, _ in bare):
            if not is_error((await connection.ask(pack_command((b"SELECT", str(db)))))[0]):
                keys = [key for place, key in bare if place == db]
                for at in range(0, len(keys), CHUNK):
                    kinds.update(await self._kinds(connection, db, keys[at : at + CHUNK]))
        return kinds

    async def _kinds(
        self, connection: ServerConnection, db: int, keys: Sequence[bytes]
    ) -> Iterator[tuple[Key, Entry | None]]:
        """The read for each key, by its type; None if there is none, or the value is too large."""
        requests = []
        for key in keys:
            requests.append(pack_command((b"TYPE", key)))
            requests.append(pack_command((b"MEMORY", b"USAGE", key)))
        replies = await connection.ask(*requests)

        def read(key: bytes, kind: bytes, size: bytes) -> Entry | None:
            small = not size.startswith(b":") or int(size[1:]) <= self.cache.max_value
            return read_of(kind[1:-2], db, key) if small else None

        answered = zip(keys, replies[::2], replies[1::2], strict=True)
        return (((db, key), read(key, kind, size)) for key, kind, size in answered)

    def _cacheable(self, command: bytes) -> bool:
        row = self._table.lookup(command)
        return row is not None and bool(row["flags"] & CACHEABLE)

    def _may_cache(self, entry: Entry) -> bool:
        """Whether the cache rules allow it."""
        key = entry.key
        rule = next((rule for rule in self._rules if key.startswith(rule.prefix)), None)
        if rule is None:
            return self.cache.mode != "rules"
        return not rule.never
