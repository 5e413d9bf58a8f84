"""The data plane as a whole: listeners, the plane, the pool of links, draining.

`Proxy` is what the composition root starts and stops. It accepts connections, hands each to the
plane, and knows whether the upstream answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from typing import Any

import hiredis
import structlog

from sidecar import __version__
from sidecar.core.protocol.commands import CommandTable
from sidecar.policy.routing import FAMILIES, rows_from_command, rows_from_data, subcommands_of
from sidecar.policy.topology import Address, Event, MasterNamed
from sidecar.proxy.interruptions import Interruptions
from sidecar.proxy.io.client import Client
from sidecar.proxy.io.plane import Plane
from sidecar.proxy.links.errors import ProxyStartError, Refused, Unreachable
from sidecar.proxy.links.greeting import Login, Target, is_error, tune
from sidecar.proxy.links.pool import QUIET, Pool
from sidecar.proxy.master import MasterFollower, Sentinels
from sidecar.proxy.nearcache.warmup import Show, Warmup
from sidecar.proxy.report import Parts, Report
from sidecar.proxy.server_info import ServerInfo
from sidecar.proxy.session.audit_trail import AuditTrail
from sidecar.settings.schema import Settings
from sidecar.settings.urls import Endpoint, parse_listen
from sidecar.telemetry.audit import Audit
from sidecar.telemetry.span_export import ExportError
from sidecar.tls import expiry, handshake, listener_context, upstream_context

log = structlog.get_logger()

TOO_MANY = b"-ERR max number of clients reached\r\n"
TLS_HANDSHAKE_TIMEOUT = 10.0
ACCEPTS_AT_ONCE = 64


class Proxy:
    """The running data plane of one sidecar."""

    def __init__(self, settings: Settings, upstream: Endpoint) -> None:
        self.settings = settings
        self.upstream = upstream
        self.listening: list[str] = []
        self.clients_total = 0
        self.clients_rejected = 0
        self.table = CommandTable(secrets.randbits(32), FAMILIES)
        self.plane: Plane
        self.pool: Pool
        self.master: MasterFollower | None = None
        self.sentinels: Sentinels | None = None
        self.audit: Audit | None = None
        self.interruptions = Interruptions()
        self.facts: ServerInfo
        self.report: Report
        self.warm: Warmup | None = None
        self.show_warming: Show | None = None
        self._context: ssl.SSLContext | None = None
        self._listeners: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._server_context: ssl.SSLContext | None = None
        self.certificates: dict[str, float] = {}
        self._setinfo = True
        self.draining = False
        self._begun = False
        self._loop: asyncio.AbstractEventLoop

    async def start(self, master: Address | None = None) -> None:
        """Listen and connect. Raises ProxyStartError, OSError (a listener), ssl.SSLError.

        A Sentinel upstream needs `sentinels` set, and is told the `master` they name, if any.
        """
        self._loop = asyncio.get_running_loop()
        raise_descriptor_limit()
        snapshot = files("sidecar.policy").joinpath("commands.json").read_text()
        self.table.update(rows_from_data(json.loads(snapshot)))
        limits = self.settings.limits
        follows = self.upstream.kind == "sentinel"
        self._context = self._client_context()
        target = None if follows else self._target_for(self.upstream)
        try:
            self.pool = Pool(self.settings, target, self._login(), __version__)
        except ExportError as error:
            raise ProxyStartError(str(error)) from error
        self.plane = Plane(
            self._loop,
            self.pool,
            self.table,
            request_buffer=limits.request_buffer,
            link_pause=limits.link_output_pause,
            output_pause=limits.client_output_pause,
            output_max=limits.client_output_max,
        )
        if self.audit is not None:
            self.pool.audit = AuditTrail(self.audit)
            self.plane.use_audit()
        self.pool.begin(self.plane, lambda: self._setinfo)
        self._begun = True
        self.warm = Warmup.of(self.pool, self.settings, self.show_warming)
        self.facts = ServerInfo(self.pool)
        if follows:
            self._follow(master)
        else:
            self._note_interruptions()
        self._require_acks()
        self.report = Report(self._parts())
        self.pool.on_client_closed = lambda client: self._gone(client)
        listen = [parse_listen(url) for url in self.settings.listen.urls]
        if any(endpoint.tls for endpoint in listen):
            self._server_context = listener_context(self.settings.listen.tls)
        self._note_certificates()
        try:
            for endpoint in listen:
                self._listen(endpoint)
            await self._reach_upstream()
        except BaseException:
            await self.close()
            raise
        if self.warm is not None:
            self.warm.begin()
        if self.settings.listen.idle_timeout:
            self.pool.spawn(self._end_idle_clients(self.settings.listen.idle_timeout))
        for sock, endpoint in zip(self._listeners, listen, strict=True):
            self._loop.add_reader(sock.fileno(), self._accept, sock, endpoint)

    def _parts(self) -> Parts:
        return Parts(
            self.settings,
            self.upstream,
            self.plane,
            self.pool,
            self,
            self.interruptions,
            self.master,
            self.warm,
        )

    def _follow(self, master: Address | None) -> None:
        self.plane.follow_master()
        self.master = MasterFollower(
            self.pool, self._target_of_master, self.sentinels, self.interruptions
        )
        if master is not None:
            self.master.on_event(MasterNamed(master, switched=False))

    def _note_interruptions(self) -> None:
        """Where no master is followed, the default link alone tells of them."""
        pool, noted = self.pool, self.interruptions
        pool.on_master_down = lambda: noted.began(time.time(), pool.where)
        pool.on_master_up = lambda: noted.ended(time.time())

    def on_sentinel_event(self, event: Event) -> None:
        """What a Sentinel says about the upstream."""
        if self.master is not None:
            self.master.on_event(event)

    def _require_acks(self) -> None:
        failover = self.settings.failover
        if failover.min_replicas_ack:
            replicas, timeout = failover.min_replicas_ack, int(failover.ack_timeout * 1000)
            self.plane.require_acks(
                replicas, hiredis.pack_command((b"WAIT", str(replicas), str(timeout)))
            )

    def _client_context(self) -> ssl.SSLContext | None:
        return upstream_context(self.settings.upstream.tls) if self.upstream.tls else None

    def _target_of_master(self, address: Address) -> Target:
        host, port = address
        return self._target_for(replace(self.upstream, kind="tcp", host=host, port=port))

    def _target_for(self, endpoint: Endpoint) -> Target:
        settings = self.settings.upstream
        return Target(
            endpoint,
            self._context,
            settings.tls.server_name or endpoint.host,
            settings.connect_timeout,
            int(settings.tcp_keepalive),
        )

    def _login(self) -> Login:
        e = self.upstream
        user = e.username.encode() if e.username or e.password else None
        return Login(2, user, e.password.encode(), e.db)

    # Listening

    def _listen(self, endpoint: Endpoint) -> None:
        if endpoint.kind == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._remove_stale(endpoint.path)
            address: Any = endpoint.path
        else:
            family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            address = (endpoint.host, endpoint.port)
        sock.setblocking(False)
        try:
            sock.bind(address)
            if endpoint.kind == "unix":
                os.chmod(endpoint.path, int(str(self.settings.listen.unix_mode), 8))
            sock.listen(self.settings.listen.backlog)
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"{error.strerror}: {endpoint}") from error
        if endpoint.kind == "tcp":
            endpoint = replace(endpoint, port=sock.getsockname()[1])
        self._listeners.append(sock)
        self.listening.append(str(endpoint))

    @staticmethod
    def _remove_stale(path: str) -> None:
        """Remove a socket file that nobody listens on any more."""
        if not os.path.exists(path):
            return
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass
        finally:
            probe.close()

    def _accept(self, listener: socket.socket, endpoint: Endpoint) -> None:
        """Take the connections that have come in. Called by the loop."""
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: leave the connection in the backlog for a moment.
                log.error("cannot accept", listener=str(endpoint), error=str(error))
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(0.1, self._accept_again, listener, endpoint)
                return
            sock.setblocking(False)
            tune(sock, self.settings.listen.tcp_keepalive)
            if len(self.plane.clients) + len(self._handshakes) >= self.settings.listen.max_clients:
                self._reject(sock, endpoint)
            elif endpoint.tls:
                task = self._loop.create_task(self._accept_tls(sock, address))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
            else:
                self._begin(sock, None, address)

    def _accept_again(self, listener: socket.socket, endpoint: Endpoint) -> None:
        if listener.fileno() >= 0 and not self.draining:
            self._loop.add_reader(listener.fileno(), self._accept, listener, endpoint)

    def _reject(self, sock: socket.socket, endpoint: Endpoint) -> None:
        self.clients_rejected += 1
        if not endpoint.tls:
            with suppress(OSError):
                sock.send(TOO_MANY)
        sock.close()

    async def _accept_tls(self, sock: socket.socket, address: object) -> None:
        assert self._server_context is not None
        try:
            async with asyncio.timeout(TLS_HANDSHAKE_TIMEOUT):
                layer = await handshake(sock, self._server_context, server_side=True)
        except (OSError, TimeoutError) as error:
            sock.close()
            log.debug("TLS handshake failed", peer=address, error=str(error))
            return
        except BaseException:
            sock.close()
            raise
        self._begin(sock, layer, address)

    def _begin(self, sock: socket.socket, layer: Any, address: object) -> None:
        self.clients_total += 1
        number = self.pool.commands.new_id()
        client = Client(self.plane, sock, layer, number, None, address)
        self.pool.commands.by_id[number] = client
        self.pool.join(client, self.pool.default)
        if self.settings.upstream.pooling == "session":
            client.pin_at_once()
        client.start()

    async def _end_idle_clients(self, after: float) -> None:
        """Close clients that have been silent for `after` seconds and wait for nothing."""
        while True:
            await asyncio.sleep(min(1.0, after))
            for client in list(self.plane.clients):
                if client.silent_for > after and client.idle:
                    client.close("idle")

    def reload_certificates(self) -> None:
        """Read the certificate files again, for the connections to come. ssl.SSLError when one is
        bad: the old ones stay in use then."""
        began, error = time.monotonic(), ""
        try:
            self._reload_certificates()
        except (OSError, ssl.SSLError) as problem:
            error = type(problem).__name__
            raise
        finally:
            if self._begun and self.pool.tracing is not None:
                self.pool.tracing.note("certificate reload", began, {}, error)

    def _reload_certificates(self) -> None:
        if self._server_context is not None:
            self._server_context = listener_context(self.settings.listen.tls)
        if self._context is not None:
            self._context = self._client_context()
            if self.pool.target is not None:
                self.pool.renew(self._target_for(self.pool.target.endpoint))
        self._note_certificates()

    def _note_certificates(self) -> None:
        """Remember when the certificates in use end."""
        used = {
            "listen": self._server_context and self.settings.listen.tls.cert_file,
            "upstream": self._context and self.settings.upstream.tls.cert_file,
        }
        self.certificates = {name: expiry(path) for name, path in used.items() if path}

    def _gone(self, client: Client) -> None:
        self.pool.commands.by_id.pop(client.id, None)

    # The upstream

    async def _reach_upstream(self) -> None:
        """Learn the server's commands and bring the default link up, as upstream.start says."""
        settings = self.settings.upstream
        deadline = time.monotonic() + settings.start_timeout
        while True:
            try:
                await self._learn_commands()
                self.pool.connect(self.pool.default)
                self.pool.on_default_up = self._learn_again
                return
            except (Refused, Unreachable) as error:
                if settings.start == "wait":
                    log.warning("upstream is not there yet", error=str(error))
                    self.pool.on_default_up = self._learn_again
                    self.pool.connect(self.pool.default)
                    return
                if isinstance(error, Refused) or time.monotonic() >= deadline:
                    who = f"upstream {self.pool.where} says " if isinstance(error, Refused) else ""
                    raise ProxyStartError(
                        f"{who}{error}; check upstream.url ({self.upstream}), or set "
                        'upstream.start = "wait" to start without it'
                    ) from error
            await asyncio.sleep(0.1)

    async def _learn_again(self) -> None:
        """The upstream is back, perhaps with other modules or another version."""
        with suppress(Refused, Unreachable):
            await self._learn_commands()

    async def _learn_commands(self) -> None:
        """Lay the server's own command table and limits over the shipped ones."""
        connection = await self.pool.open(self.pool.default)
        try:
            commands, max_bulk = await connection.ask(
                hiredis.pack_command((b"COMMAND",)),
                hiredis.pack_command((b"CONFIG", b"GET", b"proto-max-bulk-len")),
            )
        finally:
            connection.close()
        reply = parse(commands)
        if isinstance(reply, list):
            self.table.update(rows_from_command(reply))
            self._setinfo = "setinfo" in subcommands_of(reply, "client")
        limit = parse(max_bulk) if not is_error(max_bulk) else None
        if isinstance(limit, list) and len(limit) == 2 and limit[1].isdigit():
            self.plane.set_max_bulk(int(limit[1]))

    # For the composition root

    def flush_cache(self) -> int:
        """Drop everything in the near cache; returns how many values there were."""
        if self.pool.near is None:
            return 0
        cache = self.pool.near.cache
        entries: int = cache.snapshot()["entries"]
        cache.drop_all()
        return entries

    async def drain(self, within: float) -> None:
        """Accept no more; serve what has been taken, for at most `within` seconds.

        Each client is closed once its requests are answered. One whose replies can't be counted
        (subscribers, session pooling) is closed when its link has been quiet for QUIET seconds.
        """
        self.draining = True
        self._stop_listening()
        saving = set()
        if self.warm is not None:
            saving.add(self.pool.spawn(self.warm.memory.save(last=True)))
        await self._drain_clients(time.monotonic() + within)
        if saving:
            await asyncio.wait(saving)

    async def _drain_clients(self, deadline: float) -> None:
        quiet: dict[Client, tuple[int, float]] = {}
        while self.plane.clients or self._handshakes:
            now = time.monotonic()
            if now >= deadline:
                return
            for client in list(self.plane.clients):
                received = client.pinned_bytes
                if received is None:
                    client.retire()
                elif quiet.setdefault(client, (received, now))[0] != received:
                    quiet[client] = (received, now)
                elif now - quiet[client][1] >= QUIET:
                    client.finish()
            await asyncio.sleep(0.01)

    def _stop_listening(self) -> None:
        for sock, url in zip(self._listeners, self.listening, strict=True):
            self._loop.remove_reader(sock.fileno())
            sock.close()
            if url.startswith("unix:"):
                path = parse_listen(url).path
                if os.path.exists(path):
                    os.unlink(path)
        self._listeners.clear()
        self.listening = []

    async def close(self) -> None:
        """End everything now. May be called before `start`, and twice."""
        self.draining = True
        if not self._begun:
            return
        self._stop_listening()
        for task in list(self._handshakes):
            task.cancel()
        for client in list(self.plane.clients):
            client.close("shutdown")
        self.facts.close()
        await self.pool.close()
        self.plane.close()


def raise_descriptor_limit() -> None:
    """Allow as many open sockets as the system lets us: each client takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parse(raw: bytes) -> Any:
    """One raw reply as Python values."""
    reader = hiredis.Reader()
    reader.feed(raw)
    return reader.gets()
