"""Structs for tests: what a test does not name is empty."""

from __future__ import annotations

import types
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def filled(kind: type[S], **given: object) -> S:
    """A struct with these fields; of the others those without a default are 0, "", empty or None.

    A mapping given for a field that is a struct is filled in the same way.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        type_ = _plain(field.type)
        if field.name in given:
            value, struct = given.pop(field.name), _struct(type_)
            if struct is not None and isinstance(value, Mapping):
                value = filled(struct, **value)
            values[field.name] = value
        elif field.required:
            values[field.name] = _empty(type_)
    assert not given, f"{kind.__name__} has no {', '.join(given)}"
    return kind(**values)


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _struct(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct that a field is of, or may be of."""
    for each in get_args(annotation) if _is_union(annotation) else (annotation,):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _empty(annotation: Any) -> Any:
    if _is_union(annotation):
        return None
    if (struct := _struct(annotation)) is not None:
        return filled(struct)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return next(iter(annotation))
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)[0]
    if origin is not None:
        return {} if issubclass(origin, Mapping) else ()
    return annotation()
