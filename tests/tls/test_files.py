"""Certificate files that a roll-out must not have: each fault is named with its setting."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sidecar.settings.schema import Settings
from sidecar.settings.sections.clients import Listen, ListenTls
from sidecar.settings.sections.upstream import Upstream, UpstreamTls
from sidecar.tls.files import problems
from tests.harness.certificates import Authority, Certificates, Pem


def told(listen: Mapping[str, object] = {}, upstream: Mapping[str, object] = {}) -> list[str]:
    """The problems of these settings of TLS."""
    of_listen = {name: str(value) for name, value in listen.items()}
    of_upstream = {name: str(value) for name, value in upstream.items()}
    settings = Settings(
        listen=Listen(tls=ListenTls(**of_listen)),  # type: ignore[arg-type]
        upstream=Upstream(tls=UpstreamTls(**of_upstream)),  # type: ignore[arg-type]
    )
    return list(problems(settings, time.time()))


def pair(pem: Pem) -> dict[str, object]:
    return {"cert_file": pem.cert, "key_file": pem.key}


def test_good_files(certificates: Certificates, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    mine = pair(authority.issue("mine"))
    known = {"ca_file": authority.cert_file, "crl_file": authority.revoke()}
    assert told({**mine, **known}, {**mine, **known}) == []
    assert told() == []
    assert told({"cert_file": certificates.server.bundle}) == []


Case = Callable[[Authority, Path], dict[str, object]]


def _expired(authority: Authority, folder: Path) -> dict[str, object]:
    return pair(authority.issue("x", days=-1))


def _early(authority: Authority, folder: Path) -> dict[str, object]:
    return pair(authority.issue("x", begins=1))


def _other_key(authority: Authority, folder: Path) -> dict[str, object]:
    return {"cert_file": authority.issue("x").cert, "key_file": authority.issue("y").key}


def _open_key(authority: Authority, folder: Path) -> dict[str, object]:
    mine = authority.issue("x")
    mine.key.chmod(0o604)
    return pair(mine)


def _no_chain(authority: Authority, folder: Path) -> dict[str, object]:
    mine, other = authority.issue("x"), Authority(folder, "other")
    chain = folder / "chain.crt"
    chain.write_bytes(mine.cert.read_bytes() + other.cert_file.read_bytes())
    return {"cert_file": chain, "key_file": mine.key}


def _no_pem(authority: Authority, folder: Path) -> dict[str, object]:
    return {"cert_file": authority.issue("x").key}


def _key_is_certificate(authority: Authority, folder: Path) -> dict[str, object]:
    mine = authority.issue("x")
    return {"cert_file": mine.cert, "key_file": mine.cert}


def _old_list(authority: Authority, folder: Path) -> dict[str, object]:
    return {"ca_file": authority.cert_file, "crl_file": authority.revoke(days=-1)}


def _list_of_others(authority: Authority, folder: Path) -> dict[str, object]:
    return {"ca_file": authority.cert_file, "crl_file": Authority(folder, "other").revoke()}


def _no_list(authority: Authority, folder: Path) -> dict[str, object]:
    return {"ca_file": authority.cert_file, "crl_file": authority.cert_file}


def _old_authority(authority: Authority, folder: Path) -> dict[str, object]:
    return {"ca_file": authority.issue("x", days=-1).cert}


@pytest.mark.parametrize(
    ("case", "setting", "words"),
    [
        (_expired, "cert_file", "has expired at 20"),
        (_early, "cert_file", "is not valid before 20"),
        (_other_key, "key_file", "the key is not that of"),
        (_open_key, "key_file", "every user of the host can read the key; chmod 600"),
        (_no_chain, "cert_file", "is not signed by the next in the file"),
        (_no_pem, "cert_file", "has no certificate in it that can be read"),
        (_key_is_certificate, "key_file", "has no private key in it"),
        (_old_list, "crl_file", "was to be renewed at 20"),
        (_list_of_others, "crl_file", "is signed by none of ca_file"),
        (_no_list, "crl_file", "has no revocation list in it"),
        (_old_authority, "ca_file", "has expired at 20"),
    ],
)
def test_bad_files(tmp_path: Path, case: Case, setting: str, words: str) -> None:
    found = case(Authority(tmp_path, "ca"), tmp_path)
    (of_upstream,) = told(upstream=found)
    assert of_upstream.startswith(f"upstream.tls.{setting}: ")
    assert words in of_upstream
    (of_listen,) = told(listen=found)
    assert of_listen == of_upstream.replace("upstream.tls.", "listen.tls.")


def test_a_chain_in_order_holds(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    mine = authority.issue("x")
    chain = tmp_path / "chain.crt"
    chain.write_bytes(mine.cert.read_bytes() + authority.cert_file.read_bytes())
    assert told({"cert_file": chain, "key_file": mine.key}) == []


def test_a_bundle_may_have_old_ones_in_it(certificates: Certificates, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(certificates.ca.read_bytes() + certificates.expired.cert.read_bytes())
    assert told({"ca_file": bundle}) == []
