"""What a cluster's nodes announce, and where they are reached."""

import pytest

from sidecar.settings.address_map import MOST, AddressMap, parse_map


def test_an_address_and_a_host() -> None:
    found = parse_map(["10.0.0.1:6379=127.0.0.1:7001", " 10.0.0.1 = node1.example ", "[fd00::1]=h"])
    assert found.reached(("10.0.0.1", 6379)) == ("127.0.0.1", 7001)
    assert found.reached(("10.0.0.1", 6380)) == ("node1.example", 6380)
    assert found.reached(("fd00::1", 1)) == ("h", 1)
    assert found.reached(("10.0.0.2", 6379)) == ("10.0.0.2", 6379)


def test_names_in_any_case() -> None:
    found = parse_map(["Node1.Example:6379=[::1]:7001"])
    assert found.reached(("node1.EXAMPLE", 6379)) == ("::1", 7001)


def test_nothing_is_mapped() -> None:
    assert parse_map([]) == AddressMap()
    assert AddressMap().reached(("Host", 1)) == ("Host", 1)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["10.0.0.1"], "no '='"),
        (["10.0.0.1:1=h"], "one side only"),
        (["10.0.0.1=h:1"], "one side only"),
        (["a b=h"], "bad host"),
        (["=h"], "no host"),
        (["a="], "no host"),
        (["::1=h"], "too many colons"),
        (["a:x=b:1"], "bad port"),
        (["a=b", "A=c"], "A is mapped twice"),
        (["a:1=b:1", "a:1=c:1"], "a:1 is mapped twice"),
        ([f"h{n}=x" for n in range(MOST + 1)], "more than 4096"),
    ],
)
def test_refusals(texts: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_map(texts)
