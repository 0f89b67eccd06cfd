"""A graph as boxes to be laid out: each gate with its sign, its wires' numbers, and their room."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gradlab.formatting import shape_text
from gradlab.reporting._gates import folded_constants, sign
from gradlab.reporting._glance import label_lines
from gradlab.reporting._layout import Box, Edge, Layout, lay_out

if TYPE_CHECKING:
    from gradlab.graph._glance import Glance
    from gradlab.graph.report import Gate, GraphReport, WireView

__all__ = [
    "LINE",
    "SMALL",
    "TEXT",
    "Exit",
    "Picture",
    "Port",
    "Thing",
    "picture",
    "shape_line",
    "text_width",
]

TEXT, SMALL, LINE = 13.0, 10.0, 15.0  # sizes of letters, and the height of a line
_RADIUS = 17.0
_FEW = 12  # with so few gates all inputs stand in the first column, as the course draws them
_MANY = 40  # with so many, small arrays are no longer written out, nor what forks are made of


@dataclass(frozen=True)
class Port:
    """Where a wire enters a gate; what of its gradient comes from there; the local gradient.

    The local gradient is a number, or the name of its structure.
    """

    branch: str
    local: str
    height: float


@dataclass(frozen=True)
class Exit:
    """A wire where it leaves: its name if it was given one, value lines above, gradient below."""

    wire: "WireView"
    name: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    height: float
    users: int
    final: bool


@dataclass(frozen=True, eq=False)
class Thing:
    """A gate, or an input (no gate): what is drawn in one box.

    Attributes:
        box: its place.
        gate: the gate; None for an input.
        title: the sign of the gate, or the name of the input.
        body: the width of the circle or pill, or of the name.
        round: whether the gate is a circle.
        zone: the width left of it that the ports' labels take.
        ports: where wires enter.
        exits: where wires leave.
    """

    box: Box
    gate: "Gate | None"
    title: str
    body: float
    round: bool
    zone: float
    ports: tuple[Port, ...]
    exits: tuple[Exit, ...]


@dataclass(frozen=True)
class Picture:
    """All that is drawn, laid out."""

    things: list[Thing]
    edges: list[Edge]
    wires: list[str] = field(default_factory=list)
    size: Layout = field(default=Layout(0.0, 0.0))


def text_width(text: str, size: float = TEXT) -> float:
    """Return the room that a text in a monospaced font takes at most."""
    return 0.62 * size * len(text)


def picture(report: "GraphReport") -> Picture:
    """Return a graph laid out: inputs and gates as boxes, wires as edges between them."""
    if len(report.gates) > _MANY:
        report = _terse(report)
    hidden = folded_constants(report)
    users = Counter(w for gate in report.gates for w in gate.inputs if w not in hidden)
    views = {wire.name: wire for wire in report.wires}
    made = {name for gate in report.gates for name in gate.outputs}

    def leaving(name: str, auto: str) -> Exit:
        return _exit(report, views[name], auto, users[name])

    things = [
        _input(leaving(wire.name, wire.name))
        for wire in report.wires
        if wire.name not in made and wire.name not in hidden
    ]
    inputs = len(things)
    for gate in report.gates:
        exits = [
            leaving(name, gate.node)
            for name in gate.outputs
            if users[name] or name in report.outputs or len(gate.outputs) == 1
        ]
        things.append(_gate(gate, hidden, exits))
    sources = {exit.wire.name: (thing, i) for thing in things for i, exit in enumerate(thing.exits)}
    edges, wires = [], []
    for thing in things[inputs:]:
        shown = [w for w in thing.gate.inputs if w not in hidden] if thing.gate else []
        for port, name in enumerate(shown):
            source, exit = sources[name]
            edges.append(Edge(source.box, thing.box, exit, port))
            wires.append(name)
    first = [thing.box for thing in things[:inputs]] if len(report.gates) <= _FEW else []
    size = lay_out([thing.box for thing in things], edges, first)
    return Picture(things, edges, wires, size)


def _terse(report: "GraphReport") -> "GraphReport":
    """Return the report without the entries of arrays and the branches of gradients."""
    wires = []
    for wire in report.wires:
        value, gradient = _summed_up(wire.value), wire.gradient and _summed_up(wire.gradient)
        wires.append(replace(wire, value=value, gradient=gradient))
    gates = tuple(replace(gate, branches=()) for gate in report.gates)
    return replace(report, wires=tuple(wires), gates=gates, decimals=min(report.decimals, 2))


def _summed_up(glance: "Glance") -> "Glance":
    return replace(glance, entries=None) if glance.shape and glance.low is not None else glance


def _exit(report: "GraphReport", wire: "WireView", node: str, users: int) -> Exit:
    """Return a wire where it leaves the node of that name."""
    automatic = rf"(.*/)?{re.escape(node.split(' ')[0])}(_\d+)?(\[\d+\])?"
    named = wire.kind == "node" and not re.fullmatch(automatic, wire.name)
    above = label_lines(wire.value, report.decimals)
    below = (*label_lines(wire.gradient, report.decimals), *wire.marks)
    final = wire.name in report.outputs
    return Exit(wire, wire.name if named else "", above, below, 0.0, users, final)


def _stub(exit: Exit) -> tuple[float, float, float]:
    """Return the width of a wire's labels, and how far they reach above and below it."""
    lines = [text_width(line) for line in (*exit.above, *exit.below)]
    head = f"{exit.name} {shape_line(exit)}".strip()
    lines.append(text_width(head, SMALL))
    above = LINE * len(exit.above) + (LINE if head else 0.0) + 4.0
    return max(lines) + 18.0, above, LINE * len(exit.below) + 4.0


