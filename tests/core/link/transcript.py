"""What the transcripts of links share: requests, the server's words, and the steps of a story."""

from __future__ import annotations

from tests.harness.refdecoder import requests
from tests.native.loopback import Loopback
from tests.native.shell import request

LOTS = 1 << 30
LOST = (
    b"-UNCERTAIN the connection to the server was lost before it answered; "
    b"the command may or may not have been executed\r\n"
)
GET, SET, PUBLISH = request("GET", "k"), request("SET", "k", "v"), request("PUBLISH", "c", "m")
MULTI, EXEC, DISCARD = request("MULTI"), request("EXEC"), request("DISCARD")
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
LOADING = b"-LOADING the server is loading the dataset in memory\r\n"
MASTERDOWN = b"-MASTERDOWN Link with MASTER is down\r\n"
ABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
SHORT = (
    b"-UNREPLICATED the command was executed, but too few replicas acknowledged it in time; "
    b"its effect may be lost in a failover\r\n"
)
BLPOP, WATCH = request("BLPOP", "k", "0"), request("WATCH", "k")
NO_WAIT = b"-ERR WAIT cannot be used with replica instances.\r\n"
Step = tuple[int, str, int, bool]
"""Of a random history: who sends what, which of its replies comes, whether behind a push."""


def flush(core: Loopback, link: int) -> bytes:
    """What the link's next flush gives the server."""
    core.seal(link)
    return core.link_output(link, LOTS)


def send(core: Loopback, link: int, *parts: tuple[int, bytes]) -> None:
    """Clients send, in this order; then one flush, and all of it reaches the server."""
    for session, data in parts:
        core.feed(session, data)
    flush(core, link)


def again(core: Loopback, link: int) -> bytes:
    """The connection is dropped: what the next one is given."""
    core.link_lost(link)
    core.link_up(link)
    return flush(core, link)


def receive_in_pieces(
    core: Loopback, link: int, clients: list[int], data: bytes, pieces: list[int]
) -> tuple[list[bytes], bool]:
    """The server's bytes arrive, cut into pieces of these sizes: what each client has got, and
    whether the link was demoted. Then all is judged."""
    got = [b""] * len(clients)
    for size in [*pieces, LOTS]:
        core.link_receive(link, data[:size])
        data = data[size:]
        got = taken(core, clients, got)
    demoted = core.demoted(link)
    assert not demoted or core.turn_over(link)
    return got, demoted


def taken(core: Loopback, clients: list[int], got: list[bytes]) -> list[bytes]:
    """What each client has got, with what there is for it now."""
    return [old + core.take(client) for old, client in zip(got, clients, strict=True)]


PUSH = b">2\r\n+message\r\n$9\r\n-READONLY\r\n"
REFUSALS = [READONLY, LOADING, MASTERDOWN]


def cuts(data: bytes) -> range:
    """Every place where these bytes can be split."""
    return range(1, len(data))


def answered(core: Loopback, link: int, expected: bytes) -> bool:
    """Whether this is all that the next connection is given. It is answered."""
    left = again(core, link)
    core.link_receive(link, b"".join(b"+%d\r\n" % (i + 1) for i in range(count(left))))
    return left == expected


def count(data: bytes) -> int:
    """How many requests these are."""
    return sum(event[0] == "args" for event in requests(data))
