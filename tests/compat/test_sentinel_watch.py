"""The watcher against real Sentinels: whom it finds, what it hears, how it copes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sidecar.discovery.sentinel import DiscoveryError
from sidecar.policy.topology import (
    Event,
    FailoverBegun,
    MasterDown,
    MasterNamed,
    PromotionAwaited,
    ReplicasChanged,
)
from tests.conftest import KINDS
from tests.harness.sentinels import Cluster
from tests.harness.watching import HOST, Watch, failure, find, watching


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One cluster of each kind for the file."""
    with Cluster(flavour=request.param) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """With all of it running and in agreement, whoever is the master by now."""
    for node in shared.nodes:
        if not node.running:
            node.start()
    for sentinel in shared.sentinels:
        if not sentinel.running:
            sentinel.start()
    shared.settle()
    return shared


async def test_the_master_is_found(cluster: Cluster) -> None:
    """Before the watch and during it."""
    master = (HOST, cluster.current_master())
    async with watching(cluster.url, start=False) as watch:
        assert await watch.watcher.find_master() == master
        assert watch.events == []
        watch.watcher.start()
        await watch.until(lambda: watch.connected(3), "all connected")
        assert await watch.watcher.find_master() == master
        assert {event.address for event in watch.named(switched=False)} == {master}


async def test_an_unknown_service(cluster: Cluster) -> None:
    """The error names the one they do know."""
    text = await failure(cluster.url.replace("/mymaster", "/other"))
    assert text.startswith("no Sentinel knows the service 'other': ")
    assert text.count(" knows mymaster; ") == 3
    async with watching(cluster.url.replace("/mymaster", "/other")) as watch:
        await watch.until(lambda: watch.sentinels()[0].error, "the error")
        assert watch.sentinels()[0].error == "does not know it"
        assert watch.sentinels()[0].connected
        assert watch.events == []
        with pytest.raises(DiscoveryError, match="no Sentinel knows the service"):
            await watch.watcher.replicas()


async def test_one_of_three_is_down(cluster: Cluster) -> None:
    """It is found all the same, and the one that is down is shown as such."""
    master = (HOST, cluster.current_master())
    lost = cluster.sentinels[0]
    lost.kill()
    assert await find(cluster.url) == master
    async with watching(cluster.url) as watch:
        await watch.until(lambda: "refused" in watch.sentinel(lost).error, "refusal")
        assert not watch.sentinel(lost).connected
        await watch.until(
            lambda: sum(one.connected for one in watch.sentinels()) == 2, "the others"
        )
        lost.start()
        await watch.until(lambda: watch.connected(3), "all connected")
        assert watch.sentinel(lost).error == ""


async def test_the_others_are_learnt(cluster: Cluster) -> None:
    """From a URL that names one; the snapshot has what they agree about."""
    async with watching(cluster.url_of(cluster.sentinels[1])) as watch:
        await watch.until(lambda: watch.connected(3), "all learnt")
        snapshot = watch.watcher.snapshot()
        assert snapshot.service == "mymaster"
        assert snapshot.master == f"{HOST}:{cluster.current_master()}"
        assert (snapshot.quorum, snapshot.replicas) == (2, 2)
        assert isinstance(snapshot.epoch, int)
        assert {one.address for one in watch.sentinels() if not one.configured} == {
            f"{HOST}:{cluster.sentinels[number].port}" for number in (0, 2)
        }
        assert await watch.watcher.find_master() == (HOST, cluster.current_master())


async def test_one_sentinel_by_two_names(cluster: Cluster) -> None:
    """What the URL calls `localhost` announces itself by number: it stays one."""
    one, two, _ = cluster.sentinels
    url = f"redis+sentinel://localhost:{one.port},{HOST}:{two.port}/mymaster"
    for _ in range(5):
        async with watching(url) as watch:
            await watch.until(
                lambda watch=watch: watch.connected(3) and not watch.knows(one),  # type: ignore[misc]
                "three Sentinels, none of them twice",
            )


