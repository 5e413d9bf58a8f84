"""Credentials for Google Memorystore with IAM authentication.

    credential_command = ["python3", "/opt/credentials/gcp.py"]

The password is an access token of the service account, from the metadata server of the virtual
machine, of Cloud Run, or of GKE (Workload Identity). GCE_METADATA_HOST names another server.
The service account needs the role `Cloud Memorystore Redis DB Connection User`, or that for Valkey.
"""

from __future__ import annotations

import argparse
import os
from urllib.parse import quote

from common import fetch_json, field, run, seconds

HOST = "metadata.google.internal"
# The service knows one user, whoever the service account is.
USER = "default"


def credentials(account: str) -> tuple[str, str, float]:
    """The user, the token and its seconds."""
    host = os.environ.get("GCE_METADATA_HOST") or HOST
    path = f"computeMetadata/v1/instance/service-accounts/{quote(account)}/token"
    said = fetch_json(f"http://{host}/{path}", {"Metadata-Flavor": "Google"})
    left = seconds(said, "expires_in", "the metadata server")
    return USER, field(said, "access_token", "the metadata server"), left


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A token for Google Memorystore")
    parser.add_argument("--account", default="default", help="a service account of the host")
    arguments = parser.parse_args()
    run(lambda: credentials(arguments.account))


if __name__ == "__main__":
    main()
