"""Credentials for Azure Cache for Redis and Azure Managed Redis with Microsoft Entra ID.

    credential_command = ["python3", "/opt/credentials/azure.py"]

The password is an access token, the user the object id that stands in the token. The token comes
from the first of these that is set:

1. AZURE_FEDERATED_TOKEN_FILE, AZURE_TENANT_ID and AZURE_CLIENT_ID: workload identity (AKS);
2. IDENTITY_ENDPOINT and IDENTITY_HEADER: managed identity in App Service and Container Apps;
3. the metadata of the virtual machine: managed identity, the one of AZURE_CLIENT_ID if that is set.

The identity needs a data access policy on the cache.
"""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any
from urllib.parse import urlencode

from common import Failure, fetch_json, field, read_file, run, seconds

RESOURCE = "https://redis.azure.com"
AUTHORITY = "https://login.microsoftonline.com"
METADATA = "http://169.254.169.254"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def _of_workload() -> dict[str, Any]:
    env = os.environ
    missing = [name for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID") if not env.get(name)]
    if missing:
        raise Failure(f"AZURE_FEDERATED_TOKEN_FILE is set, and {' and '.join(missing)} is not")
    authority = (env.get("AZURE_AUTHORITY_HOST") or AUTHORITY).rstrip("/")
    file = env["AZURE_FEDERATED_TOKEN_FILE"]
    form = {
        "grant_type": "client_credentials",
        "client_id": env["AZURE_CLIENT_ID"],
        "scope": f"{RESOURCE}/.default",
        "client_assertion_type": ASSERTION,
        "client_assertion": read_file(file, "AZURE_FEDERATED_TOKEN_FILE"),
    }
    url = f"{authority}/{env['AZURE_TENANT_ID']}/oauth2/v2.0/token"
    return fetch_json(url, form=form, proxied=True)


def _of_metadata(url: str, version: str, header: tuple[str, str]) -> dict[str, Any]:
    query = {"api-version": version, "resource": RESOURCE}
    if os.environ.get("AZURE_CLIENT_ID"):
        query["client_id"] = os.environ["AZURE_CLIENT_ID"]
    return fetch_json(f"{url}?{urlencode(query)}", dict([header]))


def _answer() -> dict[str, Any]:
    """What the first source that is there says."""
    env = os.environ
    if env.get("AZURE_FEDERATED_TOKEN_FILE"):
        return _of_workload()
    if env.get("IDENTITY_ENDPOINT") and env.get("IDENTITY_HEADER"):
        header = ("X-IDENTITY-HEADER", env["IDENTITY_HEADER"])
        return _of_metadata(env["IDENTITY_ENDPOINT"], "2019-08-01", header)
    base = (env.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or METADATA).rstrip("/")
    return _of_metadata(
        f"{base}/metadata/identity/oauth2/token", "2018-02-01", ("Metadata", "true")
    )


def object_id(token: str) -> str:
    """The `oid` of a token. The server checks the token, so nobody has to here."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        oid = claims["oid"]
    except (IndexError, KeyError, TypeError, ValueError):
        oid = None
    if not isinstance(oid, str) or not oid:
        raise Failure("the token names no object id (oid), which is the user")
    return oid


def credentials() -> tuple[str, str, float]:
    """The user, the token and its seconds."""
    said = _answer()
    token = field(said, "access_token", "Entra ID")
    if "expires_in" in said:
        left = seconds(said, "expires_in", "Entra ID")
    else:
        left = seconds(said, "expires_on", "Entra ID") - time.time()
    return object_id(token), token, left


if __name__ == "__main__":
    run(credentials)
