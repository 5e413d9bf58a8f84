"""The settings as the admin endpoint shows them: without secrets."""

from __future__ import annotations

from sidecar.admin.answers import SettingShown
from sidecar.admin.redacted import shown
from sidecar.settings.load import load


def test_no_secret_among_the_settings() -> None:
    settings = load(
        None,
        {
            "upstream.url": "redis://bob:hunter2@10.0.0.1:6379/3",
            "admin.token": "0123456789abcdef",
            "embedded.args": '["--requirepass", "hunter2", "--maxmemory=1gb"]',
        },
        {},
    )
    said = shown(settings)
    assert said["upstream.url"] == SettingShown(value="redis://10.0.0.1:6379/3", default=False)
    assert said["admin.token"] == SettingShown(value="***", default=False)
    assert said["embedded.args"].value == ["--requirepass", "***", "***"]
    assert said["listen.backlog"] == SettingShown(value=1024, default=True)
    for secret in ("hunter2", "bob", "0123456789abcdef"):
        assert secret not in str(said)
