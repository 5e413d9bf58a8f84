"""The file of identities: what is read, and refusals that name the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.proxy.session.identity_book import UpstreamUser
from sidecar.settings.identities_file import IdentitiesError, read_identities
from sidecar.settings.load import ConfigError, load
from sidecar.settings.sections.principals import IdentitiesFile

HASH = "$argon2id$v=19$m=19456,t=2,p=1$eHh4eHh4eHh4eHh4eHh4eA$wUkNjpF6G7fEflFeIsKSEJ/KkGrtDC7T"
SCRYPT = "$scrypt$ln=14,r=8,p=1$eHh4eHh4eHh4eHh4$wUkNjpF6G7fEflFeIsKSEJ/KkGrtDC7T"

WHOLE = f"""
[identities.shop]
passwords = ["{HASH}", "{SCRYPT}"]
certificates = ["CN:shop", "DNS:shop.svc", "URI:spiffe://corp/shop"]
peers = ["uid:1000", "gid:1000"]
tenant = "shop"
policy = "careful"
limits = {{ connections = 100, commands = 5000, burst = 500, over = "error", in_flight = "8MB" }}
[identities.jobs]
passwords = ["{HASH}"]
upstream_username = "jobs"
upstream_password = "hunter2"
policy = "production"
[tenants.shop]
password = "hunter2"
keys = ["shop:*"]
channels = ["shop:*"]
commands = ["+@all", "-@dangerous", "-config|set"]
prefix = "shop:"
[policies.careful]
deny = ["KEYS", "CONFIG|SET", "@dangerous"]
deny_keys = ["secret:*"]
read_only = true
read_only_keys = ["config:*"]
rename = {{ XFLUSHALL = "FLUSHALL" }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "identities.toml"


def refused(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(IdentitiesError) as caught:
        read_identities(str(file))
    assert all(problem.endswith(f"({file})") for problem in caught.value.problems)
    return [problem.removesuffix(f" ({file})") for problem in caught.value.problems]


def test_all_of_it(file: Path) -> None:
    file.write_text(WHOLE)
    read = read_identities(str(file))
    shop, jobs = read.principals["shop"], read.principals["jobs"]
    assert shop.passwords == (HASH, SCRYPT)
    assert shop.certificates[2] == "URI:spiffe://corp/shop"
    assert (shop.tenant, shop.policy) == ("shop", "careful")
    limits = shop.limits
    assert (limits.connections, limits.commands, limits.burst) == (100, 5000, 500)
    assert (limits.over, limits.in_flight, limits.blocked) == ("error", 8 << 20, 0)
    assert (jobs.upstream_username, jobs.limits.over) == ("jobs", "delay")
    assert read.tenants["shop"].commands == ("+@all", "-@dangerous", "-config|set")
    assert read.policies["careful"].rename == {"XFLUSHALL": "FLUSHALL"}
    assert read.has_policy("production")
    assert not read.has_policy("none")


def test_no_file_is_an_empty_one() -> None:
    assert read_identities("") == IdentitiesFile()


def test_no_repr_shows_a_secret(file: Path) -> None:
    file.write_text(WHOLE)
    read = read_identities(str(file))
    shown = repr((read, read.principals, read.tenants))
    assert "hunter2" not in shown
    assert "argon2id" not in shown
    assert "hunter2" not in repr(UpstreamUser(b"name", b"hunter2"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[identites.a]", "identites: unknown table; did you mean identities?"),
        ("identities = 5", "identities: expected tables, written [identities.NAME]"),
        ("identities.a = 5", "identities.a: expected a table, written [identities.a]"),
        ('[identities."a b"]', "identities: 'a b' is not a name; write 1 to 64 printable"),
        ("[identities.a]\npasword = []", "identities.a.pasword: unknown; did you mean"),
        ("[identities.a]\npasswords = 'x'", "identities.a.passwords: found a string, expected a l"),
        ("[identities.a]\npasswords = ['x']", "identities.a.passwords: entry 1 is not a hash that"),
        ("[identities.a]\ncertificates = ['shop']", 'expected "CN:name", "DNS:name" or "URI'),
        ("[identities.a]\npeers = ['1000']", 'found \'1000\', expected "uid:1000" or "gid:1000"'),
        ("[identities.a]\ntenant = 'x'", "identities.a.tenant: this file has no [tenants.x]; add"),
        (
            "[identities.a]\ntenant = 'shpo'\n[tenants.shop]\npassword = 'p'",
            "no [tenants.shpo]; did you mean shop?",
        ),
        ("[identities.a]\npolicy = 'producton'", "did you mean production?"),
        ("[identities.a]\nlimits = 5", "identities.a.limits: expected a table"),
        ("[identities.a.limits]\nconections = 5", "limits.conections: unknown; did you mean lim"),
        ("[identities.a.limits]\nover = 'drop'", 'limits.over: found "drop", expected one of "de'),
        ("[identities.a.limits]\nreply = '1k'", "limits.reply: found \"1k\" (unknown unit 'k'"),
        ("[identities.a.limits]\nburst = 1", "limits.burst: set, but limits.commands is not"),
        ("[identities.a]\nupstream_password = 'p'", "upstream_password: set, but upstream_usern"),
        (
            "[identities.a]\nupstream_username = 'a'\nupstream_password = 'p'\n"
            "upstream_password_file = '/nowhere'",
            "upstream_password_file: set, but upstream_password is set as well",
        ),
        (
            "[identities.a]\nupstream_username = 'a'\nupstream_password_file = '/nowhere'",
            "upstream_password_file: no file '/nowhere'",
        ),
        (
            "[identities.a]\ntenant = 't'\nupstream_username = 'a'\n[tenants.t]\npassword = 'p'",
            "identities.a.upstream_username: set, but tenant is set as well",
        ),
        ("[tenants.a]", "tenants.a.password: empty; set it, or password_file"),
        ("[tenants.a]\npassword = 'p'\nkeys = ['a b']", "tenants.a.keys: found 'a b', expected a"),
        ("[tenants.a]\npassword = 'p'\ncommands = ['get']", "tenants.a.commands: found 'get'"),
        ("[tenants.a]\npassword = 'p'\nprefix = 'a b'", "tenants.a.prefix: write printable"),
        ("[tenants.a]\npassword = 'p'\nprefix = 'a*b'", "tenants.a.prefix: write printable"),
        (
            "[tenants.a]\npassword = 'p'\nprefix = 'a:'\n"
            "[tenants.b]\npassword = 'p'\nprefix = 'a:b:'",
            "tenants.b.prefix: begins with the prefix of tenant 'a'",
        ),
        ("[tenants.a]\npassword = 'p'\nprefix = 'é:'", "tenants.a.prefix: write printable"),
        ("[tenants.a]\npassword = 'p'\nusername = 'a b'", "tenants.a.username: not a name"),
        (
            "[tenants.a]\npassword = 'p'\n[tenants.b]\npassword = 'p'\nusername = 'a'",
            "tenants.b.username: 'a' is the user of tenant 'a' already",
        ),
        (
            "[identities.a]\ncertificates = ['DNS:A.x']\n"
            "[identities.b]\ncertificates = ['DNS:a.x.']",
            "identities.b.certificates: 'DNS:a.x.' is of identity 'a' already",
        ),
        (
            "[identities.a]\npeers = ['uid:01']\n[identities.b]\npeers = ['uid:1']",
            "identities.b.peers: 'uid:1' is of identity 'a' already",
        ),
        ("[policies.production]", "policies.production: this policy is built in"),
        ("[policies.a]\ndeny = ['GET x']", "policies.a.deny: found 'GET x'"),
        ("[policies.a]\nrename = ['a']", 'policies.a.rename: found ["a"], expected a table of str'),
        ("[policies.a.rename]\nA = '@all'", "policies.a.rename: found '@all', expected the name"),
        ("a = ", "not valid TOML"),
    ],
)
def test_refusals_name_the_path(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(IdentitiesError) as caught:
        read_identities(str(file))
    assert any(says in problem for problem in caught.value.problems), caught.value.problems


def test_every_fault_is_named_at_once(file: Path) -> None:
    problems = refused(file, "[identities.a]\npeers = ['x']\ntenant = 'y'\n[tenants.z]\nkeys = 1")
    assert [problem.partition(":")[0] for problem in problems] == [
        "tenants.z.keys",
        "identities.a.peers",
        "identities.a.tenant",
        "tenants.z.password",
    ]


def test_no_refusal_shows_a_secret(file: Path) -> None:
    problems = refused(
        file,
        "[identities.a]\npasswords = ['hunter2']\nupstream_password = 'hunter2'\n"
        "[tenants.b]\npassword = ['hunter2']",
    )
    assert len(problems) == 4
    assert "hunter2" not in "\n".join(problems)


def test_files_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(IdentitiesError, match="cannot read the file: No such file"):
        read_identities(str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(IdentitiesError, match="not UTF-8"):
        read_identities(str(file))


# -- against the settings


def problems(file: Path, text: str, **others: str) -> str:
    file.write_text(text)
    overrides = {"identities.file": str(file), "identities.mode": "terminate"}
    overrides |= {path.replace("__", "."): value for path, value in others.items()}
    try:
        load(None, overrides, {})
    except ConfigError as error:
        return "\n".join(error.problems)
    return ""


def test_a_file_that_fits_the_settings(file: Path) -> None:
    assert problems(file, f"[identities.a]\npasswords = ['{HASH}']") == ""
    assert problems(file, "[identities.a]\npeers=['uid:1']", listen__urls="unix:///run/x") == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no [identities.NAME] in it, so nobody could log in"),
        ("[identities.a]", "identities.a: without passwords, certificates and peers nobody can be"),
        ("[identities.a]\ncertificates = ['CN:a']", "identities.a.certificates: set, but listen.t"),
        ("[identities.a]\npeers = ['uid:1']", "identities.a.peers: set, but no listener is unix"),
    ],
)
def test_a_file_that_does_not(file: Path, text: str, says: str) -> None:
    assert says in problems(file, text)


def test_what_only_the_sidecar_could_judge_is_refused_in_passthrough(file: Path) -> None:
    text = f"[identities.a]\npasswords = ['{HASH}']"
    found = problems(file, text, identities__mode="passthrough")
    assert 'identities.a.passwords: set, but identities.mode is "passthrough"' in found
    text = "[identities.a]\npolicy = 'production'"
    assert problems(file, text, identities__mode="passthrough") == ""


def test_terminating_needs_a_file() -> None:
    with pytest.raises(ConfigError, match=r"identities\.file: empty"):
        load(None, {"identities.mode": "terminate"}, {})


def test_a_bad_file_is_refused_with_the_settings(file: Path) -> None:
    found = problems(file, "[identities.a]\npeers = 5", log__level="x")
    assert "log.level" in found
    found = problems(file, "[identities.a]\npeers = 5")
    assert found.startswith("identities.file: identities.a.peers: found 5")
