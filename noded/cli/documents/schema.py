"""JSON Schema (2020-12) of the types of this package."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from typing import Any, NotRequired

from noded.config_text import documentation

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PRIMITIVES: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
}


def find(name: str) -> Any:
    """The type that a grammar module names as "module:Name" of this package."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def schema(document: Any, title: str, *, closed: bool = False) -> dict[str, Any]:
    """The schema of a type.

    Args:
        closed: refuse keys that are not in it. Readers must not: a newer noded may add some.
    """
    definitions: dict[str, Any] = {}
    top = _schema(document, definitions, closed)
    result = {"$schema": DIALECT, "title": title, **top}
    if definitions:
        result["$defs"] = dict(sorted(definitions.items()))
    return result


def objects(document: Any) -> dict[str, type]:
    """The objects that a document is made of, by name, the outermost first."""
    found: dict[str, type] = {}
    waiting = [document]
    while waiting:
        one = waiting.pop(0)
        if typing.is_typeddict(one):
            if one.__name__ not in found:
                found[one.__name__] = one
                waiting += keys(one).values()
        else:
            waiting += typing.get_args(one)
    return found


def keys(cls: type) -> dict[str, Any]:
    """The keys of an object with their types, NotRequired where one may be missing."""
    return typing.get_type_hints(cls, include_extras=True)


def about(cls: type) -> str:
    """What an object is."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def meanings(cls: type) -> dict[str, str]:
    """What each key of an object means."""
    return dict(documentation(cls))


def _schema(kind: Any, definitions: dict[str, Any], closed: bool) -> dict[str, Any]:
    if kind in _PRIMITIVES:
        return dict(_PRIMITIVES[kind])
    if typing.is_typeddict(kind):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # a step has steps
            definitions[kind.__name__] = _object(kind, definitions, closed)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], definitions, closed)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions, closed)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(each, definitions, closed) for each in arguments]}
    raise TypeError(f"{kind}: no schema for such a type")


def _object(cls: type, definitions: dict[str, Any], closed: bool) -> dict[str, Any]:
    said = meanings(cls)
    properties, required = {}, []
    for name, kind in keys(cls).items():
        if typing.get_origin(kind) is NotRequired:
            (kind,) = typing.get_args(kind)
        else:
            required.append(name)
        properties[name] = {**_schema(kind, definitions, closed), "description": said[name]}
    found: dict[str, Any] = {"type": "object", "description": about(cls), "properties": properties}
    found["required"] = required
    if closed:
        found["additionalProperties"] = False
    return found
