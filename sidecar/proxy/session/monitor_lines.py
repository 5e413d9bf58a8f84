"""MONITOR's lines without the sidecar's own commands.

A client that monitors the server is to see what clients send. The sidecar's own connections
(heartbeats, readings for the near cache, questions about the server) are left out, and so are the
greetings of the links that carry clients' commands. What other connections send stays, and what is
no line of MONITOR passes untouched.

A connection is known by its address. Behind a NAT, and over a unix socket, the server sees another
one: there the sidecar's commands are shown.
"""

from __future__ import annotations

import re

from sidecar.proxy.links.own_connections import OwnConnections

LINE = re.compile(rb"\+\d+\.\d+ \[\d+ (\S+)\] (.*)\Z", re.DOTALL)
# What the sidecar sends on links. A client's CLIENT SETNAME and SETINFO go down a shared link with
# the sidecar's names in them, so that the server judges them: they are left out as well.
GREETING = re.compile(rb'"HELLO"|"AUTH" |"CLIENT" "SETNAME" "redis-sidecar"\Z|"CLIENT" "SETINFO" ')
# For WAIT (see dedicated.py).
PUBLISH = re.compile(rb'"PUBLISH" "__redis-sidecar__:wait" ')
# Part of a greeting if they follow it at once.
FOLLOWING = re.compile(rb'"CLIENT" "SETNAME" |"SELECT" |"ROLE"\Z|"PING"\Z')


class MonitorLines:
    """The filter of one monitoring client."""

    def __init__(self, own: OwnConnections) -> None:
        self._own = own
        self._part = b""
        self._greeting = b""  # the address whose greeting the last line belonged to
        own.forget_closed()

    def __call__(self, data: bytes) -> bytes:
        """Take what the server sent; return what the client is to get. Keeps a line that has not
        come to its end."""
        *lines, self._part = (self._part + data).split(b"\r\n")
        return b"".join(line + b"\r\n" for line in lines if self._shown(line))

    def _shown(self, line: bytes) -> bool:
        found = LINE.match(line)
        if found is None:
            return True
        address, command = found.groups()
        kind = self._own.kind(address)
        if kind == "own" or (kind == "link" and PUBLISH.match(command)):
            return False
        greets = GREETING if self._greeting != address else _GREETING_GOES_ON
        if kind == "link" and greets.match(command):
            self._greeting = address
            return False
        self._greeting = b""
        return True


_GREETING_GOES_ON = re.compile(GREETING.pattern + b"|" + FOLLOWING.pattern)
