"""News and reads: what a client was told of by a message or a pop, its next read must show.

Two sidecars in front of one server. Behind the first, a client writes a key and then tells of it;
behind the second, another client gets the message, or the popped element, and reads the key on
another connection. Every read is checked. What the near cache pays for it shows in the time from
the write to the value, beside the same without a near cache.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from bench.nearcache.lanes import SETTINGS
from bench.peers.sidecar import start_cache
from bench.peers.stage import start_server
from bench.report.rounds import Figures, Tick
from tests.harness.admin import metrics
from tests.harness.distribution import quantiles
from tests.harness.errors import Unavailable
from tests.harness.fleet import Fleet
from tests.harness.resp import pack_all
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

KEY, CHANNEL, QUEUE = "key:news", "news", "queue:news"
MODES = ("off", "rules")


def news(rounds: int, repeat: int, server: str, tick: Tick) -> dict[str, list[Figures]]:
    """Stale reads, and milliseconds from a write to the value, by mode and by what tells of it."""
    tellers = {"message": _message, "pop": _pop}
    found: dict[str, list[Figures]] = {f"{mode} {told}": [] for told in tellers for mode in MODES}
    with Fleet() as fleet:
        port = start_server(fleet, server).port
        pairs = {
            mode: [start_cache(fleet, port, SETTINGS[mode]) for _ in range(2)] for mode in MODES
        }
        for _ in range(repeat):
            for told, begin in tellers.items():
                for mode in MODES:
                    tick(f"news {mode} {told}")
                    found[f"{mode} {told}"].append(_rounds(pairs[mode], rounds, begin))
    return found


Told = Callable[[int], None]
"""Waits until the reader's side has been told of a write, by its number."""


def _message(stack: contextlib.ExitStack, far: Sidecar) -> tuple[tuple[str, str], Told]:
    subscriber = stack.enter_context(Wire(far.port))
    subscriber.cmd("SUBSCRIBE", CHANNEL)

    def told(number: int) -> None:
        if not subscriber.read_reply().endswith(b"\r\n%d\r\n" % number):
            raise Unavailable("a message was lost")

    return ("PUBLISH", CHANNEL), told


def _pop(stack: contextlib.ExitStack, far: Sidecar) -> tuple[tuple[str, str], Told]:
    worker = stack.enter_context(Wire(far.port))

    def told(number: int) -> None:
        if not worker.cmd("BLPOP", QUEUE, 0).endswith(b"\r\n%d\r\n" % number):
            raise Unavailable("an element was lost")

    return ("RPUSH", QUEUE), told


def _rounds(
    pair: Sequence[Sidecar],
    rounds: int,
    begin: Callable[[contextlib.ExitStack, Sidecar], tuple[tuple[str, str], Told]],
) -> Figures:
    near, far = pair
    delays, stale = [], 0
    before = metrics(far).get("sidecar_cache_hits_total", 0.0)
    with contextlib.ExitStack() as stack:
        writer, reader = stack.enter_context(Wire(near.port)), stack.enter_context(Wire(far.port))
        tell, told = begin(stack, far)
        for number in range(rounds):
            reader.call("GET", KEY)  # it is cached, if there is a cache
            since = time.perf_counter()
            writer.send(pack_all([("SET", KEY, number), (*tell, number)]))
            told(number)
            value = reader.call("GET", KEY)
            delays.append(1000 * (time.perf_counter() - since))
            stale += int(value) != number
            writer.read_replies(2)
    hits = metrics(far).get("sidecar_cache_hits_total", 0.0) - before
    p50, p99 = quantiles(delays, (0.5, 0.99))
    return {"rounds": rounds, "stale": stale, "hits": hits / (2 * rounds), "p50": p50, "p99": p99}
