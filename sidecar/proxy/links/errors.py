"""What can go wrong with an upstream, and the error replies the sidecar makes itself.

Three kinds, told apart once, here: the server refused (its own words are kept), the network
failed, or the sidecar can't do what was asked.
"""

from __future__ import annotations


class ProxyStartError(Exception):
    """The data plane can't start; the message is one line: what, to what, what to do."""


class Refused(Exception):
    """The server answered the greeting of a connection with an error; `reply` is its raw line."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.strip().decode("utf-8", "replace").lstrip("-"))
        self.reply = reply


class Unreachable(Exception):
    """No connection to the upstream; the message says which and why."""


class NotMaster(Unreachable):
    """The server answers, but is not (yet) a master that executes commands.

    `follows` is the (host, port) of the master it says it follows, if it says so.
    """

    def __init__(self, message: str, follows: tuple[str, int] | None = None) -> None:
        super().__init__(message)
        self.follows = follows


def error_reply(code: str, text: str) -> bytes:
    """One RESP error line."""
    line = f"-{code} {text}".replace("\r", " ").replace("\n", " ")
    return line.encode() + b"\r\n"


def unavailable(reason: str) -> bytes:
    """The reply to a command that was not sent because there is no upstream to send it to."""
    return error_reply("UNAVAILABLE", f"{reason}; the command was not executed")


def reply_for(error: Refused | Unreachable) -> bytes:
    """What a client gets whose command could not be sent: the server's words, or ours."""
    return error.reply if isinstance(error, Refused) else unavailable(str(error))
