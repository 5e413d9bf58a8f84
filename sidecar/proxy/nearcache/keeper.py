"""The near cache's shell: one tracked link for each (user, database) in use, and each node.

The core stores and serves the values (core/cache/serve.pyx, core/cache/tracked.pyx). The keeper
opens tracked links, sends heartbeats, and ends the generation whenever a server may have changed
(`reset`): no value outlives the connection that it was read on. Of a cluster the nodes are the
shards.

Gets connections from the nodes' dialers; knows no other links and no session commands.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator
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
from sidecar.proxy.links.node import Node, Nodes
from sidecar.proxy.links.target import Target
from sidecar.proxy.nearcache.space import Part, Space, SpaceKey
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
# A link that lives shorter than SOON seconds was cut short; after so many of them in a row there
# are pauses: its user may not do something that the cache needs, PING for instance.
SOON = 1.0
CUTS_AT_ONCE = 3
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
        self._emptied: list[tuple[Part, str]] = []  # and not logged yet
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
        for part in space.parts.values():
            if part.link is not None and not was_needed:
                part.link.beat()

    def _may_read(self, identity: Identity) -> bool:
        """Whether the server takes its commands. It may ask for a login by now; those who began in
        the first era need none."""
        links = identity.to(self._nodes.home)
        return not identity.login.era or (links.greeted is not None and links.authenticated)

    def log_in(self, request: bytes) -> int:
        """Send an AUTH down the tracked links of the sidecar's own user; returns how many."""
        mine = [part for part in self.parts if part.space.login.source is not None]
        links = [part.link for part in mine if part.link is not None]
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
        for number in list(space.parts):
            self._close_part(space, number)
        if self._nodes.shards is not None:
            self.cache.close_space(space.number)

    def _close_part(self, space: Space, number: int | None) -> None:
        part = space.parts.pop(number)
        part.closed = True
        part.end()
        part.lost.set()
        if number is not None and not space.closed:
            self.cache.divide(space.number, number, 0)
        self.cache.close_space(part.number)

    # Nodes

    @property
    def parts(self) -> Iterator[Part]:
        """The parts of all spaces."""
        return (part for space in self.spaces.values() for part in space.parts.values())

    def add_node(self, node: Node) -> None:
        """A shard of the cluster has come."""
        for space in list(self.spaces.values()):
            self._add_part(space, node)
            self._connect(space)

    def remove_node(self, node: Node) -> None:
        """A shard of the cluster has gone."""
        for space in list(self.spaces.values()):
            if node.number in space.parts:
                self._close_part(space, node.number)

    def _add_part(self, space: Space, node: Node) -> None:
        """Without a number for it, the space gets nothing from this shard."""
        if node.number is None:
            space.parts[None] = Part(space.number, space, node)
        elif number := self._number(space):
            space.parts[node.number] = Part(number, space, node)
            self.cache.divide(space.number, node.number, number)

    def _space(self, login: Login) -> Space | None:
        """The space of a login, made if it is new; None if all there may be are in use."""
        key = (login.user, login.db)
        space = self.spaces.get(key)
        if space is None and self.usable and (number := self._number(None)):
            space = self.spaces[key] = Space(number, replace(login, proto=3))
            for node in self._read_from:
                self._add_part(space, node)
            for_each(self._new_space, lambda told: told(key))
        return space if self.usable else None

    @property
    def _read_from(self) -> list[Node]:
        shards = self._nodes.shards
        return [self._nodes.home] if shards is None else list(shards.values())

    def _number(self, user: Space | None) -> int:
        """The number of a new space, or part of this one. If need be, a space that nobody uses
        makes room. 0: none."""
        number: int = self.cache.open_space()
        if number == 0:
            spaces = self.spaces.items()
            unused = (key for key, each in spaces if not each.needed and each is not user)
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

    def reset(self, node: Node, reason: str) -> None:
        """The server of this node has changed, or may have: drop all that was read there."""
        links = [part.link for part in self.parts if part.node is node and part.link is not None]
        for_each(links, lambda link: link.lose(reason))

    def make_room(self) -> bool:
        """Close a tracked link of a space without clients; False if there is none."""
        unused = (each for each in self.parts if each.link and not each.needed)
        if (part := next(unused, None)) is not None:
            part.end()
            part.lost.set()
        return part is not None

    def _connect(self, space: Space) -> None:
        for part in space.parts.values():
            if part.task is None or part.task.done():
                part.task = self._tasks.spawn(self._keep(part))

    async def _keep(self, part: Part) -> None:
        """Keep a tracked link for as long as the part is needed."""
        space, dialer = part.space, part.node.dialer
        attempt = cut_short = 0
        while part.needed and self.usable and not self._tasks.closing:
            if part.node.room.short:  # clients' links come first
                await asyncio.sleep(random.uniform(1, 10))
                continue
            try:
                connection = await with_newest(
                    space.login, lambda: self._open(part.node, space.login)
                )
            except Refused as error:
                part.refused = True
                log.warning("near cache tracking refused", user=space.user, error=str(error))
                await asyncio.sleep(REFUSED_FOR)
            except Unreachable:
                await asyncio.sleep(dialer.backoff.delay(attempt, random.random()))
                attempt += 1
            else:
                if connection is None:
                    return
                if part.closed:  # meanwhile: its number is another's by now
                    connection.close()
                    return
                attempt = 0
                try:
                    began = time.monotonic()
                    await self._use(part, connection)
                    cut_short = cut_short + 1 if time.monotonic() - began < SOON else 0
                    if cut_short > CUTS_AT_ONCE:
                        await asyncio.sleep(dialer.backoff.delay(cut_short, random.random()))
                except (OSError, MemoryError) as error:  # it cannot be watched
                    connection.close()
                    log.error("internal error", error=repr(error), exc_info=error)
                    await asyncio.sleep(dialer.backoff.delay(attempt, random.random()))
        part.end()

    async def _use(self, part: Part, connection: ServerConnection) -> None:
        """Use this connection as the tracked link until it is lost."""
        part.refused = False
        part.lost.clear()
        part.heard = (-1, time.monotonic())
        part.link = TrackedLink(
            self._plane,
            part.number,
            connection.sock,
            connection.tls,
            part,
            self._lost,
            part.space.login.user or b"default",
        )
        part.server_id = connection.target, connection.server_id
        part.link.beat()
        await part.lost.wait()
        if part.refused:
            await asyncio.sleep(REFUSED_FOR)

    async def _open(self, node: Node, login: Login) -> ServerConnection | None:
        """Open a connection and turn tracking on; None if the server is too old."""
        dialer = node.dialer
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
        part = link.owner
        assert isinstance(part, Part)
        if part.link is link:
            part.link = None
        self.lost += 1
        part.refused = link.refused
        if not self._emptied:
            asyncio.get_running_loop().call_later(TOGETHER, self._tell_emptied)
        self._emptied.append((part, reason))
        part.lost.set()

    def _tell_emptied(self) -> None:
        """One line for all that a node's links have lost together: usually a server is gone, which
        each link may learn in another way."""
        lost, self._emptied = self._emptied, []
        by_node: dict[int | None, list[tuple[Part, str]]] = {}
        for part, reason in lost:
            by_node.setdefault(part.node.number, []).append((part, reason))
        for number, together in by_node.items():
            first = together[0][0]
            log.info(
                "near cache emptied",
                user=first.space.user,
                db=first.space.login.db,
                reason="; ".join(dict.fromkeys(reason for _, reason in together)),
                spaces=len(together),
                **({} if number is None else {"shard": number}),
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
            for_each(list(self.parts), partial(self._beat_one, now=now, silence=silence))

    def _beat_one(self, part: Part, now: float, silence: float) -> None:
        link = part.link
        if link is None or not part.needed:
            return
        if link.received != part.heard[0]:
            part.heard = (link.received, now)
        elif link.pending and now - part.heard[1] > silence:
            link.lose(f"silent for {silence:g} s")
            return
        link.beat()

    def send_queued(self) -> None:
        """Send what was queued on the tracked links."""
        for part in self.parts:
            if part.link is not None:
                part.link.flush()

    def server_ids(self) -> Iterable[tuple[Target | None, int]]:
        """The ids, on their servers, of the tracked links."""
        return [part.server_id for part in self.parts if part.link is not None]

    def close(self) -> None:
        """Close every tracked link."""
        for_each(list(self.parts), lambda part: part.end())

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
        """Seconds since the last proof of the part that is worst off, of those that clients need;
        0 if there is none. Without a link a part gets older. Those of users that may not use
        tracking do not count."""
        now = time.monotonic()
        oldest = 0.0
        for part in self.parts:
            if not part.needed:
                part.proved = None
            elif not part.refused:
                age = self.cache.proof_age(part.number, now)
                proved = now - age if age is not None else 0.0
                part.proved = max(proved, now if part.proved is None else part.proved)
                oldest = max(oldest, now - part.proved)
        return oldest
