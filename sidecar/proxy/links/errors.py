"""The errors of upstream connections, and the error replies that the sidecar makes itself.

There are three kinds: the server refused (its reply is kept), the network failed, or the sidecar
cannot do what was asked.
"""

from __future__ import annotations


class ProxyStartError(Exception):
    """The data plane cannot start; the message is one line: what failed, where, what to do."""


class Refused(Exception):
    """The server answered a request of the sidecar with an error; `reply` is the raw reply."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.strip().decode("utf-8", "replace").lstrip("-"))
        self.reply = reply

    @property
    def concerns_login(self) -> bool:
        """Whether the server refuses the credentials, or wants some."""
        return self.reply.startswith((b"-WRONGPASS", b"-NOAUTH", b"-ERR invalid password"))


class Unreachable(Exception):
    """There is no connection to the upstream; the message says to which server and why."""


class Full(Unreachable):
    """There is no room for one more connection: the server says so, or `upstream.max_links`."""


class NotMaster(Unreachable):
    """The server answers, but is not (yet) a master that executes commands.

    `follows` is the (host, port) of the master that it replicates, if it says so. `loading`: it may
    be one once it has loaded its data, or has caught up.
    """

    def __init__(
        self, message: str, follows: tuple[str, int] | None = None, *, loading: bool = False
    ) -> None:
        super().__init__(message)
        self.follows = follows
        self.loading = loading


def error_reply(code: str, text: str) -> bytes:
    """One RESP error line."""
    line = f"-{code} {text}".replace("\r", " ").replace("\n", " ")
    return line.encode() + b"\r\n"


def unavailable(reason: str) -> bytes:
    """The reply to a command that was not sent because there was no link to send it on."""
    return error_reply("UNAVAILABLE", f"{reason}; the command was not executed")


def reply_for(error: Refused | Unreachable) -> bytes:
    """The reply to a command that could not be sent: the server's own error, or ours."""
    return error.reply if isinstance(error, Refused) else unavailable(str(error))
