"""A client of the admin endpoint: JSON, metrics, readiness."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

from .process import wait_until
from .servers import Sidecar


def get(url: str, timeout: float = 10.0) -> str:
    """The text at a URL."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return str(answer.read().decode())


def get_json(url: str) -> Any:
    """The JSON at a URL."""
    return json.loads(get(url))


def api(sidecar: Sidecar, path: str) -> Any:
    """The JSON of one path of the admin endpoint."""
    return get_json(f"http://{sidecar.admin}{path}")


def answers(url: str) -> bool:
    """Whether there is a 200 at a URL."""
    with suppress(OSError):
        get(url)
        return True
    return False


def scrape(sidecar: Sidecar) -> str:
    """The text of `/metrics`."""
    return get(f"http://{sidecar.admin}/metrics")


def metrics(sidecar: Sidecar) -> dict[str, float]:
    """What `/metrics` says, by the name and labels of each line."""
    lines = scrape(sidecar).splitlines()
    rows = (line.rpartition(" ") for line in lines if line and line[0] != "#")
    return {name: float(value) for name, _, value in rows}


def metric(sidecar: Sidecar, name: str) -> float:
    """One metric, by its name with labels."""
    found = metrics(sidecar)
    assert name in found, f"no metric {name}"
    return found[name]


def checks(sidecar: Sidecar) -> dict[str, bool]:
    """What /readyz?verbose says, check by check; empty while nobody answers."""
    host, port = sidecar.admin.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    lines: list[str] = []
    with suppress(OSError):
        connection.request("GET", "/readyz?verbose")
        lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line[4:]: line[1] == "+" for line in lines if line.startswith("[")}


def is_ready(sidecar: Sidecar) -> bool:
    """Whether every check holds."""
    found = checks(sidecar)
    return bool(found) and all(found.values())


def wait_ready(sidecar: Sidecar, deadline: float = 20.0) -> None:
    """Wait for /readyz."""
    wait_until(lambda: is_ready(sidecar), "the sidecar is ready", deadline)


def post(
    sidecar: Sidecar, path: str, body: dict[str, Any] | None = None, token: str = ""
) -> tuple[int, Any]:
    """POST a path of the admin endpoint: the status, and the JSON that it answers with."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        f"http://{sidecar.admin}{path}", json.dumps(body or {}).encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
