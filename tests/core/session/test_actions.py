"""What a session may do: every kind of command in every situation, whole, inline and in pieces.

The tables say what must happen; they are written by hand, not taken from the code. A cell:

    queue    on the link it has; nothing else is expected of that link afterwards
    opens    likewise, and WATCH or MULTI is expected to be open afterwards
    closes   likewise, and nothing is expected to be open afterwards
    tainted  likewise, and the link will be closed after use
    keep     likewise, and the link is its own for good from here on
    pin      the link it has is its own for good from here on, and the bytes pass
    pass     pinned: the bytes pass; `reset`: and the reply is watched for
    own, once, pinned, serve, wait, replies: nothing passes; the session wants a dedicated link, one
             for once, a link for good, the sidecar, a link for WAIT, the replies due
    hang up  nothing passes; the client is closed
"""

from __future__ import annotations

from itertools import product

import pytest

from sidecar.core.protocol.commands import ROUTES
from tests.native.loopback import Loopback
from tests.native.shell import request, table

LOTS = 1 << 30
OK = b"+OK\r\n"
MULTI, EXEC, SUBSCRIBE = request("MULTI"), request("EXEC"), request("SUBSCRIBE", "c")
SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
LARGE = "x" * 5000

WHOLE = """
                    shared   gathering  dedicated  watching  in_multi  pinned
GET k               queue    queue      queue      queue     queue     pass
SET k v             queue    queue      queue      queue     queue     pass
BLPOP k 0           own      own        queue      queue     queue     pass
XREAD STREAMS s 0   queue    own        queue      queue     queue     pass
XREAD BLOCK 1 STREAMS s 0  own  own     queue      queue     queue     pass
MULTI               own      own        opens      queue     queue     pass
MULTI x             queue    own        queue      queue     queue     pass
EXEC                queue    queue      queue      queue     closes    pass
EXEC x              queue    own        queue      queue     closes    pass
DISCARD             queue    own        queue      queue     closes    pass
DISCARD x           queue    own        queue      queue     queue     pass
WATCH k             own      own        opens      queue     queue     pass
WATCH               own      own        opens      queue     queue     pass
UNWATCH             queue    own        queue      closes    queue     pass
UNWATCH x           queue    own        queue      closes    queue     pass
SUBSCRIBE c         pinned   own        replies    pin       pin       pass
MONITOR             pinned   own        replies    pin       pin       pass
DEBUG SLEEP 0       once     own        tainted    tainted   tainted   pass
NOSUCHCOMMAND       once     own        tainted    tainted   tainted   pass
SELECT 1            serve    own        replies    serve     keep      pass
CLIENT ID           serve    own        replies    serve     serve     pass
AUTH p              serve    own        replies    serve     pin       pass
HELLO 3             serve    own        replies    serve     pin       pass
HELLO               serve    own        replies    serve     pin       pass
CLIENT              serve    own        replies    serve     serve     pass
CLIENT REPLY OFF    pinned   own        replies    pin       pin       pass
CLIENT REPLY        serve    own        replies    serve     serve     pass
CLIENT MAINT_NOTIFICATIONS ON   serve own replies serve serve serve
CLIENT MAINT_NOTIFICATIONS      serve own replies serve serve pass
CLIENT REPLY OFF x  serve    own        replies    serve     serve     pass
CLIENT REPLYX OFF   serve    own        replies    serve     serve     pass
SCRIPT DEBUG YES    pinned   own        replies    pin       pin       pass
script Debug yes    pinned   own        replies    pin       pin       pass
SCRIPT DEBUG        queue    own        queue      queue     queue     pass
SCRIPT DEBUG YES x  pinned   own        replies    pin       pin       pass
SCRIPT KILL         serve    own        replies    serve     keep      pass
SCRIPT KILL x       queue    own        queue      queue     queue     pass
SCRIPT STATS        queue    own        queue      queue     queue     pass
SCRIPT              queue    own        queue      queue     queue     pass
FUNCTION KILL       serve    own        replies    serve     keep      pass
FUNCTION STATS      serve    own        replies    serve     keep      pass
FUNCTION DEBUG YES  queue    own        queue      queue     queue     pass
FUNCTION LIST       queue    own        queue      queue     queue     pass
RESET               serve    own        serve      serve     serve     reset
RESET x             queue    own        queue      queue     queue     pass
QUIT                serve    own        serve      serve     serve     pass
QUIT x              serve    own        serve      serve     serve     pass
WAIT 1 0            wait     own        replies    queue     queue     pass
POST /              hang_up  hang_up    hang_up    hang_up   hang_up   pass
"""

