"""The bodies of POST requests."""

from __future__ import annotations

import msgspec


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an action that takes no arguments: {}."""


class SwitchTo(msgspec.Struct, forbid_unknown_fields=True):
    """The upstream to go to, as upstream.url writes it. With `dry_run` it is only reached and
    compared."""

    url: str
    dry_run: bool = False
