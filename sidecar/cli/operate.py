"""`sidecar pause`, `resume` and `switch`: what an operator asks of a running sidecar.

Asks its admin endpoint, and prints the answer in a few lines, or as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar.cli import admin_client

# What is under way, as the API names it, and in words.
UNDER_WAY = {
    "replies": "links with replies due",
    "transactions": "open transactions",
    "streamed": "large requests half sent",
    "pinned": "pinned clients with requests under way",
    "blocked": "blocked commands",
}


def pause(admin: admin_client.Where, *, as_json: bool) -> int:
    """Hold all commands. 0 once nothing is under way, 1 if something still is. Raises NoAnswer."""
    said = admin_client.post(admin, "/api/pause", {})
    if as_json:
        print(json.dumps(said, indent=2))
    else:
        word = "quiet" if said["quiet"] else "not quiet yet"
        print(f"paused: {word} after {said['waited_s']:g} s, {said['held_clients']} clients wait")
        print_lines(_under_way(said["under_way"]))
    return 0 if said["quiet"] else 1


def resume(admin: admin_client.Where, *, as_json: bool) -> int:
    """Let commands go on. Raises NoAnswer."""
    said = admin_client.post(admin, "/api/resume", {})
    print(json.dumps(said, indent=2) if as_json else f"resumed after {said['seconds']:g} s")
    return 0


def switch(
    admin: admin_client.Where, url: str, *, tls: Mapping[str, str], dry_run: bool, as_json: bool
) -> int:
    """Go over to this upstream, or only look at it. `tls` has settings of [upstream.tls], if its
    TLS is not that of the configuration. Raises NoAnswer."""
    body = {"url": url, "dry_run": dry_run, **({"tls": dict(tls)} if tls else {})}
    said = admin_client.post(admin, "/api/upstream", body)
    if as_json:
        print(json.dumps(said, indent=2))
        return 0
    print_lines(_server("before", said["before"]))
    print_lines(_server("after", said["after"]))
    print_lines(f"warning: {each}" for each in said["warnings"])
    if said["switched"]:
        print(f"switched: commands were held for {said['held_s']:g} s")
        print_lines(f"ended: {each.strip()}" for each in _under_way(said["ended"]))
    else:
        print("dry run: nothing has changed")
    return 0


def print_lines(lines: Iterator[str]) -> None:
    """Print each of them."""
    for line in lines:
        print(line)


def _under_way(found: Mapping[str, int]) -> Iterator[str]:
    for name, words in UNDER_WAY.items():
        if found[name]:
            yield f"  {found[name]} {words}"


def _server(which: str, server: Mapping[str, Any]) -> Iterator[str]:
    keys = ", ".join(f"db {db}: {number}" for db, number in server["keys"].items()) or "none"
    known = f"{server['software']} {server['version']}, {server['role']}, keys: {keys}"
    yield f"{which + ':':<8}{server['address']}  {known if server['version'] else server['error']}"
