"""The Dockerfile, without an engine: what it copies is there, its steps work in a clean folder, and
what it sets is what the sidecar knows."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.settings.schema import describe
from tests.harness.dockerfile import context, environment, stages
from tests.harness.process import free_port
from tests.harness.servers import Server, Sidecar

ROOT = Path(__file__).resolve().parents[2]
BUILDER, IMAGE = stages((ROOT / "Dockerfile").read_text())
INSTALLED = "/opt/redis-sidecar"


def copied() -> list[tuple[list[str], str]]:
    """What the builder copies from the sources: paths, and where to."""
    found = []
    for rest in BUILDER.all("COPY"):
        *sources, target = rest.split()
        assert not any(each.startswith("--") for each in sources)
        found.append((sources, target))
    return found


def test_what_is_copied_is_there() -> None:
    """In the sources, and in what .dockerignore lets in."""
    allowed = context(ROOT)
    for sources, _ in copied():
        for source in sources:
            assert source in allowed
    assert {each.split("/")[0] for each in allowed} == {
        source.removeprefix("./") for sources, _ in copied() for source in sources
    }
    assert not [each for each in allowed if each.endswith((".so", ".pyc"))]


def test_the_image_has_no_compiler_and_is_nobodys() -> None:
    assert BUILDER.name == "builder"
    assert re.fullmatch(r"python:\d+\.\d+-slim", IMAGE.image)
    assert IMAGE.image == BUILDER.image, "a compiled module is for one version of Python"
    assert IMAGE.all("COPY") == [f"--from=builder {INSTALLED} {INSTALLED}"]
    assert not [step for step in IMAGE.all("RUN") if "apt-get" in step or "pip" in step]
    user = IMAGE.all("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes checks numbers only"
    number = user.partition(":")[0]
    assert f"--uid {number}" in IMAGE.all("RUN")[0]
    assert IMAGE.steps.index(("USER", user)) > IMAGE.steps.index(("RUN", IMAGE.all("RUN")[-1]))


def test_its_variables_are_settings() -> None:
    known = {row.environment for row in describe()}
    named = {name for name in environment(IMAGE) if name.startswith("SIDECAR_")}
    assert named
    assert named <= known
    ports = {int(port) for port in IMAGE.all("EXPOSE")[0].split()}
    assert ports == {int(environment(IMAGE)[name].rpartition(":")[2]) for name in named}


def test_it_is_stopped_as_it_drains() -> None:
    assert IMAGE.all("STOPSIGNAL") == ["SIGTERM"]
    program, *arguments = json.loads(IMAGE.all("ENTRYPOINT")[0])
    assert (program, arguments) == ("sidecar", ["run"])
    assert environment(IMAGE)["PATH"].startswith(f"{INSTALLED}/bin:")


def _health(admin: str) -> int:
    """The exit code of the image's health check for this admin address."""
    command = IMAGE.all("HEALTHCHECK")[0].partition("CMD ")[2]
    program, *arguments = json.loads(command)
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "SIDECAR_ADMIN__LISTEN": admin},
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode


def test_the_health_check(plain_server: Server) -> None:
    """Well while the sidecar runs, wherever the variable says it listens, and not after it."""
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, admin=admin):
        assert _health(admin) == 0
        assert _health(admin.replace("127.0.0.1", "0.0.0.0")) == 0
    assert _health(admin) != 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_steps_of_the_builder(tmp_path: Path) -> None:
    """Each RUN step but that of apt-get, with the image's folders below another one, and nothing
    but what is copied; then the sidecar runs from there. It stands where it was built: an
    environment cannot be moved, and the image has it at the same path as the builder."""
    allowed = context(ROOT)
    sources, installed = tmp_path / "src", f"{tmp_path}{INSTALLED}"
    for names, target in copied():
        for name in names:
            for path in (each for each in allowed if each == name or each.startswith(f"{name}/")):
                inside = path if len(names) > 1 else f"{target}{path[len(name) :]}"
                to = sources / inside
                if (ROOT / path).is_file():
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / path, to)
    python = Path(sys.executable).resolve()
    for step in BUILDER.all("RUN"):
        if "apt-get" in step:
            continue
        command = step.replace(INSTALLED, installed)
        command = re.sub(r"^python ", f"{shlex.quote(str(python))} ", command)
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=sources,
            env={"PATH": "/usr/bin:/bin", "EXTRAS": "embedded,otlp", "HOME": str(tmp_path)}
            | {name: value for name, value in os.environ.items() if name.startswith("PIP_")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    smoke = [f"{installed}/bin/python", str(ROOT / "release/smoke.py")]
    said = subprocess.run(smoke, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "commands went through" in said.stdout
    assert not list(Path(installed).glob("bin/pip*"))
    assert not list(Path(installed).glob("lib/*/site-packages/sidecar/**/*.pyx"))
