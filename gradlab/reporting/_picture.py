"""A graph laid out: each gate with its sign and its wires' numbers, in rows if it is long."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradlab.reporting._boxes import Box, Edge
from gradlab.reporting._gates import folded_constants
from gradlab.reporting._layout import LAYER_GAP, Layout, lay_out, layers_of
from gradlab.reporting._rows import broken
from gradlab.reporting._things import Thing, from_elsewhere, gate_thing, input_thing, leaving

if TYPE_CHECKING:
    from gradlab.graph._glance import Glance
    from gradlab.graph.report import GraphReport, WireView

__all__ = ["Picture", "Row", "picture"]

_FEW = 12  # with so few gates all inputs stand in the first column, as the course draws them
_MANY = 40  # with so many, small arrays are no longer written out, nor what forks are made of
_WIDEST = 1600.0  # a picture that is wider is broken into rows
_BETWEEN = 46.0  # the room between two rows


@dataclass(frozen=True)
class Row:
    """One row: what is drawn in it, the wires between, and where it lies."""

    things: list[Thing]
    edges: list[Edge]
    wires: list[str]
    top: float
    size: Layout


@dataclass(frozen=True)
class Picture:
    """All that is drawn, row by row."""

    rows: list[Row]
    width: float
    height: float

    @property
    def things(self) -> list[Thing]:
        """What is drawn in all rows."""
        return [thing for row in self.rows for thing in row.things]


@dataclass(frozen=True)
class _Wiring:
    """Who makes and who takes each wire that is drawn, things by their number."""

    things: list[Thing]
    sources: dict[str, tuple[int, int]]
    taken: list[list[str]]

    def edges(self) -> list[Edge]:
        """Return the edges between all things."""
        edges = []
        for thing, names in zip(self.things, self.taken):
            for port, name in enumerate(names):
                source, exit = self.sources[name]
                edges.append(Edge(self.things[source].box, thing.box, exit, port))
        return edges


def picture(report: "GraphReport") -> Picture:
    """Return a graph laid out: inputs and gates as boxes, wires as edges between them."""
    if len(report.gates) > _MANY:
        report = _terse(report)
    wiring = _wiring(report, {})
    places = _places(wiring)
    if not any(places):
        inputs = [thing.box for thing in wiring.things if thing.gate is None]
        first = inputs if len(report.gates) <= _FEW else []
        return _stacked([_row(wiring, range(len(places)), places, {}, first)])
    onward: dict[str, set[int]] = {}
    for i, names in enumerate(wiring.taken):
        for name in names:
            if places[wiring.sources[name][0]] != places[i]:
                onward.setdefault(name, set()).add(places[i] + 1)
    wiring = _wiring(report, {name: tuple(sorted(rows)) for name, rows in onward.items()})
    members: list[list[int]] = [[] for _ in range(max(places) + 1)]
    for i, place in enumerate(places):
        members[place].append(i)
    views = {wire.name: wire for wire in report.wires}
    return _stacked([_row(wiring, row, places, views) for row in members])


def _wiring(report: "GraphReport", onward: dict[str, tuple[int, ...]]) -> _Wiring:
    """Return inputs and gates as things; wires of `onward` go on in these rows."""
    hidden = folded_constants(report)
    users = Counter(w for gate in report.gates for w in gate.inputs if w not in hidden)
    views = {wire.name: wire for wire in report.wires}
    made = {name for gate in report.gates for name in gate.outputs}
    things: list[Thing] = []
    taken: list[list[str]] = []
    for wire in report.wires:
        if wire.name not in made and wire.name not in hidden:
            rows = onward.get(wire.name, ())
            things.append(input_thing(leaving(report, wire, wire.name, users[wire.name], rows)))
            taken.append([])
    for gate in report.gates:
        exits = [
            leaving(report, views[name], gate.node, users[name], onward.get(name, ()))
            for name in gate.outputs
            if users[name] or name in report.outputs or len(gate.outputs) == 1
        ]
        things.append(gate_thing(gate, hidden, exits))
        taken.append([name for name in gate.inputs if name not in hidden])
    sources = {
        exit.wire.name: (i, k)
        for i, thing in enumerate(things)
        for k, exit in enumerate(thing.exits)
    }
    return _Wiring(things, sources, taken)


def _places(wiring: _Wiring) -> list[int]:
    """Return the row of each thing; all 0 where one row does."""
    boxes = [thing.box for thing in wiring.things]
    edges = wiring.edges()
    layer = layers_of(boxes, edges)
    number = max(layer.values(), default=0) + 1
    widths, cuts = [0.0] * number, [0] * number
    for box in boxes:
        widths[layer[box]] = max(widths[layer[box]], box.width + LAYER_GAP)
    last: dict[tuple[Box, int], int] = {}
    for edge in edges:
        port = edge.source, edge.source_port
        last[port] = max(last.get(port, 0), layer[edge.target])
    for (box, _), end in last.items():
        for column in range(layer[box] + 1, end + 1):
            cuts[column] += 1
    row_of = [row for row, span in enumerate(broken(widths, cuts, _WIDEST)) for _ in span]
    places = {box: row_of[layer[box]] for box in boxes}
    first: dict[Box, int] = {}
    for edge in edges:
        first[edge.source] = min(first.get(edge.source, places[edge.target]), places[edge.target])
    for thing in wiring.things:
        if thing.gate is None:  # an input stands where it is first used
            places[thing.box] = first.get(thing.box, places[thing.box])
    return [places[box] for box in boxes]


def _row(
    wiring: _Wiring,
    members: Sequence[int],
    places: list[int],
    views: dict[str, "WireView"],
    first: Sequence[Box] = (),
) -> Row:
    """Return one row laid out; wires from other rows begin anew, before their first user."""
    here = set(members)
    users = Counter(name for i in members for name in wiring.taken[i])
    guests: dict[str, Thing] = {}
    edges, wires = [], []
    for i in members:
        for port, name in enumerate(wiring.taken[i]):
            source, exit = wiring.sources[name]
            box = wiring.things[source].box
            if source not in here:
                if name not in guests:
                    guests[name] = from_elsewhere(views[name], places[source] + 1, users[name])
                box, exit = guests[name].box, 0
            edges.append(Edge(box, wiring.things[i].box, exit, port))
            wires.append(name)
    things = [*guests.values(), *(wiring.things[i] for i in members)]
    size = lay_out([thing.box for thing in things], edges, first)
    return Row(things, edges, wires, 0.0, size)


def _stacked(rows: list[Row]) -> Picture:
    """Return rows one under the other."""
    top, placed = 0.0, []
    for row in rows:
        placed.append(replace(row, top=top))
        top += row.size.height + _BETWEEN
    return Picture(placed, max(row.size.width for row in rows), top - _BETWEEN)


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
