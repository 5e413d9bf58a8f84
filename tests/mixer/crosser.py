"""The random crosser: two tenants behind one sidecar, each trying to see what the other has.

Everything of a tenant carries its token, a random word: values, some of its keys, its messages, the
names of its clients, its passwords. The other one knows the names of keys and channels, and of
everybody else, but no token. What must never happen:

* a token is among the bytes that a client of the other tenant has received;
* a request that names a key of the other tenant gets anything but an error;
* a value of a tenant has changed without its doing.

The requests are those of the tables in `tests/compat/forms`, in which each word says whether it is
a key, with keys of either tenant, in MULTI and out of it, inline, pipelined, in both protocols; and
those that are about others: subscriptions, scripts, logins, lists of clients.

`python -m tests.mixer.crosser --tries 100000` runs it for longer.
"""

from __future__ import annotations

import argparse
import random
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from sidecar.policy.warm_set import decode
from tests.harness.admin import api, metrics
from tests.harness.errors import ClosedError
from tests.harness.identities import entry, judging
from tests.harness.process import free_port
from tests.harness.resp import pack
from tests.harness.servers import Server, Sidecar, valkey
from tests.harness.wire import Wire
from tests.mixer.forms import Key, Name, names, prepared, right_forms

NAMES = ("alpha", "beta")
# Not tried: they end the connection, or the server, or wait for what nobody sends.
LEFT_OUT = names(
    "quit shutdown debug sync psync monitor client_reply client_pause failover replicaof slaveof"
    " blpop brpop blmove blmpop brpoplpush bzpopmin bzpopmax bzmpop wait waitaof xread xreadgroup"
    " client_kill client_no-evict client_no-touch subscribe psubscribe ssubscribe unsubscribe"
    " punsubscribe sunsubscribe multi exec discard watch reset hello auth select"
)
REDEAL = 400  # tries after which the clients are new ones


@dataclass
class Tenant:
    """One of the two. `keys` are the names that the other one knows."""

    name: str
    token: str
    keys: Sequence[bytes]

    @property
    def hidden(self) -> bytes:
        """A key that only its own clients know."""
        return f"{self.name}:{self.token}".encode()

    @property
    def channel(self) -> bytes:
        """Its channel, which everybody knows."""
        return f"{self.name}:news".encode()


@dataclass
class Peer:
    """A connection of a tenant, and what it has received."""

    tenant: Tenant
    wire: Wire
    subscribed: bool = False
    received: bytearray = field(default_factory=bytearray)


class CrossingError(AssertionError):
    """Something of one tenant has come to the other."""


