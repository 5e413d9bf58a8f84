"""The upstream is switched to Sentinels and away from them, and paused around failovers."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from tests.harness.admin import api, post
from tests.harness.counting import Counting
from tests.harness.failover import news
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import Wire


def beside(url: str, **settings: str | int | float) -> Sidecar:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Sidecar(url, admin=f"127.0.0.1:{free_port()}", settings=named)


def ask(sidecar: Sidecar, path: str, **body: Any) -> Any:
    status, said = post(sidecar, path, body)
    assert status == 200, said
    return said


def test_to_sentinels_and_back(cluster: Cluster, plain_server: Server) -> None:
    """Their failover is followed while they are the upstream."""
    with Wire(plain_server.port) as wire:
        wire.cmd("FLUSHALL")
    with beside(plain_server.url) as sidecar, Counting(sidecar.port) as load:
        load.more()
        ask(sidecar, "/api/upstream", url=cluster.url)
        assert api(sidecar, "/api/topology")["follows_sentinels"]
        load.more()
        before = cluster.current_master()
        cluster.failover()
        wait_until(lambda: cluster.current_master() != before, "another master", 20)
        load.more()
        ask(sidecar, "/api/upstream", url=plain_server.url)
        load.more()
        assert api(sidecar, "/api/topology")["phase"] == "serving"
        assert api(sidecar, "/api/topology")["sentinels"] == []
        load.stop()
        assert load.errors == Counter()
        master = cluster.node(cluster.current_master())
        assert load.counted(plain_server, master) == load.acknowledged


def test_a_failover_during_a_pause(cluster: Cluster) -> None:
    """What waits goes to the new master."""
    with beside(cluster.url) as sidecar, Wire(sidecar.port, deadline=30) as wire:
        wire.cmd("SET", "k", "v")
        ask(sidecar, "/api/pause")
        wire.send_command("INCR", "n")
        before = cluster.current_master()
        cluster.failover()
        wait_until(lambda: bool(news(sidecar, "master followed")[1:]), "it is followed", 20)
        assert api(sidecar, "/api/stats")["held"]["reason"] == "pause"
        ask(sidecar, "/api/resume")
        assert wire.read_reply() == b":1\r\n"
        # The sidecar may be told before the Sentinel that speaks for the most has written it down.
        wait_until(lambda: cluster.current_master() != before, "most Sentinels name another", 20)


def test_a_pause_during_a_failover(cluster: Cluster) -> None:
    """Both end by themselves, and whoever waited for either goes on. Sentinels wait for their disk:
    on a busy one that takes seconds."""
    with beside(cluster.url, failover__hold=30) as sidecar, Counting(sidecar.port) as load:
        load.more()
        thread = threading.Thread(target=cluster.failover)
        thread.start()
        wait_until(lambda: bool(news(sidecar, "writes held")), "a failover has begun", 10)
        ask(sidecar, "/api/pause")
        wait_until(lambda: bool(news(sidecar, "writes released")), "it is over", 20)
        ask(sidecar, "/api/resume")
        thread.join()
        load.more()
        load.stop()
        assert load.errors == Counter()
        assert load.counted(cluster.node(cluster.current_master())) == load.acknowledged
