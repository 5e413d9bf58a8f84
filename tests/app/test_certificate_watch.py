"""When certificate files are read again, and when the log warns: the looks are made by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.app.certificate_watch import AGAIN, CertificateWatch, files_of
from sidecar.settings.schema import Settings
from sidecar.settings.sections.clients import Listen, ListenTls
from sidecar.settings.sections.operations import Reload
from tests.harness.certificates import Authority, Pem


class Watched:
    """A watch over a certificate and its key, and how often it has had them read."""

    def __init__(self, folder: Path, pem: Pem, *, on: bool = True) -> None:
        self.live = Pem(folder / "live.crt", folder / "live.key")
        self.put(cert=pem, key=pem)
        tls = ListenTls(cert_file=str(self.live.cert), key_file=str(self.live.key))
        self.settings = Settings(listen=Listen(tls=tls), reload=Reload(certificates=on))
        self.renewed = 0
        self.watch = CertificateWatch(lambda: self.settings, self._renew)

    async def _renew(self) -> None:
        self.renewed += 1

    def put(self, *, cert: Pem | None = None, key: Pem | None = None) -> None:
        """Replace the certificate, the key, or both."""
        for source, target in (
            (cert and cert.cert, self.live.cert),
            (key and key.key, self.live.key),
        ):
            if source is not None:
                fresh = target.with_suffix(".new")
                fresh.write_bytes(source.read_bytes())
                fresh.replace(target)

    async def looks(self, number: int) -> int:
        """Look so often; how often they have been read by now."""
        for _ in range(number):
            await self.watch.look()
        return self.renewed


@pytest.fixture
def pems(tmp_path: Path) -> tuple[Pem, Pem]:
    authority = Authority(tmp_path, "ca")
    return authority.issue("first", days=60), authority.issue("second", days=60)


async def test_a_change_is_read_once(tmp_path: Path, pems: tuple[Pem, Pem]) -> None:
    watched = Watched(tmp_path, pems[0])
    assert await watched.looks(3) == 0
    watched.put(cert=pems[1], key=pems[1])
    assert await watched.looks(1) == 0
    assert await watched.looks(5) == 1


async def test_files_that_still_change_are_not_read(tmp_path: Path, pems: tuple[Pem, Pem]) -> None:
    """A certificate, a look, its key: one reading, of both."""
    watched = Watched(tmp_path, pems[0])
    watched.put(cert=pems[1])
    assert await watched.looks(1) == 0
    watched.put(key=pems[1])
    assert await watched.looks(1) == 0
    assert await watched.looks(3) == 1


async def test_a_file_that_is_gone_for_a_moment(tmp_path: Path, pems: tuple[Pem, Pem]) -> None:
    watched = Watched(tmp_path, pems[0])
    watched.live.cert.unlink()
    assert await watched.looks(1) == 0
    watched.put(cert=pems[1], key=pems[1])
    assert await watched.looks(3) == 1


async def test_it_can_be_off(tmp_path: Path, pems: tuple[Pem, Pem]) -> None:
    watched = Watched(tmp_path, pems[0], on=False)
    watched.put(cert=pems[1], key=pems[1])
    assert await watched.looks(3) == 0


def warned(watched: Watched, now: float) -> Sequence[Any]:
    """What the log says at this Unix time."""
    with capture_logs() as lines:
        watched.watch.warn(now)
    return [(line["log_level"], line["setting"], line["reason"]) for line in lines]


def test_warnings(tmp_path: Path) -> None:
    """Once, then once a day, and again when it has ended."""
    day, now = 86400.0, time.time()
    watched = Watched(tmp_path, Authority(tmp_path, "ca").issue("x", days=60))
    use = "listen.tls.cert_file"
    assert warned(watched, now) == []
    assert warned(watched, now + 50 * day) == [("warning", use, "ends in 10 days")]
    assert warned(watched, now + 50 * day + 60) == []
    later = now + 50 * day + AGAIN
    assert warned(watched, later) == [("warning", use, "ends in 9 days")]
    over = now + 60 * day + 10
    assert [level for level, *_ in warned(watched, over)] == ["error"]
    assert warned(watched, over + 60) == []


def test_files_of_all_sections() -> None:
    tls = ListenTls(cert_file="c", key_file="k", ca_file="a", crl_file="r")
    assert files_of(Settings(listen=Listen(tls=tls))) == ["c", "k", "a", "r"]
    assert files_of(Settings()) == []
