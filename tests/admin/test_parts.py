"""The parts as the admin endpoint sees them: joined, and shown only while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from sidecar.admin.answers import Paused, Reloaded, Resumed, Switched
from sidecar.admin.bodies import SwitchTo
from sidecar.admin.parts import Parts
from sidecar.admin.sources import RefusedError
from sidecar.settings.load import load
from sidecar.settings.schema import Settings
from sidecar.telemetry import facts, snapshots
from tests.harness.structs import filled

RELOADED = Reloaded(reloaded=["listen.tls"], changed=["cache.memory"])
SENTINEL_URL = "redis+sentinel://10.0.0.9/mymaster"


class DataPlane:
    """A data plane with one replica, 5 bytes behind."""

    def ready(self) -> Mapping[str, bool]:
        return {"upstream": True}

    def snapshot(self) -> snapshots.DataPlane:
        return filled(snapshots.DataPlane, clients={"connected": 7})

    def hot_keys(self, most: int) -> facts.HotKeys:
        return facts.HotKeys(window_s=1.0, keys=[filled(facts.HotKey, key="k")][:most])

    def recent_traces(self, most: int, why: str = "") -> Sequence[facts.Trace]:
        return [filled(facts.Trace, name="GET", why=[why])][:most]

    def topology(self) -> facts.Upstream:
        return filled(facts.Upstream, upstream="u", master="10.0.0.1:6379", up=True)

    async def server(self) -> facts.Server:
        replica = facts.Replica(address="10.0.0.2:6379", state="online", lag_bytes=5, lag_s=1)
        return facts.Server(role="master", replicas=[replica])


class Sentinels:
    """Sentinels that see that replica and one more, and agree to a failover; or refuse both."""

    def __init__(self, refuse: bool = False) -> None:
        self.refuse = refuse
        self.asked = 0

    def counts(self) -> snapshots.SentinelCounts:
        return snapshots.SentinelCounts(known=3, connected=2, replicas=2)

    def snapshot(self) -> facts.Sentinels:
        return filled(facts.Sentinels, service="mymaster", epoch=4, quorum=2)

    async def replicas(self) -> Sequence[facts.SentinelReplica]:
        self.asked += 1
        if self.refuse:
            raise RefusedError("no Sentinel answers")
        known = {"address": "10.0.0.2:6379", "flags": ["slave"], "link": "ok"}
        lost = {"address": "10.0.0.3:6379", "flags": ["slave", "s_down"], "link": "err"}
        return [filled(facts.SentinelReplica, **each) for each in (known, lost)]

    async def failover(self) -> str:
        if self.refuse:
            raise RefusedError("no Sentinel begins a failover")
        return "10.0.0.9:26379"


class Upstreams:
    """Stands for what changes the upstream."""

    async def reload(self) -> Reloaded:
        return RELOADED

    async def pause(self) -> Paused:
        return filled(Paused, paused=True)

    async def resume(self) -> Resumed:
        return Resumed(paused=False, seconds=1.5)

    async def switch(self, to: SwitchTo) -> Switched:
        raise RefusedError(f"{to.url} {to.dry_run}")


def parts_of(settings: Settings | None = None) -> Parts:
    process = filled(snapshots.Process, loop_lag=0.5)
    return Parts(settings or Settings(), lambda: None, Upstreams(), lambda: process)


def serving(settings: Settings | None = None) -> Parts:
    parts = parts_of(settings)
    parts.serves(DataPlane(), lambda: 3)
    return parts


async def test_nothing_is_shown_of_a_data_plane_that_does_not_serve() -> None:
    parts = serving()
    parts.serves_no_more()
    for one in (parts_of(), parts):
        sources = one.sources()
        assert sources.ready() == {"serving": False}
        assert sources.snapshot().data_plane is None
        assert sources.snapshot().process is not None
        assert sources.hot_keys(5) == facts.HotKeys(window_s=1.0, keys=())
        assert sources.traces.recent(5) == ()
        assert sources.audit.recent(5) == ()
        assert await sources.server() == facts.Server()
        assert (await sources.topology()).master is None
        with pytest.raises(RefusedError, match="not serving"):
            await one.actions().flush_cache()


async def test_what_is_shown_while_it_serves() -> None:
    sources = serving().sources()
    assert sources.ready() == {"serving": True, "upstream": True}
    snapshot = sources.snapshot()
    assert snapshot.data_plane is not None
    assert snapshot.data_plane.clients.connected == 7
    assert snapshot.sentinels is None
    assert [key.key for key in sources.hot_keys(5).keys] == ["k"]
    assert [trace.why for trace in sources.traces.recent(5, "slow")] == [["slow"]]
    topology = await sources.topology()
    assert (topology.upstream, topology.master) == ("u", "10.0.0.1:6379")
    assert [replica.address for replica in topology.replicas] == ["10.0.0.2:6379"]
    assert topology.sentinels == ()


async def test_replicas_are_those_the_sentinels_see() -> None:
    """With what the master says about how far each is behind; asked for at most once a second."""
    parts = serving()
    parts.sentinels = sentinels = Sentinels()
    for _ in range(3):
        topology = await parts.sources().topology()
    assert sentinels.asked == 1
    assert (topology.service, topology.epoch, topology.quorum) == ("mymaster", 4, 2)
    assert topology.replicas == [
        facts.Replica(address="10.0.0.2:6379", state="online", lag_bytes=5, lag_s=1),
        facts.Replica(address="10.0.0.3:6379", state="down", lag_bytes=None, lag_s=None),
    ]
    assert parts.sources().snapshot().sentinels == sentinels.counts()


async def test_sentinels_that_do_not_answer_leave_the_rest() -> None:
    parts = serving()
    parts.sentinels = Sentinels(refuse=True)
    topology = await parts.sources().topology()
    assert (topology.master, topology.replicas) == ("10.0.0.1:6379", [])


async def test_actions() -> None:
    actions = serving().actions()
    assert (await actions.flush_cache()).dropped == 3
    assert await actions.reload() == RELOADED
    assert (await actions.pause()).paused
    assert (await actions.resume()).seconds == 1.5
    with pytest.raises(RefusedError, match=r"redis://h True"):
        await actions.switch(SwitchTo("redis://h", dry_run=True))
    with pytest.raises(RefusedError, match="no Sentinel to ask"):
        await actions.failover()
    without_cache = serving(load(None, {"cache.mode": "off"}, {}))
    with pytest.raises(RefusedError, match="no near cache"):
        await without_cache.actions().flush_cache()


@pytest.mark.parametrize(("allowed", "refuse", "says"), [
    ("false", False, "set admin.failover = true"),
    ("true", True, "no Sentinel begins a failover"),
    ("true", False, ""),
])  # fmt: skip
async def test_a_failover_needs_leave_and_a_sentinel(allowed: str, refuse: bool, says: str) -> None:
    settings = load(None, {"upstream.url": SENTINEL_URL, "admin.failover": allowed}, {})
    parts = serving(settings)
    parts.sentinels = Sentinels(refuse)
    if not says:
        assert (await parts.actions().failover()).asked == "10.0.0.9:26379"
        return
    with pytest.raises(RefusedError, match=says):
        await parts.actions().failover()


async def test_what_is_shown_follows_the_settings_in_use() -> None:
    """They may be others after a reload; the part that shows them is made once."""
    parts = serving()
    sources = parts.sources()
    assert sources.certificates() == []
    tls = {"listen.tls.cert_file": __file__, "listen.urls": "rediss://127.0.0.1:0"}
    parts.settings = load(None, tls, {})
    assert [shown.file for shown in sources.certificates()] == [__file__]
    assert sources.config()["listen.tls.cert_file"].value == __file__
