"""How reports look: one module per kind of report. No numerics, no JAX.

A module `gradlab.reporting.KIND`, found by the report's `kind`, exports `text(report)` and, where
there is one, `html(report)`, `svg(report)`, `junit(report)`, `dot(report)`, `mermaid(report)`.
JSON and the plain HTML page are the same for all and live here; `json_schema(KIND)` says what is in
the JSON. Each module escapes names as its formats ask; that no control character leaves is seen to
here.
"""

import html as _html
import importlib
import json
from typing import TYPE_CHECKING

from gradlab.errors import InputError
from gradlab.formatting import legible
from gradlab.reporting._failure import repeated_by
from gradlab.reporting._sealed import SEALED
from gradlab.reporting._table import detailed, fitted
from gradlab.reporting.schema import json_schema

if TYPE_CHECKING:
    from gradlab.report import Report

__all__ = ["detailed", "fitted", "formats", "json_schema", "page", "render", "repeated_by"]

_FORMATS = ("text", "json", "junit", "html", "svg", "dot", "mermaid")


def formats(kind: str) -> tuple[str, ...]:
    """Return the formats in which reports of this kind can be drawn."""
    module = importlib.import_module(f"gradlab.reporting.{kind}")
    return tuple(f for f in _FORMATS if f in ("json", "html", *module.__all__))


def render(report: "Report", format: str) -> str:
    """Return `report` in `format`.

    Args:
        report: any of gradlab's reports.
        format: one of `formats(report.kind)`.

    Raises:
        InputError: this kind of report has no such format.
    """
    known = formats(report.kind)
    if format not in known:
        raise InputError(
            f"format: a {report.kind} report cannot be drawn as {format!r}; "
            f"choose one of {', '.join(known)}"
        )
    module = importlib.import_module(f"gradlab.reporting.{report.kind}")
    if format in module.__all__:
        return legible(getattr(module, format)(report))
    if format == "json":
        return json.dumps(report.to_dict(), indent=2, allow_nan=False)
    return page(f"gradlab {report.kind}", f"<pre>{_html.escape(render(report, 'text'))}</pre>")


def page(title: str, body: str) -> str:
    """Return a self-contained HTML page, in light and dark; `body` is markup, escaped already.

    A notebook shows it inside its own page: no style here reaches beyond this one.
    """
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'>{SEALED}"
        f"<meta name='color-scheme' content='light dark'><title>{_html.escape(title)}</title>"
        "<style>.gradlab{font:15px/1.5 system-ui,sans-serif;margin:1.5rem}"
        ".gradlab pre{font:13px/1.45 ui-monospace,monospace}</style>"
        f"<body><div class='gradlab'>{body}</div></body></html>"
    )
