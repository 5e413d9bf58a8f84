"""`python -m bench.peers.onlooker`: whoever looks at a sidecar while it is measured.

Takes spans as a collector does, without looking at them, and scrapes `/metrics` each second, far
more often than Prometheus would. It prints a line when it is ready.
"""

from __future__ import annotations

import argparse
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EVERY = 1.0
"""Seconds between scrapes."""


class Collector(BaseHTTPRequestHandler):
    """Answers every POST with an empty success."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """OTLP over HTTP: an empty ExportTraceServiceResponse is no bytes at all."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def scrape(url: str, ended: threading.Event) -> None:
    """Read the metrics until the process ends; an error is an end, and shown."""
    while not ended.wait(EVERY):
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()


def main() -> None:
    """Look on until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.onlooker", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="for spans")
    parser.add_argument("--scrape", required=True, metavar="URL")
    args = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Collector)
    threading.Thread(target=scrape, args=(args.scrape, threading.Event()), daemon=True).start()
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
