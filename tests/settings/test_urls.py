"""URLs: what is accepted, what it means, and that no refusal shows a password."""

import pytest

from sidecar.settings.urls import Endpoint, parse_listen, parse_upstream


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://host", Endpoint(kind="tcp", host="host", port=6379)),
        ("redis://host:7000/", Endpoint(kind="tcp", host="host", port=7000)),
        ("redis://10.0.0.1:7000/3", Endpoint(kind="tcp", host="10.0.0.1", port=7000, db=3)),
        ("REDIS://host/3", Endpoint(kind="tcp", host="host", port=6379, db=3)),
        ("rediss://host", Endpoint(kind="tcp", tls=True, host="host", port=6379)),
        ("valkey://host", Endpoint(kind="tcp", host="host", port=6379)),
        ("valkeys://host", Endpoint(kind="tcp", tls=True, host="host", port=6379)),
        ("redis://[::1]", Endpoint(kind="tcp", host="::1", port=6379)),
        ("redis://[2001:db8::7]:7000/1", Endpoint("tcp", host="2001:db8::7", port=7000, db=1)),
        ("redis://[fe80::1%25eth0]:7000", Endpoint("tcp", host="fe80::1%eth0", port=7000)),
        ("redis://:pw@host", Endpoint("tcp", host="host", port=6379, password="pw")),
        ("redis://u:@host", Endpoint("tcp", host="host", port=6379, username="u")),
        (
            "redis://u%40x:p%3Aw%2F%40%25@host/2",
            Endpoint("tcp", host="host", port=6379, username="u@x", password="p:w/@%", db=2),
        ),
        (
            "redis://u:p:w@x@host",
            Endpoint("tcp", host="host", port=6379, username="u", password="p:w@x"),
        ),
        ("unix:///run/redis.sock", Endpoint(kind="unix", path="/run/redis.sock")),
        (
            "unix://u:pw@/run/my%20redis.sock?db=4",
            Endpoint(
                kind="unix",
                path="/run/my redis.sock",
                username="u",
                password="pw",
                db=4,
                options={"db": "4"},
            ),
        ),
        ("embedded://", Endpoint(kind="embedded")),
        ("embedded://?port=7001", Endpoint(kind="embedded", options={"port": "7001"})),
    ],
)
def test_upstream_forms(url: str, endpoint: Endpoint) -> None:
    assert parse_upstream(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://u:pw@h1,[::1]:5000/mymaster/2",
        "valkey+sentinel://u:pw@h1:26379,[::1]:5000/mymaster/2",
        "redis-sentinel://u:pw@h1,[::1]:5000/2?sentinelMasterId=mymaster",
        "redis-sentinel://u:pw@h1,[::1]:5000/2#mymaster",
    ],
)
def test_sentinel_forms_all_mean_the_same(url: str) -> None:
    endpoint = parse_upstream(url)
    assert endpoint.kind == "sentinel"
    assert endpoint.members == (("h1", 26379), ("::1", 5000))
    assert (endpoint.service, endpoint.db, endpoint.tls) == ("mymaster", 2, False)
    assert (endpoint.username, endpoint.password) == ("u", "pw")


@pytest.mark.parametrize("scheme", ["rediss+sentinel", "valkeys+sentinel", "rediss-sentinel"])
def test_sentinel_with_tls(scheme: str) -> None:
    assert parse_upstream(f"{scheme}://h/m").tls


@pytest.mark.parametrize("scheme", ["redis+cluster", "valkey+cluster", "redis-cluster"])
@pytest.mark.parametrize("database", ["/2", "?db=2"])
def test_cluster_forms_all_mean_the_same(scheme: str, database: str) -> None:
    endpoint = parse_upstream(f"{scheme}://u:pw@h1,[::1]:5000{database}")
    assert (endpoint.kind, endpoint.tls, endpoint.db) == ("cluster", False, 2)
    assert endpoint.members == (("h1", 6379), ("::1", 5000))
    assert (endpoint.username, endpoint.password) == ("u", "pw")
    assert (endpoint.is_cluster, endpoint.is_embedded) == (True, False)


