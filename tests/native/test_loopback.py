"""The core as a whole, as a machine of random moves against model servers.

Whatever is split where, whoever goes away and whichever connection breaks: every client gets its
own replies in its own order, no write is sent twice, and a lost write is answered by one error.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.observe.trace_records import Traces
from sidecar.telemetry.spans import Record
from tests.core.protocol.test_request import hidden_by_nul, oracle, oracle_a_byte_early, split
from tests.native.fuzz_decoders import sample
from tests.native.shell import Client, Shell, named, request

KINDS = ("get", "get", "set", "set", "inline", "multi", "discard", "watch", "blpop", "unknown")
KINDS += ("client", "large", "wait", "nested", "xread")


class LoopbackMachine(RuleBasedStateMachine):
    """Clients, one shared link and what it takes to serve them."""

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell(request_buffer=2048)
        traces = Traces(self.shell.core.table, 1, share=0.5, keys=True)
        traces.allow(1 << 30)
        self.shell.core.use_traces(traces, 1 << 30)
        self.now = 0
        self.scripts: dict[int, tuple[Client, bytearray]] = {}
        self.number = 0
        self.connect()

    def say(self, client: Client, *args: str, lossy: bool = True) -> bytes:
        """One request and the reply it is due."""
        client.due.append((named(*args), lossy))
        return request(*args)

    def fresh(self) -> str:
        """A key no other request has."""
        self.number += 1
        return f"k{self.number}"

    def speak(self, client: Client, kind: str, size: int) -> bytes:
        """The bytes of one request, or of one transaction."""
        keys = [self.fresh() for _ in range(size + 1)]
        if kind == "get":
            return self.say(client, "GET", keys[0], lossy=False)
        if kind == "inline":
            self.say(client, "GET", keys[0], lossy=False)
            return f"GET '{keys[0]}'\r\n".encode()
        if kind in ("multi", "discard", "nested"):
            body = b"".join(self.say(client, "SET", key, "v") for key in keys)
            if kind == "nested":
                body += self.say(client, "BLPOP", self.fresh(), "0")
            client.due.insert(len(client.due) - len(keys) - (kind == "nested"), MULTI)
            return request("MULTI") + body + self.say(client, "DISCARD" if size == 1 else "EXEC")
        if kind == "watch":
            before = self.say(client, "WATCH", keys[0]) + self.say(client, "GET", keys[0])
            return before + self.say(client, "UNWATCH")
        if kind == "large":
            return self.say(client, "SET", keys[0], "x" * 6000)
        args = {"set": "SET", "unknown": "NOSUCH", "client": "CLIENT", "blpop": "BLPOP"}
        if kind == "xread":
            return self.say(client, "XREAD", "BLOCK", "0", "STREAMS", keys[0], "$")
        return self.say(client, args.get(kind, "WAIT"), keys[0], "0")

    @precondition(lambda self: len(self.shell.clients) < 5)
    @rule()
    def connect(self) -> None:
        """A client comes."""
        client = self.shell.connect()
        self.scripts[client.session] = (client, bytearray())

    @precondition(lambda self: self.shell.clients)
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    def send(self, data: st.DataObject, kinds: list[str]) -> None:
        """A client has more to say; some or all of it is sent."""
        client = data.draw(st.sampled_from(list(self.shell.clients.values())))
        _, script = self.scripts[client.session]
        for kind in kinds:
            script += self.speak(client, kind, data.draw(st.integers(0, 20)))
        size = data.draw(st.one_of(st.just(len(script)), st.integers(0, len(script))))
        part = bytes(script[:size])
        del script[:size]
        self.shell.send(client, part)

    @rule(data=st.data(), size=st.integers(1, 200))
    def flush(self, data: st.DataObject, size: int) -> None:
        """Some bytes of a link reach its server."""
        self.shell.flush(data.draw(st.sampled_from(list(self.shell.servers))), size)

    @rule(data=st.data(), size=st.one_of(st.integers(1, 40), st.just(1 << 20)))
    def arrive(self, data: st.DataObject, size: int) -> None:
        """Some bytes of a server arrive."""
        self.shell.arrive(data.draw(st.sampled_from(list(self.shell.servers))), size)

    @precondition(lambda self: self.shell.up)
    @rule()
    def lose(self) -> None:
        """The shared connection breaks."""
        self.shell.lose()

    @precondition(lambda self: not self.shell.up)
    @rule()
    def restore(self) -> None:
        """It is back."""
        self.shell.restore()

    @precondition(lambda self: len(self.shell.clients) > 1)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client goes, perhaps in the middle of a request."""
        self.shell.leave(data.draw(st.sampled_from(list(self.shell.clients.values()))))

    @rule(seconds=st.sampled_from([0.0001, 0.7]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += int(seconds * 1e6)
        self.shell.core.set_now(self.now)

    @invariant()
    def records_are_true(self) -> None:
        """What is recorded of a command is what became of that command."""
        assert self.shell.core.traces is not None
        for record in map(Record._make, self.shell.core.traces.take()):
            assert record.start <= record.queued <= max(record.sent, record.queued) <= record.end
            if record.command == "get" and not record.error:
                key = record.key.decode()
                assert record.reply == len(named("GET", key))
                assert record.request == len(request("GET", key))

    @invariant()
    def writes_once(self) -> None:
        """No write has reached a server twice."""
        for text, times in self.shell.executed.items():
            if b" " in text and not text.startswith(b"GET"):
                assert times == 1, f"{text!r} was executed {times} times"

    def teardown(self) -> None:
        """In the end everyone who stayed has every reply, and nothing is left."""
        for client, script in self.scripts.values():
            self.shell.send(client, bytes(script))
        self.shell.drain()
        self.writes_once()
        self.records_are_true()
        for client in self.shell.clients.values():
            assert client.answered == len(client.due)
            assert not client.got
            assert self.shell.core.outstanding(client.session) == 0
            assert self.shell.core.mode(client.session) == "shared"
        assert self.shell.core.link_outstanding(self.shell.shared) == 0


MULTI = (named("MULTI"), True)

TestLoopback = LoopbackMachine.TestCase
TestLoopback.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@given(st.integers(0, 2**40), st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_bytes_in_any_pieces(seed: int, cuts: list[int]) -> None:
    """Damaged requests, split anywhere: the replies of a server that got them in one piece."""
    for data in sample(seed, 5, False):
        if hidden_by_nul(data):
            continue
        shell = Shell(request_buffer=64)
        client = shell.connect()
        for event in oracle_a_byte_early(data):
            client.due.append((named(*event[1]) if event[0] == "request" else event[1], False))
        for piece in split(data, cuts):
            shell.send(client, piece)
            shell.flush(shell.shared, 20)
        shell.drain()
        early = client.due[-1:] != [] and not client.gone and oracle(data) != client.due
        assert client.answered == len(client.due) or early
