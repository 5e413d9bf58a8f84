"""The Compose files, without an engine: their settings are the sidecar's own and fit each other,
what they mount is there, and what waits for a health check has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.settings.addresses import parse_host_port
from sidecar.settings.load import load
from sidecar.settings.schema import Settings
from sidecar.settings.units import parse_duration
from sidecar.settings.urls import parse_listen
from tests.harness.dockerfile import environment, stages

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path for folder in ("examples", "config") for path in (ROOT / folder).rglob("*compose*.y*ml")
]
IMAGE = stages((ROOT / "Dockerfile").read_text())[-1]

Services = dict[str, dict[str, Any]]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def services(file: Path) -> Services:
    found: Services = yaml.safe_load(file.read_text())["services"]
    return found


def sidecars(services: Services, folder: Path) -> dict[str, Settings]:
    """The services that are built here, with the settings that they run with: those of the image,
    of the file, and of the command. Raises ConfigError."""
    found = {}
    for name, service in services.items():
        if "build" not in service:
            continue
        assert (folder / service["build"]).resolve() == ROOT, "where the Dockerfile is"
        assert "command" not in service
        found[name] = load(None, {}, environment(IMAGE) | service["environment"])
    return found


def test_there_is_one() -> None:
    assert FILES


def test_settings(file: Path, services: Services) -> None:
    """They are accepted, and lead to each other."""
    running = sidecars(services, file.parent)
    assert running
    for name, settings in running.items():
        upstream = settings.upstream_endpoint
        assert upstream.host in services
        assert upstream.host in services[name]["depends_on"]
        images = {service.get("image", "").partition(":")[0] for service in services.values()}
        assert "valkey/valkey" in images
        assert upstream.port == 6379, "where the image's server listens"
        grace = parse_duration(services[name]["stop_grace_period"])
        assert grace > settings.drain.timeout, "a client may be in the middle of something"
        assert services[name]["read_only"]
        assert "/tmp" in services[name]["tmpfs"]
        assert not settings.upstream_endpoint.is_embedded
        for port in services[name].get("ports", ()):
            _, inside = port.rsplit(":", 1)
            host, admin = parse_host_port(settings.admin.listen)
            assert (host, int(inside)) == ("0.0.0.0", admin)
            assert settings.admin.is_guarded


def test_clients_reach_their_sidecar(file: Path, services: Services) -> None:
    """Who shares a sidecar's network is told an address at which that one listens."""
    running = sidecars(services, file.parent)
    told = 0
    for service in services.values():
        of = service.get("network_mode", "").removeprefix("service:")
        if of not in running:
            continue
        urls = re.findall(r"redis://[\w.:]+", " ".join(service["command"]))
        listening = [parse_listen(url) for url in running[of].listen.urls]
        for url in urls:
            assert str(parse_listen(url)) in map(str, listening)
            told += 1
        for mount in service.get("volumes", ()):
            source, target, *_ = mount.split(":")
            assert (file.parent / source).is_file()
            assert target in " ".join(service["command"])
    assert told


def test_what_is_waited_for(services: Services) -> None:
    """A service that must be healthy has a health check, here in its image."""
    for service in services.values():
        awaited = service.get("depends_on", {})
        for name in awaited:
            assert name in services
            if isinstance(awaited, dict) and awaited[name].get("condition") == "service_healthy":
                assert "build" in services[name]
                assert IMAGE.all("HEALTHCHECK")
