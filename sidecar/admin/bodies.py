"""The bodies of POST requests."""

from __future__ import annotations

import msgspec

from sidecar.settings.sections.upstream import UpstreamTls


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an action that takes no arguments: {}."""


class SwitchTo(msgspec.Struct, forbid_unknown_fields=True):
    """The upstream to go to, as upstream.url writes it. With `dry_run` it is only reached and
    compared. `tls` is what [upstream.tls] is for the configured one, with files of the sidecar's
    host; what is not named there has its default. Without it, the configured settings are used."""

    url: str
    dry_run: bool = False
    tls: UpstreamTls | None = None
