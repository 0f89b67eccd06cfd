"""What a picture of a graph is made of, and how much room each takes: inputs, gates, wires."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradlab.formatting import shape_text
from gradlab.reporting._gates import folded_constants, sign
from gradlab.reporting._glance import label_lines
from gradlab.reporting._heat import heat_size
from gradlab.reporting._layout import Box, Edge, Layout, lay_out

if TYPE_CHECKING:
    from gradlab.graph._glance import Glance
    from gradlab.graph.report import Gate, GraphReport, WireView

TEXT, SMALL, LINE = 13.0, 10.0, 15.0  # sizes of letters, and the height of a line
_RADIUS = 17.0
_ANY_ORDER = ("add", "add_any", "multiply", "maximum", "minimum")  # their inputs may change places


@dataclass(frozen=True)
class Port:
    """Where a wire enters a gate: what of its gradient comes from there; the local gradient.

    The local gradient is a number, or the name of its structure.
    """

    branch: str
    local: str


@dataclass(frozen=True)
class Exit:
    """A wire where it leaves: its name if it was given one, value lines above, gradient below."""

    wire: "WireView"  # the wire
    name: str  # its name, where that says more than the gate
    above: tuple[str, ...]  # the lines of its value
    below: tuple[str, ...]  # the lines of its gradient
    users: int  # how many gates it goes to
    final: bool  # whether the function returns it
    height: float = 0.0  # where it stands, from the middle of the box


@dataclass(frozen=True, eq=False)
class Thing:
    """What is drawn in one box: a gate, or an input."""

    box: Box  # its place
    gate: "Gate | None"  # the gate; None for an input
    title: str  # the sign of the gate, or the name of the input
    body: float  # the width of the circle or pill, or of the name
    deep: float  # how far it reaches in the direction of the wires
    round: bool = False  # whether the gate is a circle
    zone: float = 0.0  # the room before it that the ports' labels take
    ports: tuple[Port, ...] = ()  # where wires enter
    exits: tuple[Exit, ...] = ()  # where wires leave


def text_width(text: str, size: float = TEXT) -> float:
    """Return the room that a text in a monospaced font takes at most."""
    return 0.62 * size * len(text)


def leaving(report: "GraphReport", wire: "WireView", node: str, users: int) -> Exit:
    """Return a wire where it leaves the node of that name."""
    automatic = rf"(.*/)?{re.escape(node.split(' ')[0])}(_\d+)?(\[\d+\])?"
    named = wire.kind == "node" and not re.fullmatch(automatic, wire.name)
    above = label_lines(wire.value, report.decimals)
    below = (*label_lines(wire.gradient, report.decimals), *wire.marks)
    final = wire.name in report.outputs
    return Exit(wire, wire.name if named else "", above, below, users, final)


def shape_line(exit: Exit) -> str:
    """Return shape and dtype of an array whose entries are not shown whole, and its zeros."""
    value = exit.wire.value
    if value.entries is not None:
        return ""
    size = 1
    for length in value.shape:
        size *= length
    zeros = f" {value.zeros / size:.0%} zero" if value.zeros * 100 >= size > 0 else ""
    return f"{shape_text(value.shape)} {value.dtype}{zeros}"


def input_thing(exit: Exit, down: bool) -> Thing:
    """Return an input of the graph, or an array constant: its name and its wire."""
    body = text_width(exit.wire.name) + 8.0
    deep = LINE + 4.0 if down else body
    stub, above, below = _stub(exit, down)
    least = body / 2 if down else LINE
    box = Box(deep + stub, max(above, least), max(below, least), right=(0.0,))
    return Thing(box, None, exit.wire.name, body, deep, exits=(exit,))


def gate_thing(gate: "Gate", hidden: dict[str, str], exits: list[Exit], down: bool) -> Thing:
    """Return a gate with the wires that enter and leave it."""
    title = sign(gate, hidden)
    round = len(title) <= 3
    body = 2 * _RADIUS if round else text_width(title, 14.0) + 20.0
    deep = body if not down else 2 * _RADIUS if round else 28.0
    ports, heights = _ports(gate, hidden, not down)
    zone = max((text_width(t, SMALL) for p in ports for t in (p.branch, p.local)), default=0.0)
    zone = zone + 14.0 if zone else 0.0
    reaches, widest, top = [], 0.0, 0.0
    for exit in exits:
        stub, above, below = _stub(exit, down)
        widest = max(widest, stub)
        reaches.append(top + above)
        top += above + below + 4.0
    shift = reaches[0] if len(reaches) == 1 else top / 2
    placed = tuple(replace(exit, height=y - shift) for exit, y in zip(exits, reaches))
    least, leaves = body / 2 if down else _RADIUS + 4.0, tuple(exit.height for exit in placed)
    above = max([least, shift, *(12.0 - height for height in heights)])
    below = max([least, top - shift, *(12.0 + height for height in heights)])
    free = gate.node in _ANY_ORDER
    box = Box(zone + deep + widest, above, below, heights, leaves, free)
    return Thing(box, gate, title, body, deep, round, zone, ports, placed)


def _stub(exit: Exit, down: bool) -> tuple[float, float, float]:
    """Return the length of a wire's labels, and how far they reach to both sides of it."""
    lines = [text_width(line) for line in (*exit.above, *exit.below)]
    head = f"{exit.name} {shape_line(exit)}".strip()
    over = heat_size(exit.wire.value.heat)
    under = heat_size(exit.wire.gradient.heat if exit.wire.gradient else ())
    heights = [high + 4.0 if high else 0.0 for _, high in (over, under)]
    above = LINE * len(exit.above) + (LINE if head else 0.0) + heights[0] + 4.0
    below = LINE * len(exit.below) + heights[1] + 4.0
    widest = max(*lines, text_width(head, SMALL), over[0], under[0])
    return (above + below + 6.0, 8.0, widest + 10.0) if down else (widest + 18.0, above, below)


