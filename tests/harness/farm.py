"""The servers and sidecars one xdist worker shares between its tests."""

from __future__ import annotations

from collections.abc import Callable

from .pair import Pair
from .servers import Server, Sidecar, redis7, valkey

BINARIES: dict[str, Callable[..., Server]] = {"valkey": valkey, "redis7": redis7}


class Farm:
    """Servers and sidecars that live as long as the worker, by name."""

    def __init__(self) -> None:
        self._pairs: dict[str, Pair] = {}
        self._servers: dict[str, Server] = {}

    def pair(self, kind: str, password: str = "", identities: str = "") -> Pair:
        """The pair of this kind, with `requirepass` when a password is given. With the text of a
        file of `identities` the sidecar judges logins itself."""
        key = f"{kind}-{password}-{identities}"
        pair = self._pairs.get(key)
        if pair is not None and not pair.sidecar.running:
            self._end(pair)
            pair = None
        if pair is None:
            settings = {"requirepass": password} if password else {}
            direct, behind = (BINARIES[kind](settings) for _ in range(2))
            sidecar = Sidecar(behind.url, settings=_judging(behind, identities))
            pair = self._pairs[key] = Pair(kind, direct, behind, sidecar, password)
        return pair

    def server(self, kind: str) -> Server:
        """A server that no sidecar uses."""
        if kind not in self._servers:
            self._servers[kind] = BINARIES[kind]()
        return self._servers[kind]

    def close(self) -> None:
        """End them all."""
        for pair in self._pairs.values():
            self._end(pair)
        for server in self._servers.values():
            server.close()

    @staticmethod
    def _end(pair: Pair) -> None:
        for process in (pair.sidecar, pair.direct, pair.behind):
            process.close()


def _judging(server: Server, identities: str) -> dict[str, str]:
    """Settings of a sidecar that judges logins by this file of identities."""
    if not identities:
        return {}
    file = server.folder / "identities.toml"
    file.write_text(identities)
    return {"identities.mode": "terminate", "identities.file": str(file)}
