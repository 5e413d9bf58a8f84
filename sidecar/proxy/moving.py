"""The planned move to another upstream: `upstream.url` has changed, or an operator asks for it.

    reach       connect to the new server, log in, see that it is a master, ask what it can do
    quiet       all commands are held; those under way, and open transactions, come to their end
    verify      the new server is asked for its role once more
    arrive      everything goes over at once, in one turn of the loop (server.py)
    release     what was held goes to the new server

Up to and with `verify` nothing has changed, and whatever fails leaves it so: commands go on at the
old server. What cannot be awaited loses its link with the move, as in a failover: transactions that
do not end within OPEN_WITHIN, blocked commands, subscribers. Replies that are due are awaited for
`failover.hold`; if they do not come the move is given up, since nobody could tell whether those
commands were executed.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from sidecar.policy.following_words import Role
from sidecar.policy.topology import Address
from sidecar.proxy import learning
from sidecar.proxy.certificates import Certificates
from sidecar.proxy.destination import Destination
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import Refused, Unreachable
from sidecar.proxy.links.greeting import ServerConnection
from sidecar.proxy.links.racing import Address as Found
from sidecar.proxy.links.racing import resolve
from sidecar.proxy.links.target import Target
from sidecar.proxy.name_search import of_path
from sidecar.proxy.pause import OPEN_WITHIN, Pause, under_way
from sidecar.proxy.targets import Targets
from sidecar.telemetry.facts import UnderWay
from sidecar.telemetry.handshakes import Handshakes

log = structlog.get_logger()

SWITCH = "switch"
# The part of failover.hold that replies are awaited: the move itself takes a moment, too.
SHARE = 0.8


class MoveError(Exception):
    """The move does not come about, and nothing has changed; the message is one line: why."""


@dataclass(frozen=True)
class Arrival:
    """The new upstream, reached: a greeted connection to its master, and what that has told.
    `found` is the address as the Sentinels or the resolver give it."""

    destination: Destination
    certificates: Certificates
    targets: Targets
    target: Target
    found: Address | Found | None
    connection: ServerConnection
    told: learning.Told

    @property
    def role(self) -> Role:
        """What it says of itself: it refuses to tell, if it is not a master."""
        return Role.MASTER if self.connection.told_master else Role.UNTOLD


@dataclass(frozen=True)
class Moved:
    """A move that has come about: for how many seconds commands were held, and what had to be
    ended."""

    seconds: float
    ended: UnderWay


async def reach(
    destination: Destination, version: bytes, handshakes: Handshakes, *, anonymous: bool
) -> Arrival:
    """Connect to the new upstream's master. Changes nothing. Raises MoveError. `handshakes` counts
    those that fail. `anonymous`: a server will do that answers nothing before a login, and has none
    from the sidecar."""
    settings = destination.settings
    try:
        certificates = Certificates(settings, upstream=destination.endpoint.tls)
    except (OSError, ssl.SSLError) as error:
        raise MoveError(f"upstream.tls: {error}") from error
    targets = Targets(settings.upstream, destination.endpoint, certificates, handshakes)
    why = "the Sentinels know no master"
    for found, target in await _candidates(destination, targets):
        try:
            connection = await ServerConnection.greeted_at(
                target, destination.login, version, as_master=True
            )
            told = await learning.ask(connection, [])
        except Refused as error:
            why = f"upstream {target} says {error}"
        except Unreachable as error:
            why = str(error)
        else:
            if not anonymous and connection.greeted and connection.greeted.unauthenticated:
                connection.close()
                raise MoveError(f"upstream {target} wants a login, and the sidecar has none for it")
            return Arrival(destination, certificates, targets, target, found, connection, told)
    raise MoveError(why)


async def _candidates(
    destination: Destination, targets: Targets
) -> Sequence[tuple[Address | Found | None, Target]]:
    """Where the new master may be."""
    endpoint = destination.endpoint
    if destination.follows_sentinels:
        master = destination.master
        return [(master, targets.of_address(master))] if master is not None else []
    if not destination.follows_name:
        return [(None, targets.of_url())]
    if endpoint.kind == "unix":
        path = of_path(endpoint.path)
        return [(path, targets.of_number(path))]
    try:
        addresses = await resolve(endpoint.host, endpoint.port)
    except OSError as error:
        raise MoveError(f"upstream {endpoint}: {error.strerror or error}") from error
    return [(found, targets.of_number(found)) for found in addresses]


class Mover:
    """Moves, one at a time. `arrive` has everything go over to what was reached; `limit` gives
    `failover.hold` in seconds; `anonymous` tells whether the sidecar has no login where it is."""

    def __init__(
        self,
        plane: Plane,
        pause: Pause,
        arrive: Callable[[Arrival], None],
        limit: Callable[[], float],
        version: bytes,
        handshakes: Handshakes,
        anonymous: Callable[[], bool],
    ) -> None:
        self._anonymous = anonymous
        self._plane = plane
        self._pause = pause
        self._arrive = arrive
        self._limit = limit
        self._version = version
        self._handshakes = handshakes
        self._moving = False

    async def reach(self, destination: Destination) -> Arrival:
        """Connect to the new upstream's master. Changes nothing. Raises MoveError."""
        anonymous = self._anonymous()
        return await reach(destination, self._version, self._handshakes, anonymous=anonymous)

    async def move(
        self,
        destination: Destination,
        first: Callable[[], None],
    ) -> Moved:
        """Go there. `first` is called when all is ready, and may raise: then nothing has changed.
        Where all workers go over together, commands are held already, and stay so. Raises
        MoveError."""
        arrival = await self.reach(destination)
        arrived = False
        try:
            if self._moving:
                raise MoveError("another switch is under way")
            self._moving, began = True, time.monotonic()
            held_already = SWITCH in self._pause.reasons
            if not held_already:
                self._pause.begin(SWITCH)
            try:
                ended = await self._ready(arrival, 0 if held_already else OPEN_WITHIN)
                first()
                arrived = True
                self._arrive(arrival)
            finally:
                self._moving = False
                if not held_already:
                    self._pause.end(SWITCH)
            seconds = time.monotonic() - began
        finally:
            if not arrived:
                arrival.connection.close()
        endpoint, address = str(destination.endpoint), arrival.target.address
        log.info("upstream switched", upstream=endpoint, address=address, seconds=round(seconds, 3))
        return Moved(seconds, ended)

    async def _ready(self, arrival: Arrival, open_within: float) -> UnderWay:
        """Wait until commands may go over, for what clients have open so many seconds. Returns
        what cannot be waited for."""
        await self._pause.quiet(SHARE * self._limit(), open_within)
        try:
            await arrival.connection.check_master()
        except Unreachable as error:
            raise MoveError(str(error)) from error
        found = under_way(self._plane)
        if found.replies:
            raise MoveError(
                f"{found.replies} links still wait for replies of the old server; try again later"
            )
        if not found.quiet:
            log.warning(
                "clients cut off",
                transactions=found.transactions,
                streamed=found.streamed,
                pinned=found.pinned,
            )
        return found
