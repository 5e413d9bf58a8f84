"""Replies of shards, and the one that a client gets: raw, in both protocols."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.fan_out import Merge
from sidecar.policy.merging import merge
from sidecar.policy.merging_info import as_standalone, human
from tests.harness.refreplies import reply_end

OK = b"+OK\r\n"
ERROR = b"-ERR no\r\n"
BUSY = b"-NOTBUSY No scripts in execution right now.\r\n"


def array(*items: bytes, kind: bytes = b"*") -> bytes:
    return b"%b%d\r\n%b" % (kind, len(items), b"".join(items))


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def verbatim(text: bytes) -> bytes:
    return b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text)


def number(value: int) -> bytes:
    return b":%d\r\n" % value


def fields(protocol: int, *pairs: tuple[bytes, bytes]) -> bytes:
    """A map, or what stands for one in RESP2."""
    body = b"".join(name + value for name, value in pairs)
    return b"%b%d\r\n%b" % (b"%" if protocol == 3 else b"*", len(pairs) * (4 - protocol), body)


A, B = bulk(b"a"), bulk(b"b\r\n")


def numbers(*values: int) -> bytes:
    return array(*map(number, values))


SIMPLE = [
    (Merge.FIRST, [OK, OK], OK),
    (Merge.FIRST, [OK, ERROR], ERROR),
    (Merge.ONE, [BUSY, OK, BUSY], OK),
    (Merge.ONE, [BUSY, b"-UNKILLABLE x\r\n", BUSY], b"-UNKILLABLE x\r\n"),
    (Merge.ONE, [BUSY, BUSY], BUSY),
    (Merge.SUM, [number(1), number(-2), number(40)], number(39)),
    (Merge.SUM, [number(1), ERROR, b"-ERR other\r\n"], ERROR),
    (Merge.SUM, [number(1), b"!5\r\nERR x\r\n"], b"!5\r\nERR x\r\n"),
    (Merge.SUM, [OK, number(1)], OK),
    (Merge.MIN, [number(3), number(2)], number(2)),
    (Merge.MIN, [numbers(1, 5), numbers(0, 7)], numbers(0, 5)),
    (Merge.AND, [numbers(1, 1), numbers(0, 1)], numbers(0, 1)),
    (Merge.AND, [numbers(1), numbers(1, 1)], numbers(1)),
    (Merge.CONCAT, [array(A), array(), array(B)], array(A, B)),
    (Merge.CONCAT, [array(A, kind=b"~"), array(kind=b"~")], array(A, kind=b"~")),
    (Merge.CONCAT, [OK, OK], OK),
    (Merge.CONCAT, [b"*-1\r\n", array()], b"*-1\r\n"),
    (Merge.UNION, [array(A, B), array(B)], array(A, B)),
    (
        Merge.SUM_BY_NAME,
        [array(bulk(b"a"), number(1), bulk(b"b"), number(0)), array(bulk(b"a"), number(2))],
        array(bulk(b"a"), number(3), bulk(b"b"), number(0)),
    ),
    (Merge.TEXT, [bulk(b"a\n"), bulk(b"b")], bulk(b"a\nb\n")),
    (Merge.TEXT, [verbatim(b"a"), verbatim(b"b")], verbatim(b"a\nb\n")),
    (Merge.TEXT, [ERROR, bulk(b"b"), ERROR], bulk(b"b")),
    (Merge.TEXT, [ERROR, ERROR], ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("how", "replies", "merged"), SIMPLE)
def test_simple(how: Merge, replies: list[bytes], merged: bytes) -> None:
    assert merge(how, replies) == merged


@pytest.mark.parametrize("how", list(Merge))
def test_one_shard_answers_for_itself(how: Merge) -> None:
    for reply in (OK, ERROR, number(1), array(), bulk(b"x"), b"_\r\n"):
        assert merge(how, [reply]) == reply


def entry(ident: int, time: int) -> bytes:
    return array(number(ident), number(time), number(5), array(bulk(b"GET"), bulk(b"k")))


@pytest.mark.parametrize(
    ("args", "times"),
    [
        ([b"SLOWLOG", b"GET"], list(range(15, 5, -1))),
        ([b"SLOWLOG", b"GET", b"3"], [15, 14, 13]),
        ([b"SLOWLOG", b"GET", b"-1"], list(range(15, 3, -1))),
        ([b"COMMANDLOG", b"GET", b"2", b"slow"], [15, 14]),
    ],
)
def test_a_log(args: list[bytes], times: list[int]) -> None:
    odd = array(*(entry(n, t) for n, t in enumerate(range(15, 4, -2))))
    even = array(*(entry(n, t) for n, t in enumerate(range(14, 3, -2))))
    merged = merge(Merge.NEWEST, [odd, even], args)
    assert merged == array(*(entry((15 - t) // 2, t) for t in times))


def test_latencies() -> None:
    one = array(array(number(1), number(10)), array(number(5), number(20)))
    two = array(array(number(3), number(30)))
    assert merge(Merge.HISTORY, [one, two]) == array(
        array(number(1), number(10)), array(number(3), number(30)), array(number(5), number(20))
    )
    rows = [
        array(array(bulk(b"a"), number(5), number(7), number(9), number(16), number(2))),
        array(
            array(bulk(b"b"), number(1), number(1), number(1), number(1), number(1)),
            array(bulk(b"a"), number(4), number(8), number(12), number(20), number(2)),
        ),
    ]
    assert merge(Merge.LATEST, rows) == array(
        array(bulk(b"a"), number(5), number(7), number(12), number(36), number(4)),
        array(bulk(b"b"), number(1), number(1), number(1), number(1), number(1)),
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_histograms(protocol: int) -> None:
    """They tell how many took no longer than each bound."""

    def histogram(calls: int, *counts: tuple[int, int]) -> bytes:
        inner = fields(protocol, *((number(bound), number(count)) for bound, count in counts))
        return fields(protocol, (bulk(b"calls"), number(calls)), (bulk(b"histogram_usec"), inner))

    one = fields(protocol, (bulk(b"get"), histogram(8, (1, 5), (4, 8))))
    two = fields(
        protocol,
        (bulk(b"get"), histogram(4, (2, 3), (8, 4))),
        (bulk(b"set"), histogram(1, (1, 1))),
    )
    assert merge(Merge.HISTOGRAM, [one, two]) == fields(
        protocol,
        (bulk(b"get"), histogram(12, (1, 5), (2, 8), (4, 11), (8, 12))),
        (bulk(b"set"), histogram(1, (1, 1))),
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_function_stats(protocol: int) -> None:
    null = b"_\r\n" if protocol == 3 else b"*-1\r\n"
    engines = (bulk(b"engines"), array())
    idle = fields(protocol, (bulk(b"running_script"), null), engines)
    busy = fields(protocol, (bulk(b"running_script"), fields(protocol)), engines)
    assert merge(Merge.RUNNING, [idle, busy, idle]) == busy
    assert merge(Merge.RUNNING, [idle, idle]) == idle


@pytest.mark.parametrize("protocol", [2, 3])
def test_memory(protocol: int) -> None:
    def stats(total: int, keys: int, ratio: bytes, *more: tuple[bytes, bytes]) -> bytes:
        double = b",%b\r\n" % ratio if protocol == 3 else bulk(ratio)
        each = (total - 100) // keys
        return fields(
            protocol,
            (bulk(b"total.allocated"), number(total)),
            (bulk(b"startup.allocated"), number(total // total * 100)),
            (bulk(b"keys.count"), number(keys)),
            (bulk(b"keys.bytes-per-key"), number(each)),
            (bulk(b"fragmentation"), double),
            *more,
        )

    def database(count: int) -> tuple[bytes, bytes]:
        return bulk(b"db.0"), fields(protocol, (bulk(b"overhead"), number(count)))

    one, two = stats(1100, 10, b"1.5", database(5)), stats(600, 5, b"2.5", database(7))
    double = b",2.0\r\n" if protocol == 3 else bulk(b"2.0")
    assert merge(Merge.MEMORY, [one, two]) == fields(
        protocol,
        (bulk(b"total.allocated"), number(1700)),
        (bulk(b"startup.allocated"), number(200)),
        (bulk(b"keys.count"), number(15)),
        (bulk(b"keys.bytes-per-key"), number(100)),
        (bulk(b"fragmentation"), double),
        database(12),
    )


INFO_ONE = b"""\
# Server
redis_version:7.2.4
redis_mode:cluster
tcp_port:7000

