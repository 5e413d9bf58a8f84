"""Credentials for Amazon ElastiCache and MemoryDB with IAM authentication.

    credential_command = ["python3", "/opt/aws.py", "--user", "app", "--cache", "orders"]

The password is a request to the service, signed with the keys of an IAM role (Signature Version 4
in the query string) and without its "http://". Nothing is sent to the service for that. The keys
come from the first of these that is set:

1. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN;
2. AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN: roles for Kubernetes service accounts (IRSA);
3. AWS_CONTAINER_CREDENTIALS_FULL_URI or ..._RELATIVE_URI: ECS, EKS Pod Identity;
4. the metadata of the EC2 instance (IMDSv2).

The role needs `elasticache:Connect` (or `memorydb:Connect`) on the cache and on the user.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from common import Failure, fetch, fetch_json, field, read_file, run

# The services refuse a token that claims to be good for longer.
LIFETIME = 900
ALGORITHM = "AWS4-HMAC-SHA256"
NO_BODY = hashlib.sha256(b"").hexdigest()
METADATA = "http://169.254.169.254"
CONTAINER = "http://169.254.170.2"
# Where a container's credentials may come from without TLS: ECS, and EKS Pod Identity.
CONTAINER_HOSTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")


@dataclass(frozen=True)
class Keys:
    """What a request is signed with. `until`: these keys, and what they sign, end then."""

    key_id: str
    secret: str
    token: str = ""
    until: datetime | None = None


def presigned(
    keys: Keys,
    host: str,
    query: Mapping[str, str],
    *,
    service: str,
    region: str,
    at: datetime,
    lifetime: int = LIFETIME,
) -> str:
    """`host/?query` with the signature of a GET request."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    signed = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys.key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(lifetime),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token:
        signed["X-Amz-Security-Token"] = keys.token
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in signed.items())
    text = "&".join(f"{name}={value}" for name, value in pairs)
    request = f"GET\n/\n{text}\nhost:{host}\n\nhost\n{NO_BODY}"
    to_sign = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{host}/?{text}&X-Amz-Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"


# Where the keys come from


def find_keys(region: str) -> Keys:
    """The keys of the first source that is there."""
    env = os.environ
    if env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
        token = env.get("AWS_SESSION_TOKEN", "")
        return Keys(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], token)
    if env.get("AWS_WEB_IDENTITY_TOKEN_FILE") and env.get("AWS_ROLE_ARN"):
        return _of_web_identity(region)
    if env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or env.get(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    ):
        return _of_container()
    if env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise Failure("no keys: nothing is set, and AWS_EC2_METADATA_DISABLED is")
    return _of_instance()


def _of_web_identity(region: str) -> Keys:
    env = os.environ
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = env.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.{domain}"
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": env["AWS_ROLE_ARN"],
        "RoleSessionName": env.get("AWS_ROLE_SESSION_NAME") or "redis-sidecar",
        "WebIdentityToken": read_file(
            env["AWS_WEB_IDENTITY_TOKEN_FILE"], "AWS_WEB_IDENTITY_TOKEN_FILE"
        ),
    }
    answer = fetch(url.rstrip("/") + "/", form=form, proxied=True)
    try:
        root = ElementTree.fromstring(answer)
    except ElementTree.ParseError:
        raise Failure("STS answers with something that is not XML") from None
    found = {each.tag.rpartition("}")[2]: each.text for each in root.iter()}
    return _keys(found, "STS", "SessionToken")


def _of_container() -> Keys:
    env = os.environ
    relative = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
    url = CONTAINER + relative if relative else env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    if not relative:
        _check_container(url)
    token = env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
        token = read_file(env[name], name)
    said = fetch_json(url, {"Authorization": token} if token else {})
    return _keys(said, "the container's credentials", "Token")


def _check_container(url: str) -> None:
    """Without TLS the token of the container goes to this host or to AWS's own addresses only."""
    split = urlsplit(url)
    host = split.hostname or ""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if split.scheme != "https" and not (
        split.scheme == "http" and (local or host in CONTAINER_HOSTS)
    ):
        raise Failure("AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or lead to this host")


def _of_instance() -> Keys:
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA
    base = base.rstrip("/") + "/latest/"
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    headers = {"X-aws-ec2-metadata-token": fetch(base + "api/token", ttl, method="PUT")}
    path = base + "meta-data/iam/security-credentials/"
    lines = fetch(path, headers).split()
    if not lines:
        raise Failure("the instance has no role")
    return _keys(fetch_json(path + quote(lines[0]), headers), "the instance's metadata", "Token")


def _keys(said: Mapping[str, object], what: str, token: str) -> Keys:
    try:
        until = datetime.fromisoformat(field(said, "Expiration", what)).astimezone(UTC)
    except ValueError:
        raise Failure(f"the answer of {what} has no date as its Expiration") from None
    return Keys(
        field(said, "AccessKeyId", what),
        field(said, "SecretAccessKey", what),
        field(said, token, what),
        until,
    )


def credentials(arguments: argparse.Namespace) -> tuple[str, str, float]:
    """The user, the token and its seconds."""
    region = (
        arguments.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    )
    if not region:
        raise Failure("no region: give --region, or set AWS_REGION")
    keys, at = find_keys(region), datetime.now(UTC)
    query = {"Action": "connect", "User": arguments.user}
    if arguments.serverless:
        query["ResourceType"] = "ServerlessCache"
    service = arguments.service
    token = presigned(keys, arguments.cache, query, service=service, region=region, at=at)
    left = (keys.until - at).total_seconds() if keys.until else LIFETIME
    return arguments.user, token, min(LIFETIME, left)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A token for Amazon ElastiCache or MemoryDB")
    parser.add_argument("--user", required=True, help="the user with IAM authentication; its id")
    parser.add_argument(
        "--cache", required=True, help="replication group, cache or cluster: a name"
    )
    parser.add_argument("--region", help="else AWS_REGION, AWS_DEFAULT_REGION")
    parser.add_argument("--service", choices=("elasticache", "memorydb"), default="elasticache")
    parser.add_argument("--serverless", action="store_true", help="the cache is serverless")
    arguments = parser.parse_args()
    run(lambda: credentials(arguments))


if __name__ == "__main__":
    main()
