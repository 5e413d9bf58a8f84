"""The OpenAPI document of the admin endpoint, made from the table of its routes.

Each route is declared once, with what it answers; the server adds routes from the same table, so
the document cannot name another set of paths than are served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sidecar

Schema = Mapping[str, Any]

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
ANY: Schema = {}


def maybe(schema: Schema) -> Schema:
    """Or null."""
    return {**schema, "type": [schema["type"], "null"]}


def obj(_open: bool = False, **properties: Schema) -> Schema:
    """An object with all of these; with nothing else unless it is open."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": _open,
    }


def arr(items: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items}


def table(values: Schema) -> Schema:
    """An object with names that are not known beforehand."""
    return {"type": "object", "additionalProperties": values}


ERROR = obj(error=STRING)


@dataclass(frozen=True)
class Route:
    """One path and method; `handler` names the server's method for it.

    `answers` are the statuses beside those that every route has, each with what it means; a dict
    as schema is JSON, a string is a content type. `count` is the largest value of the parameter of
    that name, and 0 when it takes none; `choices` are other parameters, each with its values.
    """

    method: str
    path: str
    handler: str
    summary: str
    schema: Schema | str = field(default_factory=dict)
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "The answer."})
    count: int = 0
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flags: Sequence[str] = ()
    open: bool = False


_RESPONSES: Mapping[int, str] = {
    400: "A parameter is not what it must be.",
    401: "The token is missing or wrong.",
    403: "Another site asks, or by an unknown host name.",
    409: "Not possible now, or not allowed by the settings.",
    415: "The body is not application/json.",
    503: "Not now: it is shutting down, or too many are connected.",
}


def document(routes: Sequence[Route], token: bool, url: str = "/") -> Mapping[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, token)
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
        "components": {"schemas": {"Error": ERROR}},
    }
    if token:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return made


def _operation(route: Route, token: bool) -> Mapping[str, Any]:
    secured = token and not route.open
    errors = [403, *([401] if secured else []), *([400] if route.count else [])]
    if route.method == "POST":
        errors += [400, 409, 415]
    responses: dict[str, Any] = {}
    for status, what in route.answers.items():
        content = _content(route.schema) if status not in _RESPONSES or status == 503 else {}
        responses[str(status)] = {"description": what, "content": content}
    for status in errors:
        responses[str(status)] = {
            "description": _RESPONSES[status],
            "content": _content({"$ref": "#/components/schemas/Error"}),
        }
    made: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler,
        "responses": responses,
        "security": [{"token": []}] if secured else [],
    }
    parameters = [
        {"name": name, "in": "query", "schema": STRING, "allowEmptyValue": True}
        for name in route.flags
    ]
    if route.count:
        number = {"type": "integer", "minimum": 1, "maximum": route.count}
        parameters.append({"name": "count", "in": "query", "schema": number})
    parameters += [
        {"name": name, "in": "query", "schema": {"enum": list(values)}}
        for name, values in route.choices.items()
    ]
    if parameters:
        made["parameters"] = parameters
    if route.method == "POST":
        body = {"type": "object", "additionalProperties": False}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def _content(schema: Schema | str) -> Mapping[str, Any]:
    if isinstance(schema, str):
        return {schema: {"schema": STRING}}
    return {"application/json": {"schema": schema}}
