"""The settings, each declared once: type, default, unit, range, help, and whether it reloads.

`config.py` reads them from files, variables and the command line; `config/full.toml`,
`docs/configuration.md` and the tests are made from the same declarations. Declarations only:
nothing here reads a file or holds state.
"""

from typing import Annotated, Literal

import msgspec

from sidecar.settings.fields import seconds, setting, size
from sidecar.settings.urls import Endpoint, parse_listen, parse_upstream

KiB = 1 << 10
MiB = 1 << 20

TlsVersion = Literal["1.2", "1.3"]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all sections share: immutable, no unknown keys, named arguments only."""


class ListenTls(_Section, frozen=True):
    """TLS of `rediss://` listeners."""

    cert_file: Annotated[str, setting("Certificate chain (PEM) shown to clients.")] = ""
    key_file: Annotated[
        str, setting("Private key (PEM); empty when cert_file holds it as well.")
    ] = ""
    ca_file: Annotated[
        str, setting("CA certificates (PEM) that client certificates are checked against.")
    ] = ""
    client_auth: Annotated[
        Literal["none", "optional", "required"],
        setting("Whether clients are asked for a certificate, and refused without one."),
    ] = "none"
    min_version: Annotated[TlsVersion, setting("Lowest TLS version accepted.")] = "1.2"


class Listen(_Section, frozen=True):
    """Where clients connect."""

    urls: Annotated[
        tuple[str, ...],
        setting(
            "Addresses: redis://address:port, rediss://address:port (TLS) or unix:///path. "
            "Port 0 takes any free one.",
        ),
    ] = ("redis://127.0.0.1:6380",)
    backlog: Annotated[
        int, setting("Connections the system queues before they are accepted.", ge=1, le=65535)
    ] = 1024
    max_clients: Annotated[
        int, setting("Clients connected at once; further ones get an error.", ge=1, le=1_000_000)
    ] = 10_000
    idle_timeout: Annotated[
        float, seconds("A client silent for this long is closed; 0 means never.")
    ] = 0.0
    tcp_keepalive: Annotated[
        float,
        seconds("Silence after which TCP probes whether a client is there; 0 is off.", le=32767),
    ] = 300.0
    unix_mode: Annotated[
        str, setting("Access mode of unix:// sockets.", unit="octal", pattern="^0?[0-7]{3}$")
    ] = "0600"
    tls: ListenTls = msgspec.field(default_factory=ListenTls)


class UpstreamTls(_Section, frozen=True):
    """TLS towards a `rediss://` upstream."""

    ca_file: Annotated[
        str, setting("CA certificates (PEM) of the server; empty takes the system's.")
    ] = ""
    cert_file: Annotated[str, setting("Client certificate (PEM) for mutual TLS.")] = ""
    key_file: Annotated[
        str, setting("Private key (PEM); empty when cert_file holds it as well.")
    ] = ""
    server_name: Annotated[
        str, setting("Name to expect in the server's certificate; empty takes the URL's host.")
    ] = ""
    verify: Annotated[
        Literal["full", "ca", "none"],
        setting("What is checked: host name and CA, the CA only, or nothing (tests only)."),
    ] = "full"
    min_version: Annotated[TlsVersion, setting("Lowest TLS version accepted.")] = "1.2"


class Upstream(_Section, frozen=True):
    """The server behind."""

    url: Annotated[
        str,
        setting(
            "redis://[user:password@]host:port[/db], rediss:// (TLS), "
            "unix://[user:password@]/path[?db=N], redis+sentinel://[user:password@]host:port,…"
            "/service[/db] (rediss+sentinel:// with TLS), or embedded:// (starts a Valkey server "
            "of its own; embedded://?port=N fixes that server's TCP port).",
            secret=True,
        ),
    ] = "embedded://"
    pooling: Annotated[
        Literal["shared", "session"],
        setting(
            "shared: ordinary commands of all clients go down one connection. "
            "session: every client has a connection of its own."
        ),
    ] = "shared"
    connect_timeout: Annotated[
        float, seconds("Time for one connection: TCP, TLS and authentication.", ge=0.001)
    ] = 5.0
    wait: Annotated[
        float,
        seconds("Time a command waits for an upstream that is down; then, or at 0, an error."),
    ] = 1.0
    start: Annotated[
        Literal["fail", "wait"],
        setting(
            "An upstream that is unreachable at start: fail after start_timeout, or serve "
            "errors and wait for it."
        ),
    ] = "fail"
    start_timeout: Annotated[
        float, seconds("How long the first connection is tried before start fails.", ge=0.001)
    ] = 10.0
    silence_timeout: Annotated[
        float,
        seconds(
            "A shared link with replies outstanding and no byte for this long is dead.", ge=0.1
        ),
    ] = 30.0
    backoff_min: Annotated[
        float, seconds("Shortest pause between two attempts to connect.", ge=0.001)
    ] = 0.05
    backoff_max: Annotated[
        float, seconds("Longest pause between two attempts to connect.", ge=0.001)
    ] = 2.0
    tcp_keepalive: Annotated[
        float,
        seconds("Silence after which TCP probes whether the server is there; 0 is off.", le=32767),
    ] = 60.0
    pool_spare: Annotated[
        int,
        setting(
            "Dedicated links kept ready for each identity in use; up to twice as many when they "
            "run out.",
            ge=0,
            le=1000,
        ),
    ] = 4
    pool_idle: Annotated[
        int, setting("Idle dedicated links kept for each identity.", ge=0, le=1_000_000)
    ] = 64
    pool_idle_timeout: Annotated[
        float, seconds("An idle dedicated link is closed after this long.", ge=0.1)
    ] = 60.0
    max_links: Annotated[
        int, setting("Connections to the upstream, of all kinds.", ge=1, le=1_000_000)
    ] = 10_000
    tls: UpstreamTls = msgspec.field(default_factory=UpstreamTls)


class Sentinel(_Section, frozen=True):
    """How the Sentinels of a `redis+sentinel://` upstream are asked for its master."""

    username: Annotated[str, setting("ACL user at the Sentinels; empty for the default user.")] = ""
    password: Annotated[
        str, setting("Password at the Sentinels; empty when they want none.", secret=True)
    ] = ""
    tls: Annotated[
        Literal["as-upstream", "on", "off"],
        setting(
            "TLS to the Sentinels, with the files of upstream.tls; as-upstream: when upstream.url "
            "is rediss+sentinel://."
        ),
    ] = "as-upstream"
    connect_timeout: Annotated[
        float, seconds("Time for one connection to a Sentinel, and for each answer.", ge=0.001)
    ] = 1.0
    poll_interval: Annotated[
        float, seconds("Each Sentinel is asked anew this often, beside what it announces.", ge=0.01)
    ] = 1.0


class Failover(_Section, frozen=True):
    """What happens to requests while a `redis+sentinel://` upstream changes its master."""

    hold: Annotated[
        float,
        seconds("Requests wait for a master for this long, instead of upstream.wait; then error."),
    ] = 10.0
    hold_bytes: Annotated[
        int,
        size("Waiting requests of all clients; above this, further ones get an error.", ge=KiB),
    ] = 64 * MiB
    switch_on: Annotated[
        Literal["announcement", "promotion"],
        setting(
            "announcement: follow the Sentinels' +switch-master. promotion: as soon as the chosen "
            "replica says that it is the master, about a second earlier; wrong if the leading "
            "Sentinel dies in that second, and writes may be in doubt (-UNCERTAIN) when Sentinels "
            "close the connections at the end of a coordinated failover."
        ),
    ] = "announcement"
    min_replicas_ack: Annotated[
        int,
        setting(
            "A write is answered once this many replicas have it; 0 does not wait for any.",
            ge=0,
            le=100,
        ),
    ] = 0
    ack_timeout: Annotated[
        float,
        seconds("Time for that; then the write gets an error that says so.", ge=0.001, le=3600),
    ] = 1.0


class Breaker(_Section, frozen=True):
    """When to stop trying an upstream that keeps failing, and answer with an error at once."""

    failures: Annotated[
        int,
        setting("Failed or lost connections within window that open it; 0 is never.", ge=0),
    ] = 5
    window: Annotated[float, seconds("The time those failures fall into.", ge=0.1)] = 10.0
    open_for: Annotated[
        float, seconds("First pause before one connection is tried as a probe.", ge=0.01)
    ] = 0.5
    open_max: Annotated[
        float, seconds("The pause doubles with each failed probe, up to this.", ge=0.01)
    ] = 2.0


class HotKeys(_Section, frozen=True):
    """Which keys get most of the traffic: a sampled count-min sketch with a table of the top."""

    enabled: Annotated[bool, setting("Look for hot keys; cache.mode = hot needs it.")] = True
    hot_share: Annotated[
        float,
        setting("A key is hot from this share of the traffic on.", ge=0.00001, le=1.0),
    ] = 0.001
    cool_share: Annotated[
        float, setting("And until it has less than this.", ge=0.00001, le=1.0)
    ] = 0.0005
    window: Annotated[float, seconds("Counts are halved this often.", ge=0.1, le=3600)] = 1.0
    samples_per_second: Annotated[
        int,
        setting("Commands looked at each second; of more, one in so many.", ge=100, le=10_000_000),
    ] = 50_000
    width: Annotated[
        int,
        setting(
            "Counters in each row of the sketch: with e⁻⁴ probability a key is thought to have "
            "2.7 / width more of the traffic than it has.",
            ge=64,
            le=65536,
        ),
    ] = 8192
    top: Annotated[int, setting("Keys that are ranked.", ge=10, le=10_000)] = 512
    log: Annotated[
        float,
        setting("Keys that get this share or more are named in the log; 0: none.", ge=0, le=1),
    ] = 0.05
    metrics: Annotated[
        int,
        setting(
            "The hottest keys, at most so many, are named in /metrics with their share and rate. "
            "Each key that has ever been among them is a series in Prometheus.",
            ge=0,
            le=100,
        ),
    ] = 0


class Cache(_Section, frozen=True):
    """The near cache: answers to reads, kept in this process and invalidated by the server."""

    mode: Annotated[
        Literal["off", "observe", "hot", "rules"],
        setting(
            "hot: cache keys that many ask for. rules: keys that a rule names. observe: only count "
            "what hot would have served."
        ),
    ] = "hot"
    memory: Annotated[int, size("Memory for cached replies.", ge=MiB)] = 64 * MiB
    max_staleness: Annotated[
        float,
        seconds(
            "Longest time after a write elsewhere that an answer may still be the old one; without "
            "proof that invalidations arrive, the cache is not used.",
            ge=0.01,
        ),
    ] = 0.5
    max_ttl: Annotated[float, seconds("An entry is read anew after this long.", ge=0.001)] = 60.0
    negative_ttl: Annotated[
        float, seconds("The same for keys that do not exist; 0 does not cache those.")
    ] = 5.0
    max_value: Annotated[int, size("Longer replies are not cached.")] = 64 * KiB
    rules: Annotated[
        tuple[str, ...],
        setting(
            "Prefixes of keys, each with what holds for them, the first that fits counts: "
            '"session: max_ttl=5m max_staleness=50ms", "secret: never". Both may only be shorter '
            "than cache.max_ttl and cache.max_staleness."
        ),
    ] = ()
    check: Annotated[
        float,
        setting("Share of answers from the cache that are compared with the server's.", ge=0, le=1),
    ] = 0.0001


class Warm(_Section, frozen=True):
    """Warm start: what the near cache is filled with when the sidecar starts."""

    snapshot: Annotated[
        str,
        setting(
            "File in which the names of the keys in use are kept for the next start, never their "
            "values; empty is off."
        ),
    ] = ""
    fleet: Annotated[
        bool, setting("Share those names with other sidecars, in a key of the server.")
    ] = False
    fleet_key: Annotated[str, setting("That key, a sorted set; one for each application.")] = (
        "__redis-sidecar__:warm"
    )
    interval: Annotated[
        float, seconds("How often names are saved and shared.", ge=0.1, le=86400)
    ] = 60.0
    key_file: Annotated[
        str,
        setting(
            'File of further keys: on each line a key, or a read such as "HGET key field"; '
            '"SELECT 2" changes the database of what follows.'
        ),
    ] = ""
    scan: Annotated[str, setting("Pattern of further keys, found with SCAN; empty is off.")] = ""
    scan_count: Annotated[
        int, setting("Keys that SCAN looks at, at most.", ge=1, le=1_000_000_000)
    ] = 50_000
    keys: Annotated[
        int, setting("Entries that are kept, shared and loaded, at most.", ge=1, le=1_000_000)
    ] = 10_000
    concurrency: Annotated[
        int, setting("Reads under way at once while loading.", ge=1, le=10_000)
    ] = 128
    rate: Annotated[
        float, setting("Reads begun each second while loading; 0 is as many as go.", ge=0)
    ] = 0.0
    deadline: Annotated[
        float, seconds("/readyz waits no longer than this; loading goes on behind.", le=3600)
    ] = 5.0
    hold: Annotated[
        float,
        seconds(
            "With cache.mode = hot, loaded keys are cached for this long even if they are not hot.",
            ge=0.1,
        ),
    ] = 60.0


class Tracing(_Section, frozen=True):
    """Traces of single commands: kept in memory for who asks, and sent to a collector."""

    endpoint: Annotated[
        str,
        setting(
            "Where spans are sent, OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; empty "
            "sends none. Needs the extra otlp.",
            pattern="^(https?://.+)?$",
        ),
    ] = ""
    sample: Annotated[
        float,
        setting("Share of commands that is traced, with an endpoint set.", ge=0, le=1),
    ] = 0.001
    slow: Annotated[
        float, seconds("A command that takes this long is traced as well; 0 is off.", le=4000)
    ] = 0.1
    failed: Annotated[bool, setting("Trace commands that get an error, too.")] = True
    max_per_second: Annotated[
        int, setting("Commands traced each second, whatever the reason.", ge=1, le=10_000)
    ] = 100
    keys: Annotated[
        Literal["none", "hash", "plain"],
        setting("How traces show a command's first key: not, as a hash, or as it is."),
    ] = "none"
    context: Annotated[
        bool,
        setting(
            "A client that names itself tp:<traceparent> has its commands traced as part of that "
            "trace."
        ),
    ] = False
    recent: Annotated[
        int,
        setting("Traces of each kind kept in memory for /api/traces; 0: none.", ge=0, le=10_000),
    ] = 200
    service: Annotated[str, setting("Name of this service in traces (service.name).")] = (
        "redis-sidecar"
    )


class Embedded(_Section, frozen=True):
    """The Valkey server started for `upstream.url = "embedded://"`."""

    dir: Annotated[
        str, setting("Data directory; empty takes a temporary one, thrown away at the end.")
    ] = ""
    args: Annotated[
        tuple[str, ...],
        setting('Further arguments of the server, for example ["--maxmemory", "256mb"].'),
    ] = ()


class AdminTls(_Section, frozen=True):
    """TLS of the admin endpoint; on when cert_file is set."""

    cert_file: Annotated[str, setting("Certificate chain (PEM) shown to who connects.")] = ""
    key_file: Annotated[
        str, setting("Private key (PEM); empty when cert_file holds it as well.")
    ] = ""
    min_version: Annotated[TlsVersion, setting("Lowest TLS version accepted.")] = "1.2"


class Admin(_Section, frozen=True):
    """The HTTP endpoint: web page, API, metrics and probes."""

    listen: Annotated[
        str,
        setting(
            'Address as host:port; port 0 takes any free one, "" turns it off. Any other than a '
            "loopback address needs a token."
        ),
    ] = "127.0.0.1:6381"
    token: Annotated[
        str,
        setting(
            "Asked for as Authorization: Bearer …, for everything but /livez, /readyz, /healthz "
            "and the files of the web page; at least 16 characters. Empty asks for none.",
            secret=True,
        ),
    ] = ""
    failover: Annotated[
        bool, setting("Whether POST /api/failover may have the Sentinels replace the master.")
    ] = False
    tls: AdminTls = msgspec.field(default_factory=AdminTls)


class Limits(_Section, frozen=True):
    """How much memory one client or link may take."""

    request_buffer: Annotated[
        int,
        size("Larger requests are streamed, on a dedicated link.", ge=KiB, le=1 << 30),
    ] = 256 * KiB
    client_output_pause: Annotated[
        int,
        size("A client with more replies than this waiting for it is not read from.", ge=KiB),
    ] = 16 * MiB
    client_output_max: Annotated[
        int, size("A client with more replies than this waiting for it is closed.", ge=KiB)
    ] = 512 * MiB
    link_output_pause: Annotated[
        int,
        size("Clients are not read from while a link has more than this to send.", ge=KiB),
    ] = 16 * MiB


class Drain(_Section, frozen=True):
    """Shutting down."""

    timeout: Annotated[
        float, seconds("Time for clients to get their outstanding replies after SIGTERM.")
    ] = 10.0


class Log(_Section, frozen=True):
    """The program's own log, on standard error."""

    format: Annotated[
        Literal["auto", "json", "console"],
        setting("auto: console on a terminal, JSON lines otherwise."),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], setting("Lowest level written.")
    ] = "info"
    blocking: Annotated[
        bool,
        setting(
            "Write each line before going on: nothing is lost when the process is killed, but who "
            "reads too slowly stops the traffic."
        ),
    ] = False


