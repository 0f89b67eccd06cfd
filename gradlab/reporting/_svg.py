"""The picture of a graph as SVG, as the course draws it: values green, gradients red."""

import html
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from gradlab.reporting._boxes import Edge
from gradlab.reporting._heat import STYLE as HEAT_STYLE
from gradlab.reporting._heat import heat_map, heat_size
from gradlab.reporting._picture import Picture, Row, picture
from gradlab.reporting._style import scoped
from gradlab.reporting._things import (
    LINE,
    SMALL,
    TEXT,
    Exit,
    Thing,
    head_line,
    shape_line,
    text_width,
)

if TYPE_CHECKING:
    from gradlab.graph.report import GraphReport

__all__ = ["svg"]

_MARGIN = 20.0
_STYLE = """
.paper{fill:#fff}.ink{fill:#1f2328}.quiet{fill:#6e7781}.value{fill:#1a7f37}.gradient{fill:#cf222e}
.mark{fill:#9a6700}.local{fill:#0550ae}.line{stroke:#57606a;fill:none;stroke-width:1.3}
.shape{stroke:#1f2328;fill:#fff;stroke-width:1.3}.odd .shape{stroke:#cf222e;stroke-width:2.4}
.rule{stroke:#57606a;stroke-opacity:.3}.group .shape{stroke-dasharray:5 3}
.frame{fill:#0550ae;fill-opacity:.06;stroke:#0550ae;stroke-opacity:.45;stroke-dasharray:3 3}
.dot{fill:#57606a}.plus{fill:#cf222e;font-weight:bold}
text{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;white-space:pre}
@media (prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.quiet{fill:#8b949e}
.value{fill:#3fb950}.gradient{fill:#ff7b72}.mark{fill:#d29922}.local{fill:#79c0ff}
.line{stroke:#8b949e}.shape{stroke:#e6edf3;fill:#161b22}.odd .shape{stroke:#ff7b72}
.frame{fill:#79c0ff;stroke:#79c0ff}.dot{fill:#8b949e}.plus{fill:#ff7b72}}
"""


def svg(report: "GraphReport") -> str:
    """Return the graph as an SVG picture that reads in light and dark."""
    drawn = picture(report)
    legend, style = _legend(drawn), scoped(_STYLE + HEAT_STYLE, "gradlab-graph")
    width = max(drawn.width, text_width(legend, SMALL)) + 2 * _MARGIN
    height = drawn.height + 2 * _MARGIN + LINE * (2 + len(report.findings))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" class="gradlab-graph">',
            f"<title>{html.escape(report.title)}</title><style>{style}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="dot"/></marker></defs>',
            '<rect class="paper" width="100%" height="100%"/>',
            *(line for number, row in enumerate(drawn.rows) for line in _row(drawn, number, row)),
            *_notes(report, drawn, legend),
            "</svg>",
        ]
    )


def _row(drawn: Picture, number: int, row: Row) -> Iterator[str]:
    """Draw one row, under its number if there are several."""
    yield f'<g transform="translate({_MARGIN:g} {_MARGIN + row.top:g})">'
    if len(drawn.rows) > 1:
        yield _text(-14, -6, f"row {number + 1}", "quiet", SMALL)
    if number:
        yield f'<path class="rule" d="M-12 -20H{drawn.width + 12:.1f}"/>'
    yield from _frames(row.things)
    yield from (_edge(edge, name) for edge, name in zip(row.edges, row.wires))
    inside = set(row.wires)
    yield from (_thing(thing, inside) for thing in row.things)
    yield "</g>"


def _legend(drawn: Picture) -> str:
    exits = [exit for thing in drawn.things for exit in thing.exits]
    words = ["green: value; red: gradient"]
    if any(exit.above and exit.wire.value.entries is None for exit in exits):
        words.append("arrays: mean [least, greatest]")
    if any(exit.wire.value.heat for exit in exits):
        words.append("cells: blue below zero, orange above, each array to its own largest")
    if len(drawn.rows) > 1:
        words.append("2\N{BLACK RIGHT-POINTING SMALL TRIANGLE}x: x goes on from row 2")
    return "; ".join(words)


def _notes(report: "GraphReport", drawn: Picture, legend: str) -> Iterator[str]:
    y = drawn.height + _MARGIN + LINE * 1.6
    yield _text(_MARGIN, y, legend, "quiet", SMALL)
    for finding in report.findings:
        y += LINE
        yield _text(_MARGIN, y, finding, "gradient", SMALL)