def shape_line(exit: Exit) -> str:
    """Return shape and dtype of an array whose entries are not shown whole."""
    value = exit.wire.value
    return "" if value.entries is not None else f"{shape_text(value.shape)} {value.dtype}"


def _input(exit: Exit) -> Thing:
    body = text_width(exit.wire.name) + 8.0
    stub, above, below = _stub(exit)
    box = Box(body + stub, max(above, LINE), max(below, LINE), right=(0.0,))
    return Thing(box, None, exit.wire.name, body, False, 0.0, (), (exit,))


def _gate(gate: "Gate", hidden: dict[str, str], exits: list[Exit]) -> Thing:
    title = sign(gate, hidden)
    round = len(title) <= 3
    body = 2 * _RADIUS if round else text_width(title, 14.0) + 20.0
    ports = _ports(gate, hidden)
    zone = max((text_width(t, SMALL) for p in ports for t in (p.branch, p.local)), default=0.0)
    zone = zone + 14.0 if zone else 0.0
    heights, widest, top = [], 0.0, 0.0
    for exit in exits:
        stub, above, below = _stub(exit)
        widest = max(widest, stub)
        heights.append((top + above, above, below))
        top += above + below + 4.0
    shift = heights[0][0] if len(heights) == 1 else top / 2
    placed = [
        Exit(e.wire, e.name, e.above, e.below, y - shift, e.users, e.final)
        for e, (y, _, _) in zip(exits, heights)
    ]
    above = max([_RADIUS + 4.0, shift, *(-p.height + 12.0 for p in ports)])
    below = max([_RADIUS + 4.0, top - shift, *(p.height + 12.0 for p in ports)])
    box = Box(
        zone + body + widest,
        above,
        below,
        tuple(port.height for port in ports),
        tuple(exit.height for exit in placed),
    )
    return Thing(box, gate, title, body, round, zone, ports, tuple(placed))


def _ports(gate: "Gate", hidden: dict[str, str]) -> tuple[Port, ...]:
    shown = [i for i, wire in enumerate(gate.inputs) if wire not in hidden]
    branches = [" ".join(label_lines(gate.branches[i], 2)) if gate.branches else "" for i in shown]
    local = [
        gate.local_gradients[i].partition("(")[0] if gate.local_gradients else "" for i in shown
    ]
    spacing = 28.0 if any(branches) or any(local) else 12.0
    middle = (len(shown) - 1) / 2
    return tuple(
        Port(branch, words, (i - middle) * spacing)
        for i, (branch, words) in enumerate(zip(branches, local))
    )