@pytest.mark.parametrize("scheme", ["rediss+cluster", "valkeys+cluster", "rediss-cluster"])
def test_cluster_with_tls(scheme: str) -> None:
    assert parse_upstream(f"{scheme}://h").tls


@pytest.mark.parametrize(
    ("options", "shards", "replicas"),
    [("", 3, 0), ("?shards=1", 1, 0), ("?shards=32&replicas=4", 32, 4)],
)
def test_an_embedded_cluster(options: str, shards: int, replicas: int) -> None:
    endpoint = parse_upstream(f"embedded+cluster://{options}")
    assert (endpoint.kind, endpoint.shards, endpoint.replicas) == (
        "embedded-cluster",
        shards,
        replicas,
    )
    assert endpoint.is_cluster
    assert endpoint.is_embedded


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://127.0.0.1:0", Endpoint(kind="tcp", host="127.0.0.1", port=0)),
        ("redis://0.0.0.0", Endpoint(kind="tcp", host="0.0.0.0", port=6380)),
        ("rediss://[::]:6390/", Endpoint(kind="tcp", tls=True, host="::", port=6390)),
        ("valkey://localhost:1", Endpoint(kind="tcp", host="localhost", port=1)),
        ("unix:///run/sidecar.sock", Endpoint(kind="unix", path="/run/sidecar.sock")),
    ],
)
def test_listen_forms(url: str, endpoint: Endpoint) -> None:
    assert parse_listen(url) == endpoint


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("host:6379", "no '://'"),
        ("http://host", "unknown URL scheme 'http'; write redis://"),
        ("redis://", "no host"),
        ("redis://host:", "bad port"),
        ("redis://host:0", "from 1 to 65535"),
        ("redis://host:65536", "bad port"),
        ("redis://host:\uff16\uff13", "bad port"),
        ("redis://host:6379/x", "bad database"),
        ("redis://host:6379/-1", "bad database"),
        ("redis://host/1?db=2", "given twice"),
        ("redis://host?ssl_cert_reqs=none", "upstream.tls"),
        ("redis://host?db=1&db=2", "given twice"),
        ("redis://ho st", "percent-encode"),
        ("redis://host\r\n", "control characters"),
        ("redis://ho%zzst", "two hex digits"),
        ("redis://h%41st", "bad host"),
        ("redis://::1:6379", "brackets|too many colons"),
        ("redis://[::1", "bad IPv6"),
        ("redis://[::1]6379", "bad IPv6"),
        ("redis://[zz]", "bad IPv6"),
        ("redis://u@host", "user without a password"),
        ("redis://:%ff@host", "not UTF-8"),
        ("redis://host#1", "%23"),
        ("unix://run/redis.sock", "3 slashes"),
        ("unix://", "3 slashes"),
        ("unix:///", "3 slashes"),
        ("unix:///run/%00", "NUL"),
        ("unix:///" + "x" * 120, "too long"),
        ("embedded://host", "embedded.dir"),
        ("embedded://?port=0", "from 1 to 65535"),
        ("redis+sentinel://h1,h2", "no service"),
        ("redis+sentinel://h1,,h2/m", "no host"),
        ("redis+sentinel://h1/m/0/9", "too much"),
        ("redis+cluster://", "no host"),
        ("redis+cluster://h1,,h2", "no host"),
        ("redis+cluster://h1:0", "from 1 to 65535"),
        ("redis+cluster://h1/x", "bad database"),
        ("redis+cluster://h1/1?db=1", "given twice"),
        ("redis+cluster://h1?shards=3", "supports: db"),
        ("redis+cluster://h1#m", "%23"),
        ("redis+cluster://h1@h2", "user without a password"),
        ("embedded+cluster://host", "embedded.dir"),
        ("embedded+cluster://?port=7001", "supports: replicas, shards"),
        ("embedded+cluster://?shards=0", "bad number of shards; write one from 1 to 32"),
        ("embedded+cluster://?shards=x", "bad number of shards"),
        ("embedded+cluster://?replicas=5", "bad number of replicas; write one from 0 to 4"),
    ],
)
def test_bad_upstreams_say_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_upstream(url)


