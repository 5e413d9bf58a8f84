"""The embedded cluster: serves when started, gone when stopped, goes on without one of two."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import RedisCluster
from structlog.testing import capture_logs

from sidecar.discovery.embedded import EmbeddedError
from sidecar.discovery.embedded_cluster import EmbeddedCluster

from .test_embedded import refuses, until_refused


async def until(check: Callable[[], bool]) -> None:
    """The caller has the deadline."""
    while True:
        if check():
            return
        await asyncio.sleep(0.005)


def client(cluster: EmbeddedCluster) -> RedisCluster:
    host, port = cluster.endpoint.members[0]
    return RedisCluster(host=host, port=port)


async def test_it_serves_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cluster = EmbeddedCluster(2, 1)
    await cluster.start()
    assert (cluster.endpoint.kind, len(cluster.endpoint.members)) == ("cluster", 2)
    assert cluster.url.startswith("redis+cluster://127.0.0.1:")
    ports = [port for _, port in cluster.endpoint.members]
    try:
        async with client(cluster) as library:
            for number in range(20):
                await library.set(f"key{number}", number)
            sizes = await library.dbsize(target_nodes=RedisCluster.PRIMARIES)
            assert sizes == 20
            nodes = await library.cluster_nodes()
            flags = [str(each["flags"]) for each in nodes.values()]
            assert sorted(each.rpartition(",")[2] for each in flags) == [
                *("master", "master"),
                *("slave", "slave"),
            ]
    finally:
        await cluster.stop()
    assert cluster.pids == []
    for port in ports:
        await until_refused(port)
    assert os.listdir(tmp_path) == []
    await cluster.stop()


@pytest.mark.slow
async def test_data_in_a_directory_stays(tmp_path: Path) -> None:
    """With the parts that the nodes have, at other ports."""
    directory = str(tmp_path / "data")
    first = EmbeddedCluster(2, directory=directory)
    await first.start()
    async with client(first) as library:
        await library.set("k", "v")
    with pytest.raises(EmbeddedError, match="in use by another sidecar"):
        await EmbeddedCluster(2, directory=directory).start()
    await first.stop()
    with pytest.raises(EmbeddedError, match="holds a cluster of other nodes"):
        await EmbeddedCluster(3, directory=directory).start()
    again = EmbeddedCluster(2, directory=directory)
    await again.start()
    assert set(again.endpoint.members).isdisjoint(first.endpoint.members)
    async with client(again) as library:
        assert await library.get("k") == b"v"
    await again.stop()


async def test_with_a_replica_it_goes_on_without_a_node() -> None:
    """And ends, once, when a shard has none left."""
    reasons: asyncio.Queue[str] = asyncio.Queue()
    cluster = EmbeddedCluster(1, 1, arguments=["--requirepass", "pw"], on_exit=reasons.put_nowait)
    await cluster.start()
    one, other = cluster.pids
    os.kill(one, signal.SIGKILL)
    async with asyncio.timeout(10):
        with capture_logs() as lines:
            await until(lambda: bool(lines))
        assert [line["event"] for line in lines] == ["embedded node ended"]
        assert reasons.empty()
        os.kill(other, signal.SIGKILL)
        reason = await reasons.get()
    assert "shard 0 of the embedded cluster has no server left" in reason
    assert "signal 9" in reason
    await cluster.stop()
    assert reasons.empty()


async def test_bad_arguments_are_explained_by_a_log(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(3, arguments=["--nonsense", "1"])
    with pytest.raises(EmbeddedError, match=r"could not start \(exit code 1\).*nonsense"):
        await cluster.start()
    assert cluster.pids == []


async def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="cannot be used"):
        await EmbeddedCluster(1, directory=str(tmp_path / "file")).start()


async def test_a_deadline_that_is_too_short_leaves_nothing_behind() -> None:
    cluster = EmbeddedCluster(2)
    with pytest.raises(EmbeddedError, match=r"did not (serve|answer) within"):
        await cluster.start(within=0.3)
    assert cluster.pids == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told on Linux only")
async def test_it_dies_with_its_parent() -> None:
    program = (
        "import asyncio\n"
        "from sidecar.discovery.embedded_cluster import EmbeddedCluster\n"
        "async def main():\n"
        "    cluster = EmbeddedCluster(2)\n"
        "    await cluster.start()\n"
        "    print(*(port for _, port in cluster.endpoint.members), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with tempfile.TemporaryDirectory() as left_behind:
        parent = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TMPDIR": left_behind},
        )
        assert parent.stdout is not None
        ports = [int(word) for word in (await parent.stdout.readline()).split()]
        assert not any([await refuses(port) for port in ports])
        parent.kill()
        await parent.wait()
        for port in ports:
            await until_refused(port)
