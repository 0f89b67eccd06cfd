"""The table and the picture of a gradient's precision."""

import html
import math
from typing import TYPE_CHECKING

from gradlab.reporting._junit import Case, Outcome, junit_document
from gradlab.reporting._style import scoped
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.numerics import Measurement, PrecisionReport

__all__ = ["junit", "svg", "text"]

_STYLE = (
    "text{fill:#222}.paper{fill:#fff}.grid{stroke:#bbb}.tick{stroke:#222}"
    "@media (prefers-color-scheme:dark){text{fill:#eee}.paper{fill:#0d1117}.grid{stroke:#555}"
    ".tick{stroke:#eee}}"
)

HEADERS = (
    "dtype",
    "device",
    "matmul",
    "input",
    "digits",
    "worst",
    "floors",
    "bias ± scatter",
    "lost",
    "bits",
)
_COLOURS = {
    "float64": "#0072b2",
    "float32": "#009e73",
    "bfloat16": "#d55e00",
    "float16": "#cc79a7",
    "float8_e4m3fn": "#e69f00",
    "float8_e5m2": "#56b4e9",
}


def text(report: "PrecisionReport") -> str:
    """Return the table, then the advice."""
    parts = [
        f"precision of the gradient of {report.function}, against float64 on the CPU",
        table(HEADERS, [_row(m) for m in report.measurements]),
    ]
    if report.advice:
        parts.append("\n".join(f"* {line}" for line in report.advice))
    else:
        parts.append("Every gradient is as exact as its dtype allows.")
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def _row(m: "Measurement") -> tuple[str, ...]:
    return (
        m.dtype,
        m.device,
        m.matmul,
        m.path,
        _digits(m.digits),
        _digits(m.worst_digits),
        f"{m.floors:.1f}",
        f"{m.bias:+.0e} ± {m.scatter:.0e}",
        _lost(m),
        _bits(m),
    )


def _digits(digits: float) -> str:
    return "none" if math.isnan(digits) else f"{digits:.1f}"


def _bits(m: "Measurement") -> str:
    if not m.deterministic:
        return "vary by run"
    return {True: "same", False: "eager differs", None: "same, compiled only"}[m.eager_agrees]


def _lost(m: "Measurement") -> str:
    counts = ((m.underflow, "to 0"), (m.overflow, "to Inf"), (m.nan, "to NaN"))
    return ", ".join(f"{n / m.entries:.1%} {what}" for n, what in counts if n) or "none"


def junit(report: "PrecisionReport") -> str:
    """Return the report as a JUnit suite with one case per measurement."""
    cases = [_case(m, m.dtype in report.judged) for m in report.measurements]
    return junit_document((f"gradlab precision {report.function}", cases))


def _case(m: "Measurement", judged: bool) -> Case:
    words = [f"{name} {cell}" for name, cell in zip(HEADERS[4:], _row(m)[4:])]
    name = f"{m.path} {m.dtype} {m.device} {m.matmul}"
    outcome: Outcome = "passed" if m.ok else "failed" if judged else "skipped"
    return Case("precision", name, outcome, ", ".join(words))


def svg(report: "PrecisionReport") -> str:
    """Return a bar for each measurement: the correct digits, and a tick at its worst entry."""
    left, width, step = 220, 420, 22
    height = 50 + step * len(report.measurements)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {left + width + 60} {height + 30}' "
        "class='gradlab-precision' font-family='system-ui, sans-serif' font-size='13'>",
        f"<style>{scoped(_STYLE, 'gradlab-precision')}</style>"
        "<rect class='paper' width='100%' height='100%'/>",
        f"<text x='{left}' y='20'>correct digits of the gradient of "
        f"{html.escape(report.function)}; the tick is the worst entry</text>",
    ]
    for digits in range(0, 17, 2):
        x = left + width * digits / 16
        parts.append(f"<line class='grid' x1='{x}' x2='{x}' y1='32' y2='{height}'/>")
        parts.append(f"<text x='{x}' y='{height + 18}' text-anchor='middle'>{digits}</text>")
    for i, m in enumerate(report.measurements):
        y = 40 + step * i
        asked = () if m.matmul == "default" else (m.matmul,)
        label = html.escape(" ".join((m.dtype, m.device, *asked, f"d{m.path}")))
        bar = width * min(m.digits, 16) / 16
        tick = left + width * min(m.worst_digits, 16) / 16
        colour = _COLOURS.get(m.dtype, "#999999")
        parts.append(f"<text x='{left - 8}' y='{y + 11}' text-anchor='end'>{label}</text>")
        if math.isnan(m.digits):
            parts.append(f"<text x='{left + 6}' y='{y + 11}'>no entry is finite</text>")
            continue
        parts.append(f"<rect x='{left}' y='{y}' width='{bar:.1f}' height='14' fill='{colour}'/>")
        parts.append(
            f"<line class='tick' x1='{tick:.1f}' x2='{tick:.1f}' y1='{y - 2}' y2='{y + 16}'/>"
        )
    return "".join([*parts, "</svg>"])
