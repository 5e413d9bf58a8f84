"""Identities: links for each node, who is whose client, and what becomes of unused ones."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

from sidecar.proxy.io.client import Client

from .parts import NOBODY, Parts


async def test_a_set_of_links_for_each_node() -> None:
    parts = Parts(1, 2)
    home, other = parts.nodes
    identity = parts.identities.default
    assert [links.node for links in identity.links] == [home]
    second = identity.to(other)
    assert second is identity.to(other) is not identity.to(home)
    assert second.shared is not identity.to(home).shared
    assert second.shared.owner is second
    assert parts.identities.links_to(other) == [second]
    await parts.close()


async def test_what_tells_identities_apart() -> None:
    """Protocol, user and database; a proven password replaces the one before."""
    parts = Parts(1)
    get, default = parts.identities.get, parts.identities.default
    assert get(NOBODY, own_login=False) is default
    logins = [replace(NOBODY, **change) for change in ({"db": 1}, {"user": b"bob"}, {"proto": 3})]
    others = [get(login, own_login=False) for login in logins]
    assert len({*others, default}) == 4
    bob = get(replace(NOBODY, user=b"bob", password=b"new"), own_login=True)
    assert bob is others[1]
    assert bob.login.password == b"new"
    assert get(replace(NOBODY, user=b"bob"), own_login=False).login.password == b"new"
    await parts.close()


async def test_another_login_of_the_sidecar() -> None:
    """Who has logged in stays that user; who has selected a database stays there."""
    parts = Parts(1)
    identities = parts.identities
    third = identities.get(replace(NOBODY, db=3), own_login=False)
    fifth = identities.get(replace(NOBODY, db=5, proto=3), own_login=False)
    bob = identities.get(NOBODY.as_user(b"bob", b"pw"), own_login=True)
    app = replace(NOBODY, user=b"app", password=b"secret", db=3)
    identities.rebase(app)
    assert identities.default.login == app
    assert fifth.login == replace(app, db=5, proto=3)
    assert (bob.login.user, bob.login.password, bob.login.db) == (b"bob", b"pw", 3)
    assert bob.login.via is not None
    assert bob.login.via.auth == app.auth
    assert replace(third.login, era=0) == app
    assert third.key != identities.default.key
    assert all(each in identities for each in (identities.default, third, fifth, bob))
    identities.rebase(NOBODY)
    assert identities.default.login == NOBODY
    assert (bob.login.db, bob.login.via) == (0, None)
    assert fifth.login == replace(NOBODY, db=5, proto=3)
    await parts.close()


async def test_clients_join_and_leave() -> None:
    parts = Parts(1)
    first = parts.identities.default
    second = parts.identities.get(replace(NOBODY, db=7), own_login=False)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        client = Client(parts.plane, ours, None, 1, None, None)
        parts.identities.join(client, first)
        links = first.to(parts.nodes[0])
        assert client.is_on(links.shared)
        links.waiting.add(client)
        parts.identities.join(client, second)
        assert (first.clients, links.waiting, second.clients) == (set(), set(), {client})
        assert first.unused_since is not None
        assert second.unused_since is None
        parts.told.client_closed = lambda gone: gone.identity.leave(gone)  # type: ignore[method-assign]
        client.close()
        assert second.clients == set()
    parts.identities.forget(second)
    assert second not in parts.identities
    assert first in parts.identities
    await parts.close()
    await asyncio.sleep(0)
