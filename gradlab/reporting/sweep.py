"""The text and the picture of a sweep: how many digits a gradient keeps, number by number."""

import html
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gradlab.reporting._style import scoped
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.numerics.sweep import Binade, SweepReport

__all__ = ["svg", "text"]

_ROWS = 12
_HEADERS = ("from", "to", "worst input", "came", "expected", "digits", "autodiff")
_LEFT, _TOP, _WIDTH, _HEIGHT = 56, 40, 820, 260
_STYLE = (
    "text{fill:#222}.paper{fill:#fff}.grid{stroke:#ddd}.rule{stroke:#0072b2;fill:none}"
    ".plain{stroke:#999;fill:none;stroke-dasharray:3 3}.lost{fill:#cc3311}"
    "@media (prefers-color-scheme:dark){text{fill:#eee}.paper{fill:#0d1117}.grid{stroke:#333}"
    ".rule{stroke:#56b4e9}.plain{stroke:#777}}"
)


def text(report: "SweepReport") -> str:
    """Return the worst ranges of numbers, and what they mean."""
    lost = [binade for binade in report.binades if binade.avoidable]
    head = f"{report.function}: the gradient keeps its digits" if report.ok else (
        f"{report.function}: the gradient loses digits that autodiff keeps, in "
        f"{len(lost)} of {len(report.binades)} ranges"
    )  # fmt: skip
    worst = sorted(report.binades, key=lambda b: (not b.avoidable, b.digits))[:_ROWS]
    lines = [
        f"{head} ({report.dtype})",
        f"tried     {report.tried:,} inputs; the worst of each range follows, lost ones first",
    ]
    if report.unknown:
        lines.append(
            f"unknown   {report.unknown} ranges, where float64 itself cancels; "
            "pip install gradlab[sweep] judges them with more digits"
        )
    return "\n".join(lines) + "\n\n" + table(_HEADERS, [_row(binade) for binade in worst])


def _row(binade: "Binade") -> tuple[str, ...]:
    return (
        f"{binade.low:.6g}",
        f"{binade.high:.6g}",
        ", ".join(f"{number:.9g}" for number in binade.worst),
        f"{binade.came:.6g}",
        f"{binade.expected:.6g}",
        f"{binade.digits:.1f}",
        f"{binade.autodiff_digits:.1f}",
    )


def svg(report: "SweepReport") -> str:
    """Return a curve of digits over the range of numbers, on a logarithmic scale to both sides."""
    full = max((max(b.digits, b.autodiff_digits) for b in report.binades), default=1.0)
    width, height = _LEFT + _WIDTH + 20, _TOP + _HEIGHT + 50
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        "class='gradlab-sweep' font-family='system-ui, sans-serif' font-size='13'>",
        f"<style>{scoped(_STYLE, 'gradlab-sweep')}</style>"
        "<rect class='paper' width='100%' height='100%'/>",
        f"<text x='{_LEFT}' y='22'>correct digits of the gradient of "
        f"{html.escape(report.function)} in {report.dtype}, at the worst input of each range; "
        "dashed: autodiff</text>",
    ]
    for digits in range(math.ceil(full) + 1):
        y = _TOP + _HEIGHT * (1 - digits / math.ceil(full))
        parts.append(f"<line class='grid' x1='{_LEFT}' x2='{_LEFT + _WIDTH}' y1='{y}' y2='{y}'/>")
        parts.append(f"<text x='{_LEFT - 8}' y='{y + 4}' text-anchor='end'>{digits}</text>")
    places = list(_places(report))
    for x, label in _ticks(report, places):
        y = _TOP + _HEIGHT + 20
        parts.append(f"<text x='{x:.1f}' y='{y}' text-anchor='middle'>{label}</text>")
    for name, digits_of in (("plain", "autodiff_digits"), ("rule", "digits")):
        points = " ".join(
            f"{x:.1f},{_TOP + _HEIGHT * (1 - getattr(b, digits_of) / math.ceil(full)):.1f}"
            for x, b in zip(places, report.binades)
        )
        parts.append(f"<polyline class='{name}' points='{points}'/>")
    for x, binade in zip(places, report.binades):
        if binade.avoidable:
            y = _TOP + _HEIGHT * (1 - binade.digits / math.ceil(full))
            parts.append(
                f"<circle class='lost' cx='{x:.1f}' cy='{y:.1f}' r='3'><title>"
                f"{html.escape(', '.join(_row(binade)))}</title></circle>"
            )
    caption = f"{report.tried:,} inputs; red: digits that autodiff keeps are lost"
    parts.append(f"<text x='{_LEFT}' y='{height - 8}'>{caption}</text></svg>")
    return "\n".join(parts)


def _places(report: "SweepReport") -> Iterator[float]:
    """Yield where each range stands: they have one width each, from the lowest number up."""
    count = max(1, len(report.binades) - 1)
    for place in range(len(report.binades)):
        yield _LEFT + _WIDTH * place / count


def _ticks(report: "SweepReport", places: list[float]) -> Iterator[tuple[float, str]]:
    """Yield some labels below the axis."""
    step = max(1, len(places) // 8)
    for place in range(step // 2, len(places), step):
        yield places[place], f"{report.binades[place].worst[0]:.0e}"
