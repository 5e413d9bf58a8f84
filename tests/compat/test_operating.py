"""What operators do to a running sidecar: stop it, replace its certificates, look for clients."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.certificates import Authority, Pem
from tests.harness.pair import Pair
from tests.harness.process import free_port, wait_until
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import ClosedError, DeadlineError, Wire, pack

BATCH = 20
BUSY_LOOP = "while true do end"


def _load(wire: Wire, got: list[bytes]) -> None:
    """Pipelines of INCR, each answered before the next, until the peer closes."""
    with suppress(ClosedError, OSError):
        while True:
            wire.send(pack("INCR", "n") * BATCH)
            got.extend(wire.read_reply() for _ in range(BATCH))


def _reply_in(wire: Wire, *args: str) -> tuple[bytes, float]:
    """A reply and the seconds it took."""
    begin = time.monotonic()
    return wire.cmd(*args), time.monotonic() - begin


def _ended(sidecar: Sidecar) -> bool:
    """Whether the sidecar ends with status 0, without another signal."""
    wait_until(lambda: not sidecar.running, "the sidecar ends")
    return sidecar.returncode == 0


def _stays_open(wire: Wire, seconds: float) -> None:
    """The peer says nothing and does not close."""
    with pytest.raises(DeadlineError):
        wire.expect_eof(seconds)


def test_stop_under_load(plain_server: Server) -> None:
    """What was done is what was acknowledged, to the last INCR; a subscriber holds nothing up."""
    with Sidecar(plain_server.url) as sidecar:
        wires = [Wire(sidecar.port) for _ in range(10)]
        got: list[list[bytes]] = [[] for _ in wires]
        loads = zip(wires, got, strict=True)
        threads = [threading.Thread(target=_load, args=load) for load in loads]
        with Wire(sidecar.port) as subscriber:
            assert subscriber.cmd("SUBSCRIBE", "c").endswith(b":1\r\n")
            for thread in threads:
                thread.start()
            wait_until(lambda: sum(map(len, got)) > 500, "some hundred replies")
            begin = time.monotonic()
            assert sidecar.stop() == 0
            assert time.monotonic() - begin < 3
            for thread in threads:
                thread.join(5)
            subscriber.expect_eof()
        for wire in wires:
            wire.close()
        replies = [reply for of_one in got for reply in of_one]
        assert sorted(int(reply[1:]) for reply in replies) == list(range(1, len(replies) + 1))
        with Wire(plain_server.port) as direct:
            count = b"%d" % len(replies)
            assert direct.cmd("GET", "n") == b"$%d\r\n%b\r\n" % (len(count), count)


def test_stop_lets_a_transaction_finish(plain_server: Server) -> None:
    """MULTI before the signal, the rest behind it, cut anywhere."""
    with (
        Sidecar(plain_server.url) as sidecar,
        Wire(sidecar.port) as client,
        Wire(sidecar.port) as silent,
    ):
        assert silent.cmd("PING") == b"+PONG\r\n"
        assert client.cmd("MULTI") == b"+OK\r\n"
        incr, last = pack("INCR", "n"), pack("EXEC")
        client.send(incr + incr[:9])
        assert client.read_reply() == b"+QUEUED\r\n"
        os.kill(sidecar.pid, signal.SIGTERM)
        silent.expect_eof()
        client.send(incr[9:])
        assert client.read_reply() == b"+QUEUED\r\n"
        client.send(last[:7])
        client.expect_silence()
        client.send(last[7:])
        assert client.read_reply() == b"*2\r\n:1\r\n:2\r\n"
        client.expect_eof()
        assert _ended(sidecar)


def test_stop_completes_a_request_begun(plain_server: Server) -> None:
    """As `Client.retire` says: half of it came before the signal, the other half behind it."""
    with Sidecar(plain_server.url) as sidecar, Wire(sidecar.port) as begun:
        assert begun.cmd("PING") == b"+PONG\r\n"
        request = pack("SET", "k", "v")
        begun.send(request[:12])
        with Wire(sidecar.port) as silent:
            assert silent.cmd("PING") == b"+PONG\r\n"  # what was sent before has been read
            os.kill(sidecar.pid, signal.SIGTERM)
            silent.expect_eof()
        begun.send(request[12:])
        assert begun.read_reply() == b"+OK\r\n"
        begun.expect_eof()
        assert _ended(sidecar)


def test_idle_timeout(plain_server: Server) -> None:
    """Only a client that waits for nothing is closed, and only for its silence."""
    with (
        Sidecar(plain_server.url, settings={"listen.idle_timeout": 1}) as sidecar,
        Wire(sidecar.port) as blocked,
        Wire(sidecar.port) as subscriber,
        Wire(sidecar.port) as talker,
        Wire(sidecar.port) as silent,
    ):
        blocked.send_command("BLPOP", "q", 0)
        assert subscriber.cmd("SUBSCRIBE", "c").endswith(b":1\r\n")
        assert silent.cmd("PING") == b"+PONG\r\n"

        def closed() -> bool:
            assert talker.cmd("PING") == b"+PONG\r\n"
            try:
                silent.expect_eof(0.05)
            except DeadlineError:
                return False
            return True

        wait_until(closed, "the silent client is closed", 4)
        assert talker.cmd("PUBLISH", "c", "x") == b":1\r\n"
        assert subscriber.read_reply().endswith(b"$1\r\nx\r\n")
        assert talker.cmd("LPUSH", "q", "v") == b":1\r\n"
        assert blocked.read_reply() == b"*2\r\n$1\r\nq\r\n$1\r\nv\r\n"


def test_idle_timeout_begins_with_the_reply(plain_server: Server) -> None:
    """Who waited longer than the timeout in a blocking command may think about the reply."""
    with (
        Sidecar(plain_server.url, settings={"listen.idle_timeout": 1}) as sidecar,
        Wire(sidecar.port) as blocked,
    ):
        reply, took = _reply_in(blocked, "BLPOP", "q", "2.4")
        assert reply == b"*-1\r\n"
        assert took >= 2.4
        _stays_open(blocked, 0.9)
        assert blocked.cmd("PING") == b"+PONG\r\n"


def test_new_certificates(plain_server: Server, tmp_path: Path) -> None:
    """SIGHUP: new connections see the new one, others go on, a bad one leaves the last in use."""
    authority = Authority(tmp_path, "ca")
    first, second = authority.issue("first"), authority.issue("second")
    context = ssl.create_default_context(cafile=str(authority.cert_file))
    live = Pem(tmp_path / "live.crt", tmp_path / "live.key")

    def put(pem: Pem) -> bytes:
        shutil.copy(pem.cert, live.cert)
        shutil.copy(pem.key, live.key)
        return ssl.PEM_cert_to_DER_cert(pem.cert.read_text())

    def reload(message: str) -> None:
        sidecar.mark()
        os.kill(sidecar.pid, signal.SIGHUP)
        wait_until(lambda: f'"event":"{message}"' in sidecar.news(), message)

    old = put(first)
    settings = {
        "listen.tls.cert_file": str(live.cert),
        "listen.tls.key_file": str(live.key),
        "reload.certificates": "false",
    }
    with (
        Sidecar(plain_server.url, settings=settings, tls=context) as sidecar,
        Wire(sidecar.port, tls=context) as before,
    ):
        assert before.certificate == old
        assert before.cmd("SET", "k", "v") == b"+OK\r\n"
        new = put(second)
        reload("certificates reloaded")
        with Wire(sidecar.port, tls=context) as after:
            assert after.certificate == new != old
            assert after.cmd("GET", "k") == before.cmd("GET", "k") == b"$1\r\nv\r\n"
            for broken in (b"no certificate", first.cert.read_bytes()):
                live.cert.write_bytes(broken)  # the second does not fit the key
                reload("certificate reload failed")
                with Wire(sidecar.port, tls=context) as later:
                    assert later.certificate == new
                    assert later.cmd("GET", "k") == b"$1\r\nv\r\n"
            live.cert.unlink()
            reload("certificate reload failed")
            assert after.cmd("PING") == before.cmd("PING") == b"+PONG\r\n"


def test_a_bad_certificate_of_the_admin_port(plain_server: Server, tmp_path: Path) -> None:
    """New certificates are taken over all together, or none is."""
    authority = Authority(tmp_path, "ca")
    first, second = authority.issue("first"), authority.issue("second")
    context = ssl.create_default_context(cafile=str(authority.cert_file))
    live, admin = (Pem(tmp_path / f"{n}.crt", tmp_path / f"{n}.key") for n in ("live", "admin"))
    for pem in (live, admin):
        shutil.copy(first.cert, pem.cert)
        shutil.copy(first.key, pem.key)
    settings = {
        "listen.tls.cert_file": str(live.cert),
        "listen.tls.key_file": str(live.key),
        "admin.tls.cert_file": str(admin.cert),
        "admin.tls.key_file": str(admin.key),
        "reload.certificates": "false",
    }
    admin_port = f"localhost:{free_port()}"
    with Sidecar(plain_server.url, settings=settings, tls=context, admin=admin_port) as sidecar:
        shutil.copy(second.cert, live.cert)
        shutil.copy(second.key, live.key)
        for content, expected, event in (
            (b"no certificate", first, "certificate reload failed"),
            (second.cert.read_bytes(), second, "certificates reloaded"),
        ):
            admin.cert.write_bytes(content)
            admin.key.write_bytes(second.key.read_bytes())
            sidecar.mark()
            os.kill(sidecar.pid, signal.SIGHUP)
            wait_until(lambda event=event: f'"event":"{event}"' in sidecar.news(), event)
            with Wire(sidecar.port, tls=context) as client:
                assert client.certificate == ssl.PEM_cert_to_DER_cert(expected.cert.read_text())


def test_start_without_upstream() -> None:
    """`upstream.start = wait`: errors after `upstream.wait`, then at once, then service."""
    port = free_port()
    settings = {
        "upstream.start": "wait",
        "upstream.wait": 1,
        "upstream.backoff_min": 0.02,
        "upstream.backoff_max": 0.1,
    }

    def connected() -> Wire | None:
        try:
            return Wire(sidecar.port)
        except ConnectionRefusedError:
            return None

    with Sidecar(f"redis://127.0.0.1:{port}", settings=settings, ready=False) as sidecar:
        wire = wait_until(connected, "the sidecar listens", 20)
        with wire:
            reply, took = _reply_in(wire, "SET", "k", "v")
            assert reply.startswith(b"-UNAVAILABLE ")
            assert 0.5 < took < 3
            reply, took = _reply_in(wire, "GET", "k")
            assert reply.startswith(b"-UNAVAILABLE ")
            assert took < 0.5
            with valkey(port=port):
                wait_until(lambda: wire.cmd("GET", "k") == b"$-1\r\n", "service")
                assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
                wire.send_command("SUBSCRIBE", "c")
                assert wire.read_reply().endswith(b":1\r\n")


def test_a_long_script(pair: Pair) -> None:
    """Others are led past the link it holds up: they learn that the server is busy, and end it."""
    with Wire(pair.behind.port) as direct:
        threshold = direct.cmd("CONFIG", "GET", "busy-reply-threshold").split(b"\r\n")[-2]
        assert direct.cmd("CONFIG", "SET", "busy-reply-threshold", 100) == b"+OK\r\n"
        try:
            _during_a_long_script(pair, direct)
        finally:
            direct.cmd("SCRIPT", "KILL")
            assert direct.cmd("CONFIG", "SET", "busy-reply-threshold", threshold) == b"+OK\r\n"


def _during_a_long_script(pair: Pair, direct: Wire) -> None:
    port = pair.sidecar.port
    with Wire(port) as runner, Wire(port) as behind, Wire(port) as early, Wire(port) as other:
        wires = (runner, behind, early, other)
        for number, wire in enumerate(wires):
            assert wire.cmd("SET", f"k{number}", number) == b"+OK\r\n"
        ids = [wire.cmd("CLIENT", "ID") for wire in wires]
        pair.sidecar.mark()
        runner.send(pack("EVAL", BUSY_LOOP, 0) + pack("GET", "k0"))
        wait_until(lambda: direct.cmd("PING").startswith(b"-BUSY "), "the script runs")
        wait_until(lambda: "held-up link replaced" in pair.sidecar.news(), "diverted", 2)
        expected = direct.cmd("PING")
        reply, took = _reply_in(early, "PING")
        assert (reply, took < 1) == (expected, True)
        with Wire(port) as late:
            reply, took = _reply_in(late, "GET", "k0")
            assert (reply, took < 1) == (expected, True)
        runner.expect_silence()
        assert other.cmd("SCRIPT", "KILL") == b"+OK\r\n"
        assert b"SCRIPT KILL" in runner.read_reply()
        assert runner.read_reply() == b"$1\r\n0\r\n"
        for number, wire in enumerate(wires):
            wire.send(pack("GET", f"k{number}") + pack("INCRBY", f"k{number}", 10))
            assert wire.read_replies(2) == [b"$1\r\n%d\r\n" % number, b":%d\r\n" % (number + 10)]
            wire.expect_silence()
        assert [wire.cmd("CLIENT", "ID") for wire in wires] == ids


@pytest.mark.one_worker("each worker has links of its own")
def test_publish_behind_subscribe(plain_server: Server) -> None:
    """SUBSCRIBE on a new connection is with the server before the PUBLISH sent after it."""
    with (
        Sidecar(plain_server.url) as sidecar,
        Wire(plain_server.port) as direct,
        Wire(sidecar.port) as keeper,
    ):
        assert keeper.cmd("PING") == b"+PONG\r\n"
        received = []

        def links() -> int:
            return direct.cmd("CLIENT", "LIST").count(b" name=redis-sidecar ")

        for number in range(50):
            wait_until(lambda: links() == 6, "a shared link, the near cache's, four spare ones")
            with Wire(sidecar.port) as subscriber, Wire(sidecar.port) as publisher:
                subscriber.send_command("SUBSCRIBE", f"c{number}")
                received.append(publisher.cmd("PUBLISH", f"c{number}", "x"))
                assert subscriber.read_reply().endswith(b":1\r\n")
        assert received == [b":1\r\n"] * 50
