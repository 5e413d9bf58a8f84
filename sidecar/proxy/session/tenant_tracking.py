"""What CLIENT TRACKING would tell a tenant of others, and no ACL of a server holds back.

With BCAST a server announces every key that is written, whatever the user may read: a tenant may
ask for prefixes of keys that are its own. REDIRECT leads announcements to the client with an id;
other identities' clients are nobody (client_command.py), and where the ids are the server's own
(session pooling) nobody here knows whose they are.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sidecar.proxy.io.client import PINNED_MODE, Client
from sidecar.proxy.links.errors import error_reply
from sidecar.proxy.session.asking import send_instead
from sidecar.proxy.session.client_ids import NOBODY
from sidecar.proxy.session.link_ids import options_of_tracking, place_of_redirect
from sidecar.proxy.session.principals import Principals

OF_OTHERS = error_reply(
    "NOPERM", "BCAST tells of keys of other tenants; PREFIX of keys of its own is allowed"
)


def holds_back(principals: Principals, client: Client, args: Sequence[bytes]) -> bool:
    """Serve a CLIENT command of a tenant that would reach others; False: it is none."""
    if len(args) < 2 or args[1].upper() != b"TRACKING" or not principals.is_tenant(client):
        return False
    options = list(options_of_tracking(args))
    prefixes = [args[at] for name, at in options if name == b"PREFIX" and at]
    if (b"BCAST", 0) in options and not principals.owns_prefixes(client, prefixes):
        if client.mode == PINNED_MODE or client.queued is not None:
            # The server refuses this, in its turn.
            send_instead(client, (*args[:2], secrets.token_hex(16).encode()))
        else:
            client.refuse(OF_OTHERS)
    elif (at := place_of_redirect(args)) and not client.knows_our_ids:
        send_instead(client, (*args[:at], NOBODY, *args[at + 1 :]))
    else:
        return False
    return True
