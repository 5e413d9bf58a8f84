"""`make observe`: a sidecar with a server of its own, Prometheus and Alertmanager, to look at.

Everything listens on 127.0.0.1. What Alertmanager would send to Slack and PagerDuty is printed
here instead. A little traffic goes through, so that there is something to see; Ctrl-C ends all.

    make observe ARGS="--upstream redis://127.0.0.1:6379 --quiet"
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType

import redis

from tests.harness.alerting import MISSING, WITHOUT, Alertmanager, Inbox, Prometheus
from tests.harness.process import free_port
from tests.harness.servers import Sidecar

PAUSE = 0.02  # between two rounds of traffic


def main(argv: Sequence[str] | None = None) -> int:
    """Start everything, show it, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make observe", description=__doc__)
    parser.add_argument("--upstream", default="embedded://", help="the server behind")
    parser.add_argument("--quiet", action="store_true", help="make no traffic")
    parser.add_argument("--seconds", type=float, default=0.0, help="end by itself; 0: never")
    options = parser.parse_args(argv)
    if MISSING:
        print(f"{WITHOUT}; as root: apt-get install prometheus prometheus-alertmanager")
        return 1
    signal.signal(signal.SIGTERM, _interrupt)
    with suppress(KeyboardInterrupt), ExitStack() as parts:
        _observe(parts, options)
    print("\nended")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _observe(parts: ExitStack, options: argparse.Namespace) -> None:
    admin = f"127.0.0.1:{free_port()}"
    sidecar = parts.enter_context(Sidecar(options.upstream, admin=admin))
    inbox = parts.enter_context(Inbox())
    alertmanager = parts.enter_context(Alertmanager(inbox, group_interval="10s"))
    labels = {"team": "platform", "app": "observed"}
    prometheus = parts.enter_context(
        Prometheus([admin], alertmanager, interval="2s", labels=labels)
    )
    print(f"  Redis URL      {sidecar.url}")
    print(f"  admin          http://{admin}/")
    print(f"  Prometheus     http://127.0.0.1:{prometheus.port}/alerts")
    print(f"  Alertmanager   http://127.0.0.1:{alertmanager.port}/")
    print(f"  try            kill -STOP {sidecar.pid}   (and -CONT)")
    print("  Ctrl-C ends all of them. Messages of Alertmanager:", flush=True)
    client = redis.Redis(port=sidecar.port, socket_timeout=1.0)
    parts.callback(client.close)
    until = time.monotonic() + options.seconds if options.seconds else float("inf")
    told = [0, 0]
    while time.monotonic() < until:
        if not options.quiet:
            with suppress(redis.RedisError):
                _traffic(client)
        _tell(inbox, told)
        time.sleep(PAUSE)


def _traffic(client: redis.Redis) -> None:
    """Some reads and writes, most of them of few keys."""
    for _ in range(20):
        key = f"item:{int(random.expovariate(0.2))}"
        if random.random() < 0.1:
            client.set(key, "x" * 100)
        else:
            client.get(key)


def _tell(inbox: Inbox, told: list[int]) -> None:
    for message in inbox.slack[told[0] :]:
        print(f"Slack {message['channel']}: {message['attachments'][0]['title']}", flush=True)
    for message in inbox.pagerduty[told[1] :]:
        said = message.get("payload", {}).get("summary", "")
        print(f"PagerDuty {message['event_action']}: {said}", flush=True)
    told[:] = [len(inbox.slack), len(inbox.pagerduty)]


if __name__ == "__main__":
    sys.exit(main())
