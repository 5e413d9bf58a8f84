"""One-line command transcripts by subject (`transcripts/*.txt`); each command has one reply.

Arguments are split at single spaces. Replies must not depend on the clock or on the server's hash
seed; commands whose replies have no fixed order are listed in `UNORDERED` and compared sorted.
"""

from __future__ import annotations

from pathlib import Path

UNORDERED = frozenset(b"SMEMBERS SUNION SINTER SDIFF KEYS PUBSUB HKEYS ACL".split())

_FOLDER = Path(__file__).parent / "transcripts"

GROUPS = sorted(path.stem for path in _FOLDER.glob("*.txt"))


def lines(group: str) -> list[str]:
    """The commands of a group."""
    return [line for line in (_FOLDER / f"{group}.txt").read_text().splitlines() if line]
