"""What differs between servers, by their name and version. Nothing else compares versions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Before this, Redis may send pushes inside of other replies. Any Valkey is new enough.
OLDEST_TO_TRACK = 7
# This Valkey changed how it reads CLIENT LIST's filters and quotes in inline requests.
FILTERS_AND_QUOTES = 9
# Before these a refusal does not say who is refused.
NAMES_THE_USER = (7, 2)
# Before this HELLO's AUTH and SETNAME take effect before what stands behind them is read.
READS_HELLO_FIRST = (7, 2)
# Before this it does not say which subcommand.
NAMES_THE_SUBCOMMAND = 7
# From these on a node of a cluster keeps a dictionary for each slot.
SCANS_BY_SLOT = 8
REDIS_SCANS_BY_SLOT = (7, 4)


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """A server's name and version, such as "redis" and "7.0.15"; empty if it does not say."""

    name: str = ""
    version: str = ""

    @property
    def can_track(self) -> bool:
        """Whether it is Redis 7 or Valkey, whose tracking the near cache can rely on."""
        if self.name != "redis":
            return self.name != ""
        return self._major >= OLDEST_TO_TRACK

    @property
    def lists_ids_once(self) -> bool:
        """Whether CLIENT LIST ID shows a client that is named twice only once, in the list's order.
        Redis and the first Valkeys show what was named, in that order."""
        return self._is_valkey_9

    @property
    def joins_quotes(self) -> bool:
        """Whether a word of an inline request may go on behind a closing quote."""
        return self._is_valkey_9

    @property
    def reads_hello_by_word(self) -> bool:
        """Whether AUTH and SETNAME in HELLO count though there is a fault behind them."""
        return self.name == "redis" and () < self._numbers < READS_HELLO_FIRST

    @property
    def scans_by_slot(self) -> bool:
        """Whether a node of a cluster scans slot by slot, and its cursors have the slot in their
        lowest bits."""
        if self.name == "valkey":
            return self._major >= SCANS_BY_SLOT
        return self.name == "redis" and self._numbers >= REDIS_SCANS_BY_SLOT

    @property
    def adds_ids_up(self) -> bool:
        """Whether each ID of CLIENT KILL names one more client; otherwise the last one counts."""
        return self.name == "valkey"

    @property
    def refusals(self) -> tuple[bytes, bytes, bool]:
        """How it refuses a command, with {user} and {command}, and a key; and whether a command is
        called by its subcommand, too: `config|set`."""
        if self.name != "redis" or self._numbers >= NAMES_THE_USER:
            return (
                b"-NOPERM User {user} has no permissions to run the '{command}' command",
                b"-NOPERM No permissions to access a key",
                True,
            )
        command = b"-NOPERM this user has no permissions to run the '{command}' command"
        key = b"-NOPERM this user has no permissions to access one of the keys used as arguments"
        if self._major >= NAMES_THE_SUBCOMMAND:
            return command, key, True
        return command + b" or its subcommand", key, False

    @property
    def _is_valkey_9(self) -> bool:
        return self.name == "valkey" and self._major >= FILTERS_AND_QUOTES

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".") if part.isdecimal())

    @property
    def _major(self) -> int:
        major = self.version.split(".")[0]
        return int(major) if major.isdecimal() else 0


def told_by_info(fields: Mapping[str, str]) -> ServerVersion:
    """The version in the fields of INFO. A Valkey tells a `redis_version` as well."""
    if "valkey_version" in fields:
        return ServerVersion("valkey", fields["valkey_version"])
    if "redis_version" in fields:
        return ServerVersion("redis", fields["redis_version"])
    return ServerVersion()