class Crosser:
    """Tries at random, by `seed`, at this sidecar."""

    def __init__(self, sidecar: Sidecar, tenants: Sequence[Tenant], seed: int) -> None:
        self.sidecar = sidecar
        self.tenants = tenants
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.peers: dict[str, list[Peer]] = {}
        forms = [
            (name, words)
            for name, several in right_forms().items()
            if name.replace(" ", "_") not in LEFT_OUT and name.split()[0] not in LEFT_OUT
            for words in several
        ]
        # COMMAND GETKEYS only counts them.
        self.keyed = [
            form
            for form in forms
            if any(isinstance(w, Key) for w in form[1]) and not form[0].startswith("command")
        ]
        self.others = [form for form in forms if form not in self.keyed]

    # Connections

    def deal(self) -> None:
        """Have new clients, two of each tenant, one of them in RESP3."""
        self.close()
        for tenant in self.tenants:
            for number in range(2):
                wire = Wire(self.sidecar.port, deadline=20)
                name = f"{tenant.name}-{tenant.token}"
                pair = (tenant.name, f"{tenant.name}-pw-{tenant.token}")
                if number:
                    wire.cmd("HELLO", 3, "AUTH", *pair, "SETNAME", name)
                else:
                    assert wire.cmd("AUTH", *pair) == b"+OK\r\n"
                    wire.cmd("CLIENT", "SETNAME", name)
                self.peers.setdefault(tenant.name, []).append(Peer(tenant, wire))

    def close(self) -> None:
        """End all connections."""
        for peers in self.peers.values():
            for peer in peers:
                peer.wire.close()
        self.peers.clear()

    def other(self, peer: Peer) -> Tenant:
        """The one that a client is not of."""
        return next(each for each in self.tenants if each is not peer.tenant)

    # Tries

    def run(self, tries: int) -> None:
        """Make so many tries. Raises CrossingError."""
        moves = [self.own, self.foreign, self.foreign, self.about_others, self.scripts,
                 self.channels, self.transaction, self.logins, self.tracking]  # fmt: skip
        done = 0
        while done < tries:
            if done % REDEAL == 0 or not self.peers:
                self.deal()
            peer = self.random.choice(self.peers[self.random.choice(NAMES)])
            move = self.random.choice(moves)
            self.counts[move.__name__] += 1
            try:
                move(peer)
            except ClosedError:
                self.deal()
            done += 1
        self.settle()

    def settle(self) -> None:
        """Read what is still coming, and see that each tenant's own is untouched."""
        self.deal()
        for name, peers in self.peers.items():
            tenant = peers[0].tenant
            token = tenant.token.encode()
            assert token in peers[0].wire.cmd("GET", tenant.hidden), f"{name} has lost its value"
            assert peers[0].wire.cmd("GET", f"{name}:guard") == b"$%d\r\n%b\r\n" % (
                len(token), token,
            )  # fmt: skip

    def ask(self, peer: Peer, *words: bytes | str) -> bytes:
        """One request of a client: the reply, in which nothing of the other tenant may be."""
        request = pack(*words)
        if self.random.random() < 0.05 and all(_plain(word) for word in words):
            request = b" ".join(_bytes(word) for word in words) + b"\r\n"
        peer.wire.send(request)
        return self.read(peer, words)

    def read(self, peer: Peer, words: Sequence[bytes | str]) -> bytes:
        """The next reply; pushes before it are looked at as well."""
        while True:
            reply = peer.wire.read_reply()
            token = self.other(peer).token.encode()
            if token in reply:
                raise CrossingError(f"{peer.tenant.name} asked {words!r} and got {reply[:300]!r}")
            if reply[:1] != b">":
                return reply

    def refused(self, peer: Peer, *words: bytes | str) -> None:
        """A request that names something of the other tenant: it must be refused."""
        reply = self.ask(peer, *words)
        if reply[:1] != b"-":
            raise CrossingError(f"{peer.tenant.name} asked {words!r} and got {reply[:300]!r}")

    def words(
        self, form: tuple[str, Sequence[bytes]], of: Tenant, foreign: Tenant | None
    ) -> list[bytes]:
        """A request by a form: its keys are those of a tenant; of the other one at least one."""
        name, words = form
        places = [at for at, word in enumerate(words) if isinstance(word, Key)]
        chosen = set(places)
        if foreign is not None and places and self.random.random() < 0.5:
            chosen = {self.random.choice(places)}
        out = [part.encode() for part in name.split()]
        for at, word in enumerate(words):
            if isinstance(word, Key):
                whose = foreign if foreign is not None and at in chosen else of
                out.append(whose.name.encode() + b":" + bytes(word))
            elif isinstance(word, Name) and self.random.random() < 0.3:
                out.append(self.random.choice(self.tenants).name.encode())
            else:
                out.append(bytes(word))
        return out

    def own(self, peer: Peer) -> None:
        """What a tenant may do: nothing of the other one is in it."""
        self.ask(peer, *self.words(self.random.choice(self.keyed), peer.tenant, None))

    def foreign(self, peer: Peer) -> None:
        """The same with keys of the other one."""
        form = self.random.choice(self.keyed)
        self.refused(peer, *self.words(form, peer.tenant, self.other(peer)))

    def about_others(self, peer: Peer) -> None:
        """Requests that name no key."""
        self.ask(peer, *self.words(self.random.choice(self.others), peer.tenant, None))
        self.ask(peer, *self.random.choice(OF_OTHERS))

    def scripts(self, peer: Peer) -> None:
        """A script reads, writes and lists."""
        key = self.other(peer).name.encode() + b":guard"
        body = self.random.choice(SCRIPTS)
        if self.random.random() < 0.5:
            self.refused(peer, "EVAL", body, "0", key)
        else:
            self.refused(peer, "EVAL", body.replace("ARGV", "KEYS"), "1", key)

    def channels(self, peer: Peer) -> None:
        """Messages: each may publish to its own channel only, and hear nothing of the other's."""
        other = self.other(peer)
        pick = self.random.randrange(5)
        if pick == 0:
            self.ask(peer, "PUBLISH", peer.tenant.channel, peer.tenant.token)
        elif pick == 1:
            self.refused(peer, "PUBLISH", other.channel, "x")
        elif pick == 2:
            self.refused(peer, "SUBSCRIBE", other.channel)
        elif pick == 3:
            pattern = self.random.choice(["*", f"{other.name}*", "__key*__:*", "?*", "[a-z]*"])
            self.refused(peer, "PSUBSCRIBE", pattern)
        else:
            self.refused(peer, "SSUBSCRIBE", other.channel)

    def transaction(self, peer: Peer) -> None:
        """In MULTI, with one command of the other's among one's own; and WATCH."""
        other = self.other(peer)
        if self.random.random() < 0.3:
            self.refused(peer, "WATCH", other.name.encode() + b":s")
            return
        foreign = self.words(self.random.choice(self.keyed), peer.tenant, other)
        pipeline = [[b"MULTI"], [b"GET", peer.tenant.hidden], foreign, [b"EXEC"]]
        peer.wire.send(b"".join(pack(*request) for request in pipeline))
        replies = [self.read(peer, request) for request in pipeline]
        if replies[2][:1] != b"-" or not replies[3].startswith(b"-EXECABORT"):
            raise CrossingError(f"{peer.tenant.name} sent {pipeline!r} and got {replies!r}")

    def logins(self, peer: Peer) -> None:
        """As the other tenant, by guessing, by its user at the server, and in a new connection."""
        other = self.other(peer)
        if self.random.random() < 0.9:
            # Few: wrong logins of one name slow down.
            self.refused(peer, "HELLO", self.random.choice("234x"), "AUTH", other.name)
            self.refused(peer, "AUTH", "a", other.name, "c")
            return
        user = f"{secrets.token_hex(4)}-{other.name}"
        self.refused(peer, "AUTH", user, f"{other.name}-upstream")
        with Wire(self.sidecar.port, deadline=20) as stranger:
            for request in (("GET", f"{other.name}:s"), ("AUTH", user, "x"), ("CLIENT", "LIST")):
                if stranger.cmd(*request)[:1] != b"-":
                    raise CrossingError(f"a stranger asked {request!r}")

    def tracking(self, peer: Peer) -> None:
        """Invalidations tell names of keys: of one's own only."""
        other = self.other(peer)
        pick = self.random.randrange(4)
        if pick == 0:
            self.refused(peer, "CLIENT", "TRACKING", "ON", "BCAST")
        elif pick == 1:
            self.refused(peer, "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", f"{other.name}:")
        elif pick == 2:
            number = self.peers[other.name][0].wire.call("CLIENT", "ID")
            self.refused(peer, "CLIENT", "TRACKING", "ON", "REDIRECT", str(number))
        else:
            own = ["ON", "BCAST", "PREFIX", f"{peer.tenant.name}:"]
            self.ask(peer, "CLIENT", "TRACKING", *self.random.choice([["ON"], ["OFF"], own]))


