"""What goes wrong during a run, in random order: the table, and the loop that goes through it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.consistency.world import Fault, World, blocking
from tests.harness.faults import OTHERS, TRACKED

Act = Callable[[World, random.Random], Awaitable[object]]

SHORT = 0.1, 0.4
"""Less than max_staleness, in shares of which the others are given."""
LONG = 1.2, 3.0


async def _cut_shared(world: World, chance: random.Random) -> None:
    world.network.group(OTHERS).cut()


async def _cut_tracked(world: World, chance: random.Random) -> None:
    world.network.group(TRACKED).cut()


async def _cut_all(world: World, chance: random.Random) -> None:
    world.network.group(TRACKED).cut()
    world.network.group(OTHERS).cut()


async def _kill_tracked(world: World, chance: random.Random) -> None:
    await world.kill(tracked=True)


async def _kill_shared(world: World, chance: random.Random) -> None:
    await world.kill(tracked=False)


def _hold(group: str, share: tuple[float, float], *directions: str) -> Act:
    async def act(world: World, chance: random.Random) -> None:
        connections = world.network.group(group)
        connections.hold(*directions)
        await asyncio.sleep(chance.uniform(*share))
        connections.open()

    return act


def _delay(group: str, least: float, most: float) -> Act:
    async def act(world: World, chance: random.Random) -> None:
        connections = world.network.group(group)
        connections.delay = chance.uniform(least, most)
        await asyncio.sleep(1.0)
        connections.open()

    return act


async def _delay_both(world: World, chance: random.Random) -> None:
    """Requests are slow, and invalidations slower still."""
    world.network.group(OTHERS).delay = chance.uniform(0.01, 0.06)
    world.network.group(TRACKED).delay = chance.uniform(0.1, 0.3)
    await asyncio.sleep(2.0)
    world.network.heal()


async def _delay_crossed(world: World, chance: random.Random) -> None:
    """Requests reach the server late, and what is read and invalidated comes back late: a read that
    was under way when a value was asked for is executed after it, and answered before."""
    world.network.group(OTHERS).to_server.delay = chance.uniform(0.02, 0.06)
    world.network.group(TRACKED).to_client.delay = chance.uniform(0.08, 0.2)
    await asyncio.sleep(2.0)
    world.network.heal()


async def _delay_then_hold(world: World, chance: random.Random) -> None:
    """The newest proof is old when it arrives, and the last."""
    connections = world.network.group(TRACKED)
    connections.delay = chance.uniform(0.1, 0.3)
    await asyncio.sleep(0.6)
    connections.hold()
    await asyncio.sleep(1.0)
    connections.open()


def _wipe(*words: str, sites: Sequence[int] = (0, 1, 2)) -> Act:
    async def act(world: World, chance: random.Random) -> None:
        site = chance.choice([site for site in sites if site <= len(world.sidecars)])
        await world.load.tell("wipe", site, *words)

    return act


async def _pause_server(world: World, chance: random.Random) -> None:
    world.server.pause()
    await asyncio.sleep(chance.uniform(0.1, 1.2))
    world.server.resume()


async def _pause_sidecar(world: World, chance: random.Random) -> None:
    sidecar = chance.choice(world.sidecars)
    sidecar.pause()
    await asyncio.sleep(chance.uniform(0.2, 1.5))
    sidecar.resume()


async def _small_table(world: World, chance: random.Random) -> None:
    """The server forgets whom to tell, and says so."""
    await world.order("CONFIG", "SET", "tracking-table-max-keys", "3")
    await asyncio.sleep(1.0)
    await world.order("CONFIG", "SET", "tracking-table-max-keys", "1000000")


async def _restart_quiet(world: World, chance: random.Random) -> None:
    """Nobody writes meanwhile, so what is known of the keys is certain: they are gone."""
    await world.load.tell("still")
    await blocking(world.figures.sample, world.server.port)
    begin = time.monotonic_ns()
    await blocking(world.server.restart)
    await world.load.tell("wiped", begin, time.monotonic_ns())


async def _restart(world: World, chance: random.Random) -> None:
    await blocking(world.figures.sample, world.server.port)
    begin = time.monotonic_ns()
    await blocking(world.server.restart)
    await world.load.tell("closed", begin)


FAULTS: dict[str, Act] = {
    "shared links cut": _cut_shared,
    "tracked link cut": _cut_tracked,
    "all links cut": _cut_all,
    "CLIENT KILL tracked": _kill_tracked,
    "CLIENT KILL shared": _kill_shared,
    "tracked held, short": _hold(TRACKED, SHORT),
    "tracked held, long": _hold(TRACKED, LONG),
    "tracked held towards the sidecar": _hold(TRACKED, LONG, "to_client"),
    "tracked held towards the server": _hold(TRACKED, LONG, "to_server"),
    "shared held": _hold(OTHERS, (0.1, 1.0)),
    "tracked delayed": _delay(TRACKED, 0.01, 0.3),
    "shared delayed": _delay(OTHERS, 0.01, 0.2),
    "tracked delayed more than shared": _delay_both,
    "requests delayed, and values on their way back": _delay_crossed,
    "tracked delayed, then held": _delay_then_hold,
    "FLUSHALL": _wipe("FLUSHALL"),
    "FLUSHDB": _wipe("FLUSHDB", "ASYNC"),
    "SWAPDB through the sidecar": _wipe("SWAPDB", "0", "9", sites=(1,)),
    "server stopped for a while": _pause_server,
    "sidecar stopped for a while": _pause_sidecar,
    "tracking table too small": _small_table,
    "server restarted, no writes": _restart_quiet,
    "server restarted": _restart,
}

PAUSE = 0.2, 0.8
"""Seconds between two faults."""


ALONE = ("SWAPDB through the sidecar",)
"""Not told to other sidecars by the server: only where there is one."""


async def storm(world: World, until: float, chance: random.Random, names: Sequence[str]) -> None:
    """One fault after the other until that moment (time.monotonic), each before any comes again."""
    if len(world.sidecars) > 1:
        names = [name for name in names if name not in ALONE]
    bag: list[str] = []
    while time.monotonic() < until:
        if not bag:
            bag = list(names)
            chance.shuffle(bag)
        fault = Fault(bag.pop(), time.monotonic_ns())
        world.faults.append(fault)
        await FAULTS[fault.name](world, chance)
        fault.end = time.monotonic_ns()
        await asyncio.sleep(chance.uniform(*PAUSE))
    world.network.heal()