# Memory
used_memory:1048576
used_memory_human:1.00M
mem_fragmentation_ratio:2.00
used_memory_peak_perc:50.00%
mem_allocator:libc

# Persistence
loading:0
rdb_last_save_time:200
rdb_last_bgsave_status:ok

# Stats
total_commands_processed:5
instantaneous_input_kbps:0.50
keyspace_hits:1

# Replication
role:master
connected_slaves:1

# Cluster
cluster_enabled:1

# Commandstats
cmdstat_get:calls=2,usec=3,usec_per_call=1.50,rejected_calls=0,failed_calls=1

# Latencystats
latency_percentiles_usec_get:p50=1.003,p99=2.007

# Keyspace
db0:keys=3,expires=1,avg_ttl=100,subexpiry=0
""".replace(b"\n", b"\r\n")
INFO_TWO = b"""\
# Server
redis_version:7.2.4
redis_mode:cluster
tcp_port:7001

# Memory
used_memory:524288
used_memory_human:512.00K
mem_fragmentation_ratio:3.00
used_memory_peak_perc:100.00%
mem_allocator:libc

# Persistence
loading:1
rdb_last_save_time:100
rdb_last_bgsave_status:err

# Stats
total_commands_processed:7
instantaneous_input_kbps:0.75
keyspace_hits:4

