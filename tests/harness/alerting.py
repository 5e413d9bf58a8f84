"""Prometheus and Alertmanager, Debian's, as child processes; Slack and PagerDuty, as stand-ins.

The configuration is the one in config/, with addresses, periods and secrets of the test in it.
"""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .admin import answers, get_json
from .closing import Closing
from .process import Process

CONFIG = Path(__file__).parents[2] / "config"
TOOLS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
WITHOUT = f"Debian's prometheus and prometheus-alertmanager are absent: {', '.join(MISSING)}"


class Inbox(Closing):
    """Takes in what is posted to it: `slack` and `pagerduty`, by path, in their order."""

    def __init__(self) -> None:
        self.slack: list[Any] = []
        self.pagerduty: list[Any] = []
        inbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                slack = self.path.startswith("/slack")
                (inbox.slack if slack else inbox.pagerduty).append(body)
                said = b"ok" if slack else b'{"status":"success","dedup_key":"x"}'
                self.send_response(200 if slack else 202)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take in no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Alertmanager(Process):
    """Alertmanager with our configuration, whose messages go to an inbox."""

    def __init__(self, inbox: Inbox, *, group_interval: str = "1m") -> None:
        super().__init__("alertmanager")
        made = yaml.safe_load((CONFIG / "alertmanager/alertmanager.yml").read_text())
        made["global"]["slack_api_url_file"] = self._secret("slack", f"{inbox.url}/slack")
        made["global"]["pagerduty_url"] = f"{inbox.url}/pagerduty"
        made["route"]["group_interval"] = group_interval
        made["templates"] = [str(CONFIG / "alertmanager/templates/*.tmpl")]
        for receiver in made["receivers"]:
            for entry in receiver.get("pagerduty_configs", ()):
                name = Path(entry["routing_key_file"]).name
                entry["routing_key_file"] = self._secret(name, f"key of {name}")
        path = self.folder / "alertmanager.yml"
        path.write_text(yaml.safe_dump(made))
        argv = [
            "prometheus-alertmanager",
            f"--config.file={path}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        self.spawn(argv)
        self.wait_ready(lambda: answers(f"http://127.0.0.1:{self.port}/-/ready"))

    def _secret(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


class Prometheus(Process):
    """Prometheus that scrapes these admin addresses, with our rules."""

    def __init__(
        self,
        targets: Sequence[str],
        alertmanager: Alertmanager | None = None,
        *,
        interval: str = "1s",
        labels: dict[str, str] | None = None,
    ) -> None:
        super().__init__("prometheus")
        made = yaml.safe_load((CONFIG / "prometheus/prometheus.yml").read_text())
        made["global"] = {"scrape_interval": interval, "scrape_timeout": interval}
        made["global"]["evaluation_interval"] = interval
        made["rule_files"] = [str(CONFIG / "prometheus/rules/*.yml")]
        managers = [f"127.0.0.1:{alertmanager.port}"] if alertmanager is not None else []
        made["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": managers}]}]}
        static = {"targets": list(targets), "labels": labels or {}}
        made["scrape_configs"][0]["static_configs"] = [static]
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(made))
        argv = [
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--enable-feature=exemplar-storage",
        ]
        self.spawn(argv)
        self.wait_ready(lambda: answers(f"http://127.0.0.1:{self.port}/-/ready"), 20.0)

    def exemplars(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Those of the series of an expression, of the last so many seconds."""
        text = urllib.parse.quote(expression, safe="")
        now = time.time()
        span = f"start={now - seconds}&end={now}"
        url = f"http://127.0.0.1:{self.port}/api/v1/query_exemplars?query={text}&{span}"
        return [one for series in get_json(url)["data"] for one in series["exemplars"]]

    def query(self, expression: str) -> list[Any]:
        """The result of an instant query."""
        text = urllib.parse.quote(expression, safe="")
        found = get_json(f"http://127.0.0.1:{self.port}/api/v1/query?query={text}")
        return list(found["data"]["result"])
