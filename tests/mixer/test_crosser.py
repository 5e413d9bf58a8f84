"""A few thousand tries of the crosser; and that it sees what it is there to see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.wire import Wire, call
from tests.mixer.crosser import Crosser, CrossingError, Scene, Stage, outside

TRIES = 4000
"""In the first setup; fewer in the others."""

SETUPS: dict[str, dict[str, str]] = {
    "cache": {"cache__mode": "rules", "cache__rules": "*"},
    "hot": {"cache__mode": "hot"},
    "session-pooling": {"upstream__pooling": "session", "cache__mode": "off"},
    "two-workers": {"workers": "2", "cache__mode": "rules", "cache__rules": "*"},
}


@pytest.fixture(params=SETUPS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with Stage() as stage:
        yield stage.scene(**SETUPS[request.param])


@pytest.mark.timeout(240)
def test_nothing_crosses(request: pytest.FixtureRequest, scene: Scene) -> None:
    tries = TRIES if "[cache]" in request.node.name else TRIES // 3
    crosser = Crosser(scene.sidecar, scene.tenants, seed=1)
    try:
        crosser.run(tries)
    finally:
        crosser.close()
    assert min(crosser.counts.values()) > tries / 30
    assert list(outside(scene)) == []


@pytest.mark.parametrize(
    "rules", ["%R~beta:*", "&*", "+client|list"], ids=["keys", "channels", "clients"]
)
def test_an_open_door_is_found(rules: str) -> None:
    """With one right too many at the server something crosses, and the crosser says so."""
    with Stage() as stage:
        scene = stage.scene(**SETUPS["cache"])
        more = ("resetchannels", rules) if rules == "&*" else (rules,)
        call(scene.server.port, "ACL", "SETUSER", "alpha-user", *more)
        crosser = Crosser(scene.sidecar, scene.tenants, seed=2)
        try:
            with pytest.raises((CrossingError, AssertionError)):
                crosser.run(TRIES)
        finally:
            crosser.close()


def test_the_cache_of_one_tenant_answers_no_other() -> None:
    """Not even with an error that comes sooner."""
    with Stage() as stage:
        scene = stage.scene(**SETUPS["cache"])
        alpha, beta = scene.tenants
        with Wire(scene.sidecar.port) as one, Wire(scene.sidecar.port) as other:
            one.cmd("AUTH", alpha.name, f"{alpha.name}-pw-{alpha.token}")
            other.cmd("AUTH", beta.name, f"{beta.name}-pw-{beta.token}")
            for _ in range(100):
                assert beta.token.encode() in other.cmd("GET", "beta:guard")
                assert one.cmd("GET", "beta:guard").startswith(b"-NOPERM")
