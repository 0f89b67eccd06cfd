"""What is in each report's JSON, field by field, as JSON Schema.

Every report is an object with `schema`, which is `gradlab.KIND/VERSION`, and `ok`; the version
rises when a field changes its meaning or goes away, not when one is added. Numbers that JSON has no
word for are the strings "nan", "inf" and "-inf"; complex numbers are strings such as "(1+2j)".
Of checks and audits the schema is read from the dataclasses; a test holds the rest to the reports.
"""

import inspect
import re
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["KINDS", "json_schema"]

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
    known, version = _read(kind) if kind in _DERIVED else _FIELDS[kind]
    name = f"gradlab.{kind}/{version}"
    ok = {} if kind == "session" else {"ok": _flag("whether what was asked holds")}
    head = {"schema": {"const": name, "description": "kind and version"}, **ok}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **_object("", **head, **known),
    }


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _one_of(description: str, *words: str) -> Schema:
    return {"enum": list(words), "description": description}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _count(description: str) -> Schema:
    return {"type": "integer", "description": description}


def _number(description: str) -> Schema:
    return {"type": ["number", "string"], "description": description}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}], "description": schema.get("description", "")}


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "items": items, "description": description}


def _table(description: str, values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values, "description": description}


def _object(description: str, **fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
        "description": description,
    }


_SHAPE = _list("its shape", _count("the length of an axis"))
_TEXTS = {"type": "string"}
_NOTES = _list("what else should be known", _TEXTS)
_DTYPES = _list("the dtypes in which it was held", _TEXTS)
_SEED = _count("of everything random")

_SIDE = _object(
    "an input or output", path=_text("its name"), shape=_SHAPE, dtype=_text("its dtype")
)
_BETWEEN = {"output": _text("the block's output"), "input": _text("the block's input")}
_JACOBIAN: Schema = {
    "name": _text("the function's"),
    "inputs": _list("what it is differentiated by", _SIDE),
    "outputs": _list("what is differentiated", _SIDE),
    "structure": _text("diagonal, block-diagonal, ...; blocks where they differ"),
    "rung": _one_of("how closely axes were followed", "symbolic", "explicit", "widened", "unknown"),
    "notation": _list("the pattern by axis, a line for each block", _TEXTS),
    "shape": _list("of the matrix: rows and columns", _count("entries")),
    "nnz": _count("entries that may be nonzero"),
    "exact": _flag("whether nnz is no mere upper bound"),
    "density": _number("nnz as a share of all"),
    "dense_bytes": _count("what the dense matrix would take"),
    "stored_bytes": _count("what its entries take"),
    "passes": _count("derivative passes that give every entry"),
    "jvps": _count("how many of them are JVPs"),
    "vjps": _count("how many of them are VJPs"),
    "modes": _list("what AD can run: jvp, vjp or both", _TEXTS),
    "symmetric": _flag("whether the function is the gradient of a scalar one"),
    "evidence": _text("proved or observed"),
    "notes": _NOTES,
    "unknown": _list("primitives without a rule, taken as dense", _TEXTS),
    "conditions": _list(
        "what the pattern rests on, if accepted, and what would make it smaller",
        _object(
            "",
            kind=_one_of("of condition", "magnitude", "nonempty", "finite"),
            bound=_maybe(_number("of a magnitude, the largest that is small enough")),
            what=_text("the values"),
            source=_text("the line at which they are"),
            accepted=_flag("whether the caller accepts it"),
        ),
    ),
    "blocks": _list(
        "one for each output and input",
        _object(
            "one block",
            **_BETWEEN,
            structure=_text("its structure"),
            notation=_text("its pattern by axis"),
            nnz=_count("entries that may be nonzero"),
            exact=_flag("whether nnz is no mere upper bound"),
            shape=_SHAPE,
            widened=_list("where its pattern may be larger than the truth", _TEXTS),
        ),
    ),
    "steps": _list(
        "the equations through which the inputs reach the outputs",
        _object(
            "one equation",
            name=_text("of the primitive"),
            source=_text("the line that made it"),
            text=_text("what it does"),
            kind=_one_of(
                "what it does to entries",
                "entry by entry",
                "only moves entries",
                "mixes entries",
                "custom rule",
            ),
            code=_text("the line of source itself"),
        ),
    ),
    "couplings": _list(
        "the equations that join what an axis kept apart until there",
        _object(
            "one equation and axis",
            path=_text("the input; the output, where the derivative was read backwards"),
            axis=_count("the axis"),
            source=_text("the line that made it"),
            text=_text("what it does"),
            code=_text("the line of source itself"),
        ),
    ),
    "formulas": {
        "type": "object",
        "description": "the entries by each input, where the function is one product",
        "additionalProperties": _TEXTS,
    },
    "why": _text("the proof, line by line"),
}

