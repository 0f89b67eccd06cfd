"""A graph laid out: each gate with its sign and its wires' numbers."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradlab.formatting import shape_text
from gradlab.reporting._boxes import Edge
from gradlab.reporting._gates import folded_constants
from gradlab.reporting._layout import Layout, lay_out
from gradlab.reporting._things import Thing, gate_thing, input_thing, leaving

if TYPE_CHECKING:
    from gradlab.graph._glance import Glance
    from gradlab.graph.report import GraphReport, WireView

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
