"""The text and the picture of a sweep: how many digits a gradient keeps, number by number."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gradlab.formatting import scientific
from gradlab.reporting._markup import Markup, drawn, head, join, section, tag, top
from gradlab.reporting._markup import table as columns
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.numerics.sweep import Binade, SweepReport

_ROWS = 12
_HEADERS = ("from", "to", "worst input", "gradient", "expected", "digits", "autodiff's digits")
_LEFT, _TOP, _WIDTH, _HEIGHT = 56, 16, 440, 200
_STYLE = (
    "text{fill:#222;font:13px system-ui,sans-serif}"
    ".paper{fill:#fff}.grid{stroke:#ddd}.rule{stroke:#0072b2;fill:none}"
    ".plain{stroke:#999;fill:none;stroke-dasharray:3 3}.lost{fill:#cc3311}"
    "@media (prefers-color-scheme:dark){text{fill:#eee}.paper{fill:#0d1117}.grid{stroke:#333}"
    ".rule{stroke:#56b4e9}.plain{stroke:#777}}"
)


def text(report: "SweepReport") -> str:
    """Return the worst ranges of numbers, and what they mean."""
    lines = [
        f"{_headline(report)} ({report.dtype})",
        f"tried     {report.tried:,} inputs; the table shows the worst one "
        "of each range, lost digits first",
    ]
    if report.unknown:
        lines.append(
            f"unknown   {report.unknown} ranges, where float64 cancels too; "
            "to judge them with more "
            "digits: pip install 'gradlab[sweep]'"
        )
    return "\n".join(lines) + "\n\n" + table(_HEADERS, [_row(binade) for binade in _worst(report)])


def _headline(report: "SweepReport") -> str:
    lost = [b for b in report.binades if (b.lost if report.ok else b.avoidable)]
    if not lost:
        return f"{report.function}: the gradient keeps its digits"
    ranges = f"in {len(lost)} of {len(report.binades)} ranges"
    if report.ok:
        return f"{report.function}: the gradient loses digits {ranges}, as autodiff does"
    return f"{report.function}: the gradient loses digits that autodiff keeps, {ranges}"


def _worst(report: "SweepReport") -> "list[Binade]":
    return sorted(report.binades, key=lambda b: (not b.avoidable, b.digits))[:_ROWS]


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


def html(report: "SweepReport") -> Markup:
    """Return the body of the page: the error over the range of numbers, and the worst ranges."""
    lost = any(binade.lost for binade in report.binades)
    word, tone = ("loses digits", "warn") if lost or not report.ok else ("right", "good")
    lead = f"{report.tried:,} inputs of {report.dtype} were tried."
    return join(
        top("sweep", report.function, report.dtype),
        head(word, tone, _headline(report), lead),
        section("Relative error at the worst input of each range", svg(report), _legend()),
        section("The worst ranges", columns(_HEADERS, map(_row, _worst(report)), _HEADERS)),
    )


def _legend() -> Markup:
    said = "Line: your gradient; dashed: autodiff; dots: digits are lost that autodiff keeps."
    return tag("p", said, cls="soft")


def svg(report: "SweepReport") -> Markup:
    """Return the relative error over the range of numbers; each binade has one width."""
    full = max((max(b.digits, b.autodiff_digits) for b in report.binades), default=1.0)
    steps = max(1, math.ceil(full))
    title = f"relative error of the gradient of {report.function}"
    parts: list[Markup] = []
    for digits in range(steps + 1):
        y = _height(digits, steps)
        parts.append(tag("line", _class="grid", x1=_LEFT, x2=_LEFT + _WIDTH, y1=y, y2=y))
        parts.append(
            tag(
                "text",
                f"1e-{digits}" if digits else "1",
                x=_LEFT - 8,
                y=f"{float(y) + 4:g}",
                text_anchor="end",
            )
        )
    places = list(_places(report))
    for x, label in _ticks(report, places):
        parts.append(tag("text", label, x=f"{x:.1f}", y=_TOP + _HEIGHT + 20, text_anchor="middle"))
    for name, kept in (
        ("plain", [b.autodiff_digits for b in report.binades]),
        ("rule", [b.digits for b in report.binades]),
    ):
        points = " ".join(f"{x:.1f},{_height(digits, steps)}" for x, digits in zip(places, kept))
        parts.append(tag("polyline", _class=name, points=points))
    for x, binade in zip(places, report.binades):
        if binade.avoidable:
            words = tag("title", ", ".join(_row(binade)))
            place = {"cx": f"{x:.1f}", "cy": _height(binade.digits, steps)}
            parts.append(tag("circle", words, _class="lost", r=3, **place))
    width, height = _LEFT + _WIDTH + 20, _TOP + _HEIGHT + 40
    return drawn(title, "gradlab-sweep", _STYLE, width, height, *parts)


def _height(digits: float, steps: int) -> str:
    """Return where an error with so many correct digits stands: large errors are at the top."""
    return f"{_TOP + _HEIGHT * digits / steps:.1f}"


def _places(report: "SweepReport") -> Iterator[float]:
    """Yield where each range stands: they have one width each, from the lowest number up."""
    count = max(1, len(report.binades) - 1)
    for place in range(len(report.binades)):
        yield _LEFT + _WIDTH * place / count


def _ticks(report: "SweepReport", places: list[float]) -> Iterator[tuple[float, str]]:
    """Yield some labels below the axis."""
    step = max(1, len(places) // 8)
    for place in range(step // 2, len(places), step):
        first = report.binades[place].worst[0]
        yield places[place], scientific(first) if first else "0"
