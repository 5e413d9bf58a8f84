"""redis-cli and redis-benchmark through the sidecar."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.pair import Pair
from tests.harness.wire import Wire, pack

pytestmark = pytest.mark.redis


def cli(pair: Pair, *args: str, data: bytes = b"", timeout: float = 10) -> str:
    """Run redis-cli to its end."""
    binary = shutil.which("redis-cli")
    assert binary is not None
    done = subprocess.run(
        [binary, "-p", str(pair.sidecar.port), *args],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    return done.stdout.decode()


def test_one_shot(valkey_pair: Pair) -> None:
    """A command on the command line, in both protocols, and an error."""
    assert cli(valkey_pair, "SET", "k", "v") == "OK\n"
    assert cli(valkey_pair, "GET", "k") == "v\n"
    assert cli(valkey_pair, "-3", "HSET", "h", "f", "v") == "1\n"
    assert cli(valkey_pair, "-3", "--json", "HGETALL", "h") == '{"f":"v"}\n'
    assert "unknown command" in cli(valkey_pair, "NOSUCH")
    assert cli(valkey_pair, "-n", "3", "SET", "k", "three") == "OK\n"
    assert cli(valkey_pair, "-n", "3", "GET", "k") == "three\n"
    assert cli(valkey_pair, "-x", "SET", "k", data=b"from stdin") == "OK\n"
    assert cli(valkey_pair, "-r", "3", "INCR", "n") == "1\n2\n3\n"
    assert cli(valkey_pair, data=b"SET a 1\nGET a\n") == "OK\n1\n"


def test_pipe(valkey_pair: Pair) -> None:
    """Mass insertion: 20,000 commands, one of them wrong."""
    data = b"".join(pack("SET", f"k{n}", n) for n in range(20_000)) + pack("LPUSH", "k0", "x")
    output = cli(valkey_pair, "--pipe", data=data)
    assert "errors: 1, replies: 20001" in output
    assert cli(valkey_pair, "DBSIZE") == "20000\n"


def test_scan_and_bigkeys(valkey_pair: Pair) -> None:
    """The modes that walk the keyspace."""
    assert cli(valkey_pair, "--pipe", data=b"".join(pack("SET", f"k{n}", n) for n in range(300)))
    assert len(cli(valkey_pair, "--scan", "--pattern", "k*").split()) == 300
    assert "Sampled 300 keys" in cli(valkey_pair, "--bigkeys")
    assert "Sampled 300 keys" in cli(valkey_pair, "--memkeys")


def test_eval_and_functions(valkey_pair: Pair, tmp_path: Path) -> None:
    """--eval reads a script from a file."""
    script = tmp_path / "script.lua"
    script.write_text("return {KEYS[1], ARGV[1]}")
    assert cli(valkey_pair, "--eval", str(script), "k", ",", "a") == "k\na\n"


def test_rdb(valkey_pair: Pair, tmp_path: Path) -> None:
    """--rdb is a replication handshake (SYNC) through the sidecar."""
    assert cli(valkey_pair, "SET", "k", "v") == "OK\n"
    file = tmp_path / "dump.rdb"
    cli(valkey_pair, "--rdb", str(file), timeout=20)
    assert file.read_bytes()[:5] in (b"REDIS", b"VALKE")


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, argv: list[str]) -> None:
        self.text = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.environ.update(TERM="dumb", HOME="/nonexistent", FAKETTY="1")
            os.execvp(argv[0], argv)

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        os.write(self._fd, line.encode() + b"\n")

    def expect(self, pattern: str, deadline: float = 5.0) -> str:
        """Wait for a pattern in what comes from now on; consume up to its end."""
        limit = time.monotonic() + deadline
        while True:
            found = re.search(pattern, self.text)
            if found:
                self.text = self.text[found.end() :]
                return found[0]
            left = limit - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self._fd], [], [], left)[0]:
                self.text += os.read(self._fd, 65536).decode(errors="replace")

    def close(self) -> None:
        """End the program."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._fd)


