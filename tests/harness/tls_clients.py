"""Clients that others have written, with TLS: OpenSSL's s_client and redis-cli.

Each runs to its end and says what it got; whether that is an error is for the test to see.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .certificates import Pem

HAVE_OPENSSL = shutil.which("openssl") is not None
WITHIN = 20.0


def s_client(port: int, *arguments: str, sent: bytes = b"") -> str:
    """`openssl s_client` against this port; what it prints. It ends when the server does, or `sent`
    (QUIT, say) has it ended."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments]
    if sent:
        command += ["-ign_eof"]
    done = subprocess.run(
        command,
        input=sent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=WITHIN,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace")


def redis_cli(port: int, ca: Path, pem: Pem | None, *arguments: str) -> str:
    """`redis-cli --tls` against this port; what it prints."""
    mine = ["--cert", str(pem.cert), "--key", str(pem.key)] if pem is not None else []
    where = ["-h", "localhost", "-p", str(port), "--tls", "--cacert", str(ca)]
    done = subprocess.run(
        ["redis-cli", *where, *mine, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=WITHIN,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace")
