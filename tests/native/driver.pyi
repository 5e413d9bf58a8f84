"""Rounds of the same requests and replies, without Python in between."""

from typing import Final

from tests.native.loopback import Loopback

COUNTABLE: Final[bool]

def drive(
    loopback: Loopback, session: int, link: int, requests: bytes, replies: bytes, rounds: int
) -> bytes: ...