async def test_a_sentinel_that_left_is_forgotten(cluster: Cluster) -> None:
    """Once nobody lists it; a configured one is kept."""
    async with watching(cluster.url_of(*cluster.sentinels[:2]), poll_interval=0.05) as watch:
        await watch.until(lambda: watch.connected(3), "all learnt")
        for left in (cluster.sentinels[2], cluster.sentinels[1]):
            left.kill()
            for sentinel in cluster.sentinels:
                if sentinel.running:
                    assert cluster.ask(sentinel, "SENTINEL", "RESET", "mymaster") == 1
        await watch.until(lambda: not watch.knows(cluster.sentinels[2]), "one forgotten")
        assert watch.sentinel(cluster.sentinels[1]).configured
        assert len(watch.sentinels()) == 2


async def test_asking_is_coalesced(cluster: Cluster) -> None:
    """Whatever is asked for during a round is one more round, not one each."""
    async with watching(cluster.url) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        await watch.watcher.find_master()  # by then the first rounds are over
        watch.events.clear()
        for _ in range(100):
            watch.watcher.ask()
        await watch.until(lambda: len(watch.named(switched=False)) > 3, "a second round")
        await watch.watcher.replicas()  # answered behind whatever one of them was asked
        assert len(watch.named(switched=False)) < 12  # a Sentinel's own news may add a round


async def test_replicas(cluster: Cluster) -> None:
    """Before the watch and during it."""
    expected = {f"{HOST}:{node.port}" for node in cluster.nodes}
    expected.remove(f"{HOST}:{cluster.current_master()}")
    async with watching(cluster.url, start=False) as watch:
        for _ in range(2):
            replicas = await watch.watcher.replicas()
            assert {replica.address for replica in replicas} == expected
            for replica in replicas:
                assert replica.flags == ["slave"]
                assert (replica.link, replica.link_down) == ("ok", 0)
                assert replica.offset is not None
                assert replica.age is not None
                assert replica.age < 60
            watch.watcher.start()
            await watch.until(lambda: watch.connected(3), "all connected")


def first(events: list[Event], kind: type[Event]) -> int:
    """Where the first of a kind stands."""
    return next(at for at, event in enumerate(events) if isinstance(event, kind))


def check_failover(watch: Watch, old: int, new: int) -> None:
    """The order every failover has, and that the new epoch is told with the new master only."""
    events = watch.events
    switched = watch.named(switched=True)
    assert {event.address for event in switched} == {(HOST, new)}
    begun, awaited = first(events, FailoverBegun), first(events, PromotionAwaited)
    assert begun < awaited < events.index(switched[0])
    assert events[awaited] == PromotionAwaited((HOST, new))
    epochs = {event.address: event.epoch or 0 for event in watch.named(switched=False)}
    assert epochs[(HOST, old)] < epochs[(HOST, new)]
    assert ReplicasChanged() in events


async def test_a_planned_failover(cluster: Cluster) -> None:
    """Polled without pause meanwhile, which is when a leader might be misunderstood."""
    old = cluster.current_master()
    async with watching(cluster.url, poll_interval=0.01) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        await asyncio.to_thread(cluster.failover, cluster.sentinels[0])
        await watch.until(lambda: len(watch.named(switched=True)) == 3, "three announcements")
        new = cluster.current_master()
        await watch.until(
            lambda: {one.master for one in watch.sentinels()} == {f"{HOST}:{new}"}, "agreement"
        )
        check_failover(watch, old, new)
        epochs: dict[int, set[tuple[str, int]]] = {}
        for event in watch.named(switched=False):
            assert event.epoch is not None
            epochs.setdefault(event.epoch, set()).add(event.address)
        assert epochs[max(epochs)] == {(HOST, new)}
        assert MasterDown("objective") not in watch.events


async def test_a_crash(cluster: Cluster) -> None:
    """The same order, after the master is found to be down."""
    old = cluster.current_master()
    async with watching(cluster.url) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        cluster.node(old).kill()
        await watch.until(lambda: len(watch.named(switched=True)) == 3, "three announcements")
        new = watch.named(switched=True)[0].address[1]
        await watch.until(
            lambda: len([e for e in watch.named(switched=False) if e.address[1] == new]) >= 3,
            "epochs",
        )
        check_failover(watch, old, new)
        events = watch.events
        begun = first(events, FailoverBegun)
        downs = [event for event in events[:begun] if isinstance(event, MasterDown)]
        assert {down.kind for down in downs} == {"subjective", "objective"}
        assert downs[0].kind == "subjective"


