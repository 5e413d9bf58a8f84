"""Settings that a running sidecar takes over: by SIGHUP and by the admin API, under load."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness.admin import api, post
from tests.harness.counting import Counting
from tests.harness.failover import Load, news
from tests.harness.process import free_port, ping, wait_until
from tests.harness.servers import PROGRAM, Server, Sidecar, valkey
from tests.harness.wire import Wire

Values = Mapping[str, str | int | float | bool | list[str]]


class Configured(Sidecar):
    """A sidecar whose settings stand in a file."""

    def __init__(self, server: Server, path: Path, values: Values) -> None:
        self.path = path
        self.put(values)
        super().__init__(server.url, admin=f"127.0.0.1:{free_port()}", ready=False)
        wait_until(lambda: ping(self.where) != b"", "it serves", 20)

    def argv(self) -> list[str]:
        return [*PROGRAM, "run", "-c", str(self.path), "--upstream", self.upstream,
                "--admin", self.admin, "--set", "log.blocking=true"]  # fmt: skip

    def put(self, values: Values) -> None:
        """Write the file: settings by path."""
        sections: dict[str, list[str]] = {}
        for path, value in values.items():
            section, _, key = path.rpartition(".")
            sections.setdefault(section, []).append(f"{key} = {json.dumps(value)}")
        text = "".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())
        self.path.write_text(text)

    def reload_quietly(self) -> None:
        """POST /api/reload, whatever has changed."""
        assert _post(self)[0] == 200

    def reload(self) -> dict[str, Any]:
        """SIGHUP; what the log says of it."""
        names = ("settings reloaded", "settings reload failed")
        before = sum(len(news(self, name)) for name in names)
        os.kill(self.pid, signal.SIGHUP)

        def said() -> list[dict[str, Any]]:
            entries = [each for name in names for each in news(self, name)]
            return sorted(entries, key=lambda entry: entry["time"])[before:]

        return dict(wait_until(said, "reloaded", 10)[-1])


BASE: Values = {"log.level": "info", "cache.mode": "rules", "cache.rules": ["*"]}


@pytest.fixture
def where() -> dict[str, list[str]]:
    return {"listen.urls": [f"redis://127.0.0.1:{free_port()}"]}


@pytest.fixture
def sidecar(
    plain_server: Server, tmp_path: Path, where: dict[str, list[str]]
) -> Iterator[Configured]:
    with _configured(plain_server, tmp_path, {**BASE, **where}) as sidecar:
        yield sidecar


def _configured(server: Server, folder: Path, values: Values) -> Configured:
    listen = values["listen.urls"]
    assert isinstance(listen, list)

    class There(Configured):
        @property
        def where(self) -> int | str:
            return int(listen[0].rpartition(":")[2])

    return There(server, folder / "sidecar.toml", values)


def test_what_has_changed_is_named_and_used(sidecar: Configured, where: dict[str, Any]) -> None:
    """A key that the rules exclude by now is asked of the server again."""
    with Wire(sidecar.where) as wire:
        wire.cmd("SET", "k", "v")
        sidecar.put({**BASE, **where, "cache.rules": ["k never", "*"], "drain.timeout": 3})
        said = sidecar.reload()
        assert (said["changed"], said["needs_restart"]) == (["cache.rules", "drain.timeout"], [])
        assert wire.cmd("GET", "k") == b"$1\r\nv\r\n"
    shown = api(sidecar, "/api/config")
    assert shown["drain.timeout"]["value"] == 3
    with Wire(sidecar.where) as wire:
        hits = api(sidecar, "/api/stats")["cache"]["hits"]
        for _ in range(5):
            assert wire.cmd("GET", "k") == b"$1\r\nv\r\n"
        assert api(sidecar, "/api/stats")["cache"]["hits"] == hits


def test_what_needs_a_restart_is_named(sidecar: Configured, where: dict[str, Any]) -> None:
    sidecar.put({**BASE, **where, "upstream.pooling": "shared", "log.format": "console"})
    said = sidecar.reload()
    assert (said["changed"], said["needs_restart"]) == ([], ["log.format"])


def test_one_fault_and_nothing_changes(sidecar: Configured, where: dict[str, Any]) -> None:
    """With the words of `sidecar check`."""
    sidecar.put({**BASE, **where, "drain.timeout": 3, "cache.memory": 1})
    said = sidecar.reload()
    assert said["event"] == "settings reload failed"
    check = [*PROGRAM, "check", "-c", str(sidecar.path)]
    told = subprocess.run(check, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.strip() == f"sidecar: {said['error']}"
    assert api(sidecar, "/api/config")["drain.timeout"]["value"] == 10
    assert ping(sidecar.where) == b"+PONG\r\n"


def test_the_admin_api_reloads(sidecar: Configured, where: dict[str, Any]) -> None:
    sidecar.put({**BASE, **where, "drain.timeout": 4})
    assert _post(sidecar)[1]["changed"] == ["drain.timeout"]
    sidecar.path.write_text("no TOML [")
    status, said = _post(sidecar)
    assert status == 409
    assert "not valid TOML" in said["error"]


def _post(sidecar: Sidecar) -> tuple[int, Any]:
    return post(sidecar, "/api/reload")


def test_listeners_come_and_go(
    sidecar: Configured, where: dict[str, Any], plain_server: Server
) -> None:
    """Clients of one that goes stay; one that cannot be had changes nothing."""
    second = free_port()
    with Wire(sidecar.where) as client:
        first = where["listen.urls"][0]
        sidecar.put({**BASE, "listen.urls": [first, f"redis://127.0.0.1:{second}"]})
        assert sidecar.reload()["changed"] == ["listen.urls"]
        assert ping(second) == b"+PONG\r\n"
        sidecar.put({**BASE, "listen.urls": [f"redis://127.0.0.1:{second}"]})
        assert sidecar.reload()["changed"] == ["listen.urls"]
        assert ping(sidecar.where) == b""
        assert client.cmd("PING") == b"+PONG\r\n"
        taken = f"redis://127.0.0.1:{plain_server.port}"
        sidecar.put({**BASE, "listen.urls": [f"redis://127.0.0.1:{second}", taken]})
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_until(lambda: bool(news(sidecar, "certificate reload failed")), "it is refused")
        assert ping(second) == b"+PONG\r\n"


def test_a_watched_file(plain_server: Server, tmp_path: Path, where: dict[str, Any]) -> None:
    values = {**BASE, **where, "reload.watch": True}
    with _configured(plain_server, tmp_path, values) as sidecar:
        sidecar.put({**values, "drain.timeout": 6})
        wait_until(lambda: bool(news(sidecar, "settings reloaded")), "it is read", 10)
        assert news(sidecar, "settings reloaded")[0]["changed"] == ["drain.timeout"]


def test_the_level_of_the_log(sidecar: Configured, where: dict[str, Any]) -> None:
    sidecar.put({**BASE, **where, "log.level": "debug"})
    assert sidecar.reload()["changed"] == ["log.level"]
    sidecar.put({**BASE, **where, "log.level": "error"})
    os.kill(sidecar.pid, signal.SIGHUP)
    wait_until(lambda: api(sidecar, "/api/config")["log.level"]["value"] == "error", "")
    assert len(news(sidecar, "settings reloaded")) == 1, "an information is not written any more"


class Everything(Configured):
    """The upstream stands in the file, too."""

    @property
    def where(self) -> int | str:
        return int(re.findall(r"redis://127.0.0.1:(\d+)", self.path.read_text())[0])

    def argv(self) -> list[str]:
        argv = super().argv()
        at = argv.index("--upstream")
        return argv[:at] + argv[at + 2 :]


def test_another_upstream(plain_server: Server, tmp_path: Path, where: dict[str, Any]) -> None:
    """It is switched to with all other settings, or nothing changes; an operator's switch stays
    until the file names another one."""
    with valkey() as second:
        base = {**where, "upstream.url": plain_server.url, "drain.timeout": 3}
        with (
            Everything(plain_server, tmp_path / "all.toml", base) as sidecar,
            Counting(int(sidecar.where)) as load,
        ):
            load.more()
            sidecar.put({**base, "upstream.url": second.url, "drain.timeout": 4})
            assert set(sidecar.reload()["changed"]) == {"upstream.url", "drain.timeout"}
            load.more()
            nowhere = f"redis://127.0.0.1:{free_port()}"
            sidecar.put({**base, "upstream.url": nowhere, "drain.timeout": 5})
            assert sidecar.reload()["event"] == "settings reload failed"
            assert api(sidecar, "/api/config")["drain.timeout"]["value"] == 4
            sidecar.put({**base, "upstream.url": second.url, "drain.timeout": 4})
            sidecar.reload_quietly()
            status, said = post(sidecar, "/api/upstream", {"url": plain_server.url})
            assert status == 200, said
            sidecar.put({**base, "upstream.url": second.url, "drain.timeout": 6})
            assert sidecar.reload()["changed"] == ["drain.timeout"]
            assert len(news(sidecar, "upstream differs")) == 1
            assert api(sidecar, "/api/topology")["master"].endswith(f":{plain_server.port}")
            load.more()
            load.stop()
            assert load.errors == Counter()
            assert load.counted(plain_server, second) == load.acknowledged


@pytest.mark.one_worker("upstream.pool_spare and the rates are divided among the workers")
def test_settings_that_are_used_at_once(sidecar: Configured, where: dict[str, Any]) -> None:
    """Hot keys, traces, spare links."""
    changed: Values = {
        "hotkeys.hot_share": 0.2,
        "hotkeys.cool_share": 0.1,
        "hotkeys.window": 0.5,
        "hotkeys.samples_per_second": 1000,
        "tracing.slow": 0,
        "tracing.failed": False,
        "tracing.keys": "plain",
        "upstream.pool_spare": 9,
    }
    with Wire(sidecar.where) as wire:
        wire.cmd("NOSUCHCOMMAND")
        wait_until(lambda: len(_traces(sidecar, "failed")) == 1, "a failed command is traced")
        failed = 1
        sidecar.put({**BASE, **where, **changed})
        said = sidecar.reload()
        assert (set(said["changed"]), said["needs_restart"]) == (set(changed), [])
        wire.cmd("NOSUCHCOMMAND")
        sidecar.put({**BASE, **where, **changed, "tracing.slow": 0.000001})
        assert sidecar.reload()["changed"] == ["tracing.slow"]
        wire.cmd("GET", "k")
        wait_until(lambda: bool(_traces(sidecar, "slow")), "a slow command is traced")
        assert len(_traces(sidecar, "failed")) == failed
        wait_until(lambda: api(sidecar, "/api/stats")["links"]["idle"] == 9, "spare links")


def _traces(sidecar: Sidecar, why: str) -> Any:
    return api(sidecar, f"/api/traces?why={why}")["traces"]


def test_what_needs_a_restart_says_why(sidecar: Configured, where: dict[str, Any]) -> None:
    sidecar.put({**BASE, **where, "upstream.pooling": "session", "cache.mode": "off"})
    said = _post(sidecar)[1]
    assert set(said["because"]) == {"upstream.pooling", "cache.mode"} | set(said["needs_restart"])
    assert all(said["because"].values())
    assert len(news(sidecar, "restart needed")) == len(said["because"])


def test_reloaded_again_and_again_under_load(
    sidecar: Configured, where: dict[str, Any], plain_server: Server
) -> None:
    """No client sees an error."""
    with Load(int(sidecar.where)) as load:
        for number in range(30):
            sidecar.put(
                {
                    **BASE,
                    **where,
                    "cache.max_ttl": 1 + number % 2,
                    "cache.memory": (8 + number % 3) << 20,
                    "limits.request_buffer": (64 + number) << 10,
                    "limits.memory": (256 + number) << 20,
                    "upstream.pool_idle": number,
                    "upstream.connect_timeout": 1 + number,
                    "breaker.failures": 1 + number % 5,
                    "listen.max_clients": 1000 + number,
                    "failover.hold": 5 + number,
                }
            )
            status, said = _post(sidecar)
            assert (status, said["needs_restart"]) == (200, [])
            assert len(said["changed"]) >= 8
        load.until_served()
        load.stop()
        assert load.judge(plain_server.port) == Counter()
        assert load.errors == Counter()
