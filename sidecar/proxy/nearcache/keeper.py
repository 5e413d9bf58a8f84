"""The near cache's shell: one tracked link for each (user, database) in use.

The core stores and serves the values (core/cache/serve.pyx, core/cache/tracked.pyx). The keeper
opens tracked links, sends heartbeats, and ends the generation whenever the server may have changed
(`reset`): no value outlives the connection that it was read on.

Gets connections from the node's dialer; knows no other links and no session commands.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog
from hiredis import pack_command

from sidecar.core.cache.near_cache import NearCache
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.io.tracked_link import TrackedLink
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import Login, ServerConnection, is_error, with_newest
from sidecar.proxy.links.hello_reply import version_of
from sidecar.proxy.links.identity import Identity
from sidecar.proxy.links.node import Nodes
from sidecar.proxy.nearcache.space import Space, SpaceKey
from sidecar.proxy.tasks import Tasks, for_each
from sidecar.settings.cache_rules import parse_rules
from sidecar.settings.sections.cache import Cache
from sidecar.telemetry import snapshots

log = structlog.get_logger()

TRACKING = pack_command((b"CLIENT", b"TRACKING", b"ON"))
# Heartbeats within one max_staleness: the cache does not suffer if one is late.
BEATS = 5
# Seconds within which losses are told in one line.
TOGETHER = 0.1
# Seconds until the server is asked again after it refused a user.
REFUSED_FOR = 60.0


class NearCacheKeeper:
    """Keeps the near cache of one data plane."""

    def __init__(
        self, plane: Plane, nodes: Nodes, tasks: Tasks, settings: Cache, seed: int
    ) -> None:
        self._plane = plane
        self._nodes = nodes
        self._tasks = tasks
        self.settings = settings
        self.cache = NearCache(
            seed,
            mode=settings.mode,
            budget=settings.memory,
            value_max=settings.max_value,
            staleness=settings.max_staleness,
            ttl_max=settings.max_ttl,
            ttl_missing=settings.negative_ttl,
            check=settings.check,
        )
        self.beat_every = self._use_rules(settings)
        plane.use_cache(self.cache)
        self.spaces: dict[SpaceKey, Space] = {}
        self._new_space: list[Callable[[SpaceKey], None]] = []
        self.usable = True
        self._emptied: list[tuple[Space, str]] = []  # and not logged yet
        self.lost = 0

    def try_again(self) -> None:
        """Use the cache again if the server was too old: it may be another one by now."""
        if not self.usable:
            self.usable = True
            for_each(self._plane.clients, lambda client: self.join(client, client.identity))

    def _use_rules(self, settings: Cache) -> float:
        """Take the rules over; returns how often heartbeats are needed, in seconds."""
        rules = parse_rules(settings.rules)
        for rule in rules:
            self.cache.rule(
                rule.prefix, never=rule.never, ttl=rule.max_ttl, staleness=rule.max_staleness
            )
        shorter = [rule.max_staleness for rule in rules if rule.max_staleness]
        return min([settings.max_staleness, *shorter]) / BEATS

    def use(self, settings: Cache) -> None:
        """Keep values by these settings from now on; those that are here go. The mode stays."""
        if settings == self.settings:
            return
        self.settings = settings
        self.cache.set_bounds(
            budget=settings.memory,
            value_max=settings.max_value,
            staleness=settings.max_staleness,
            ttl_max=settings.max_ttl,
            ttl_missing=settings.negative_ttl,
            check=settings.check,
        )
        self.cache.forget_rules()
        self.beat_every = self._use_rules(settings)
        self.flush()

    def begin(self) -> None:
        """Start to send heartbeats."""
        self._tasks.spawn(self._beat())

    def watch_spaces(self, told: Callable[[SpaceKey], None]) -> None:
        """Call `told` with the key of each new space."""
        self._new_space.append(told)

    def want(self, key: bytes, worth: bool) -> None:
        """Cache this key from now on, or no longer."""
        self.cache.want(key, worth)

    def holds(self, key: bytes) -> bool:
        """Whether any value of this key is cached."""
        return self.cache.holds(key) > 0

    def flush(self) -> int:
        """Drop everything; returns how many values there were."""
        entries: int = self.cache.snapshot()["entries"]
        self.cache.drop_all()
        return entries

    # Clients

    def join(self, client: Client, identity: Identity) -> None:
        """A client joined this identity."""
        self.leave(client)
        space = self._space(identity.login) if self._may_read(identity) else None
        if space is None:
            return
        if identity.own_login:
            space.login = replace(identity.login, proto=3)
        was_needed = space.needed
        space.clients.add(client)
        client.use_space(space.number, identity.login.proto)
        self._connect(space)
        if space.link is not None and not was_needed:
            space.link.beat()

    def _may_read(self, identity: Identity) -> bool:
        """Whether the server takes its commands. It may ask for a login by now; those who began in
        the first era need none."""
        links = identity.to(self._nodes.home)
        return not identity.login.era or (links.greeted is not None and links.authenticated)

    def log_in(self, request: bytes) -> int:
        """Send an AUTH down the tracked links of the sidecar's own user; returns how many."""
        mine = [space for space in self.spaces.values() if space.login.source is not None]
        links = [space.link for space in mine if space.link is not None]
        for_each(links, lambda link: link.log_in(request))
        return len(links)

    def hold(self, login: Login) -> Space | None:
        """Keep the space of a login even without clients, until `let_go`; None if there is none."""
        space = self._space(login)
        if space is not None:
            space.held += 1
            self._connect(space)
        return space

    def let_go(self, space: Space) -> None:
        """Undo one `hold`."""
        space.held -= 1

    def forget_spaces(self) -> None:
        """Begin anew, without any space; clients are to join again."""
        for_each(self._plane.clients, self.leave)
        for key in list(self.spaces):
            self._close_space(key)

    def _close_space(self, key: SpaceKey) -> None:
        space = self.spaces.pop(key)
        space.closed = True
        space.end()
        space.lost.set()
        self.cache.close_space(space.number)

    def _space(self, login: Login) -> Space | None:
        """The space of a login, made if it is new; None if all there may be are in use."""
        key = (login.user, login.db)
        space = self.spaces.get(key)
        if space is None and self.usable and (number := self._number()):
            space = self.spaces[key] = Space(number, replace(login, proto=3))
            for_each(self._new_space, lambda told: told(key))
        return space if self.usable else None

    def _number(self) -> int:
        """The number of a new space. If need be, one that nobody uses makes room. 0: none."""
        number: int = self.cache.open_space()
        if number == 0:
            unused = (key for key, each in self.spaces.items() if not each.needed)
            if (key := next(unused, None)) is not None:
                self._close_space(key)
                number = self.cache.open_space()
        return number

    def leave(self, client: Client) -> None:
        """A client leaves its identity."""
        self.forget(client)
        client.use_space(0, 2)

    def forget(self, client: Client) -> None:
        """A client has gone."""
        for space in self.spaces.values():
            space.clients.discard(client)

    # Connections

    def reset(self, reason: str) -> None:
        """The server has changed, or may have: drop all that was read."""
        links = [space.link for space in self.spaces.values() if space.link is not None]
        for_each(links, lambda link: link.lose(reason))

    def make_room(self) -> bool:
        """Close the tracked link of a space without clients; False if there is none."""
        unused = (each for each in self.spaces.values() if each.link and not each.needed)
        if (space := next(unused, None)) is not None:
            space.end()
            space.lost.set()
        return space is not None

    def _connect(self, space: Space) -> None:
        if space.task is None or space.task.done():
            space.task = self._tasks.spawn(self._keep(space))

    async def _keep(self, space: Space) -> None:
        """Keep a tracked link for as long as the space is needed."""
        dialer = self._nodes.home.dialer
        attempt = 0
        while space.needed and self.usable and not self._tasks.closing:
            if self._nodes.home.room.short:  # clients' links come first
                await asyncio.sleep(random.uniform(1, 10))
                continue
            try:
                connection = await with_newest(space.login, lambda: self._open(space.login))
            except Refused as error:
                space.refused = True
                log.warning("near cache tracking refused", user=space.user, error=str(error))
                await asyncio.sleep(REFUSED_FOR)
            except Unreachable:
                await asyncio.sleep(dialer.backoff.delay(attempt, random.random()))
                attempt += 1
            else:
                if connection is None:
                    return
                if space.closed:  # meanwhile: its number is another's by now
                    connection.close()
                    return
                attempt = 0
                try:
                    await self._use(space, connection)
                except (OSError, MemoryError) as error:  # it cannot be watched
                    connection.close()
                    log.error("internal error", error=repr(error), exc_info=error)
                    await asyncio.sleep(dialer.backoff.delay(attempt, random.random()))
        space.end()

    async def _use(self, space: Space, connection: ServerConnection) -> None:
        """Use this connection as the tracked link until it is lost."""
        space.refused = False
        space.lost.clear()
        space.heard = (-1, time.monotonic())
        space.link = TrackedLink(
            self._plane, space.number, connection.sock, connection.tls, space, self._lost
        )
        space.server_id = connection.server_id
        space.link.beat()
        await space.lost.wait()
        if space.refused:
            await asyncio.sleep(REFUSED_FOR)

    async def _open(self, login: Login) -> ServerConnection | None:
        """Open a connection and turn tracking on; None if the server is too old."""
        dialer = self._nodes.home.dialer
        connection = await dialer.reach()
        greeted = await dialer.greet(connection, login)
        if not version_of(greeted.hello).can_track:
            connection.close()
            if not self.usable:
                return None
            self.usable = False
            log.warning("near cache disabled", reason="it needs Redis 7 or later, or Valkey")
            return None
        reply = (await connection.ask(TRACKING))[0]
        if is_error(reply):
            connection.close()
            raise Refused(reply)
        if connection.target is not dialer.target:
            connection.close()
            raise Unreachable("the master has changed")
        return connection

    def _lost(self, link: TrackedLink, reason: str) -> None:
        space = link.owner
        assert isinstance(space, Space)
        if space.link is link:
            space.link = None
        self.lost += 1
        space.refused = link.refused
        if not self._emptied:
            asyncio.get_running_loop().call_later(TOGETHER, self._tell_emptied)
        self._emptied.append((space, reason))
        space.lost.set()

    def _tell_emptied(self) -> None:
        """One line for all that were lost together: usually it is the server that is gone."""
        lost, self._emptied = self._emptied, []
        space, reason = lost[0]
        log.info(
            "near cache emptied",
            user=space.user,
            db=space.login.db,
            reason=reason,
            spaces=len(lost),
        )

    async def _beat(self) -> None:
        silence = 2 * self.settings.max_staleness
        mismatches = 0
        while not self._tasks.closing:
            await asyncio.sleep(self.beat_every)
            now = time.monotonic()
            found = self.cache.mismatches
            if found != mismatches:
                log.error("near cache check failed", values=found - mismatches)
                mismatches = found
            for_each(self.spaces.values(), partial(self._beat_one, now=now, silence=silence))

    def _beat_one(self, space: Space, now: float, silence: float) -> None:
        link = space.link
        if link is None or not space.needed:
            return
        if link.received != space.heard[0]:
            space.heard = (link.received, now)
        elif link.pending and now - space.heard[1] > silence:
            link.lose(f"silent for {silence:g} s")
            return
        link.beat()

    def send_queued(self) -> None:
        """Send what was queued on the tracked links."""
        for space in self.spaces.values():
            if space.link is not None:
                space.link.flush()

    def server_ids(self) -> set[int]:
        """The ids, on the server, of the tracked links."""
        return {space.server_id for space in self.spaces.values() if space.link is not None}

    def close(self) -> None:
        """Close every tracked link."""
        for_each(self.spaces.values(), lambda space: space.end())

    def snapshot(self) -> snapshots.Cache:
        """Counters and gauges."""
        counts = self.cache.snapshot()
        return snapshots.Cache(
            mode=self.settings.mode if self.usable else "unavailable",
            entries=counts["entries"],
            bytes=counts["bytes"],
            limit_bytes=counts["budget"],
            hits=counts["hits"],
            observed_hits=counts["observed_hits"],
            misses=counts["misses"],
            proof_waits=counts["proof_waits"],
            checks=counts["checks"],
            fills=counts["fills"],
            stored=counts["stored"],
            evictions=counts["evicted"],
            expirations=counts["expired"],
            invalidations_own=counts["invalidated_here"],
            invalidations_server=counts["invalidated_pushed"],
            flushes=counts["flushed"],
            connections_lost=self.lost,
            touched=counts["touched"],
            proof_age=self._proof_age() if self.usable else None,
        )

    def _proof_age(self) -> float:
        """Seconds since the last proof of the space that is worst off, of those that clients need;
        0 if there is none. Without a link a space gets older. Those of users that may not use
        tracking do not count."""
        now = time.monotonic()
        oldest = 0.0
        for space in self.spaces.values():
            if not space.needed:
                space.proved = None
            elif not space.refused:
                age = self.cache.proof_age(space.number, now)
                proved = now - age if age is not None else 0.0
                space.proved = max(proved, now if space.proved is None else space.proved)
                oldest = max(oldest, now - space.proved)
        return oldest
