"""The sidecar judges logins: what strangers get, and that everybody else has their user's rights.

The tests of test_auth.py that do not depend on who judges are run here again, with a sidecar that
has the same users in its own file: every byte is that of a direct server.
"""

from __future__ import annotations

import pytest

from sidecar.passwords import hash_password
from tests.compat.test_auth import (
    USERS,
    test_auth_forms,
    test_auth_pipelined,
    test_hello_with_auth,
    test_just_below_the_limits,
    test_limits_before_authentication,
    test_noauth,
    test_quit_and_reset_without_auth,
    test_rights_changed_under_way,
    test_two_users_at_once,
    users,
)
from tests.harness.farm import Farm
from tests.harness.pair import Pair

__all__ = [
    "test_auth_forms",
    "test_auth_pipelined",
    "test_hello_with_auth",
    "test_just_below_the_limits",
    "test_limits_before_authentication",
    "test_noauth",
    "test_quit_and_reset_without_auth",
    "test_rights_changed_under_way",
    "test_two_users_at_once",
    "users",
]


def entry(name: str, password: str, more: str = "") -> str:
    """An identity that acts as the server's user of that name and password."""
    return (
        f'[identities.{name}]\npasswords = ["{hash_password(password.encode())}"]\n'
        f'upstream_username = "{name}"\nupstream_password = "{password}"\n{more}\n'
    )


FILE = entry("default", "secret") + "".join(
    entry(user[0], user[2][1:]) for user in USERS if user[1] == "on"
)


@pytest.fixture
def auth_pair(farm: Farm) -> Pair:
    """Valkey alone, and behind a sidecar that judges logins."""
    pair = farm.pair("valkey", "secret", FILE)
    pair.reset()
    return pair
