"""The watcher against real Sentinels: whom it finds, what it hears, how it copes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from sidecar.discovery.sentinel import DiscoveryError, SentinelWatcher
from sidecar.policy.topology import (
    Event,
    FailoverBegun,
    MasterDown,
    MasterNamed,
    PromotionAwaited,
    ReplicasChanged,
)
from sidecar.settings import Sentinel
from sidecar.urls import Endpoint, parse_upstream
from tests.conftest import KINDS
from tests.support.process import free_port
from tests.support.sentinels import Cluster, SentinelProcess
from tests.support.servers import Server
from tests.support.tls import Certificates, make_certificates

DEADLINE = 15.0
HOST = "127.0.0.1"


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


class Watch:
    """A watcher and what it told, with the time of each event."""

    def __init__(self, endpoint: Endpoint, settings: Sentinel, **options: Any) -> None:
        self.told: list[tuple[float, Event]] = []
        self.fails = False
        self._news = asyncio.Event()
        context = options.pop("context", None)
        self.watcher = SentinelWatcher(endpoint, settings, context, self._hear, **options)

    def _hear(self, event: Event) -> None:
        self.told.append((time.monotonic(), event))
        self._news.set()
        if self.fails:
            raise RuntimeError("of the test")

    @property
    def events(self) -> list[Event]:
        """All events so far."""
        return [event for _, event in self.told]

    async def until(self, check: Callable[[], object], what: str) -> None:
        """Wait for something to be true; looked at with each event, and every few ms."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not check():
                    self._news.clear()
                    await asyncio.wait({asyncio.ensure_future(self._news.wait())}, timeout=0.02)
        except TimeoutError:
            state = f"{self.watcher.snapshot()}\n{self.events}"
            raise AssertionError(f"not within {DEADLINE} s: {what}\n{state}") from None

    def sentinels(self) -> list[dict[str, Any]]:
        """As the snapshot shows them."""
        return cast(list[dict[str, Any]], self.watcher.snapshot()["sentinels"])

    def sentinel(self, process: SentinelProcess) -> Mapping[str, Any]:
        """One of them."""
        address = f"{HOST}:{process.port}"
        return next((one for one in self.sentinels() if one["address"] == address), {})

    def connected(self, number: int) -> bool:
        """Whether there are so many, and all of them have named a master."""
        states = [one["connected"] and one["master"] is not None for one in self.sentinels()]
        return len(states) == number and all(states)

    def named(self, *, switched: bool) -> list[MasterNamed]:
        """Every MasterNamed of one sort."""
        named = [event for event in self.events if isinstance(event, MasterNamed)]
        return [event for event in named if event.switched == switched]


@asynccontextmanager
async def watching(url: str, *, start: bool = True, **changes: Any) -> AsyncIterator[Watch]:
    """A watcher, closed at the end. `changes` are settings, and `context`."""
    context = changes.pop("context", None)
    settings = Sentinel(**{"connect_timeout": 1.0, "poll_interval": 60.0, **changes})
    watch = Watch(parse_upstream(url), settings, context=context)
    try:
        if start:
            watch.watcher.start()
        yield watch
    finally:
        await watch.watcher.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "Peer" in repr(task)]


async def find(url: str, **changes: Any) -> tuple[str, int]:
    """`find_master` of a new watcher."""
    async with watching(url, start=False, **changes) as watch:
        return await watch.watcher.find_master()


async def failure(url: str, **changes: Any) -> str:
    """The same, when nobody names a master: one line that says why."""
    with pytest.raises(DiscoveryError) as caught:
        await find(url, **changes)
    text = str(caught.value)
    assert "\n" not in text
    return text


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
        await watch.until(lambda: watch.sentinels()[0]["error"], "the error")
        assert watch.sentinels()[0]["error"] == "does not know it"
        assert watch.sentinels()[0]["connected"]
        assert watch.events == []
        with pytest.raises(DiscoveryError, match="no Sentinel knows the service"):
            await watch.watcher.replicas()


async def test_nobody_there(plain_server: Server) -> None:
    """Refused, silent, or not a Sentinel: each is named with its reason, and none costs much."""
    refusing = free_port()
    with socket.create_server((HOST, 0)) as silent:
        quiet = silent.getsockname()[1]
        members = f"{HOST}:{refusing},{HOST}:{quiet},{HOST}:{plain_server.port}"
        begun = time.monotonic()
        text = await failure(f"redis+sentinel://{members}/mymaster", connect_timeout=0.2)
        assert time.monotonic() - begun < 2
    assert text.startswith("no Sentinel of 'mymaster' can be asked: ")
    assert f"{HOST}:{refusing} connection refused" in text
    assert f"{HOST}:{quiet} no answer within 0.2 s" in text
    assert f"{HOST}:{plain_server.port} is a server, not a Sentinel" in text