async def test_a_switch_while_not_connected(cluster: Cluster) -> None:
    """A Sentinel that comes back is asked at once, and tells what it has learnt meanwhile."""
    away = cluster.sentinels[2]
    async with watching(cluster.url) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        away.kill()
        await watch.until(lambda: not watch.sentinel(away).connected, "the loss")
        await asyncio.to_thread(cluster.failover, cluster.sentinels[0])
        await watch.until(lambda: watch.named(switched=True), "the switch")
        master = f"{HOST}:{watch.named(switched=True)[0].address[1]}"
        assert watch.sentinel(away).master != master
        away.start()
        await watch.until(lambda: watch.sentinel(away).master == master, "its own answer")
        assert watch.sentinel(away).error == ""


async def test_a_sentinel_that_lags(cluster: Cluster) -> None:
    """What one believes who was away for long is told with its epoch, which is an older one."""
    old = cluster.current_master()
    async with watching(cluster.url) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        await asyncio.to_thread(cluster.failover, cluster.sentinels[0])
        await watch.until(lambda: len(watch.named(switched=True)) == 3, "three announcements")
        await watch.until(lambda: len({one.epoch for one in watch.sentinels()}) == 1, "one epoch")
        newest = watch.watcher.snapshot().epoch
        assert isinstance(newest, int)
        stale = cluster.sentinels[1]
        monitor = ("SENTINEL", "MONITOR", "mymaster", HOST, old, 2)
        setting = ("down-after-milliseconds", 1000, "failover-timeout", 5000)
        lagging = MasterNamed((HOST, old), switched=False, epoch=0)
        with ExitStack() as silent:
            # Their next greeting on the old master would set it right.
            for other in (cluster.sentinels[0], cluster.sentinels[2]):
                other.pause()
                silent.callback(other.resume)
            assert cluster.ask(stale, "SENTINEL", "REMOVE", "mymaster") == "OK"
            assert cluster.ask(stale, *monitor) == "OK"
            assert cluster.ask(stale, "SENTINEL", "SET", "mymaster", *setting) == "OK"
            watch.watcher.ask()
            await watch.until(lambda: lagging in watch.events, "the old master, of epoch 0")
        assert watch.watcher.snapshot().epoch == newest
        new = watch.named(switched=True)[0].address
        assert watch.watcher.snapshot().master == f"{HOST}:{new[1]}"
        # Outvoted, and of two that disagree the one with the older epoch.
        assert await find(cluster.url) == new
        assert await find(cluster.url_of(stale, cluster.sentinels[2])) == new
        assert await find(cluster.url_of(cluster.sentinels[2], stale)) == new


async def test_a_sentinel_that_hangs(cluster: Cluster) -> None:
    """Stopped, it keeps its connection: noticed by its silence. Short, or it would go into TILT."""
    hung = cluster.sentinels[1]
    async with watching(cluster.url, connect_timeout=0.2) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        hung.pause()
        try:
            watch.watcher.ask()
            await watch.until(lambda: watch.sentinel(hung).error, "that it hangs")
            assert watch.sentinel(hung).error in ("no longer answers", "no answer within 0.2 s")
            assert not watch.sentinel(hung).connected
        finally:
            hung.resume()
        await watch.until(lambda: not watch.sentinel(hung).error, "its recovery")
        assert watch.connected(3)


async def test_a_sentinel_nobody_asks_is_noticed_to_hang(cluster: Cluster) -> None:
    """By the PINGs between polls."""
    hung = cluster.sentinels[1]
    async with watching(cluster.url, connect_timeout=0.2) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        hung.pause()
        try:
            await watch.until(lambda: watch.sentinel(hung).error, "that it hangs")
        finally:
            hung.resume()


async def test_a_listener_that_fails(cluster: Cluster) -> None:
    """Its errors are its own: the watch goes on."""
    async with watching(cluster.url, start=False, poll_interval=0.05) as watch:
        watch.fails = True
        watch.watcher.start()
        await watch.until(lambda: len(watch.named(switched=False)) > 20, "many polls")
        assert watch.connected(3)
        await watch.watcher.close()
        await watch.watcher.close()
