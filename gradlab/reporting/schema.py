"""What is in each report's JSON, field by field, as JSON Schema.

Every report is an object with `schema`, which is `gradlab.KIND/VERSION`, and `ok`; the version
rises when a field changes its meaning or goes away, not when one is added. Numbers that JSON has no
word for are the strings "nan", "inf" and "-inf"; complex numbers are strings such as "(1+2j)".
The schema is read from the dataclasses.
"""

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gradlab.common.arrays import Tree
from gradlab.report import Report

Schema = dict[str, Any]


def json_schema(kind: str) -> Schema:
    """Return the JSON Schema (draft 2020-12) of one kind of report.

    Args:
        kind: one of `KINDS`.

    Example:
        >>> schema = json_schema("check")
        >>> schema["properties"]["seed"]["description"]
        'repeats the check'
    """
    cls = _class_of(kind)
    name = f"gradlab.{kind}/{cls.version}"
    head = {
        "schema": {"const": name, "description": "kind and version"},
        "ok": {"type": "boolean", "description": "whether what was asked holds"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **_object("", **head, **_properties(cls)),
    }


def _object(description: str, **fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
        "description": description,
    }


_NUMBER = ["number", "string"]  # JSON has no word for some
_SIMPLE = {str: "string", bool: "boolean", int: "integer", float: _NUMBER, complex: _NUMBER}
_DERIVED = {  # kind: where its dataclass is; importing most of them loads JAX
    "check": ("checking.report", "CheckReport"),
    "audit": ("checking.report", "AuditReport"),
    "verify": ("checking.verify", "VerifyReport"),
    "sweep": ("numerics.sweep", "SweepReport"),
    "precision": ("numerics", "PrecisionReport"),
    "graph": ("graph.report", "GraphReport"),
    "jacobian": ("structure.report", "JacobianReport"),
    "nodes": ("nodes._pages", "NodesReport"),
    "doctor": ("numerics", "DoctorReport"),
    "session": ("reporting.session", "SessionReport"),
}
KINDS = tuple(_DERIVED)


def _class_of(kind: str) -> type[Report]:
    module, name = _DERIVED[kind]
    found: type[Report] = getattr(importlib.import_module(f"gradlab.{module}"), name)
    return found


def rebuilt(data: dict[str, Any]) -> Report:
    """Return the report that `to_dict` made this data from."""
    kind = data["schema"].partition(".")[2].partition("/")[0]
    report: Report = _value(_class_of(kind), data)
    return report


_NO_NUMBERS = ("nan", "inf", "-inf")


def _value(hint: Any, data: Any) -> Tree:
    """Return a value of a type from what JSON has of it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kind = next(a for a in arguments if a is not NoneType)
        return None if data is None else _value(kind, data)
    if origin is tuple:
        each = [arguments[0]] * len(data) if arguments[-1] is Ellipsis else arguments
        return tuple(map(_value, each, data))
    if origin is dict:
        return {key: _value(arguments[1], value) for key, value in data.items()}
    if hint is Any and isinstance(data, list):
        return [_value(Any, each) for each in data]
    if isinstance(data, str) and (
        hint in (float, complex) or (hint is Any and data in _NO_NUMBERS)
    ):
        return complex(data) if hint is complex and data not in _NO_NUMBERS else float(data)
    if is_dataclass(hint) or hasattr(hint, "_fields"):
        hints = get_type_hints(hint)
        names = [f.name for f in fields(hint)] if is_dataclass(hint) else hint._fields
        return hint(**{name: _value(hints[name], data[name]) for name in names})
    return data


def _properties(cls: type) -> Schema:
    """Return a schema for each field of a dataclass or named tuple, and each derived property."""
    told, hints = _attributes(cls), get_type_hints(cls)
    names = [f.name for f in fields(cls)] if is_dataclass(cls) else list(cls._fields)  # type: ignore[attr-defined]
    hidden = getattr(cls, "hidden", ())
    found = {name: _of(hints[name], told[name]) for name in names if name not in hidden}
    for name in getattr(cls, "derived", ()):
        getter = getattr(cls, name).fget
        line = (inspect.getdoc(getter) or "").partition("\n")[0].rstrip(".")
        found[name] = _of(get_type_hints(getter)["return"], line)
    return found


def _of(hint: Any, description: str) -> Schema:
    """Return the schema of a type, with a description."""
    origin, arguments = get_origin(hint), get_args(hint)
    said = {"description": description}
    if hint is Any:
        return said
    if origin is Literal:
        return {"enum": list(arguments), **said}
    if origin in (Union, UnionType):
        kind = _of(next(a for a in arguments if a is not NoneType), description)
        return {"anyOf": [kind, {"type": "null"}], "description": kind["description"]}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], ""), **said}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], ""), **said}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint], **said}
    words = description or (inspect.getdoc(hint) or "").partition("\n")[0].rstrip(".")
    return _object(words, **_properties(hint))


def _attributes(cls: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute, in one line each."""
    text = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
    section = re.split(r"\n(?=\S)", text)[0]
    parts = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section, re.M)
    return {name: " ".join(words.split()).removesuffix(".") for name, words in parts}