class Audit(_Section, frozen=True):
    """The audit stream: logins, refused and dangerous commands, administration; JSON lines."""

    file: Annotated[
        str,
        setting(
            'Where it goes: a file, which SIGHUP opens anew, or "-" for standard output, where '
            'each line has "audit": true. Empty is off.'
        ),
    ] = ""


class Settings(_Section, frozen=True):
    """All settings of one sidecar."""

    listen: Listen = msgspec.field(default_factory=Listen)
    upstream: Upstream = msgspec.field(default_factory=Upstream)
    sentinel: Sentinel = msgspec.field(default_factory=Sentinel)
    failover: Failover = msgspec.field(default_factory=Failover)
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    hotkeys: HotKeys = msgspec.field(default_factory=HotKeys)
    cache: Cache = msgspec.field(default_factory=Cache)
    warm: Warm = msgspec.field(default_factory=Warm)
    tracing: Tracing = msgspec.field(default_factory=Tracing)
    embedded: Embedded = msgspec.field(default_factory=Embedded)
    admin: Admin = msgspec.field(default_factory=Admin)
    limits: Limits = msgspec.field(default_factory=Limits)
    drain: Drain = msgspec.field(default_factory=Drain)
    log: Log = msgspec.field(default_factory=Log)
    audit: Audit = msgspec.field(default_factory=Audit)

    @property
    def listeners(self) -> tuple[Endpoint, ...]:
        """`listen.urls`, parsed."""
        return tuple(parse_listen(url) for url in self.listen.urls)

    @property
    def upstream_endpoint(self) -> Endpoint:
        """`upstream.url`, parsed."""
        return parse_upstream(self.upstream.url)