# `#` is an argument so large that the request is passed on before it is there as a whole.
PARTIAL = """
                    shared   gathering  dedicated  watching  in_multi  pinned
GET #               own      own        queue      queue     queue     pass
SET k #             own      own        queue      queue     queue     pass
BLPOP # 0           own      own        queue      queue     queue     pass
XREAD STREAMS # 0   own      own        queue      queue     queue     pass
MULTI #             own      own        queue      queue     queue     pass
EXEC #              own      own        queue      queue     closes    pass
DISCARD #           own      own        queue      queue     queue     pass
WATCH #             own      own        opens      queue     queue     pass
UNWATCH #           own      own        queue      queue     queue     pass
SUBSCRIBE #         pinned   own        replies    pin       pin       pass
DEBUG #             once     own        tainted    tainted   tainted   pass
NOSUCHCOMMAND #     once     own        tainted    tainted   tainted   pass
#                   once     own        tainted    tainted   tainted   pass
SCRIPT LOAD #       own      own        queue      queue     queue     pass
SCRIPT DEBUG #      own      own        queue      queue     queue     pass
SELECT #            pinned   own        replies    pin       pin       pass
CLIENT SETNAME #    pinned   own        replies    pin       pin       pass
CLIENT REPLY #      pinned   own        replies    pin       pin       pass
AUTH #              pinned   own        replies    pin       pin       pass
HELLO #             pinned   own        replies    pin       pin       pass
RESET #             own      own        queue      queue     queue     pass
QUIT #              pinned   own        replies    pin       pin       pass
WAIT 1 #            own      own        queue      queue     queue     pass
POST #              hang_up  hang_up    hang_up    hang_up   hang_up   pass
"""

STALLS = {
    "dedicated": "own", "once": "once", "pin": "pinned", "session_command": "serve",
    "wait_command": "wait", "replies": "replies", "hang_up": "hang_up",
}  # fmt: skip


def cells(text: str) -> list[tuple[str, str, str]]:
    """(situation, command, what must happen) for each cell of a table."""
    lines = text.strip().splitlines()
    situations = lines[0].split()
    found = []
    for line in lines[1:]:
        words = line.split()
        expected = words[-len(situations) :]
        command = " ".join(words[: -len(situations)])
        found += [(s, command, e) for s, e in zip(situations, expected, strict=True)]
    return found


def encoded(command: str, form: str) -> bytes:
    """The command as its client sends it."""
    if form == "inline":
        return command.encode() + b"\r\n"
    return request(*(LARGE if word == "#" else word for word in command.split()))


class Setting:
    """A session in one of the situations, on a core that keeps no more than 1,000 bytes."""

    def __init__(self, situation: str) -> None:
        self.core = Loopback(table(), request_buffer=1000)
        self.link = self.core.add_link()
        self.session = self.core.add_session(self.link)
        self.situation = situation
        self.own = self.link
        if situation == "dedicated":
            self.give_own(request("BLPOP", "other", "0"), b"")
        elif situation == "watching":
            self.give_own(request("WATCH", "other"), OK)
        elif situation == "in_multi":
            self.give_own(MULTI, OK)
        elif situation == "pinned":
            self.give_own(SUBSCRIBE, SUBSCRIBED)

    def give_own(self, first: bytes, reply: bytes) -> None:
        """The session needs a link of its own, and has got it."""
        self.core.feed(self.session, first)
        self.own = self.core.add_link(shared=False)
        self.core.use_dedicated(self.session, self.own, self.situation == "pinned")
        self.core.resume(self.session)
        assert self.core.link_output(self.own, LOTS) == first
        self.core.link_receive(self.own, reply)

    def happens(self, command: str, form: str) -> str:
        """What happens when the session sends this."""
        data = encoded(command, form)
        passed = data if form != "inline" else encoded(command, "whole")
        if form == "partial":
            data = passed = data[:2000]
        core, session = self.core, self.session
        if self.situation == "gathering":
            return self.gathers(command, form, data, passed)
        core.feed(session, data)
        stall, output = core.stall(session), core.link_output(self.own, LOTS)
        if stall not in ("nothing", "shell"):
            assert output == b""
            return STALLS[stall]
        assert output == passed
        if self.situation == "pinned":
            return "reset" if stall == "shell" else "pass"
        if core.mode(session) == "pinned":
            return "pin"
        if core.kept(session):
            return "keep"
        if core.tainted(self.own):
            return "tainted"
        return "queue"

    def gathers(self, command: str, form: str, data: bytes, passed: bytes) -> str:
        """The same behind MULTI, and EXEC follows."""
        end = b"" if command == "EXEC" or form == "partial" else EXEC
        self.core.feed(self.session, MULTI + data + end)
        stall, output = self.core.stall(self.session), self.core.link_output(self.link, LOTS)
        if stall == "nothing":
            assert output == MULTI + passed + end
            return "queue"
        assert output == b""
        return STALLS[stall]


