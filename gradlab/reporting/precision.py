"""The table and the picture of a gradient's precision."""

import math
from typing import TYPE_CHECKING

from gradlab.formatting import scientific
from gradlab.reporting._failure import wrapped
from gradlab.reporting._markup import Markup, drawn, head, join, section, tag, top
from gradlab.reporting._markup import table as columns
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.numerics import Measurement, PrecisionReport

_STYLE = (
    "text{fill:#222;font:13px system-ui,sans-serif}"
    ".paper{fill:#fff}.grid{stroke:#bbb}.tick{stroke:#222}"
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
_LEGEND = (
    "digits and worst: correct decimal digits of the median and of the worst entry. floors: the "
    "error, in units of the error that rounding explains. bias ± scatter: mean and spread of the "
    "relative errors. lost: entries that became 0, Inf or NaN. bits: "
    "whether runs agree exactly, with jit and without it."
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
        "\n".join(wrapped("", _LEGEND)),
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
        f"{scientific(m.bias)} ± {scientific(m.scatter)}",
        _lost(m),
        _bits(m),
    )


def _digits(digits: float) -> str:
    return "none" if math.isnan(digits) else f"{digits:.1f}"


def _bits(m: "Measurement") -> str:
    if not m.deterministic:
        return "vary by run"
    return {True: "same", False: "jit differs", None: "jit only"}[m.eager_agrees]


def _lost(m: "Measurement") -> str:
    counts = ((m.underflow, "to 0"), (m.overflow, "to Inf"), (m.nan, "to NaN"))
    return ", ".join(f"{n / m.entries:.1%} {what}" for n, what in counts if n) or "none"


def html(report: "PrecisionReport") -> Markup:
    """Return the body of the page: digits as bars, the table, what to do."""
    word, tone = ("right", "good") if report.ok else ("loses digits", "warn")
    told = report.advice or ("Every gradient is as exact as its dtype allows.",)
    return join(
        top("precision", report.function, f"seed {report.seed}"),
        head(
            word,
            tone,
            f"Precision of the gradient of {report.function}",
            "Each gradient is compared with float64 on the CPU.",
        ),
        section("Correct digits", svg(report)),
        section("What to do", *(tag("p", line) for line in told)),
        section(
            "Every measurement",
            columns(HEADERS, map(_row, report.measurements), ("digits", "worst", "floors")),
            tag("p", _LEGEND, cls="soft"),
        ),
        section("Notes", *(tag("p", note, cls="soft") for note in report.notes)),
    )


def svg(report: "PrecisionReport") -> Markup:
    """Return a bar for each measurement: the correct digits, and a tick at its worst entry."""
    left, width, step = 12, 300, 42  # a label stands above its bar, so that a phone shows it whole
    height = 34 + step * len(report.measurements)
    title = f"correct digits of the gradient of {report.function}; the tick is the worst entry"
    parts: list[Markup] = [tag("text", "tick: the worst entry", x=left, y=20)]
    for digits in range(0, 17, 2):
        x = left + width * digits / 16
        parts.append(tag("line", _class="grid", x1=f"{x:g}", x2=f"{x:g}", y1=32, y2=height))
        parts.append(tag("text", digits, x=f"{x:g}", y=height + 18, text_anchor="middle"))
    for i, m in enumerate(report.measurements):
        y = 56 + step * i
        asked = () if m.matmul == "default" else (m.matmul,)
        label = " ".join((m.dtype, m.device, *asked, f"d{m.path}"))
        parts.append(tag("text", label, x=left, y=y - 6))
        if math.isnan(m.digits):
            parts.append(tag("text", "no entry is finite", x=left + 6, y=y + 11))
            continue
        bar = f"{width * min(m.digits, 16) / 16:.1f}"
        tick = f"{left + width * min(m.worst_digits, 16) / 16:.1f}"
        colour = _COLOURS.get(m.dtype, "#999999")
        parts.append(tag("rect", x=left, y=y, width=bar, height=14, fill=colour))
        parts.append(tag("line", _class="tick", x1=tick, x2=tick, y1=y - 2, y2=y + 16))
    return drawn(title, "gradlab-precision", _STYLE, left + width + 24, height + 30, *parts)