async def test_one_of_three_is_down(cluster: Cluster) -> None:
    """It is found all the same, and the one that is down is shown as such."""
    master = (HOST, cluster.current_master())
    lost = cluster.sentinels[0]
    lost.kill()
    assert await find(cluster.url) == master
    async with watching(cluster.url) as watch:
        await watch.until(lambda: "refused" in watch.sentinel(lost).get("error", ""), "refusal")
        assert not watch.sentinel(lost)["connected"]
        await watch.until(
            lambda: sum(one["connected"] for one in watch.sentinels()) == 2, "the others"
        )
        lost.start()
        await watch.until(lambda: watch.connected(3), "all connected")
        assert watch.sentinel(lost)["error"] == ""


async def test_the_others_are_learnt(cluster: Cluster) -> None:
    """From a URL that names one; the snapshot has what they agree about."""
    async with watching(cluster.url_of(cluster.sentinels[1])) as watch:
        await watch.until(lambda: watch.connected(3), "all learnt")
        snapshot = watch.watcher.snapshot()
        assert snapshot["service"] == "mymaster"
        assert snapshot["master"] == f"{HOST}:{cluster.current_master()}"
        assert (snapshot["quorum"], snapshot["replicas"]) == (2, 2)
        assert isinstance(snapshot["epoch"], int)
        assert {one["address"] for one in watch.sentinels() if not one["configured"]} == {
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
                lambda watch=watch: watch.connected(3) and not watch.sentinel(one),  # type: ignore[misc]
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
        await watch.until(lambda: not watch.sentinel(cluster.sentinels[2]), "one forgotten")
        assert watch.sentinel(cluster.sentinels[1])["configured"]
        assert len(watch.sentinels()) == 2


async def test_asking_is_coalesced(cluster: Cluster) -> None:
    """Whatever is asked for during a round is one more round, not one each."""
    async with watching(cluster.url) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        watch.told.clear()
        for _ in range(100):
            watch.watcher.ask()
        await watch.until(lambda: len(watch.named(switched=False)) >= 6, "two rounds")
        watch.told.clear()
        watch.watcher.ask()
        await watch.until(lambda: len(watch.named(switched=False)) >= 3, "one round")
        assert len(watch.events) == 3


async def test_replicas(cluster: Cluster) -> None:
    """Before the watch and during it."""
    expected = {(HOST, node.port) for node in cluster.nodes}
    expected.remove((HOST, cluster.current_master()))
    async with watching(cluster.url, start=False) as watch:
        for _ in range(2):
            replicas = await watch.watcher.replicas()
            assert {replica.address for replica in replicas} == expected
            for replica in replicas:
                assert replica.flags == ("slave",)
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
        begun = time.monotonic()
        await asyncio.to_thread(cluster.failover, cluster.sentinels[0])
        await watch.until(lambda: len(watch.named(switched=True)) == 3, "three announcements")
        new = cluster.current_master()
        await watch.until(
            lambda: {one["master"] for one in watch.sentinels()} == {f"{HOST}:{new}"}, "agreement"
        )
        check_failover(watch, old, new)
        epochs: dict[int, set[tuple[str, int]]] = {}
        for event in watch.named(switched=False):
            assert event.epoch is not None
            epochs.setdefault(event.epoch, set()).add(event.address)
        assert epochs[max(epochs)] == {(HOST, new)}
        assert MasterDown("objective") not in watch.events
        assert watch.told[first(watch.events, FailoverBegun)][0] - begun < 1


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
        await watch.until(lambda: not watch.sentinel(away)["connected"], "the loss")
        await asyncio.to_thread(cluster.failover, cluster.sentinels[0])
        await watch.until(lambda: watch.named(switched=True), "the switch")
        master = f"{HOST}:{watch.named(switched=True)[0].address[1]}"
        assert watch.sentinel(away)["master"] != master
        away.start()
        await watch.until(lambda: watch.sentinel(away)["master"] == master, "its own answer")
        assert watch.sentinel(away)["error"] == ""


async def test_a_sentinel_that_lags(cluster: Cluster) -> None:
    """What one believes who was away for long is told with its epoch, which is an older one."""
    old = cluster.current_master()
    async with watching(cluster.url) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        await asyncio.to_thread(cluster.failover, cluster.sentinels[0])
        await watch.until(lambda: len(watch.named(switched=True)) == 3, "three announcements")
        await watch.until(
            lambda: len({one["epoch"] for one in watch.sentinels()}) == 1, "one epoch"
        )
        newest = watch.watcher.snapshot()["epoch"]
        assert isinstance(newest, int)
        stale = cluster.sentinels[1]
        assert cluster.ask(stale, "SENTINEL", "REMOVE", "mymaster") == "OK"
        monitor = ("SENTINEL", "MONITOR", "mymaster", HOST, old, 2)
        assert cluster.ask(stale, *monitor) == "OK"
        setting = ("down-after-milliseconds", 1000, "failover-timeout", 5000)
        assert cluster.ask(stale, "SENTINEL", "SET", "mymaster", *setting) == "OK"
        watch.watcher.ask()
        lagging = MasterNamed((HOST, old), switched=False, epoch=0)
        await watch.until(lambda: lagging in watch.events, "the old master, of epoch 0")
        assert watch.watcher.snapshot()["epoch"] == newest
        new = watch.named(switched=True)[0].address
        assert watch.watcher.snapshot()["master"] == f"{HOST}:{new[1]}"
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
            await watch.until(lambda: watch.sentinel(hung)["error"], "that it hangs")
            assert watch.sentinel(hung)["error"] in ("no longer answers", "no answer within 0.2 s")
            assert not watch.sentinel(hung)["connected"]
        finally:
            hung.resume()
        await watch.until(lambda: watch.connected(3), "all connected again")
        assert watch.sentinel(hung)["error"] == ""


async def test_a_sentinel_nobody_asks_is_noticed_to_hang(cluster: Cluster) -> None:
    """By the PINGs between polls."""
    hung = cluster.sentinels[1]
    async with watching(cluster.url, connect_timeout=0.2) as watch:
        await watch.until(lambda: watch.connected(3), "all connected")
        hung.pause()
        try:
            await watch.until(lambda: watch.sentinel(hung)["error"], "that it hangs")
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


@pytest.fixture(scope="module", params=KINDS)
def locked(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One Sentinel with a password, and a master with another."""
    with Cluster(
        0, 1, flavour=request.param, password="data-secret", sentinel_password="watch-secret"
    ) as cluster:
        yield cluster


async def test_a_password(locked: Cluster) -> None:
    """The one of sentinel.password; that of the URL is the data nodes' and is not tried."""
    text = await failure(locked.url)
    assert text.startswith("no Sentinel of 'mymaster' lets us in: ")
    assert "wants a password (NOAUTH); set sentinel.username and sentinel.password" in text
    text = await failure(locked.url, password="data-secret")
    assert f"{HOST}:{locked.sentinels[0].port} WRONGPASS" in text
    assert "data-secret" not in text
    master = (HOST, locked.master.port)
    assert await find(locked.url, password="watch-secret") == master
    assert await find(locked.url, username="default", password="watch-secret") == master
    async with watching(locked.url, password="watch-secret") as watch:
        await watch.until(lambda: watch.connected(1), "connection")
    async with watching(locked.url, password="wrong") as watch:
        await watch.until(lambda: "WRONGPASS" in watch.sentinels()[0]["error"], "the refusal")


async def test_a_user(locked: Cluster) -> None:
    """One who may ask but not subscribe is served by polls; one who may do nothing is told so."""
    only = locked.sentinels[0]
    rules = (">pw", "-@all", "+auth", "+hello", "+ping", "+sentinel|master")
    name = "+sentinel|get-master-addr-by-name"
    assert locked.ask(only, "ACL", "SETUSER", "asker", "on", *rules, name) == "OK"
    assert locked.ask(only, "ACL", "SETUSER", "nobody", "on", ">pw", "-@all", "+hello") == "OK"
    async with watching(locked.url, username="asker", password="pw", poll_interval=0.05) as watch:
        assert await watch.watcher.find_master() == (HOST, locked.master.port)
        await watch.until(lambda: len(watch.named(switched=False)) >= 3, "polls")
        assert watch.sentinels()[0]["error"] == ""
    assert "NOPERM" in await failure(locked.url, username="nobody", password="pw")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One CA for the file."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.redis
async def test_tls(certificates: Certificates) -> None:
    """Found, learnt and followed over TLS; who cannot prove to be a Sentinel is not asked."""
    with Cluster(1, 2, flavour="redis7", tls=certificates) as secure:
        trusting = certificates.client_context()
        async with watching(secure.url_of(secure.sentinels[0]), context=trusting) as watch:
            master = (HOST, secure.master.listening)
            assert await watch.watcher.find_master() == master
            # The other is learnt by its number, which the certificate names as well.
            await watch.until(lambda: watch.connected(2), "both Sentinels")
            await asyncio.to_thread(secure.failover)
            await watch.until(lambda: watch.named(switched=True), "the switch")
            new = (HOST, secure.replicas[0].listening)
            assert watch.named(switched=True)[0].address == new
        assert "closed the connection" in await failure(secure.url)
        distrusting = make_certificates(certificates.ca.parent / "other").client_context()
        text = await failure(secure.url, context=distrusting)
        assert "its certificate is refused: " in text
        port = secure.sentinels[0].port
        endpoint = parse_upstream(f"rediss+sentinel://localhost:{port}/mymaster")
        named = SentinelWatcher(endpoint, Sentinel(), trusting, print, server_name="elsewhere")
        with pytest.raises(DiscoveryError, match="its certificate is refused: "):
            await named.find_master()