# Replication
role:master
connected_slaves:2

# Cluster
cluster_enabled:1

# Commandstats
cmdstat_get:calls=2,usec=7,usec_per_call=3.50,rejected_calls=1,failed_calls=0
cmdstat_set:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0

# Latencystats
latency_percentiles_usec_get:p50=2.007,p99=2.007

# Keyspace
db0:keys=5,expires=3,avg_ttl=300,subexpiry=1
db3:keys=1,expires=0,avg_ttl=0,subexpiry=0
""".replace(b"\n", b"\r\n")
INFO_BOTH = b"""\
# Server
redis_version:7.2.4
redis_mode:cluster
tcp_port:7000

# Memory
used_memory:1572864
used_memory_human:1.50M
mem_fragmentation_ratio:2.50
used_memory_peak_perc:75.00%
mem_allocator:libc

# Persistence
loading:1
rdb_last_save_time:100
rdb_last_bgsave_status:err

# Stats
total_commands_processed:12
instantaneous_input_kbps:1.25
keyspace_hits:5

# Replication
role:master
connected_slaves:1

# Cluster
cluster_enabled:1

# Commandstats
cmdstat_get:calls=4,usec=10,usec_per_call=2.50,rejected_calls=1,failed_calls=1
cmdstat_set:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0

# Latencystats
latency_percentiles_usec_get:p50=2.007,p99=2.007

# Keyspace
db0:keys=8,expires=4,avg_ttl=250,subexpiry=1
db3:keys=1,expires=0,avg_ttl=0,subexpiry=0
""".replace(b"\n", b"\r\n")


def test_info() -> None:
    assert merge(Merge.INFO, [bulk(INFO_ONE), bulk(INFO_TWO)]) == bulk(INFO_BOTH)
    assert merge(Merge.INFO, [verbatim(INFO_ONE), verbatim(INFO_TWO)]) == verbatim(INFO_BOTH)
    assert merge(Merge.INFO, [bulk(INFO_ONE), bulk(b"")]) == bulk(INFO_ONE)
    assert merge(Merge.INFO, [bulk(b""), bulk(b"")]) == bulk(b"")


def test_info_as_one_server_writes_it() -> None:
    shown = as_standalone(INFO_ONE + b"\r\n# Cluster Info\r\ncluster_state:ok\r\n")
    want = INFO_ONE.replace(b"redis_mode:cluster", b"redis_mode:standalone")
    assert shown.rstrip() == want.replace(b"cluster_enabled:1", b"cluster_enabled:0").rstrip()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, b"0B"), (1023, b"1023B"), (1024, b"1.00K"), (1536, b"1.50K"), (2751320, b"2.62M"),
        (25276514304, b"23.54G"), (1 << 40, b"1.00T"), (1 << 62, b"4096.00P"),
    ],
)  # fmt: skip
def test_sizes_for_people(size: int, text: bytes) -> None:
    assert human(size) == text


@given(
    st.sampled_from(list(Merge)),
    st.lists(
        st.recursive(
            st.sampled_from(
                [OK, ERROR, b"_\r\n", b"*-1\r\n", b"$-1\r\n", b",1.5\r\n", bulk(b"x:1")]
            )
            | st.integers().map(number),
            lambda inner: (
                st.lists(inner, max_size=4).map(lambda items: array(*items))
                | st.lists(st.tuples(inner, inner), max_size=3).map(lambda items: fields(3, *items))
            ),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_whatever_shards_say_there_is_one_reply(how: Merge, replies: list[bytes]) -> None:
    """And it is whole."""
    merged = merge(how, replies)
    assert reply_end(merged) == len(merged)
