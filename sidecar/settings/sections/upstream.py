"""Settings towards the server: connections, Sentinels, failover, circuit breaker."""

from typing import Annotated, Literal

import msgspec

from sidecar.settings.fields import (
    LIVE,
    SWITCH,
    KiB,
    MiB,
    Section,
    TlsVersion,
    restart,
    seconds,
    setting,
    size,
)

UserFile = Annotated[
    str,
    setting(
        "File with the user. It is watched: a change is taken over without a restart.",
        reload=SWITCH,
    ),
]
PasswordFile = Annotated[
    str,
    setting(
        "File with the password. It is watched: a change is taken over without a restart.",
        reload=SWITCH,
    ),
]
CredentialCommand = Annotated[
    tuple[str, ...],
    setting(
        'Program, and its arguments, that prints credentials as JSON: {"username": "…", '
        '"password": "…", "expires_in": seconds}; only the password is needed. It is run again '
        "before they expire, and when a server refuses them.",
        reload=SWITCH,
    ),
]
CredentialTimeout = Annotated[
    float, seconds("How long credential_command may take.", ge=0.1, le=600, reload=SWITCH)
]


class UpstreamTls(Section, frozen=True):
    """TLS towards a `rediss://` upstream."""

    ca_file: Annotated[
        str,
        setting(
            "CA certificates (PEM) to check the server against; empty: the system's.",
            reload=LIVE,
        ),
    ] = ""
    crl_file: Annotated[
        str,
        setting(
            "Revocation lists (PEM) of the server's CA; a server whose certificate is in one is "
            "refused, and every server once a list is too old. Empty: none is looked at.",
            reload=LIVE,
        ),
    ] = ""
    cert_file: Annotated[str, setting("Client certificate (PEM) for mutual TLS.", reload=LIVE)] = ""
    key_file: Annotated[
        str, setting("Private key (PEM); empty if cert_file contains the key too.", reload=LIVE)
    ] = ""
    server_name: Annotated[
        str,
        setting(
            "Name expected in the server's certificate; empty: the host of the URL.",
            reload=LIVE,
        ),
    ] = ""
    verify: Annotated[
        Literal["full", "ca", "none"],
        setting(
            "What is checked. full: host name and CA. ca: only the CA. none: nothing (tests).",
            reload=LIVE,
        ),
    ] = "full"
    min_version: Annotated[TlsVersion, setting("Lowest TLS version accepted.", reload=LIVE)] = "1.2"


class Upstream(Section, frozen=True):
    """The Redis or Valkey server that commands are sent to."""

    url: Annotated[
        str,
        setting(
            "redis://[user:password@]host:port[/db], rediss:// (TLS), "
            "unix://[user:password@]/path[?db=N], redis+sentinel://[user:password@]host:port,…"
            "/service[/db] (rediss+sentinel:// with TLS), redis+cluster://[user:password@]"
            "host:port,…[/db] (some nodes of a cluster; rediss+cluster:// with TLS), or "
            "embedded:// (the sidecar starts its own Valkey server; embedded://?port=N sets the "
            "TCP port of that server; embedded+cluster://?shards=3&replicas=1: a cluster).",
            secret=True,
            reload=SWITCH,
        ),
    ] = "embedded://"
    username: Annotated[
        str, setting("ACL user of the sidecar itself, in place of the one in url.", reload=SWITCH)
    ] = ""
    username_file: UserFile = ""
    password: Annotated[
        str, setting("Its password, in place of the one in url.", secret=True, reload=SWITCH)
    ] = ""
    password_file: PasswordFile = ""
    credential_command: CredentialCommand = ()
    credential_timeout: CredentialTimeout = 10.0
    pooling: Annotated[
        Literal["shared", "session"],
        setting(
            "shared: ordinary commands of all clients share one connection. "
            "session: every client has its own connection.",
            reload=restart("every client would have to be moved to another kind of link"),
        ),
    ] = "shared"
    follow: Annotated[
        Literal["auto", "off"],
        setting(
            "For an upstream that is one address (redis://, rediss://, unix://). auto: if its "
            "server is replaced as the master, follow the name to the new one, within "
            "failover.hold; an upstream that was a replica from the start is served as it is. off: "
            "pass READONLY and LOADING errors on.",
            reload=SWITCH,
        ),
    ] = "auto"
    maintenance: Annotated[
        Literal[
            "auto", "off", "none", "internal-ip", "internal-fqdn", "external-ip", "external-fqdn"
        ],
        setting(
            "Whether to move before the server goes away, where it announces that (CLIENT "
            "MAINT_NOTIFICATIONS of Redis Software and Redis Cloud) and upstream.follow is auto. "
            "off: no announcements. The other words say which address of the new server is asked "
            "for; none: the name in url is resolved again. auto: internal if url has a private IP "
            "address, external otherwise; fqdn with TLS, ip without.",
            reload=SWITCH,
        ),
    ] = "auto"
    connect_timeout: Annotated[
        float,
        seconds("Time to make one connection: TCP, TLS and authentication.", ge=0.001, reload=LIVE),
    ] = 5.0
    wait: Annotated[
        float,
        seconds(
            "While the upstream is down, a command waits this long and then gets an error; 0: it "
            "gets the error at once. Not set: as failover.hold where the upstream is a host name "
            "whose master is followed, or where failover.hold is set.",
            reload=LIVE,
        ),
    ] = 1.0
    start: Annotated[
        Literal["fail", "wait"],
        setting(
            "If the upstream cannot be reached at start. fail: give up after start_timeout. wait: "
            "start anyway and answer with errors until it can be reached.",
            reload=restart("it is about the start"),
        ),
    ] = "fail"
    start_timeout: Annotated[
        float,
        seconds(
            "How long the sidecar tries to make the first connection at start.",
            ge=0.001,
            reload=restart("it is about the start"),
        ),
    ] = 10.0
    silence_timeout: Annotated[
        float,
        seconds(
            "A shared link that owes replies and receives nothing for this long counts as dead.",
            ge=0.1,
            reload=LIVE,
        ),
    ] = 30.0
    backoff_min: Annotated[
        float, seconds("Shortest pause between two attempts to connect.", ge=0.001, reload=LIVE)
    ] = 0.05
    backoff_max: Annotated[
        float, seconds("Longest pause between two attempts to connect.", ge=0.001, reload=LIVE)
    ] = 2.0
    tcp_keepalive: Annotated[
        float,
        seconds(
            "After this much silence TCP probes whether the server is still there; 0 is off.",
            le=32767,
            reload=LIVE,
        ),
    ] = 60.0
    pool_spare: Annotated[
        int,
        setting(
            "Dedicated links kept ready for each identity in use; up to twice as many after they "
            "ran out.",
            ge=0,
            le=1000,
            reload=LIVE,
            divided=True,
        ),
    ] = 4
    pool_idle: Annotated[
        int,
        setting(
            "Idle dedicated links kept for each identity.",
            ge=0,
            le=1_000_000,
            reload=LIVE,
            divided=True,
        ),
    ] = 64
    pool_idle_timeout: Annotated[
        float,
        seconds("A dedicated link that is idle for this long is closed.", ge=0.1, reload=LIVE),
    ] = 60.0
    max_links: Annotated[
        int,
        setting(
            "Most connections to the upstream, of all kinds.",
            ge=1,
            le=1_000_000,
            reload=LIVE,
            divided=True,
        ),
    ] = 9_000  # fewer than the 10,000 that a server allows by default: others need some as well
    tls: UpstreamTls = msgspec.field(default_factory=UpstreamTls)