def opened(setting: Setting, rest: bytes) -> bool:
    """Whether something is expected to be open on the link: if so, SUBSCRIBE pins it."""
    setting.core.feed(setting.session, rest + SUBSCRIBE)
    return setting.core.mode(setting.session) == "pinned"


@pytest.mark.parametrize("form", ["whole", "inline"])
@pytest.mark.parametrize(("situation", "command", "expected"), cells(WHOLE))
def test_whole_requests(situation: str, command: str, expected: str, form: str) -> None:
    check(situation, command, expected, form)


@pytest.mark.parametrize(("situation", "command", "expected"), cells(PARTIAL))
def test_requests_in_pieces(situation: str, command: str, expected: str) -> None:
    check(situation, command, expected, "partial")


def check(situation: str, command: str, expected: str, form: str) -> None:
    """The cell is true, and so is what is expected of the link afterwards."""
    setting = Setting(situation)
    what = {"opens": "queue", "closes": "queue"}.get(expected, expected)
    assert setting.happens(command, form) == what
    if what == "queue" and situation in ("dedicated", "watching", "in_multi"):
        rest = encoded(command, form)[2000:] if form == "partial" else b""
        was_open = situation != "dedicated"
        assert opened(setting, rest) == {"opens": True, "closes": False}.get(expected, was_open)


def test_every_route_has_its_row() -> None:
    routes = set()
    for text in (WHOLE, PARTIAL):
        names = {command.split()[0] for _, command, _ in cells(text)}
        rows = [table().lookup(name.encode()) for name in names]
        routes |= {row["route"] if row else ROUTES["once"] for row in rows}
    assert "CLIENT MAINT_NOTIFICATIONS" in WHOLE
    assert routes | {ROUTES["announcements"]} == set(ROUTES.values())


def test_no_cell_is_missing() -> None:
    for text in (WHOLE, PARTIAL):
        found = [(situation, command) for situation, command, _ in cells(text)]
        commands = sorted({command for _, command in found})
        assert sorted(found) == sorted(product({s for s, _ in found}, commands))


def test_wait_in_its_turn() -> None:
    """WAIT is the first command on the link that it is given, and then it is queued."""
    setting = Setting("shared")
    setting.give_own(request("WAIT", "1", "0"), b"")
    assert setting.core.outstanding(setting.session) == 1


class TestWhileWritesAreHeld:
    """Whatever the table says, a write waits, and a read does not."""

    @pytest.mark.parametrize("form", ["whole", "inline", "partial"])
    @pytest.mark.parametrize("situation", ["shared", "dedicated", "watching", "in_multi", "pinned"])
    def test_a_write_waits(self, situation: str, form: str) -> None:
        setting = Setting(situation)
        setting.core.hold_writes(True)
        data = encoded("SET k #" if form == "partial" else "SET k v", form)
        setting.core.feed(setting.session, data[:2000])
        assert setting.core.stall(setting.session) == "held"
        assert setting.core.link_output(setting.own, LOTS) == b""


@pytest.mark.parametrize("form", ["whole", "inline"])
def test_a_link_that_is_down_makes_it_wait(form: str) -> None:
    """All but what needs no link."""
    for situation, command, expected in cells(WHOLE):
        if situation == "shared":
            setting = Setting("shared")
            setting.core.link_lost(setting.link)
            setting.core.feed(setting.session, encoded(command, form))
            stall = setting.core.stall(setting.session)
            assert stall == ("link" if expected not in ("serve", "hang_up") else {
                "serve": "session_command", "hang_up": "hang_up"
            }[expected])  # fmt: skip