_PRECISION: Schema = {
    "function": _text("its name"),
    "measurements": _list(
        "one for each dtype, device, matrix product precision and input",
        _object(
            "one input's gradient against float64 on the CPU",
            dtype=_text("the inputs' dtype"),
            device=_text("the platform"),
            matmul=_text("the precision of matrix products"),
            path=_text("the input"),
            entries=_count("of its gradient"),
            floors=_number("the largest error, in floors"),
            digits=_number("correct digits of the gradient as a whole"),
            worst_digits=_number("correct digits of its worst entry"),
            bias=_number("mean signed error, relative to a typical entry"),
            bias_sigmas=_number("the same in standard errors"),
            scatter=_number("spread of the errors about their mean, relative to the same"),
            overflow=_count("entries that became infinite"),
            underflow=_count("entries that became 0"),
            nan=_count("entries that became NaN"),
            deterministic=_flag("whether runs gave the same bits"),
            eager_agrees=_maybe(_flag("whether it has the same bits operation by operation")),
        ),
    ),
    "judged": _list("the dtypes that ok depends on", _TEXTS),
    "advice": _list("what to do, each tried", _TEXTS),
    "notes": _NOTES,
    "seed": _count("of the upstreams"),
}

_GLANCE = _object(
    "an array at a glance",
    shape=_SHAPE,
    dtype=_text("its dtype"),
    entries={"description": "all entries, nested, where they are few; else null"},
    low=_maybe(_number("the least finite entry; of the sizes, if complex")),
    mean=_maybe(_number("their mean")),
    high=_maybe(_number("the greatest")),
    zeros=_count("how many are 0"),
    nans=_count("how many are NaN"),
    infinities=_count("how many are infinite"),
    heat=_list("the array seen from far, row by row, if asked for", _list("", _number("a cell"))),
)
_GRAPH: Schema = {
    "title": _text("the name of the function"),
    "wires": _list(
        "in the order in which they are computed",
        _object(
            "one wire",
            name=_text("its name"),
            kind=_one_of("where it comes from", "input", "constant", "node"),
            value=_GLANCE,
            gradient=_maybe(_GLANCE),
            marks=_list("what is odd about it", _TEXTS),
        ),
    ),
    "gates": _list(
        "in the same order",
        _object(
            "one node at work",
            name=_text("the wire that leaves it, the first of several"),
            node=_text("its node, equation or group"),
            detail=_text("the node with its parameters"),
            inputs=_list("the wires that enter", _TEXTS),
            outputs=_list("the wires that leave", _TEXTS),
            line=_text("the line that made it"),
            frame=_list("the groups that it was in, outermost first", _TEXTS),
            members=_count("how many nodes it stands for, if it is a group"),
            branches=_list("what it sends back to wires that fork", _maybe(_GLANCE)),
            local_gradients=_list("its Jacobian in each input, if asked for", _TEXTS),
            check=_maybe(
                _object(
                    "backward against finite differences, if asked for",
                    status=_one_of("", "passed", "failed", "skipped"),
                    reason=_text("why it was skipped, or what else there is to say"),
                    actual=_number("backward along a random direction"),
                    expected=_number("the differences"),
                    error=_number("what that may be off by"),
                )
            ),
        ),
    ),
    "outputs": _list("the wires that are returned", _TEXTS),
    "findings": _list("where the first NaN or infinity appears", _TEXTS),
    "decimals": _count("how many people want to see"),
}