def test_a_listener_names_a_policy_and_is_the_same_place() -> None:
    plain, named = parse_listen("redis://h:1"), parse_listen("redis://h:1?policy=a%20b")
    assert named.policy == "a b"
    assert (named == plain, str(named)) == (True, str(plain))
    assert parse_listen(named.listen_url).policy == "a b"
    assert parse_listen("unix:///run/s?policy=x").policy == "x"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("embedded://", "cannot listen on embedded://"),
        ("redis+sentinel://h/m", r"cannot listen on redis\+sentinel://"),
        ("redis+cluster://h", r"cannot listen on redis\+cluster://"),
        ("embedded+cluster://", r"cannot listen on embedded\+cluster://"),
        ("redis://:pw@127.0.0.1:6380", "takes no user or password"),
        ("redis://127.0.0.1:6380/1", "takes no database"),
        ("redis://127.0.0.1:6380?db=1", r"one option, '\?policy=NAME'"),
        ("redis://127.0.0.1:6380?policy=", "one option"),
        ("redis://127.0.0.1:6380?policy=a&policy=b", "one option"),
        ("redis://:6380", "every interface"),
        ("unix://sidecar.sock", "3 slashes"),
    ],
)
def test_bad_listeners_say_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_listen(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2",
        "redis://user:hunter2",
        "redis://:hunter2/x@host",
        "redis://:a/hunter2@host",
        "redis://:a#hunter2@host",
        "redis://:a?hunter2@host",
        "redis://:hunter2%zz@host",
        "redis://:hunter2 @host",
        "redis://:hunter2@host:x",
        "redis://:hunter2@[::1",
        "redis://:hunter2@host/x",
        "redis://:hunter2@host?x=1",
        "redis://hunter2@host",
        "unix://:hunter2@run/x",
        "embedded://:hunter2@host",
        "redis+sentinel://:hunter2@h1",
        "redis+cluster://:hunter2@h1:x",
        "redis+cluster://hunter2@h1",
        "embedded+cluster://:hunter2@",
        "foo://:hunter2@host",
        ":hunter2@host",
        ":hunter2@host://",
    ],
)
def test_no_refusal_shows_a_password(url: str) -> None:
    for parse in (parse_upstream, parse_listen):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - any message, but never that
            parse(url)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hunter2@host/2", "redis://user:***@host:6379/2"),
        ("valkeys://:hunter2@[::1]:7000", "rediss://:***@[::1]:7000"),
        ("redis://user:@host", "redis://user:@host:6379"),
        ("unix://:hunter2@/run/a%20b?db=1", "unix://:***@/run/a%20b?db=1"),
        ("redis+sentinel://:hunter2@a,b/m/1", "redis+sentinel://:***@a:26379,b:26379/m/1"),
        ("valkeys+cluster://u:hunter2@a,[::1]:7/1", "rediss+cluster://u:***@a:6379,[::1]:7/1"),
        ("embedded+cluster://", "embedded+cluster://?shards=3&replicas=0"),
        ("embedded://?port=7001", "embedded://?port=7001"),
    ],
)
def test_an_endpoint_never_shows_its_password(url: str, shown: str) -> None:
    endpoint = parse_upstream(url)
    assert str(endpoint) == shown
    assert "hunter2" not in repr(endpoint) + f"{endpoint}"


def test_endpoints_can_be_keys() -> None:
    assert len({parse_upstream("redis://a"), parse_upstream("redis://a:6379")}) == 1