OF_OTHERS: Sequence[Sequence[str]] = (
    ("KEYS", "*"), ("SCAN", "0"), ("SCAN", "0", "MATCH", "*", "COUNT", "1000"), ("RANDOMKEY",),
    ("DBSIZE",), ("CLIENT", "LIST"), ("CLIENT", "INFO"), ("CLIENT", "KILL", "USER", "beta-user"),
    ("CLIENT", "KILL", "USER", "alpha-user"), ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "UNBLOCK", "3"), ("INFO",), ("INFO", "everything"), ("CONFIG", "GET", "*"),
    ("ACL", "LIST"), ("ACL", "LOG"), ("ACL", "GETUSER", "beta-user"), ("ACL", "USERS"),
    ("SLOWLOG", "GET"), ("LATENCY", "LATEST"), ("MEMORY", "STATS"), ("PUBSUB", "CHANNELS"),
    ("PUBSUB", "NUMSUB", "alpha:news"), ("FUNCTION", "LIST"), ("FUNCTION", "DUMP"),
    ("SCRIPT", "FLUSH"), ("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1"), ("MODULE", "LIST"),
    ("COMMAND", "GETKEYS", "GET", "beta:s"), ("SELECT", "0"), ("CLUSTER", "NODES"),
    ("CLUSTER", "GETKEYSINSLOT", "1", "10"), ("SORT", "alpha:l", "BY", "beta:w_*"),
    ("SORT", "beta:l", "GET", "alpha:w_*"), ("OBJECT", "HELP"), ("DEBUG", "OBJECT", "beta:s"),
    ("MIGRATE", "127.0.0.1", "1", "beta:s", "0", "10"), ("CLIENT", "TRACKINGINFO"), ("MONITOR",),
)  # fmt: skip
SCRIPTS = (
    "return redis.call('GET', ARGV[1])",
    "return redis.call('SET', ARGV[1], 'x')",
    "return redis.call('KEYS', '*', ARGV[1])",
    "return redis.call('SCAN', '0', 'MATCH', ARGV[1])",
    "return redis.call('DEL', ARGV[1])",
    "return redis.call('FLUSHALL', ARGV[1])",
    "return redis.call('PUBLISH', ARGV[1], 'x')",
)


