"""Settings for those who operate a sidecar: traces, embedded server, admin endpoint, logs."""

from typing import Annotated, Literal

import msgspec

from sidecar.settings.fields import LIVE, Section, TlsVersion, restart, seconds, setting


class Tracing(Section, frozen=True):
    """Traces of single commands: kept in memory for the admin page, and sent to a collector."""

    endpoint: Annotated[
        str,
        setting(
            "Where spans are sent, with OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; "
            "empty: nowhere. Needs the extra otlp.",
            pattern="^(https?://.+)?$",
            reload=restart("the sender is made at the start"),
        ),
    ] = ""
    sample: Annotated[
        float,
        setting("Share of commands that is traced if endpoint is set.", ge=0, le=1, reload=LIVE),
    ] = 0.001
    slow: Annotated[
        float,
        seconds(
            "A command that takes at least this long is traced too; 0 is off.", le=4000, reload=LIVE
        ),
    ] = 0.1
    failed: Annotated[bool, setting("Trace commands that get an error, too.", reload=LIVE)] = True
    max_per_second: Annotated[
        int,
        setting(
            "Most commands traced each second, for whatever reason.",
            ge=1,
            le=10_000,
            reload=LIVE,
            divided=True,
        ),
    ] = 100
    keys: Annotated[
        Literal["none", "hash", "plain"],
        setting(
            "How traces show the first key of a command: not at all, as a hash, or as it is.",
            reload=LIVE,
        ),
    ] = "none"
    context: Annotated[
        bool,
        setting(
            "The commands of a client that names itself tp:<traceparent> become part of that "
            "trace.",
            reload=LIVE,
        ),
    ] = False
    recent: Annotated[
        int,
        setting(
            "Traces of each kind kept in memory for /api/traces; 0: none.",
            ge=0,
            le=10_000,
            reload=restart("the memory for traces is taken at the start"),
        ),
    ] = 200
    service: Annotated[
        str,
        setting(
            "Name of this service in traces (service.name).",
            reload=restart("the sender is made at the start"),
        ),
    ] = "redis-sidecar"


class Embedded(Section, frozen=True):
    """The Valkey server that is started for `upstream.url = "embedded://"`."""

    dir: Annotated[
        str,
        setting(
            "Data directory; empty: a temporary one, deleted when the sidecar ends.",
            reload=restart("the server is started with it"),
        ),
    ] = ""
    args: Annotated[
        tuple[str, ...],
        setting(
            'Further arguments of the server, for example ["--maxmemory", "256mb"].',
            reload=restart("the server is started with it"),
        ),
    ] = ()


class AdminTls(Section, frozen=True):
    """TLS of the admin endpoint; on if cert_file is set."""

    cert_file: Annotated[
        str, setting("Certificate chain (PEM) shown to HTTP clients.", reload=LIVE)
    ] = ""
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
            "Client certificates. none: nobody is asked for one. optional: who shows none needs a "
            "token. required: who shows none is refused, probes included.",
            reload=LIVE,
        ),
    ] = "none"
    crl_file: Annotated[
        str,
        setting(
            "Revocation lists (PEM) of the CAs in ca_file, as in [listen.tls].",
            reload=LIVE,
        ),
    ] = ""
    client_role: Annotated[
        Literal["none", "read", "operate"],
        setting(
            "What a client certificate allows without a token: nothing, reading, or everything. A "
            "token that is sent as well decides alone.",
            reload=LIVE,
        ),
    ] = "operate"
    min_version: Annotated[TlsVersion, setting("Lowest TLS version accepted.", reload=LIVE)] = "1.2"


class Admin(Section, frozen=True):
    """The HTTP endpoint: web page, API, metrics and probes."""

    listen: Annotated[
        str,
        setting(
            'Address as host:port; port 0 takes any free port, "" turns the endpoint off. An '
            "address that is not a loopback address needs a token, or client certificates.",
            reload=restart("whoever changes it is connected there"),
        ),
    ] = "127.0.0.1:6381"
    token: Annotated[
        str,
        setting(
            "Requests must send this as Authorization: Bearer …, except to /livez, /readyz, "
            "/healthz and the files of the web page; at least 16 characters. If no setting names a "
            "token, none is needed.",
            secret=True,
            reload=LIVE,
        ),
    ] = ""
    read_token: Annotated[
        str,
        setting(
            "A token that allows reading only: all of the page, the API and the metrics, but no "
            "action.",
            secret=True,
            reload=LIVE,
        ),
    ] = ""
    token_file: Annotated[
        str,
        setting(
            "A file with tokens, one in each line: the token, then read or operate (operate if "
            "none is written), then a name for the audit stream. It is read again whenever it "
            "changes.",
            reload=LIVE,
        ),
    ] = ""
    max_connections: Annotated[
        int,
        setting(
            "Connections at once. Above it, a new one takes the place of the one that has been "
            "without a request for the longest. At most an eighth of the open files allowed.",
            ge=8,
            le=10_000,
            reload=LIVE,
        ),
    ] = 64
    request_timeout: Annotated[
        float,
        seconds(
            "A request must be whole after this time, and a TLS handshake be over.",
            ge=0.1,
            le=600,
            reload=LIVE,
        ),
    ] = 10.0
    failover: Annotated[
        bool,
        setting(
            "Whether POST /api/failover may ask the Sentinels to replace the master.",
            reload=LIVE,
        ),
    ] = False
    tls: AdminTls = msgspec.field(default_factory=AdminTls)

    def most_connections(self, open_files: int) -> int:
        """How many connections there may be at once in a process that may have so many
        `open_files`; 0: no limit is known."""
        if not open_files:
            return self.max_connections
        return max(8, min(self.max_connections, open_files // 8))

    @property
    def is_guarded(self) -> bool:
        """Whether nobody can ask for anything but probes without a token or a certificate."""
        return bool(self.token or self.read_token or self.token_file) or (
            self.tls.client_auth == "required"
        )


class Log(Section, frozen=True):
    """The program's own log, on standard error."""

    format: Annotated[
        Literal["auto", "json", "console"],
        setting(
            "auto: console on a terminal, JSON lines otherwise.",
            reload=restart("all lines of one run have one form"),
        ),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        setting("Lowest level that is written.", reload=LIVE),
    ] = "info"
    blocking: Annotated[
        bool,
        setting(
            "Write each line before going on: no line is lost if the process is killed, but a slow "
            "reader of the log stops the traffic.",
            reload=restart("the writer of the log is made at the start"),
        ),
    ] = False


class Audit(Section, frozen=True):
    """The audit stream: logins, refused and dangerous commands, administration; JSON lines."""

    file: Annotated[
        str,
        setting(
            'Where it goes: a file (SIGHUP reopens it), or "-" for standard output. Each line '
            'has "audit": true. Empty is off.',
            reload=restart("whether commands are noted is decided at the start"),
        ),
    ] = ""


class Reload(Section, frozen=True):
    """Taking over other settings and certificates while the sidecar runs."""

    certificates: Annotated[
        bool,
        setting(
            "Read the certificate files again whenever one of them changes. Off: only with the "
            "settings.",
            reload=LIVE,
        ),
    ] = True
    watch: Annotated[
        bool,
        setting(
            "Read the settings again whenever the configuration file changes, as SIGHUP does.",
            reload=LIVE,
        ),
    ] = False
