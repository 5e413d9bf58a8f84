"""`sidecar certs show` and `sidecar check`: what they say of certificate files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness.certificates import Authority, Pem


def cli(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def configured(folder: Path, pem: Pem, authority: Authority) -> str:
    """A configuration file with mutual TLS and a revocation list."""
    file = folder / "sidecar.toml"
    file.write_text(
        '[listen]\nurls = ["rediss://127.0.0.1:0"]\n[listen.tls]\nclient_auth = "required"\n'
        f'cert_file = "{pem.cert}"\nkey_file = "{pem.key}"\nca_file = "{authority.cert_file}"\n'
        f'crl_file = "{authority.revoke()}"\n'
    )
    return str(file)


def test_files(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    long, short = authority.issue("long", days=90), authority.issue("short", days=2)
    code, out, err = cli("certs", "show", str(long.cert), str(short.cert), str(authority.revoke()))
    assert (code, err) == (0, "")
    assert "CN=long" in out
    assert "names   DNS:localhost, IP:127.0.0.1, IP:::1" in out
    assert "UTC, valid for now" in out
    assert "UTC, ends in 48 hours" in out or "UTC, ends in 2 days" in out
    assert "revocation list of " in out
    code, _, err = cli("certs", "show", str(long.key))
    assert (code, err) == (1, f"sidecar: {long.key}: no certificate (PEM) in it that can be read\n")
    code, _, err = cli("certs", "show", str(tmp_path / "none"))
    assert (code, "no such file" in err) == (1, True)


def test_those_of_the_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    file = configured(tmp_path, authority.issue("mine"), authority)
    code, out, err = cli("certs", "show", "-c", file)
    assert (code, err) == (0, "")
    for setting in ("cert_file", "ca_file", "crl_file"):
        assert f"\nlisten.tls.{setting}  " in f"\n{out}"
    assert cli("certs", "show")[1] == "no certificate files are set\n"


def test_check_refuses_what_is_of_no_use(tmp_path: Path) -> None:
    """One line for each fault; a sidecar that is started with it warns."""
    authority = Authority(tmp_path, "ca")
    good, bad = authority.issue("good"), authority.issue("bad", days=-1)
    code, out, err = cli("check", "-c", configured(tmp_path, good, authority))
    assert (code, err, out[:3]) == (0, "", "ok:")
    mixed = Pem(bad.cert, good.key)
    good.key.chmod(0o644)
    code, out, err = cli("check", "-c", configured(tmp_path, mixed, authority))
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("sidecar: listen.tls.cert_file: ")
    assert "has expired at" in lines[0]
    assert "the key is not that of CN=bad" in lines[1]
    assert "every user of the host can read the key" in lines[2]
