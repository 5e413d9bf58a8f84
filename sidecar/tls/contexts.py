"""SSL contexts, made from settings: of the listeners, the upstream, the Sentinels and the admin
endpoint.

All contexts are made here. A context is made completely or not at all: a bad file raises an error
that names the setting. The session tickets of a listener are encrypted with keys that its context
made by itself, so another context means other keys.
"""

from __future__ import annotations

import ssl
from typing import Never

from sidecar.settings.sections.clients import ListenTls
from sidecar.settings.sections.operations import AdminTls
from sidecar.settings.sections.upstream import Sentinel, UpstreamTls
from sidecar.tls.presented import watch_presented

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


# All of these raise ssl.SSLError or OSError, which name the setting, for a bad file.


def listener_context(settings: ListenTls) -> ssl.SSLContext:
    """The context of `rediss://` listeners."""
    context = _server("listen.tls", settings)
    if settings.client_auth != "none":
        watch_presented(context)
    return context


def upstream_context(settings: UpstreamTls) -> ssl.SSLContext:
    """The context of connections to the upstream."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = VERSIONS[settings.min_version]
    context.check_hostname = settings.verify == "full"
    context.verify_mode = ssl.CERT_NONE if settings.verify == "none" else ssl.CERT_REQUIRED
    if settings.ca_file:
        _load_ca(context, settings.ca_file, "upstream.tls.ca_file")
    elif settings.verify != "none":
        context.load_default_certs()
    if settings.crl_file:
        _load_crl(context, settings.crl_file, "upstream.tls.crl_file")
    if settings.cert_file:
        _load_chain(context, settings.cert_file, settings.key_file, "upstream.tls")
    return context


def sentinel_context(
    settings: Sentinel, upstream: UpstreamTls, upstream_uses_tls: bool
) -> ssl.SSLContext | None:
    """The context of connections to Sentinels, with the files of the upstream; None without TLS."""
    if settings.tls == "on" or (settings.tls == "as-upstream" and upstream_uses_tls):
        return upstream_context(upstream)
    return None


def admin_context(settings: AdminTls) -> ssl.SSLContext | None:
    """The context of the admin endpoint; None without TLS."""
    return _server("admin.tls", settings) if settings.cert_file else None


def _server(section: str, settings: ListenTls | AdminTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.min_version]
    _load_chain(context, settings.cert_file, settings.key_file, section)
    if settings.ca_file:
        _load_ca(context, settings.ca_file, f"{section}.ca_file")
    if settings.crl_file:
        _load_crl(context, settings.crl_file, f"{section}.crl_file")
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[settings.client_auth]
    return context


def _load_chain(context: ssl.SSLContext, cert: str, key: str, section: str) -> None:
    try:
        context.load_cert_chain(cert, key or None, password=_no_password)
    except (OSError, ValueError) as error:
        files = f"{section}.cert_file {cert!r} and {section}.key_file {key or cert!r}"
        raise ssl.SSLError(f"cannot load {files}: {error}") from error


def _no_password() -> Never:
    """Of an encrypted key. Without this, OpenSSL would ask at the terminal, and wait."""
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _load_ca(context: ssl.SSLContext, path: str, key: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ssl.SSLError(f"cannot load {key} {path!r}: {error}") from error


def _load_crl(context: ssl.SSLContext, path: str, key: str) -> None:
    """Refuse peers whose certificate is in this list, and all peers once the list is too old."""
    before = context.cert_store_stats()["crl"]
    _load_ca(context, path, key)
    if context.cert_store_stats()["crl"] == before:
        raise ssl.SSLError(f"cannot load {key} {path!r}: no revocation list (PEM) is in it")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