class Sentinel(Section, frozen=True):
    """The Sentinels of a `redis+sentinel://` upstream."""

    username: Annotated[
        str, setting("ACL user for the Sentinels; empty for the default user.", reload=SWITCH)
    ] = ""
    username_file: UserFile = ""
    password: Annotated[
        str,
        setting("Password for the Sentinels; empty if they need none.", secret=True, reload=SWITCH),
    ] = ""
    password_file: PasswordFile = ""
    credential_command: CredentialCommand = ()
    credential_timeout: CredentialTimeout = 10.0
    tls: Annotated[
        Literal["as-upstream", "on", "off"],
        setting(
            "TLS to the Sentinels, with the files of upstream.tls. as-upstream: on if upstream.url "
            "is rediss+sentinel://.",
            reload=SWITCH,
        ),
    ] = "as-upstream"
    connect_timeout: Annotated[
        float,
        seconds(
            "Time to connect to a Sentinel, and time for each of its answers.",
            ge=0.001,
            reload=SWITCH,
        ),
    ] = 1.0
    poll_interval: Annotated[
        float,
        seconds(
            "Each Sentinel is polled this often, in addition to its messages.",
            ge=0.01,
            reload=SWITCH,
        ),
    ] = 1.0


class Failover(Section, frozen=True):
    """What happens to requests while the master changes."""

    hold: Annotated[
        float,
        seconds(
            "While there is no master, requests wait this long and then get an error.",
            reload=LIVE,
        ),
    ] = 10.0
    hold_bytes: Annotated[
        int,
        size(
            "Most bytes of waiting requests of all clients; further requests get an error.",
            ge=KiB,
            reload=LIVE,
            divided=True,
        ),
    ] = 64 * MiB
    switch_on: Annotated[
        Literal["announcement", "promotion"],
        setting(
            "announcement: switch when the Sentinels publish +switch-master. promotion: switch as "
            "soon as the chosen replica says that it is the master, about a second earlier. The "
            "risk: if the leading Sentinel dies in that second, the Sentinels may choose another "
            "replica; and if Sentinels close the connections at the end of a coordinated failover, "
            "some writes get -UNCERTAIN.",
            reload=LIVE,
        ),
    ] = "announcement"
    min_replicas_ack: Annotated[
        int,
        setting(
            "A write is answered after this many replicas have acknowledged it; 0: at once.",
            ge=0,
            le=100,
            reload=restart("replies are withheld, or not, from a link's first command on"),
        ),
    ] = 0
    ack_timeout: Annotated[
        float,
        seconds(
            "A write that too few replicas acknowledge within this time gets an error.",
            ge=0.001,
            le=3600,
            reload=restart("replies are withheld, or not, from a link's first command on"),
        ),
    ] = 1.0


class Breaker(Section, frozen=True):
    """The circuit breaker: it answers with errors at once while the upstream keeps failing."""

    failures: Annotated[
        int,
        setting(
            "Failed attempts to connect within window that open the breaker; 0: never.",
            ge=0,
            reload=LIVE,
        ),
    ] = 5
    window: Annotated[
        float, seconds("The time within which failures are counted.", ge=0.1, reload=LIVE)
    ] = 10.0
    open_for: Annotated[
        float,
        seconds(
            "First pause before the breaker tries one connection as a probe.",
            ge=0.01,
            reload=LIVE,
        ),
    ] = 0.5
    open_max: Annotated[
        float,
        seconds("The pause doubles after each failed probe, up to this.", ge=0.01, reload=LIVE),
    ] = 2.0
