"""Pending queues: for other Cython modules, but for the text of an error."""

from typing import Final

UNCERTAIN_REPLY: Final[bytes]
