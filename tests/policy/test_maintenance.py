"""What servers announce of their maintenance."""

from __future__ import annotations

import pytest

from sidecar.policy.maintenance import LONGEST, Announcement, announced_in, endpoint_type


@pytest.mark.parametrize(
    ("push", "expected"),
    [
        ([b"MOVING", 1, 15, b"10.0.0.2:6380"], Announcement("MOVING", 15.0, ("10.0.0.2", 6380))),
        (["MOVING", 1, b"15", "db:1"], Announcement("MOVING", 15.0, ("db", 1))),
        ([b"MOVING", 1, 15, b"[::1]:6380"], Announcement("MOVING", 15.0, ("::1", 6380))),
        ([b"MOVING", 1, 15, b"fe80::1:6380"], Announcement("MOVING", 15.0, ("fe80::1", 6380))),
        ([b"MOVING", 1, 15, None], Announcement("MOVING", 15.0)),
        ([b"MOVING", 1, 15], Announcement("MOVING", 15.0)),
        ([b"MOVING", 1, -3, None], Announcement("MOVING", 0.0)),
        ([b"MIGRATING", 2, 10, [b"1"]], Announcement("MIGRATING", 10.0)),
        ([b"FAILING_OVER", 2, 10**12], Announcement("FAILING_OVER", LONGEST)),
        ([b"MIGRATED", 3, [b"1"]], Announcement("MIGRATED", 0.0)),
        ([b"FAILED_OVER"], Announcement("FAILED_OVER", 0.0)),
        ([b"invalidate", [b"k"]], None),
        ([b"moving"], None),
        ([], None),
        ([None], None),
    ],
)
def test_what_a_push_announces(push: list[object], expected: Announcement | None) -> None:
    assert announced_in(push) == expected


@pytest.mark.parametrize(
    ("push", "message"),
    [
        ([b"MOVING", 1], "MOVING does not tell when"),
        ([b"MIGRATING"], "MIGRATING does not tell when"),
        ([b"MOVING", 1, b"soon", None], "'soon' is no number of seconds"),
        ([b"MOVING", 1, None, None], "'None' is no number of seconds"),
        ([b"MOVING", 1, 5, b"nowhere"], "'nowhere' is no address"),
        ([b"MOVING", 1, 5, b":1"], "':1' is no address"),
        ([b"MOVING", 1, 5, b"a:0"], "'a:0' is no address"),
        ([b"MOVING", 1, 5, b"a:65536"], "'a:65536' is no address"),
        ([b"MOVING", 1, 5, b"a:99999999999999999"], "is no address"),
        ([b"MOVING", 1, 5, [b"a", 1]], "is no address"),
    ],
)
def test_what_cannot_be_understood(push: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        announced_in(push)


@pytest.mark.parametrize(
    ("host", "tls", "expected"),
    [
        ("10.1.2.3", False, "internal-ip"),
        ("127.0.0.1", True, "internal-fqdn"),
        ("8.8.8.8", False, "external-ip"),
        ("fd00::1", False, "internal-ip"),
        ("redis-1.example.com", False, "external-ip"),
        ("redis-1.example.com", True, "external-fqdn"),
    ],
)
def test_which_address_is_asked_for(host: str, tls: bool, expected: str) -> None:
    assert endpoint_type(host, tls=tls) == expected


def test_what_is_over() -> None:
    assert Announcement("MIGRATED", 0.0).is_over
    assert not Announcement("MOVING", 5.0).is_over
