"""A credential program: `tokens.py HOST PORT LEDGER` gives the user a new token and prints it.

Stands in for the program of a cloud that issues tokens (examples/credentials). The ledger has a
line for each token, with the time at which it was issued; a drill takes them back when they expire.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time

EXPIRES_IN = 2.0
"""Seconds."""

USER = "app"


def issue(host: str, port: int, ledger: str) -> str:
    """The server takes a new token as well; which one."""
    token = secrets.token_hex(16)
    words = ["ACL", "SETUSER", USER, "on", "~*", "&*", "+@all", f">{token}"]
    request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    with socket.create_connection((host, port), 5) as server:
        server.sendall(request.encode())
        if server.recv(16) != b"+OK\r\n":
            raise SystemExit("the server refuses")
    with open(ledger, "a") as lines:
        lines.write(f"{time.monotonic()} {token}\n")
    return token


if __name__ == "__main__":
    made = issue(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    print(json.dumps({"username": USER, "password": made, "expires_in": EXPIRES_IN}))
