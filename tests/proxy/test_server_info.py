"""What is taken from a server's INFO."""

from __future__ import annotations

import pytest

from sidecar.proxy.server_info import facts_of
from sidecar.telemetry.facts import Replica


def test_facts_of_a_master() -> None:
    facts = facts_of(
        "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n"
        "used_memory:1000\r\nmaxmemory:0\r\nrole:master\r\nconnected_slaves:2\r\n"
        "slave0:ip=10.0.0.2,port=6379,state=online,offset=90,lag=1\r\n"
        "slave1:ip=::1,port=6380,state=wait_bgsave,offset=0,lag=0\r\n"
        "master_repl_offset:100\r\n"
    )
    assert (facts.software, facts.version, facts.role) == ("valkey", "9.1.2", "master")
    assert facts.replicas == [
        Replica(address="10.0.0.2:6379", state="online", lag_bytes=10, lag_s=1),
        Replica(address="[::1]:6380", state="wait_bgsave", lag_bytes=100, lag_s=0),
    ]


@pytest.mark.parametrize("info", ["", "role", "connected_slaves:many", "connected_slaves:3\nx:y"])
def test_facts_of_what_is_no_info(info: str) -> None:
    assert facts_of(info).replicas == []