def structure(words: str) -> str:
    """Return the number that a local gradient is, or the name of its structure."""
    return words.partition(":")[0].partition("(")[0]


def _ports(
    gate: "Gate", hidden: dict[str, str], written: bool
) -> tuple[tuple[Port, ...], tuple[float, ...]]:
    """Return what is `written` where each drawn wire enters, and the heights of these places."""
    shown = [i for i, wire in enumerate(gate.inputs) if wire not in hidden]
    sent = gate.branches if written else ()
    branches = [" ".join(label_lines(sent[i], 2)) if sent else "" for i in shown]
    words = gate.local_gradients if written else ()
    local = [structure(words[i]) if words else "" for i in shown]
    spacing = 28.0 if any(branches) or any(local) else 12.0
    middle = (len(shown) - 1) / 2
    heights = tuple((i - middle) * spacing for i in range(len(shown)))
    return tuple(map(Port, branches, local)), heights


WIDEST = 2200.0  # a picture that is wider is hard to read on a screen: it runs downwards
_FEW = 12  # with so few gates all inputs stand in the first column, as the course draws them
_MANY = 40  # with so many, small arrays are no longer written out, nor what forks are made of


@dataclass(frozen=True)
class Picture:
    """What is drawn, the edges between, and the wire that each edge is."""

    things: list[Thing]  # inputs and gates
    edges: list[Edge]  # the wires between them
    wires: list[str]  # the name of each edge's wire
    size: Layout  # how long and how wide it became, in the direction of the wires and across
    down: bool  # whether wires run downwards, and not to the right


def picture(report: "GraphReport", down: bool = False, narrow: bool = False) -> Picture:
    """Return a graph laid out: inputs and gates as boxes, wires as edges between them.

    A `narrow` picture fits a phone: arrays are their shapes, and their gradients stand in the page.
    """
    if narrow:
        report = replace(report, wires=tuple(map(_narrow, report.wires)))
    elif len(report.gates) > _MANY:
        report = _terse(report)
    hidden = folded_constants(report)
    users = Counter(w for gate in report.gates for w in gate.inputs if w not in hidden)
    views = {wire.name: wire for wire in report.wires}
    made = {name for gate in report.gates for name in gate.outputs}
    things = [
        input_thing(leaving(report, wire, wire.name, users[wire.name]), down)
        for wire in report.wires
        if wire.name not in made and wire.name not in hidden
    ]
    inputs = [thing.box for thing in things]
    taken: list[list[str]] = [[] for _ in things]
    for gate in report.gates:
        exits = [
            leaving(report, views[name], gate.node, users[name])
            for name in gate.outputs
            if users[name] or name in report.outputs or len(gate.outputs) == 1
        ]
        things.append(gate_thing(gate, hidden, exits, down))
        taken.append([name for name in gate.inputs if name not in hidden])
    sources = {e.wire.name: (thing, k) for thing in things for k, e in enumerate(thing.exits)}
    edges, wires = [], []
    for thing, names in zip(things, taken):
        for port, name in enumerate(names):
            source, exit = sources[name]
            edges.append(Edge(source.box, thing.box, exit, port))
            wires.append(name)
    first = inputs if len(report.gates) <= _FEW else []
    return Picture(things, edges, wires, lay_out([t.box for t in things], edges, first), down)


def _terse(report: "GraphReport") -> "GraphReport":
    """Return the report without the entries of arrays and the branches of gradients."""
    wires = []
    for wire in report.wires:
        value, gradient = _summed_up(wire.value), wire.gradient and _summed_up(wire.gradient)
        wires.append(replace(wire, value=value, gradient=gradient))
    gates = tuple(replace(gate, branches=()) for gate in report.gates)
    return replace(report, wires=tuple(wires), gates=gates, decimals=min(report.decimals, 2))


def _narrow(wire: "WireView") -> "WireView":
    """Return a wire whose array is its shape."""
    if not wire.value.shape:
        return wire
    shape = replace(wire.value, entries=shape_text(wire.value.shape), heat=())
    return replace(wire, value=shape, gradient=None)


def _summed_up(glance: "Glance") -> "Glance":
    return replace(glance, entries=None) if glance.shape and glance.low is not None else glance