@contextmanager
def terminal(pair: Pair, *args: str) -> Iterator[Terminal]:
    """redis-cli on a terminal."""
    term = Terminal(["redis-cli", "-p", str(pair.sidecar.port), *args])
    try:
        yield term
    finally:
        term.close()


@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_interactive(pair: Pair, protocol: str) -> None:
    """The prompt shows, commands are answered, SELECT and MULTI change the prompt, help works."""
    with terminal(pair, protocol) as term:
        term.expect(rf"127\.0\.0\.1:{pair.sidecar.port}> ")
        term.type("SET k v")
        term.expect(r"OK\r?\n")
        term.type("GET k")
        term.expect(r'"v"')
        term.type("SELECT 3")
        term.expect(r"\[3\]> ")
        term.type("GET k")
        term.expect(r"\(nil\)")
        term.type("MULTI")
        term.expect(r"\(TX\)> ")
        term.type("INCR n")
        term.expect("QUEUED")
        term.type("EXEC")
        term.expect(r"\(integer\) 1")
        term.type("NOSUCH")
        term.expect(r"\(error\) ERR unknown command")
        term.type("help GET")
        term.expect("summary:")


def test_interactive_subscribe(valkey_pair: Pair) -> None:
    """SUBSCRIBE in the terminal shows messages as they come."""
    with terminal(valkey_pair) as term:
        term.expect("> ")
        term.type("SUBSCRIBE c")
        term.expect(r"\(integer\) 1")
        with Wire(valkey_pair.sidecar.port) as wire:
            assert wire.cmd("PUBLISH", "c", "hello") == b":1\r\n"
        term.expect('"hello"')


def test_interactive_monitor(valkey_pair: Pair) -> None:
    """MONITOR in the terminal shows another client's command."""
    with terminal(valkey_pair) as term:
        term.expect("> ")
        term.type("MONITOR")
        term.expect("OK")
        with Wire(valkey_pair.sidecar.port) as wire:
            assert wire.cmd("SET", "seen", "1") == b"+OK\r\n"
        term.expect('"SET" "seen" "1"')


def test_latency(valkey_pair: Pair) -> None:
    """--latency, not on a terminal, measures for a second and says min, max, avg, count."""
    output = cli(valkey_pair, "--latency", "-i", "1", "--raw")
    assert re.match(r"\d+ \d+ \d+\.\d+ \d+", output), output
    assert int(output.split()[3]) > 10


def test_stat(valkey_pair: Pair) -> None:
    """--stat is a loop around INFO."""
    with terminal(valkey_pair, "--stat", "-i", "0.1") as term:
        term.expect("keys")
        term.expect(r"\d+ +\d+\.\d+[KM]? ")


SUITE = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"


@pytest.mark.parametrize(
    "args",
    [
        ["-t", SUITE, "-n", "1000", "-c", "20"],
        ["-t", SUITE, "-n", "2000", "-c", "20", "-P", "16"],
        ["-t", "set,get", "-n", "2000", "-c", "10", "-3"],
        ["-t", "set,get", "-n", "2000", "-c", "10", "-r", "100000", "--dbnum", "3"],
        ["-t", "set,get", "-n", "300", "-c", "10", "-d", "100000"],
        ["-n", "1000", "-c", "10", "EVAL", "return redis.call('INCR', KEYS[1])", "1", "n"],
        ["-n", "500", "-c", "10", "-k", "0", "GET", "k"],
    ],
    ids=["suite", "pipelined", "resp3", "random", "large", "script", "reconnecting"],
)
def test_benchmark(valkey_pair: Pair, args: list[str]) -> None:
    """A short run of redis-benchmark ends well and reports no error."""
    binary = shutil.which("redis-benchmark")
    assert binary is not None
    done = subprocess.run(
        [binary, "-p", str(valkey_pair.sidecar.port), "-q", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output
    assert "requests per second" in output
    assert not re.search(r"error", output, re.IGNORECASE), output