def _edge(edge: Edge, name: str) -> str:
    points = edge.points
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        if abs(y0 - y1) < 0.05:
            path.append(f"H{x1:.1f}")
        else:
            bend = (x0 + x1) / 2
            path.append(f"C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return f'<path class="line" data-wire="{_attribute(name)}" d="{"".join(path)}"/>'


def _thing(thing: Thing, inside: set[str]) -> str:
    """Draw a gate or an input; wires that are not used `inside` the row end in an arrow."""
    x, y = thing.box.x, thing.box.y
    parts = []
    if thing.gate is None:
        end = x + thing.body - 6.0
        kind, size = ("quiet", SMALL) if thing.elsewhere else ("ink", TEXT)
        parts.append(_text(end, y + size / 3, thing.title, kind, size, "end"))
        start, opening = x + thing.body - 2.0, "<g>"
    else:
        parts += _gate(thing)
        start = x + thing.zone + thing.body
        opening = f'<g class="{_classes(thing)}" data-gate="{_attribute(thing.gate.name)}">'
    for exit in thing.exits:
        ends = exit.wire.name not in inside and bool(exit.final or exit.rows)
        parts += _exit(exit, start, x + thing.box.width, thing, ends)
    return f"{opening}{''.join(parts)}</g>"


def _classes(thing: Thing) -> str:
    gate = thing.gate
    wrong = gate is not None and gate.check is not None and gate.check.status == "failed"
    odd = wrong or any(not exit.wire.value.finite for exit in thing.exits)
    group = gate is not None and gate.members
    return f"gate{' odd' if odd else ''}{' group' if group else ''}"


def _gate(thing: Thing) -> Iterator[str]:
    x, y = thing.box.x + thing.zone, thing.box.y
    middle = x + thing.body / 2
    for port, offset in zip(thing.ports, thing.box.left):
        height = y + offset
        inset = _inset(offset, thing)
        if thing.zone:
            yield f'<path class="line" d="M{thing.box.x:.1f} {height:.1f}H{x - 6:.1f}"/>'
            yield _text(thing.box.x + 3, height - 3, port.local, "local", SMALL)
            yield _text(thing.box.x + 3, height + 10, port.branch, "gradient", SMALL)
        start = x - 6 if thing.zone else thing.box.x
        yield (
            f'<path class="line" marker-end="url(#tip)" d="M{start:.1f} {height:.1f}'
            f'L{x + inset[0]:.1f} {y + inset[1]:.1f}"/>'
        )
    if thing.round:
        yield f'<circle class="shape" cx="{middle:.1f}" cy="{y:.1f}" r="{thing.body / 2:g}"/>'
    else:
        yield (
            f'<rect class="shape" x="{x:.1f}" y="{y - 14:.1f}" width="{thing.body:.1f}" '
            'height="28" rx="14"/>'
        )
    yield _text(middle, y + 5, thing.title, "ink", 14.0, "middle")


def _inset(height: float, thing: Thing) -> tuple[float, float]:
    """Return where a wire at this port's height meets the gate, from its left side and middle."""
    reach = thing.body / 2 if thing.round else 14.0
    at = max(-0.8 * reach, min(0.8 * reach, height))
    return reach - (reach**2 - at**2) ** 0.5, at


def _exit(exit: Exit, start: float, end: float, thing: Thing, ends: bool) -> Iterator[str]:
    """Draw a wire where it leaves: what it carries above it, its gradient below."""
    y = thing.box.y + exit.height
    name = _attribute(exit.wire.name)
    tip = ' marker-end="url(#tip)"' if ends else ""
    path = f"M{start:.1f} {thing.box.y:.1f}L{start + 6:.1f} {y:.1f}H{end:.1f}"
    yield f'<path class="line" data-wire="{name}"{tip} d="{path}"/>'
    left, line = start + 9.0, y - 5.0
    above = []
    for row in reversed(exit.above):
        above.append(_text(left, line, row, "value", TEXT))
        line -= LINE
    if exit.above:
        high = heat_size(exit.wire.value.heat)[1]
        above.append(heat_map(exit.wire.value.heat, left, line + 2 - high, "the value"))
        line -= high + 3 if high else 0
        yield f'<g class="forward" data-wire="{name}">{"".join(above)}</g>'
    head = head_line(exit)
    yield _text(left, line, head, "ink", SMALL)
    yield _text(left + text_width(head and head + " ", SMALL), line, *_shape(exit))
    line = y + LINE - 1.0
    below = []
    marks = len(exit.wire.marks)
    for i, row in enumerate(exit.below):
        kind = "mark" if i >= len(exit.below) - marks else "gradient"
        below.append(_text(left, line, row, kind, TEXT))
        line += LINE
    if exit.above:
        if exit.users > 1:
            below.append(_text(end - 4, y + 13, "+", "plus", SMALL, "middle"))
        heat = exit.wire.gradient.heat if exit.wire.gradient else ()
        below.append(heat_map(heat, left, line - 10, "the gradient"))
        yield f'<g class="backward" data-wire="{name}">{"".join(below)}</g>'
    if exit.users > 1 and not ends:
        yield f'<circle class="dot" cx="{end:.1f}" cy="{y:.1f}" r="3"/>'


def _shape(exit: Exit) -> tuple[str, str, float]:
    return (shape_line(exit) if exit.above else "", "quiet", SMALL)


def _frames(things: list[Thing]) -> Iterator[str]:
    """Draw the groups that were opened: a frame around their gates, or behind each of them."""
    groups: dict[tuple[str, ...], list[Thing]] = {}
    for thing in things:
        frame = thing.gate.frame if thing.gate else ()
        for depth in range(1, len(frame) + 1):
            groups.setdefault(frame[:depth], []).append(thing)
    for frame, members in groups.items():
        around = _around(members)
        others = [thing for thing in things if thing not in members]
        if any(_overlap(around, _around([other])) for other in others):
            for member in members:
                yield _frame(_around([member]), "")
            around = _around(members[:1])
            yield _text(around[0] + 4, around[1] - 3, frame[-1], "local", SMALL)
        else:
            yield _frame(around, frame[-1])


def _frame(sides: tuple[float, float, float, float], title: str) -> str:
    left, top, right, bottom = sides
    return (
        f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}" rx="8"/>' + _text(left + 4, top - 3, title, "local", SMALL)
    )


def _around(things: list[Thing]) -> tuple[float, float, float, float]:
    boxes = [thing.box for thing in things]
    return (
        min(box.x for box in boxes) - 6.0,
        min(box.y - box.above for box in boxes) - 2.0,
        max(box.x + box.width for box in boxes) + 6.0,
        max(box.y + box.below for box in boxes) + 2.0,
    )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text(x: float, y: float, text: str, kind: str, size: float, anchor: str = "start") -> str:
    if not text:
        return ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{side}>'
        f"{html.escape(text)}</text>"
    )


def _attribute(text: str) -> str:
    return html.escape(text, quote=True)