_NODES: Schema = {
    "pages": _list(
        "one for each node",
        _object(
            "a node's page",
            name=_text("the node"),
            family=_text("its family"),
            inputs=_list("what it takes", _TEXTS),
            parameters=_table("its parameters", _text("the default")),
            text=_text("its documentation"),
            cases=_list("the inputs that it is verified on", _TEXTS),
        ),
    ),
    "listed": _flag("whether the list was asked for, not pages"),
}

_DOCTOR: Schema = {
    "python": _text("its version"),
    "versions": _table("of the packages that matter", _text("a version")),
    "devices": _list(
        "what JAX sees",
        _object(
            "devices of one kind",
            platform=_text("cpu, gpu, tpu"),
            kind=_text("the model"),
            count=_count("how many"),
            memory=_maybe(_count("bytes, if it tells")),
            product=_text("what its float32 matrix products are"),
        ),
    ),
    "x64": _flag("whether JAX computes in float64"),
    "matmul_precision": _text("what JAX is asked for"),
    "deterministic_flags": _list("those that are set", _TEXTS),
    "compilation_cache": _text("its folder, if any"),
}

_SESSION: Schema = {
    "records": _list(
        "what was checked in a session of pytest",
        {"type": "object", "description": "test, kind, function, ok, seconds; seed and laws"},
    ),
}

_FIELDS: dict[str, tuple[Schema, int]] = {
    "jacobian": (_JACOBIAN, 2),
    "precision": (_PRECISION, 2),
    "graph": (_GRAPH, 1),
    "nodes": (_NODES, 1),
    "doctor": (_DOCTOR, 1),
    "session": (_SESSION, 1),
}
_DERIVED = (
    "check",
    "audit",
    "verify",
    "sweep",
)  # kinds whose schema comes from the dataclasses themselves
KINDS = (*_DERIVED, *_FIELDS)


def _read(kind: str) -> tuple[Schema, int]:
    """Return the fields and the version of a kind of report, read from its dataclass."""
    from gradlab.checking.report import AuditReport, CheckReport  # loads JAX
    from gradlab.checking.verify import VerifyReport
    from gradlab.numerics.sweep import SweepReport

    kinds: dict[str, type[CheckReport | AuditReport | SweepReport | VerifyReport]] = {
        "check": CheckReport,
        "audit": AuditReport,
        "verify": VerifyReport,
        "sweep": SweepReport,
    }
    cls = kinds[kind]
    return _properties(cls), cls.version


def _properties(cls: type) -> Schema:
    """Return a schema for each field of a dataclass or named tuple, and each derived property."""
    told, hints = _attributes(cls), get_type_hints(cls)
    names = [f.name for f in fields(cls)] if is_dataclass(cls) else list(cls._fields)  # type: ignore[attr-defined]
    found = {name: _of(hints[name], told[name]) for name in names}
    for name in getattr(cls, "derived", ()):
        getter = getattr(cls, name).fget
        line = (inspect.getdoc(getter) or "").partition("\n")[0].rstrip(".")
        found[name] = _of(get_type_hints(getter)["return"], line)
    return found


def _of(hint: Any, description: str) -> Schema:
    """Return the schema of a type, with a description."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _one_of(description, *arguments)
    if origin in (Union, UnionType):
        return _maybe(_of(next(a for a in arguments if a is not NoneType), description))
    if origin is tuple:
        return _list(description, _of(arguments[0], ""))
    if origin is dict:
        return _table(description, _of(arguments[1], ""))
    simple = {str: _text, bool: _flag, int: _count, float: _number, complex: _number}
    if hint in simple:
        return simple[hint](description)
    words = description or (inspect.getdoc(hint) or "").partition("\n")[0].rstrip(".")
    return _object(words, **_properties(hint))


def _attributes(cls: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute, in one line each."""
    text = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
    section = re.split(r"\n(?=\S)", text)[0]
    parts = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section, re.M)
    return {name: " ".join(words.split()).removesuffix(".") for name, words in parts}
