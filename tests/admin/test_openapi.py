"""The OpenAPI document: schemas are those of the types, and closed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sidecar.admin.openapi import JSON, document
from sidecar.admin.routes import ROUTES

DOCUMENT = document(ROUTES, token=True)
SCHEMAS = DOCUMENT["components"]["schemas"]


def references(value: Any) -> set[str]:
    """All schemas that a part of the document refers to."""
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_has_its_schema_and_every_schema_is_used() -> None:
    assert references(msgspec.to_builtins(DOCUMENT)) == SCHEMAS.keys()


def test_every_operation_has_a_name_of_its_own() -> None:
    operations = [each for path in DOCUMENT["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names) == len(ROUTES)
    assert {"livez", "openapi_json", "cache_flush"} <= set(names)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_closed_and_described(name: str) -> None:
    schema = SCHEMAS[name]
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= schema["properties"].keys()
    assert schema["description"]
    assert "\n  " not in schema["description"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_is_described_as_declared(route: Any) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    for status in route.answers:
        (content,) = operation["responses"][str(status)]["content"]
        assert content == route.content
    assert ("401" in operation["responses"]) != route.open
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    assert names == {*route.flags, *route.choices, *(["count"] if route.count else [])}
    assert (route.type is not None) == (route.content == JSON)
    assert ("requestBody" in operation) == (route.method == "POST")
