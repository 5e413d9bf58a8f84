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
import weakref

from sidecar.proxy.links.own_connections import OwnConnection, OwnConnections

LINE = re.compile(rb'\+\d+\.\d+ \[\d+ (\S+)\] ("([^"]*)".*)\Z', re.DOTALL)
# What the sidecar sends on links. A client's CLIENT SETNAME and SETINFO go down a shared link with
# the sidecar's names in them, so that the server judges them: they are left out as well.
OWN = re.compile(rb'"HELLO"|"AUTH" |"CLIENT" "SETNAME" "redis-sidecar"\Z|"CLIENT" "SETINFO" ')
# Commands that are remembered of a connection: more than a greeting has.
ENOUGH = 16
# For WAIT (see dedicated.py).
PUBLISH = re.compile(rb'"PUBLISH" "__redis-sidecar__:wait" ')


class MonitorLines:
    """The filter of one monitoring client."""

    def __init__(self, own: OwnConnections) -> None:
        self._own = own
        self._part = bytearray()
        # Of connections that carry nothing yet: what the server has shown of them. Of links: what
        # may still come of their greeting. Those that carry commands by now have been greeted
        # before the server monitors anything.
        self._seen: weakref.WeakKeyDictionary[OwnConnection, tuple[bytes, ...]]
        self._seen = weakref.WeakKeyDictionary()
        self._due: weakref.WeakKeyDictionary[OwnConnection, tuple[bytes, ...]]
        self._due = weakref.WeakKeyDictionary(dict.fromkeys(own.carrying(), ()))
        own.forget_closed()

    def __call__(self, data: bytes) -> bytes:
        """Take what the server sent; return what the client is to get. Keeps a line that has not
        come to its end, but for a part of another reply, which may be large."""
        part, searched = self._part, max(len(self._part) - 1, 0)
        part += data
        end = part.rfind(b"\r\n", searched)
        shown = b""
        if end >= 0:
            lines = bytes(part[:end]).split(b"\r\n")
            shown = b"".join(line + b"\r\n" for line in lines if self._shown(line))
            del part[: end + 2]
        if part and not part.startswith(b"+"):
            passing = len(part) - part.endswith(b"\r")  # which may be half of a line's end
            shown += part[:passing]
            del part[:passing]
        return shown

    def _shown(self, line: bytes) -> bool:
        found = LINE.match(line)
        if found is None:
            return True
        address, command, name = found.groups()
        connection = self._own.find(address)
        if connection is None:
            return True
        if not connection.carries:
            self._seen[connection] = (*self._seen.get(connection, ()), name)[-ENOUGH:]
            return False
        return not (OWN.match(command) or PUBLISH.match(command) or self._greets(connection, name))

    def _greets(self, link: OwnConnection, name: bytes) -> bool:
        """Whether this command belongs to the greeting: SELECT, ROLE or PING may be a client's as
        well, but not as long as the sidecar's own is due. The server may have shown none of it."""
        due = self._due.get(link)
        if due is None:
            due = link.greeting
            for seen in self._seen.pop(link, ()):
                due = _after(due, seen)
        ours = name in due
        self._due[link] = _after(due, name) if ours else ()
        return ours


def _after(due: tuple[bytes, ...], name: bytes) -> tuple[bytes, ...]:
    return due[due.index(name) + 1 :] if name in due else due
