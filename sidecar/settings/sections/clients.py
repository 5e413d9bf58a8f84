"""Settings towards clients: listeners and their TLS, memory limits, shutdown."""

from typing import Annotated, Literal

import msgspec

from sidecar.settings.fields import (
    LIVE,
    KiB,
    MiB,
    Section,
    TlsVersion,
    restart,
    seconds,
    setting,
    size,
)


class ListenTls(Section, frozen=True):
    """TLS of `rediss://` listeners."""

    cert_file: Annotated[str, setting("Certificate chain (PEM) shown to clients.", reload=LIVE)] = (
        ""
    )
    key_file: Annotated[
        str, setting("Private key (PEM); empty if cert_file contains the key too.", reload=LIVE)
    ] = ""
    ca_file: Annotated[
        str,
        setting("CA certificates (PEM) that client certificates are checked against.", reload=LIVE),
    ] = ""
    client_auth: Annotated[
        Literal["none", "optional", "required"],
        setting(
            "Client certificates. none: clients are not asked for one. optional: a certificate is "
            "checked if the client sends one. required: clients without one are refused.",
            reload=LIVE,
        ),
    ] = "none"
    crl_file: Annotated[
        str,
        setting(
            "Revocation lists (PEM) of the CAs in ca_file; clients whose certificate is in one are "
            "refused, and all clients once a list is too old. Empty: none is looked at.",
            reload=LIVE,
        ),
    ] = ""
    ticket_rotation: Annotated[
        float,
        seconds(
            "How long one key encrypts session tickets; clients then resume no older session. "
            "0: until the certificates are read again.",
            reload=LIVE,
        ),
    ] = 3600.0
    min_version: Annotated[TlsVersion, setting("Lowest TLS version accepted.", reload=LIVE)] = "1.2"


class Listen(Section, frozen=True):
    """Where clients connect."""

    urls: Annotated[
        tuple[str, ...],
        setting(
            "Addresses: redis://address:port, rediss://address:port (TLS) or unix:///path. "
            "Port 0 takes any free port. ?policy=NAME: the command policy of its clients.",
            reload=LIVE,
        ),
    ] = ("redis://127.0.0.1:6380",)
    backlog: Annotated[
        int,
        setting(
            "Connections that the system queues until they are accepted.",
            ge=1,
            le=65535,
            reload=restart(
                "the system takes it with the socket; listen.urls may be changed instead"
            ),
        ),
    ] = 1024
    reuse_port: Annotated[
        bool,
        setting(
            "Let another sidecar listen on the same TCP ports (SO_REUSEPORT), so that a new "
            "process can take over from this one. SIGTERM then ends the clients one after the "
            "other, spread over drain.timeout, and serves them until then.",
            reload=restart("it is said when a port is opened, and those in use are open"),
        ),
    ] = False
    max_clients: Annotated[
        int,
        setting(
            "Clients connected at once; more clients get an error.",
            ge=1,
            le=1_000_000,
            reload=LIVE,
            divided=True,
        ),
    ] = 10_000
    idle_timeout: Annotated[
        float,
        seconds("A client that sends nothing for this long is closed; 0 means never.", reload=LIVE),
    ] = 0.0
    tcp_keepalive: Annotated[
        float,
        seconds(
            "After this much silence TCP probes whether the client is still there; 0 is off.",
            le=32767,
            reload=LIVE,
        ),
    ] = 300.0
    policy: Annotated[
        str,
        setting(
            "The command policy of all clients whose listener names none (docs/limits.md): one of "
            'identities.file, or "production". Empty: none.',
            reload=LIVE,
        ),
    ] = ""
    unix_mode: Annotated[
        str,
        setting(
            "File mode of unix:// sockets.",
            unit="octal",
            pattern="^0?[0-7]{3}$",
            reload=restart("it is the mode of a file that is there already"),
        ),
    ] = "0600"
    tls: ListenTls = msgspec.field(default_factory=ListenTls)


class Limits(Section, frozen=True):
    """What clients and links may take. Those of identities are in identities.file."""

    request_buffer: Annotated[
        int,
        size(
            "Larger requests are streamed over a dedicated link.",
            ge=KiB,
            le=1 << 30,
            reload=LIVE,
        ),
    ] = 256 * KiB
    client_output_pause: Annotated[
        int,
        size(
            "A client with more unsent replies than this gets no more until it reads.",
            ge=KiB,
            reload=LIVE,
        ),
    ] = 16 * MiB
    memory: Annotated[
        int,
        size(
            "What all requests and replies here may take; above it, the clients that hold most are "
            "closed. 0 is 40 % of the memory that the machine or container has.",
            reload=LIVE,
            divided=True,
        ),
    ] = 0
    link_output_pause: Annotated[
        int,
        size(
            "The sidecar stops reading from clients while a link has more than this to send.",
            ge=KiB,
            reload=LIVE,
        ),
    ] = 16 * MiB
    address_connections: Annotated[
        int,
        setting(
            "Clients connected at once from one address (all unix sockets are one); 0: no limit.",
            ge=0,
            le=1_000_000,
            reload=LIVE,
            divided=True,
        ),
    ] = 0
    address_commands: Annotated[
        int,
        setting(
            "Commands a second of all clients from one address; more of them wait. 0: no limit.",
            ge=0,
            le=1_000_000_000,
            reload=LIVE,
            divided=True,
        ),
    ] = 0
    loop_lag: Annotated[
        float,
        seconds(
            "Commands get -OVERLOADED while the event loop is later than this; 0: never.",
            reload=LIVE,
        ),
    ] = 0.0


class Drain(Section, frozen=True):
    """Shutting down."""

    timeout: Annotated[
        float,
        seconds(
            "After SIGTERM, clients get this long to receive their outstanding replies.",
            reload=LIVE,
        ),
    ] = 10.0
