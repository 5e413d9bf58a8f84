"""What the tools of tests and bench raise: assertions, so that a test which meets one fails."""

from __future__ import annotations


class Unavailable(AssertionError):
    """Something that is needed is not there, or does not get ready; the text says why."""


class DeadlineError(Unavailable):
    """The bytes waited for did not come in time."""


class ClosedError(Unavailable):
    """The peer closed the connection where a reply was expected."""


GONE = (OSError, DeadlineError, ClosedError)
"""What a client meets whose peer is not there, or silent, or goes away."""