def _bytes(word: bytes | str) -> bytes:
    return word.encode() if isinstance(word, str) else word


def _plain(word: bytes | str) -> bool:
    """Whether it can stand in an inline request as it is."""
    data = _bytes(word)
    return bool(data) and all(32 < byte < 127 and byte not in b"\"'" for byte in data)


# -- the scene


@dataclass
class Scene:
    """A sidecar that judges logins, with a near cache and a warm set, and two tenants."""

    server: Server
    sidecar: Sidecar
    tenants: Sequence[Tenant]
    warm: Path


def file_of(tenants: Sequence[Tenant]) -> str:
    """The file of identities."""
    return "".join(
        entry(each.name, f"{each.name}-pw-{each.token}", tenant=each.name)
        + f'[tenants.{each.name}]\nusername = "{each.name}-user"\n'
        + f'password = "{each.name}-up-{each.token}"\nkeys = ["{each.name}:*"]\n'
        + f'channels = ["{each.name}:*"]\n'
        for each in tenants
    )


class Stage(ExitStack):
    """Makes scenes, and ends what they have started."""

    def scene(self, **settings: str) -> Scene:
        """A server with the tenants' users, and a sidecar before it."""
        folder = Path(self.enter_context(TemporaryDirectory()))
        server = self.enter_context(valkey())
        known = sorted({line[1].split()[0] for line in prepared()})
        tenants = [Tenant(name, secrets.token_hex(8), known) for name in NAMES]
        own = judging(folder / "identities.toml", file_of(tenants), **settings)
        config = folder / "sidecar.toml"
        config.write_text(
            f'[identities]\nmode = "terminate"\nfile = "{folder / "identities.toml"}"\n'
            f'[upstream]\nurl = "{server.url}"\n'
        )
        command = [sys.executable, "-m", "sidecar", "tenants", "apply", "-c", str(config)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        if settings.get("cache__mode") != "off":
            own |= {"warm.snapshot": str(folder / "warm"), "warm.interval": "1s"}
        sidecar = self.enter_context(
            Sidecar(server.url, settings=own, admin=f"127.0.0.1:{free_port()}")
        )
        scene = Scene(server, sidecar, tenants, folder / "warm")
        for tenant in tenants:
            seed(sidecar, tenant)
        return scene


def seed(sidecar: Sidecar, tenant: Tenant) -> None:
    """Make the keys of the tables for a tenant, with its token in each."""
    prefix, token = tenant.name.encode() + b":", tenant.token
    with Wire(sidecar.port) as wire:
        assert wire.cmd("AUTH", tenant.name, f"{tenant.name}-pw-{token}") == b"+OK\r\n"
        for name, *words in prepared():
            at = 1 if name == b"XGROUP" else 3 if name == b"XREADGROUP" else 0
            if name == b"XREADGROUP":
                at = len(words) - 2
            words[at] = prefix + words[at]
            wire.cmd(name, *words)
        for name, *words in (
            ("SET", "guard", token), ("SET", token, token), ("APPEND", "s", token),
            ("RPUSH", "l", token), ("HSET", "h", token, token), ("SADD", "t", token),
            ("ZADD", "z", "9", token), ("XADD", "x", "*", "f", token),
        ):  # fmt: skip
            words[0] = prefix.decode() + words[0]
            assert wire.cmd(name, *words)[:1] != b"-"


def outside(scene: Scene) -> Iterator[str]:
    """Where tokens are that are nobody's business: what the sidecar tells and keeps."""
    tokens = [tenant.token for tenant in scene.tenants]
    texts = {
        "/metrics": str(metrics(scene.sidecar)),
        "the log": scene.sidecar.log(),
        "/api/config": str(api(scene.sidecar, "/api/config")),
    }
    for place, text in texts.items():
        if any(token in text for token in tokens):
            yield place
    # Names of keys are kept for the next start, as those of their user, and for nobody else.
    if scene.warm.exists():
        if scene.warm.stat().st_mode & 0o077:
            yield "a warm set that others can read"
        for read, _ in decode(scene.warm.read_bytes()):
            for tenant in scene.tenants:
                if (
                    tenant.token.encode() in read.key
                    and read.user != f"{tenant.name}-user".encode()
                ):
                    yield f"the warm set of {read.user!r}"


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tries", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with Stage() as stage:
        scene = stage.scene(cache__mode="rules", cache__rules="*")
        crosser = Crosser(scene.sidecar, scene.tenants, given.seed)
        crosser.run(given.tries)
        print(dict(crosser.counts), "outside:", list(outside(scene)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
