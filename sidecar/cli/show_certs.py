"""`sidecar certs show`: what is in certificate files, those of the settings or any others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sidecar.policy.expiry import words
from sidecar.settings.schema import Settings
from sidecar.tls import pem


def of_settings(settings: Settings) -> Sequence[tuple[str, str]]:
    """The certificate files that the settings name: setting and path."""
    sections = {
        "listen.tls": settings.listen.tls,
        "upstream.tls": settings.upstream.tls,
        "admin.tls": settings.admin.tls,
    }
    return [
        (f"{path}.{name}", file)
        for path, section in sections.items()
        for name in ("cert_file", "ca_file", "crl_file")
        if (file := getattr(section, name, ""))
    ]


def show(file: str) -> Iterator[str]:
    """What is in a PEM file, line by line. Raises OSError, and ValueError if there is neither a
    certificate nor a revocation list in it."""
    now = time.time()
    if pem.has_lists(file):
        for each in pem.list_validities(file):
            yield f"  revocation list of {each.subject}"
            yield f"    {_state(each.begins, each.ends, now)}"
        return
    for certificate in pem.descriptions(file):
        yield f"  {certificate.subject}"
        if certificate.names:
            yield f"    names   {', '.join(certificate.names)}"
        yield f"    issuer  {certificate.issuer}"
        yield f"    valid   {certificate.span}, {_state(certificate.begins, certificate.ends, now)}"
        yield f"    sha256  {certificate.fingerprint}"


def as_json(setting: str, file: str) -> dict[str, Any]:
    """What is in a PEM file, for programs; `error` says why it cannot be read, else it is empty.
    Times are seconds since 1970."""
    found: dict[str, Any] = {"setting": setting, "file": file, "error": ""}
    try:
        if pem.has_lists(file):
            found["revocation_lists"] = [asdict(each) for each in pem.list_validities(file)]
        else:
            found["certificates"] = [asdict(each) for each in pem.descriptions(file)]
    except OSError as error:
        found["error"] = (error.strerror or str(error)).lower()
    except ValueError:
        found["error"] = "no certificate (PEM) in it that can be read"
    return found


def _state(begins: float, ends: float, now: float) -> str:
    return words(begins, ends, now) or "valid for now"
