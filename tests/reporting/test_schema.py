"""The documented fields are the fields: every kind of report fits its schema, and nothing more."""

import dataclasses
import json

import numpy as np
import pytest

import gradlab
from gradlab.report import Report
from gradlab.reporting import json_schema
from gradlab.reporting.schema import KINDS

TYPES = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
    "null": type(None),
}


def misfits(value, schema, path="report"):
    """Yield where a value is not what its schema says."""
    if "anyOf" in schema:
        tried = [list(misfits(value, option, path)) for option in schema["anyOf"]]
        yield from min(tried, key=len)
    if "const" in schema and value != schema["const"]:
        yield f"{path} is {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path} is {value!r}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    fits = any(
        isinstance(value, TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
        for kind in kinds
    )
    if kinds and not fits:
        yield f"{path} is {type(value).__name__}, not {kinds}"
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from misfits(item, schema.get("items", {}), f"{path}[{i}]")
    elif isinstance(value, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name in set(schema.get("required", ())) - set(value):
            yield f"{path}.{name} is missing"
        for name, item in value.items():
            if name not in fields and others is False:
                yield f"{path}.{name} is not documented"
            else:
                yield from misfits(item, fields.get(name, others or {}), f"{path}.{name}")


def test_every_report_fits_its_schema(reports):
    for name, report in reports.items():
        data = json.loads(report.render("json"))
        assert not list(misfits(data, json_schema(report.kind))), name
    assert {report.kind for report in reports.values()} == set(KINDS) - {"session"}


def test_a_graph_with_all_that_can_be_asked_for_fits(reports):
    graph = gradlab.Graph(lambda x: np.tanh(x) * x, np.linspace(-1.0, 1.0, 12).reshape(3, 4))
    graph.backward(graph.ones())
    report = graph.report(local_gradients=True, heat_maps=True, checks=True)
    data = json.loads(report.render("json"))
    assert data["wires"][0]["value"]["heat"] and data["gates"][0]["check"]["status"] == "passed"
    assert not list(misfits(data, json_schema("graph")))


def test_what_is_documented_is_not_more_than_there_is():
    """Each dataclass behind a report has just the fields of its schema, in their order."""
    for kind in set(KINDS) - {"session", "jacobian"}:
        cls = next(c for c in _subclasses(Report) if getattr(c, "kind", "") == kind)
        documented = [n for n in json_schema(kind)["properties"] if n not in ("schema", "ok")]
        fields = [f.name for f in dataclasses.fields(cls)]
        assert documented[: len(fields)] == fields
        assert json_schema(kind)["title"] == f"gradlab.{kind}/{cls.version}"


def _subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_says_what_it_is(kind):
    def silent(schema, path):
        for name, field in schema.get("properties", {}).items():
            if not (field.get("description") or field.get("enum")):
                yield f"{path}.{name}"
            yield from silent(field, f"{path}.{name}")
            yield from silent(field.get("items", {}), f"{path}.{name}[]")

    assert not list(silent(json_schema(kind), kind))


def test_a_misfit_would_be_seen():
    schema = json_schema("doctor")
    assert any("missing" in m for m in misfits({"schema": "gradlab.doctor/1", "ok": True}, schema))
    assert list(
        misfits({"new": 1}, {"type": "object", "properties": {}, "additionalProperties": False})
    )
    assert list(misfits(True, {"type": "integer"})) and list(misfits(1, {"type": "boolean"}))
