"""A real failure, all the way to the messages: server, sidecar, Prometheus, Alertmanager, inbox."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness.alerting import MISSING, WITHOUT, Alertmanager, Inbox, Prometheus
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire, pack

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=WITHOUT),
    pytest.mark.timeout(180),
]

AT_MOST = 60.0
RUNBOOK = "https://runbooks.example.com/redis-sidecar/SidecarNoMaster"


class World:
    """What takes part."""

    def __init__(self, parts: ExitStack) -> None:
        self.server: Server = parts.enter_context(valkey())
        admin = f"127.0.0.1:{free_port()}"
        self.sidecar = parts.enter_context(Sidecar(self.server.url, admin=admin))
        self.inbox = parts.enter_context(Inbox())
        self.alertmanager = parts.enter_context(Alertmanager(self.inbox, group_interval="2s"))
        labels = {"team": "payments", "app": "shop"}
        self.prometheus = parts.enter_context(Prometheus([admin], self.alertmanager, labels=labels))


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as parts:
        yield World(parts)


def messages(inbox: Inbox, alert: str, state: str) -> tuple[list[Any], list[Any]]:
    """What Slack and PagerDuty were told of an alert; `state` is firing or resolved."""
    mark = "[CRITICAL]" if state == "firing" else "[RESOLVED]"
    action = "trigger" if state == "firing" else "resolve"
    slack = [m for m in inbox.slack if f"{mark} {alert}" in m["attachments"][0]["title"]]
    pager = [
        m
        for m in inbox.pagerduty
        if m["event_action"] == action and alert in m["payload"]["summary"]
    ]
    return slack, pager


def test_a_server_that_dies_reaches_slack_and_pagerduty(world: World) -> None:
    up = 'sidecar_upstream_up{team="payments"} == 1'
    wait_until(lambda: world.prometheus.query(up), "the sidecar is scraped", 20.0)
    assert not world.prometheus.query('ALERTS{alertstate="firing"}')

    world.server.kill()
    failed = time.monotonic()

    def told(state: str) -> bool:
        return all(messages(world.inbox, "SidecarNoMaster", state))

    wait_until(lambda: told("firing"), "both are told", AT_MOST)
    took = time.monotonic() - failed
    print(f"delivered {took:.1f} s after the failure")
    assert took <= AT_MOST

    slack, pager = messages(world.inbox, "SidecarNoMaster", "firing")
    said = slack[0]["attachments"][0]
    assert slack[0]["channel"] == "#payments-alerts"
    assert said["title_link"] == RUNBOOK
    assert RUNBOOK in said["text"]
    assert world.sidecar.admin in said["text"]
    assert said["color"] == "danger"
    assert pager[0]["routing_key"] == "key of pagerduty-payments"
    assert pager[0]["payload"]["severity"] == "critical"
    assert pager[0]["payload"]["custom_details"]["team"] == "payments"
    assert pager[0]["client_url"] == RUNBOOK

    # What follows from it is not told: the breaker is open by now, and that would be a page, too.
    opened = 'ALERTS{alertname="SidecarBreakerOpen", alertstate="firing"}'
    wait_until(lambda: world.prometheus.query(opened), "the breaker's alert fires", AT_MOST)
    # It has been given the time that the first one took to be delivered.
    seen = time.monotonic()
    wait_until(lambda: time.monotonic() - seen > 8.0, "time for a message", 10.0)
    assert not any(messages(world.inbox, "SidecarBreakerOpen", "firing"))

    world.server.start()
    back = time.monotonic()
    wait_until(lambda: told("resolved"), "both are told that it is over", AT_MOST)
    print(f"resolved {time.monotonic() - back:.1f} s after the end")
    _, resolved = messages(world.inbox, "SidecarNoMaster", "resolved")
    assert resolved[0]["dedup_key"] == pager[0]["dedup_key"]


def test_a_frozen_server_is_told_whatever_link_its_clients_are_on(world: World) -> None:
    """Only a client of RESP3 and db 1 waits: the sidecar's own link owes nothing."""
    wait_until(lambda: world.prometheus.query("sidecar_upstream_up == 1"), "it is scraped", 20.0)
    firing = 'ALERTS{alertname="SidecarNoMaster", alertstate="firing"}'
    with Wire(world.sidecar.port) as wire:
        wire.cmd("HELLO", 3)
        wire.cmd("SELECT", 1)
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        world.server.pause()
        try:
            wire.send(pack("SET", "k", "w"))
            wait_until(lambda: world.prometheus.query(firing), "the alert fires", AT_MOST)
        finally:
            world.server.resume()
    wait_until(lambda: not world.prometheus.query(firing), "it is over", AT_MOST)


@pytest.mark.slow
def test_a_sidecar_that_dies_reaches_both(world: World) -> None:
    wait_until(lambda: world.prometheus.query("sidecar_upstream_up == 1"), "it is scraped", 20.0)
    world.sidecar.kill()
    wait_until(
        lambda: all(messages(world.inbox, "SidecarDown", "firing")), "both are told", AT_MOST
    )
