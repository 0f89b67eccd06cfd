"""The picture of a graph as SVG, as the course draws it: values green, gradients red."""

import html
from collections.abc import Iterator
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

from gradlab.reporting._heat import STYLE as HEAT_STYLE
from gradlab.reporting._heat import heat_map, heat_size
from gradlab.reporting._layout import Box, Edge
from gradlab.reporting._markup import scoped
from gradlab.reporting._things import (
    LINE,
    SMALL,
    TEXT,
    WIDEST,
    Exit,
    Picture,
    Thing,
    picture,
    shape_line,
    text_width,
)

if TYPE_CHECKING:
    from gradlab.graph.report import GraphReport

_MARGIN = 20.0
_STYLE = """
.paper{fill:#fff}.ink{fill:#1f2328}.quiet{fill:#59626b}.value{fill:#1a7f37}.gradient{fill:#cf222e}
.mark{fill:#805300}.local{fill:#0550ae}.line{stroke:#57606a;fill:none;stroke-width:1.3}
.shape{stroke:#1f2328;fill:#fff;stroke-width:1.3}.odd .shape{stroke:#cf222e;stroke-width:2.4}
.group .shape{stroke-dasharray:5 3}
.frame{fill:#0550ae;fill-opacity:.06;stroke:#0550ae;stroke-opacity:.45;stroke-dasharray:3 3}
.dot{fill:#57606a}.plus{fill:#cf222e;font-weight:bold}
text{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;white-space:pre}
@media (prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.quiet{fill:#a0a9b2}
.value{fill:#3fb950}.gradient{fill:#ff7b72}.mark{fill:#d29922}.local{fill:#79c0ff}
.line{stroke:#8b949e}.shape{stroke:#e6edf3;fill:#161b22}.odd .shape{stroke:#ff7b72}
.frame{fill:#79c0ff;stroke:#79c0ff}.dot{fill:#8b949e}.plus{fill:#ff7b72}}
"""
Spot = tuple[float, float]


def svg(report: "GraphReport") -> str:
    """Return the graph as an SVG picture that reads in light and dark; a long one runs down."""
    across = picture(report)
    return drawing(report, across if across.size.width <= WIDEST else picture(report, True))


def drawing(report: "GraphReport", drawn: Picture) -> str:
    """Return one picture of a graph."""
    style, size = scoped(_STYLE + HEAT_STYLE, "gradlab-graph"), drawn.size
    wide, high = (size.height, size.width) if drawn.down else (size.width, size.height)
    letters = max(48, int(wide / text_width("x", SMALL)))
    notes = [(line, kind) for text, kind in _notes(report, drawn) for line in wrap(text, letters)]
    width = max(wide, *(text_width(line, SMALL) for line, _ in notes)) + 2 * _MARGIN
    height = high + 2 * _MARGIN + LINE * (1 + len(notes))
    tip = "tip-down" if drawn.down else "tip"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" class="gradlab-graph">',
            f"<title>{html.escape(report.title)}</title><style>{style}</style>",
            f'<defs><marker id="{tip}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="dot"/></marker></defs>',
            '<rect class="paper" width="100%" height="100%"/>',
            f'<g transform="translate({_MARGIN:g} {_MARGIN:g})">',
            *_frames(drawn),
            *(_edge(edge, name, drawn.down) for edge, name in zip(drawn.edges, drawn.wires)),
            *_things(drawn),
            "</g>",
            *(
                _text(_MARGIN, high + _MARGIN + LINE * (1.6 + k), line, kind, SMALL)
                for k, (line, kind) in enumerate(notes)
            ),
            "</svg>",
        ]
    )


def _notes(report: "GraphReport", drawn: Picture) -> Iterator[tuple[str, str]]:
    """Yield what stands below the picture: what colours mean, then what was found."""
    exits = [exit for thing in drawn.things for exit in thing.exits]
    yield "green: value; red: gradient", "quiet"
    if any(exit.above and exit.wire.value.entries is None for exit in exits):
        yield "arrays: mean [least, greatest]", "quiet"
    if any(exit.wire.value.heat for exit in exits):
        yield "cells: blue below zero, orange above, each array to its own largest", "quiet"
    yield from ((finding, "gradient") for finding in report.findings)


