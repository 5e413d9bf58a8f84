"""Settings: precedence, units, refusals that name the key, and the generated files."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from sidecar.settings.docs import docs_page, full_toml
from sidecar.settings.load import ConfigError, load
from sidecar.settings.schema import Settings, describe
from sidecar.settings.units import format_duration, format_size, parse_duration, parse_size

ROOT = Path(__file__).parents[2]


def refused(
    toml: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(toml, overrides or {}, environ or {})
    return "\n".join(caught.value.problems)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "sidecar.toml"


# -- where values come from


def test_defaults_alone() -> None:
    settings = load(None, {}, {})
    assert settings == Settings()
    assert settings.listen.urls == ("redis://127.0.0.1:6380",)
    assert settings.upstream.url == "embedded://"
    assert settings.upstream_endpoint.kind == "embedded"
    assert [str(each) for each in settings.listeners] == ["redis://127.0.0.1:6380"]


def test_command_line_over_environment_over_file(toml: Path) -> None:
    toml.write_text('[log]\nlevel = "debug"\n[listen]\nbacklog = 7\nmax_clients = 8\n')
    environ = {"SIDECAR_LISTEN__BACKLOG": "70", "SIDECAR_LISTEN__MAX_CLIENTS": "80", "PATH": "x"}
    settings = load(toml, {"listen.max_clients": "800"}, environ)
    assert settings.log.level == "debug"
    assert (settings.listen.backlog, settings.listen.max_clients) == (70, 800)


def test_lists_replace_lists_and_read_commas_or_json(toml: Path) -> None:
    toml.write_text('[listen]\nurls = ["redis://127.0.0.1:1"]\n')
    environ = {
        "SIDECAR_LISTEN__URLS": "redis://127.0.0.1:2, unix:///run/x",
        "SIDECAR_EMBEDDED__ARGS": '["--save", "60,1"]',
    }
    settings = load(toml, {}, environ)
    assert settings.listen.urls == ("redis://127.0.0.1:2", "unix:///run/x")
    assert settings.embedded.args == ("--save", "60,1")
    assert load(None, {"listen.urls": ["redis://127.0.0.1:3"]}, environ).listen.urls == (
        "redis://127.0.0.1:3",
    )


def test_units() -> None:
    overrides = {
        "upstream.wait": "250ms",
        "upstream.backoff_max": "1.5",
        "listen.idle_timeout": "2m",
        "limits.request_buffer": "64KiB",
        "limits.memory": "67108864",
    }
    settings = load(None, overrides, {})
    assert settings.upstream.wait == 0.25
    assert settings.upstream.backoff_max == 1.5
    assert settings.listen.idle_timeout == 120.0
    assert settings.limits.request_buffer == 65536
    assert settings.limits.memory == 64 << 20


def test_numbers_in_toml(toml: Path) -> None:
    toml.write_text("[upstream]\nwait = 2\nbackoff_max = 2.5\n[limits]\nrequest_buffer = 4096\n")
    settings = load(toml, {}, {})
    assert (settings.upstream.wait, settings.upstream.backoff_max) == (2.0, 2.5)
    assert settings.limits.request_buffer == 4096


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://u:hunter2@host\n")
    settings = load(None, {}, {"SIDECAR_UPSTREAM__URL_FILE": str(secret)})
    assert settings.upstream_endpoint.password == "hunter2"


def test_a_setting_named_file_is_itself_and_not_a_secret(tmp_path: Path) -> None:
    cert = tmp_path / "cert"
    cert.write_text("PEM")
    name = tmp_path / "name"
    name.write_text(str(cert))
    listen = {"listen.urls": "rediss://127.0.0.1:0"}
    direct = load(None, listen, {"SIDECAR_LISTEN__TLS__CERT_FILE": str(cert)})
    assert direct.listen.tls.cert_file == str(cert)
    read = load(None, listen, {"SIDECAR_LISTEN__TLS__CERT_FILE_FILE": str(name)})
    assert read.listen.tls.cert_file == str(cert)


def test_kubernetes_service_variables_are_left_alone() -> None:
    environ = dict.fromkeys(
        [
            "SIDECAR_SERVICE_HOST",
            "SIDECAR_SERVICE_PORT",
            "SIDECAR_SERVICE_PORT_REDIS",
            "SIDECAR_PORT",
            "SIDECAR_PORT_6380_TCP",
            "SIDECAR_PORT_6380_TCP_ADDR",
            "SIDECAR_ORDERS_SERVICE_HOST",
        ],
        "tcp://10.0.0.1:6380",
    )
    assert load(None, {}, environ) == Settings()


def test_the_result_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load(None, {}, {}).listen.backlog = 5  # type: ignore[misc]


# -- refusals


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"listn.urls": "x"}, "listn.urls: unknown setting (command line); did you mean listen.u"),
        ({"listen.cert_file": "x"}, "did you mean listen.tls.cert_file?"),
        ({"log.level": "INFO"}, 'log.level: found "INFO", expected one of "debug"'),
        ({"listen.backlog": "many"}, 'listen.backlog: found "many", expected an integer, from 1'),
        ({"listen.backlog": "0"}, "listen.backlog: found 0, expected an integer, from 1 to 65535"),
        ({"listen.unix_mode": "9"}, 'expected octal digits in quotes, such as "0600"'),
        ({"upstream.wait": "1y"}, "unknown unit 'y'"),
        ({"upstream.wait": "-1"}, "upstream.wait: found"),
        ({"upstream.wait": "nan"}, "upstream.wait: found"),
        ({"limits.request_buffer": "64k"}, "unknown unit 'k'; known: B, KiB"),
        ({"limits.max_value": "64k"}, "did you mean cache.max_value?"),
        ({"cert_file": "x"}, "did you mean listen.tls.cert_file or upstream.tls.cert_file or adm"),
        ({"limits.request_buffer": "1.5B"}, "not a whole number of bytes"),
        ({"listen.urls": ""}, "listen.urls: empty"),
        ({"listen.urls": "http://x"}, "listen.urls: unknown URL scheme"),
        ({"listen.urls": "redis://h:1,redis://h:1"}, "h:1 is listed twice"),
        ({"listen.urls": "unix:///a,unix:///a"}, "/a is listed twice"),
        ({"listen.urls": "rediss://h:1"}, "listen.tls.cert_file: empty, but a rediss://"),
        ({"listen.tls.cert_file": "x"}, "no listener is rediss://"),
        ({"listen.tls.key_file": "x"}, "listen.tls.cert_file is empty"),
        ({"admin.listen": "6381"}, "admin.listen: no port"),
        ({"admin.listen": "0.0.0.0:6381"}, "can be reached from other hosts"),
        ({"admin.listen": "[::]:6381"}, "can be reached from other hosts"),
        ({"admin.listen": "redis.internal:6381"}, "can be reached from other hosts"),
        ({"admin.token": "short"}, "admin.token: too short"),
        ({"admin.token": "with a blank in its midst"}, "admin.token: too short, or not printable"),
        ({"admin.failover": "true"}, "admin.failover: set, but upstream.url is not"),
        ({"admin.tls.key_file": "/nowhere"}, "admin.tls.cert_file is empty"),
        ({"upstream.url": "http://x"}, "upstream.url: unknown URL scheme"),
        ({"failover.hold": "3s"}, "failover.hold: set, but upstream.url"),
        ({"sentinel.password": "x"}, "sentinel.password: set, but upstream.url"),
        ({"sentinel.username": "x", "upstream.url": "redis+sentinel://h/m"}, "sentinel.password"),
        ({"cluster.split": "false"}, "cluster.split: set, but upstream.url"),
        ({"cluster.refresh": "0"}, "cluster.refresh: found"),
        ({"cluster.present": "both"}, 'one of "standalone", "cluster"'),
        ({"upstream.url": "redis+cluster://h", "cluster.map": "a=b:1"}, "cluster.map: a port on"),
        (
            {"upstream.url": "redis+cluster://h", "failover.switch_on": "promotion"},
            "switch_on: set",
        ),
        ({"upstream.url": "redis+cluster://h", "upstream.follow": "off"}, "upstream.follow: set"),
        (
            {"upstream.url": "redis+cluster://h", "upstream.pooling": "session"},
            "upstream.pooling: ",
        ),
        ({"upstream.url": "redis+cluster://h", "admin.failover": "true"}, "admin.failover: set"),
        ({"upstream.url": "embedded+cluster://", "upstream.password": "x"}, "has no users"),
        ({"breaker.open_for": "3s"}, "breaker.open_for: above breaker.open_max"),
        ({"upstream.tls.verify": "none"}, "upstream.tls.verify: set, but upstream.url"),
        ({"upstream.url": "rediss://h", "upstream.tls.ca_file": "/nowhere"}, "no file '/nowhere'"),
        ({"upstream.backoff_min": "3s"}, "upstream.backoff_min: above upstream.backoff_max"),
    ],
)
def test_refusals_name_the_key(overrides: dict[str, str], says: str) -> None:
    assert says in refused(overrides=overrides)


@pytest.mark.parametrize("url", ["rediss+cluster://h1,h2", "embedded+cluster://?shards=2"])
def test_settings_of_a_cluster(url: str) -> None:
    own = {"cluster.map": "10.0.0.1=h1,10.0.0.2:1=h2:2", "cluster.refresh": "1s"}
    own |= {"cluster.present": "cluster", "cluster.split": "false", "failover.hold": "3s"}
    cluster = load(None, {"upstream.url": url, **own}, {}).cluster
    assert cluster.map == ("10.0.0.1=h1", "10.0.0.2:1=h2:2")
    assert (cluster.refresh, cluster.present, cluster.split) == (1.0, "cluster", False)


def test_client_certificates_need_a_ca_and_a_ca_needs_a_use() -> None:
    here = __file__
    listen = {"listen.urls": "rediss://h:1", "listen.tls.cert_file": here}
    assert "listen.tls.ca_file is empty" in refused(
        overrides={**listen, "listen.tls.client_auth": "required"}
    )
    assert "no client is checked" in refused(overrides={**listen, "listen.tls.ca_file": here})
    both = {**listen, "listen.tls.ca_file": here, "listen.tls.client_auth": "optional"}
    assert load(None, both, {}).listen.tls.client_auth == "optional"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[listn]\nurls = []", "listn: unknown setting"),
        ("listen = 5", "listen: expected a table, written [listen]"),
        ("[listen]\nbacklog = true", "listen.backlog: found true, expected an integer"),
        ("[listen]\nurls = 5", "listen.urls: found 5, expected a list of strings"),
        ("[listen]\nurls = [5]", "listen.urls: found [5], expected a list of strings"),
        ("[upstream]\nwait = inf", "upstream.wait: found Infinity"),
        ("[admin]\nlisten = {a = 1}", "admin.listen: found a table"),
        ("[listen]\nunix_mode = 600", "listen.unix_mode: found 600"),
        ("a = ", "not valid TOML"),
    ],
)
def test_refusals_of_a_file_name_it(toml: Path, text: str, says: str) -> None:
    toml.write_text(text)
    message = refused(toml)
    assert says in message
    assert str(toml) in message


def test_a_file_that_is_not_there(toml: Path) -> None:
    assert "cannot read the file: No such file" in refused(toml)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"SIDECAR_LISTEN_URLS": "x"}, "did you mean SIDECAR_LISTEN__URLS?"),
        ({"SIDECAR_UPSTREAM__URI": "x"}, "did you mean SIDECAR_UPSTREAM__URL?"),
        ({"SIDECAR_LOG__LEVEL": "x"}, "(environment SIDECAR_LOG__LEVEL)"),
        ({"SIDECAR_UPSTREAM__URL_FILE": "/nowhere"}, "cannot read /nowhere: No such file"),
        (
            {"SIDECAR_UPSTREAM__URL_FILE": "/x", "SIDECAR_UPSTREAM__URL": "redis://h"},
            "both SIDECAR_UPSTREAM__URL and SIDECAR_UPSTREAM__URL_FILE are set",
        ),
    ],
)
def test_refusals_of_the_environment(environ: dict[str, str], says: str) -> None:
    assert says in refused(environ=environ)


def test_every_fault_is_named_at_once() -> None:
    message = refused(overrides={"a.b": "1", "listen.urls": "x", "admin.listen": "x"})
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("toml_text", "environ"),
    [
        ('[upstream]\nurl = "redis://u:hunter2"', {}),
        ('[upstream]\nurl = ["redis://u:hunter2@h"]', {}),
        ('[upstream]\nurl = "redis://u:hunter2@h"\ntls.verify = "none"', {}),
        ("", {"SIDECAR_UPSTREAM__URL": "http://u:hunter2@h"}),
    ],
)
def test_no_refusal_shows_a_password(toml: Path, toml_text: str, environ: dict[str, str]) -> None:
    toml.write_text(toml_text)
    assert "hunter2" not in refused(toml, {}, environ)


# -- the table and the files made from it


def test_every_setting_is_described_once() -> None:
    table = list(describe())
    assert len({row.path for row in table}) == len(table)
    for row in table:
        assert row.help.endswith("."), row.path
        assert row.type, row.path


def test_every_default_passes_its_own_check(toml: Path) -> None:
    toml.write_text(full_toml())
    assert load(toml, {}, {}) == Settings()
    texts = {row.environment: row.default_text.strip('"') for row in describe()}
    assert load(None, {}, texts) == Settings()


def test_committed_files_are_up_to_date() -> None:
    assert (ROOT / "config/full.toml").read_text() == full_toml()
    assert (ROOT / "docs/configuration.md").read_text() == docs_page()


def test_minimal_toml_loads() -> None:
    assert load(ROOT / "config/minimal.toml", {}, {}).upstream_endpoint.kind == "tcp"


def test_sections_refuse_unknown_fields_when_decoded() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"listen": {"x": 1}}, Settings)


@pytest.mark.parametrize("value", [0.0, 0.001, 0.05, 0.25, 1.0, 60.0, 90.0, 3600.0, 86400.0 * 3])
def test_durations_round_trip(value: float) -> None:
    assert parse_duration(format_duration(value).strip('"')) == value


@pytest.mark.parametrize("value", [0, 1, 1000, 1024, 1536, 1 << 20, 5 << 30])
def test_sizes_round_trip(value: int) -> None:
    assert parse_size(format_size(value).strip('"')) == value


@pytest.mark.parametrize("text", ["64KiB", "64kib", "64KB", "64kb", "64 KB", "65536", "65536B"])
def test_sizes_as_people_write_them(text: str) -> None:
    """KB is what it is in redis.conf."""
    assert parse_size(text) == 65536
    assert parse_size("1.5mb") == parse_size("1.5MiB") == 3 << 19
