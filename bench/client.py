"""A blocking client of few words, for what the benches do beside their load."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from bench.procs import Unavailable

BATCH = 500


class Client:
    """One connection; GETs in turn or in pipelines."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *requests: tuple[bytes, ...]) -> None:
        self.sock.sendall(
            b"".join(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)
                for words in requests
            )
        )

    def reply(self) -> bytes:
        line = self.file.readline()
        if line[:1] == b"$" and line != b"$-1\r\n":
            return self.file.read(int(line[1:]) + 2)
        return line

    def timed(self, keys: Sequence[bytes], value: bytes) -> list[float]:
        """Milliseconds of a GET of each, one after the other; all have this value."""
        found = []
        for key in keys:
            begin = time.perf_counter()
            self.send((b"GET", key))
            if self.reply()[:-2] != value:
                raise Unavailable(f"a wrong value of {key!r}")
            found.append(1e3 * (time.perf_counter() - begin))
        return found

    def piped(self, requests: Sequence[tuple[bytes, ...]]) -> None:
        for at in range(0, len(requests), BATCH):
            chunk = requests[at : at + BATCH]
            self.send(*chunk)
            for _ in chunk:
                self.reply()

    def gets(self) -> int:
        """GETs the server has executed."""
        self.send((b"INFO", b"commandstats"))
        found = [line for line in self.reply().split(b"\r\n") if line.startswith(b"cmdstat_get:")]
        return int(found[0].partition(b"calls=")[2].partition(b",")[0]) if found else 0
