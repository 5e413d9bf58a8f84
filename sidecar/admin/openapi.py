"""The OpenAPI document of the admin endpoint, made from the table of its routes.

Each route is declared once (routes.py) with the type of its answer; the JSON schemas are generated
from the types, and the server adds its routes from the same table. So the document names exactly
the paths that are served, and describes what they really answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from typing import Any

import msgspec

import sidecar
from sidecar.admin.answers import Error
from sidecar.admin.bodies import Nothing

Schema = Mapping[str, Any]

REF = "#/components/schemas/{name}"
JSON = "application/json"


@dataclass(frozen=True)
class Route:
    """One path and method; `handler` names the method of `Api` that answers it.

    `type` is the type of the answer as JSON, or None where the content is not JSON (`content`).
    `answers` are the statuses of the answer itself, each with what it means; statuses that every
    route has are added. `count` is the largest value of the parameter of that name, and 0 when it
    takes none; `choices` are other parameters, each with its values; `flags` are parameters
    without a value. `body` is the type of a POST's body. `open` needs no token.
    """

    method: str
    path: str
    handler: str
    summary: str
    type: Any = None
    content: str = JSON
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "The answer."})
    count: int = 0
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flags: Sequence[str] = ()
    body: type[msgspec.Struct] = Nothing
    open: bool = False


_REFUSALS: Mapping[int, str] = {
    400: "A parameter or the body is not what it must be.",
    401: "The token is missing or wrong.",
    403: "The token is for reading only; or the request comes from another site, or names an "
    "unknown host.",
    408: "The body has not come in time.",
    409: "Not possible now, or not allowed by the settings.",
    415: "The body is not application/json.",
}


def document(routes: Sequence[Route], token: bool, url: str = "/") -> Mapping[str, Any]:
    """The OpenAPI 3.1 document."""
    bodies = list(dict.fromkeys(route.body for route in routes if route.method == "POST"))
    schemas, components = msgspec.json.schema_components(
        [Error, *(route.type for route in routes if route.type is not None), *bodies],
        ref_template=REF,
    )
    error, *answers = schemas
    by_type = iter(answers[: len(answers) - len(bodies)])
    by_body = dict(zip(bodies, answers[len(answers) - len(bodies) :], strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        schema = next(by_type) if route.type is not None else {"type": "string"}
        body = by_body.get(route.body, {})
        operation = _operation(route, token, schema, error, body)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "redis-sidecar",
            "version": sidecar.__version__,
            "description": "The admin endpoint of a sidecar: what it shows and what it does.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": {name: _clean(each) for name, each in components.items()}},
    }
    if token:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return made


def _clean(schema: Mapping[str, Any]) -> Schema:
    """Without the indentation of the docstring."""
    return {**schema, "description": cleandoc(schema["description"])}


def _operation(
    route: Route, token: bool, schema: Schema, error: Schema, body: Schema
) -> Mapping[str, Any]:
    secured = token and not route.open
    responses = {
        str(status): {"description": what, "content": {route.content: {"schema": schema}}}
        for status, what in route.answers.items()
    }
    for status in _refusals(route, secured):
        responses[str(status)] = {
            "description": _REFUSALS[status],
            "content": {JSON: {"schema": error}},
        }
    made: dict[str, Any] = {
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", route.path.removeprefix("/api").strip("/")),
        "responses": responses,
        "security": [{"token": []}] if secured else [],
    }
    if parameters := _parameters(route):
        made["parameters"] = parameters
    if route.method == "POST":
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    return made


def _refusals(route: Route, secured: bool) -> Sequence[int]:
    found = [403, *([401] if secured else []), *([400] if route.count else [])]
    return [*found, 400, 408, 409, 415] if route.method == "POST" else found


def _parameters(route: Route) -> list[Schema]:
    found: list[Schema] = [
        {"name": name, "in": "query", "schema": {"type": "string"}, "allowEmptyValue": True}
        for name in route.flags
    ]
    if route.count:
        number = {"type": "integer", "minimum": 1, "maximum": route.count}
        found.append({"name": "count", "in": "query", "schema": number})
    found += [
        {"name": name, "in": "query", "schema": {"enum": list(values)}}
        for name, values in route.choices.items()
    ]
    return found