def _edge(edge: Edge, name: str, down: bool) -> str:
    points = [(b, a) if down else (a, b) for a, b in edge.points]
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        if abs(y0 - y1) < 0.05 or abs(x0 - x1) < 0.05:
            path.append(f"L{x1:.1f} {y1:.1f}")
        elif down:
            bend = (y0 + y1) / 2
            path.append(f"C{x0:.1f} {bend:.1f} {x1:.1f} {bend:.1f} {x1:.1f} {y1:.1f}")
        else:
            bend = (x0 + x1) / 2
            path.append(f"C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return f'<path class="line" data-wire="{_attribute(name)}" d="{"".join(path)}"/>'


def _at(box: Box, down: bool, along: float, across: float = 0.0) -> Spot:
    """Return the place so far along the wires' direction, and so far across it, of a box."""
    x, y = box.x + along, box.y + across
    return (y, x) if down else (x, y)


def _line(*spots: Spot, more: str = "") -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    return f'<path class="line"{more} d="M{path}"/>'


def _things(drawn: Picture) -> Iterator[str]:
    """Draw gates and inputs; wires that nobody takes end in an arrow."""
    taken = set(drawn.wires)
    for thing in drawn.things:
        parts: list[str] = []
        if thing.gate is None:
            x, y = _at(thing.box, drawn.down, LINE - 4.0 if drawn.down else thing.deep - 6.0)
            side = "middle" if drawn.down else "end"
            parts.append(
                _text(x, y + (0 if drawn.down else TEXT / 3), thing.title, "ink", TEXT, side)
            )
            start, opening = thing.deep - 2.0, "<g>"
        else:
            parts += _gate(thing, drawn.down)
            start = thing.zone + thing.deep
            opening = f'<g class="{_classes(thing)}" data-gate="{_attribute(thing.gate.name)}">'
        for exit in thing.exits:
            ends = exit.final and exit.wire.name not in taken
            parts += _exit(exit, start, thing.box, drawn.down, ends)
        yield f"{opening}{''.join(parts)}</g>"


def _classes(thing: Thing) -> str:
    gate = thing.gate
    wrong = gate is not None and gate.check is not None and gate.check.status == "failed"
    odd = wrong or any(not exit.wire.value.finite for exit in thing.exits)
    group = gate is not None and gate.members
    return f"gate{' odd' if odd else ''}{' group' if group else ''}"


def _gate(thing: Thing, down: bool) -> Iterator[str]:
    box, zone = thing.box, thing.zone
    tip = f' marker-end="url(#{"tip-down" if down else "tip"})"'
    for port, offset in zip(thing.ports, box.left):
        if zone:
            yield _line(_at(box, down, 0, offset), _at(box, down, zone - 6, offset))
            x, y = _at(box, down, 3, offset)
            yield _text(x, y - 3, port.local, "local", SMALL)
            yield _text(x, y + 10, port.branch, "gradient", SMALL)
        inset, meets = _inset(offset, thing)
        yield _line(_at(box, down, zone - 6, offset), _at(box, down, zone + inset, meets), more=tip)
    x, y = _at(box, down, zone + thing.deep / 2)
    if thing.round:
        yield f'<circle class="shape" cx="{x:.1f}" cy="{y:.1f}" r="{thing.body / 2:g}"/>'
    else:
        yield (
            f'<rect class="shape" x="{x - thing.body / 2:.1f}" y="{y - 14:.1f}" '
            f'width="{thing.body:.1f}" height="28" rx="14"/>'
        )
    yield _text(x, y + 5, thing.title, "ink", 14.0, "middle")


def _inset(offset: float, thing: Thing) -> Spot:
    """Return where a wire at this port meets the gate, from its near side and its middle."""
    reach = thing.body / 2 if thing.round else 14.0
    at = max(-0.8 * reach, min(0.8 * reach, offset))
    return reach - (reach**2 - at**2) ** 0.5, at


def _exit(exit: Exit, start: float, box: Box, down: bool, ends: bool) -> Iterator[str]:
    """Draw a wire where it leaves, what it carries, and its gradient.

    They stand above and below a wire that runs to the right, and beside one that runs down.
    """
    name = _attribute(exit.wire.name)
    tip = f' marker-end="url(#{"tip-down" if down else "tip"})"' if ends else ""
    end = _at(box, down, box.width, exit.height)
    way = _at(box, down, start), _at(box, down, start + 6.0, exit.height), end
    yield _line(*way, more=f' data-wire="{name}"{tip}')
    left, wire = (way[1][0] + 8.0, 0.0) if down else (way[1][0] + 3.0, way[1][1])
    head, shape = exit.name, shape_line(exit) if exit.above else ""
    value_high = heat_size(exit.wire.value.heat)[1]
    room = value_high + 3 if value_high else 0.0
    lines_above = len(exit.above) + bool(head or shape)
    top = way[1][1] + 8.0 if down else wire - 5.0 - LINE * (lines_above - 1) - room
    line = top
    yield _text(left, line, head, "ink", SMALL)
    yield _text(left + text_width(head and head + " ", SMALL), line, shape, "quiet", SMALL)
    line += LINE if head or shape else 0.0
    if exit.above:
        shown = heat_map(exit.wire.value.heat, left, line - 10, "the value")
        rows = [
            _text(left, line + room + LINE * i, row, "value", TEXT)
            for i, row in enumerate(exit.above)
        ]
        yield f'<g class="forward" data-wire="{name}">{shown}{"".join(rows)}</g>'
    line = line + room + LINE * len(exit.above) if down else wire + LINE - 1.0
    below = []
    marks = len(exit.wire.marks)
    for i, row in enumerate(exit.below):
        kind = "mark" if i >= len(exit.below) - marks else "gradient"
        below.append(_text(left, line, row, kind, TEXT))
        line += LINE
    if exit.above:
        if exit.users > 1:
            x, y = (end[0] - 6, end[1] + 3) if down else (end[0] - 4, end[1] + 13)
            below.append(_text(x, y, "+", "plus", SMALL, "middle"))
        heat = exit.wire.gradient.heat if exit.wire.gradient else ()
        below.append(heat_map(heat, left, line - 10, "the gradient"))
        yield f'<g class="backward" data-wire="{name}">{"".join(below)}</g>'
    if exit.users > 1 and not ends:
        yield f'<circle class="dot" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="3"/>'


def _frames(drawn: Picture) -> Iterator[str]:
    """Draw the groups that were opened: a frame around their gates, or behind each of them."""
    groups: dict[tuple[str, ...], list[Thing]] = {}
    for thing in drawn.things:
        frame = thing.gate.frame if thing.gate else ()
        for depth in range(1, len(frame) + 1):
            groups.setdefault(frame[:depth], []).append(thing)
    for frame, members in groups.items():
        around = _around(members, drawn.down)
        others = [thing for thing in drawn.things if thing not in members]
        if any(_overlap(around, _around([other], drawn.down)) for other in others):
            for member in members:
                yield _frame(_around([member], drawn.down), "")
            around = _around(members[:1], drawn.down)
            yield _text(around[0] + 4, around[1] - 3, frame[-1], "local", SMALL)
        else:
            yield _frame(around, frame[-1])


def _frame(sides: tuple[float, float, float, float], title: str) -> str:
    left, top, right, bottom = sides
    return (
        f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
        f'height="{bottom - top:.1f}" rx="8"/>' + _text(left + 4, top - 3, title, "local", SMALL)
    )


def _around(things: list[Thing], down: bool) -> tuple[float, float, float, float]:
    """Return the left, the upper, the right and the lower side of a few things."""
    boxes = [thing.box for thing in things]
    near, far = min(box.x for box in boxes), max(box.x + box.width for box in boxes)
    above = min(box.y - box.above for box in boxes) - 2.0
    below = max(box.y + box.below for box in boxes) + 2.0
    return (above, near, below, far) if down else (near - 6.0, above, far + 6.0, below)


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
