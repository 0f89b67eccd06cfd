"""How reports look: one module per kind of report. No numerics, no JAX.

A module `gradlab.reporting.KIND`, found by the report's `kind`, has `text(report)`, the body of
its page, `html(report)`, and where there is one `svg`, `junit`, `dot` and `mermaid`. A page is made
of what is in the JSON, and of nothing else. `json_schema(KIND)` says what that is. Each module
escapes names as its formats ask; that no control character leaves is seen to here.
"""

import importlib
import json
from typing import TYPE_CHECKING, Any

from gradlab.errors import InputError
from gradlab.formatting import legible
from gradlab.reporting._failure import repeated_by as repeated_by
from gradlab.reporting._markup import Markup, document, renamed
from gradlab.reporting._markup import fragment as in_notebook
from gradlab.reporting._table import detailed as detailed
from gradlab.reporting._table import fitted as fitted
from gradlab.reporting.schema import json_schema as json_schema
from gradlab.reporting.schema import rebuilt

if TYPE_CHECKING:
    from gradlab.report import Report


_FORMATS = ("text", "json", "junit", "html", "svg", "dot", "mermaid")


def formats(kind: str) -> tuple[str, ...]:
    """Return the formats in which reports of this kind can be drawn."""
    module = importlib.import_module(f"gradlab.reporting.{kind}")
    return tuple(f for f in _FORMATS if f in ("json", "html") or hasattr(module, f))


def render(report: "Report", format: str) -> str:
    """Return `report` in `format`."""
    known = formats(report.kind)
    if str(format) not in known:
        raise InputError(
            f"format: a {report.kind} report cannot be drawn as {format!r}; "
            f"choose one of {', '.join(known)}"
        )
    if format == "html":
        return page(report.to_dict())
    if format == "json":
        return json.dumps(report.to_dict(), indent=2, allow_nan=False)
    module = importlib.import_module(f"gradlab.reporting.{report.kind}")
    return legible(getattr(module, format)(report))


def page(data: dict[str, Any]) -> str:
    """Return a self-contained page of what `to_dict` returned, or of the same read from JSON."""
    return legible(document(f"gradlab {_kind(data)}", _body(data)))


def fragment(data: dict[str, Any]) -> str:
    """Return the same for a notebook: a part of its page, without a script."""
    return renamed(legible(in_notebook(_body(data))))


def _kind(data: dict[str, Any]) -> str:
    kind: str = data["schema"].partition(".")[2].partition("/")[0]
    return kind


def _body(data: dict[str, Any]) -> Markup:
    kind = _kind(data)
    module = importlib.import_module(f"gradlab.reporting.{kind}")
    body: Markup = module.html(data if kind == "jacobian" else rebuilt(data))
    return body
