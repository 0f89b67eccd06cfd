"""Boxes and the edges between them, laid out from left to right in layers.

The method of Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system
structures, IEEE Trans. SMC 11 (1981): layers by the longest path; an edge that spans several layers
has a place in each of them. Within a layer, heights are the least-squares fit to the neighbours'
heights that keeps boxes apart; long edges pull more, so that they run straight, with the weights of
Gansner, Koutsofios, North and Vo, A technique for drawing directed graphs, IEEE TSE 19 (1993).
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

_PULLS = (1.0, 2.0, 8.0)  # of an edge with none, one or both of its ends a bend


@dataclass(eq=False)
class Box:
    """A rectangle to be placed; ports are heights of edge ends, measured from its middle."""

    width: float  # how wide it is
    above: float  # how far it reaches above its middle
    below: float  # how far it reaches below
    left: Sequence[float] = ()  # the ports where edges arrive, by position
    right: Sequence[float] = ()  # the ports where edges leave
    free: bool = False  # whether the ports on the left may change places, for fewer crossings
    x: float = 0.0  # the left side, once placed
    y: float = 0.0  # the middle, once placed
    room: float = 0.0  # the width of its column, once placed


@dataclass(eq=False)
class Edge:
    """From the right port of one box to the left port of another.

    Edges from one port run together as long as they can: `points`, once it is laid out, is the part
    of the way that the longer ones do not show already.
    """

    source: Box
    target: Box
    source_port: int = 0
    target_port: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)


class Link(NamedTuple):
    """The part of an edge between two neighbouring layers, and the ports at its ends."""

    source: Box
    target: Box
    source_port: int
    target_port: int

    @property
    def rise(self) -> float:
        """How far the target stands below the source where the link is straight."""
        return self.source.right[self.source_port] - self.target.left[self.target_port]

    @property
    def pull(self) -> float:
        """How much it wants to be straight: a bend has no width."""
        return _PULLS[(not self.source.width) + (not self.target.width)]


_SWEEPS = 12
_EXCHANGES = 8  # passes over a layer, at most
_NUDGE = 1e-4  # how much the port counts beside the place of the box

End = tuple[Box, float]  # the box at the other end of a link, and the height of the port there


def order(columns: list[list[Box]], links: Sequence[Link]) -> None:
    """Reorder each column, and the ports of boxes that are free to, so that few edges cross.

    Sweeps by the median and by the mean of the neighbours' places, each followed by exchanges of
    adjacent boxes; the best order that was seen is kept (Gansner et al., section 3).
    """
    sides = _Sides(links)
    best, fewest = [list(column) for column in columns], crossings(columns, links)
    for centre in (median, fmean):
        columns[:] = [list(column) for column in best]
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            forward = sweep % 2 == 0
            place = {box: i / len(c) for c in columns for i, box in enumerate(c)}
            for column in columns if forward else reversed(columns):
                _sort(column, sides.before if forward else sides.after, place, centre)
            _exchange(columns, sides)
            found = crossings(columns, links)
            if found < fewest:
                best, fewest = [list(column) for column in columns], found
    columns[:] = best
    _settle_ports(columns, links)


class _Sides:
    """The neighbours of each box on both sides."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.before: dict[Box, list[End]] = {}
        self.after: dict[Box, list[End]] = {}
        for link in links:
            leaves, arrives = _heights(link)
            self.after.setdefault(link.source, []).append((link.target, arrives))
            self.before.setdefault(link.target, []).append((link.source, leaves))


def _heights(link: Link) -> tuple[float, float]:
    """Return the heights of a link's ports; at a box whose ports are free all arrive at one."""
    arrives = 0.0 if link.target.free else link.target.left[link.target_port]
    return link.source.right[link.source_port], arrives


def _sort(
    column: list[Box],
    near: dict[Box, list[End]],
    place: dict[Box, float],
    centre: Callable[[list[float]], float],
) -> None:
    """Sort a column by the centres of the neighbours on one side; places run from 0 to 1."""

    def wanted(box: Box) -> float:
        others = near.get(box)
        if not others:
            return place[box]
        return centre([place[other] + port * _NUDGE for other, port in others])

    column.sort(key=wanted)
    place.update((box, i / len(column)) for i, box in enumerate(column))


def _exchange(columns: Sequence[list[Box]], sides: _Sides) -> None:
    """Exchange adjacent boxes as long as that takes crossings away."""
    place = {box: i for column in columns for i, box in enumerate(column)}

    def ends(box: Box) -> list[list[tuple[int, float]]]:
        near = sides.before.get(box, ()), sides.after.get(box, ())
        return [sorted((place[other], port) for other, port in side) for side in near]

    for column in columns:
        found = {box: ends(box) for box in column}
        for _ in range(_EXCHANGES):
            changed = False
            for i in range(len(column) - 1):
                upper, lower = column[i : i + 2]
                sides_of = list(zip(found[upper], found[lower]))
                kept = sum(_inversions(a, b) for a, b in sides_of)
                if kept and kept > sum(_inversions(b, a) for a, b in sides_of):
                    column[i : i + 2] = lower, upper
                    changed = True
            if not changed:
                break
        place.update((box, i) for i, box in enumerate(column))


def _inversions(upper: list[tuple[int, float]], lower: list[tuple[int, float]]) -> int:
    """Return how many links of the upper box end below those of the lower; both are sorted."""
    return sum(len(upper) - bisect_right(upper, end) for end in lower)


def crossings(columns: Sequence[Sequence[Box]], links: Sequence[Link]) -> int:
    """Return how many pairs of links between neighbouring columns cross.

    The method of Barth, Jünger and Mutzel, Simple and efficient bilayer cross counting (2002).
    """
    place = {box: i for column in columns for i, box in enumerate(column)}
    number = {box: i for i, column in enumerate(columns) for box in column}
    between: dict[int, list[tuple[tuple[int, float], tuple[int, float]]]] = {}
    for link in links:
        leaves, arrives = _heights(link)
        ends = (place[link.source], leaves), (place[link.target], arrives)
        between.setdefault(number[link.source], []).append(ends)
    total = 0
    for pairs in between.values():
        seen: list[tuple[int, float]] = []
        for _, arrival in sorted(pairs):
            total += len(seen) - bisect_right(seen, arrival)
            insort(seen, arrival)
    return total


def _settle_ports(columns: Sequence[Sequence[Box]], links: Sequence[Link]) -> None:
    """Give the free ports of each box the order in which their links arrive."""
    place = {box: i for column in columns for i, box in enumerate(column)}
    arriving: dict[Box, list[Link]] = {}
    for link in links:
        if link.target.free:
            arriving.setdefault(link.target, []).append(link)
    for box, found in arriving.items():
        found.sort(key=lambda link: (place[link.source], _heights(link)[0], link.target_port))
        heights = dict(zip((link.target_port for link in found), sorted(box.left)))
        box.left = tuple(heights[port] for port in range(len(box.left)))


_LAYER_GAP = 44.0
_FITS = 40
_BEND = 6.0  # the height that an edge takes where it passes through a layer
_ROW_GAP = 14.0


@dataclass(frozen=True)
class Layout:
    """How large the drawing became."""

    width: float
    height: float


def lay_out(boxes: Sequence[Box], edges: Sequence[Edge], early: Sequence[Box] = ()) -> Layout:
    """Place the boxes and route the edges; both are changed in place.

    Edges run forward in the order of the boxes. Boxes in `early` stand in the first column, others
    without arriving edges just before their first user.
    """
    layer = _layers_of(boxes, edges, early)
    columns: list[list[Box]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for box in boxes:
        columns[layer[box]].append(box)
    links, chains = _with_bends(edges, layer, columns)
    order(columns, links)
    _set_heights(columns, links)
    width = _set_columns(columns)
    longest: dict[tuple[Box, int], int] = {}
    for edge, passed in sorted(zip(edges, chains), key=lambda pair: -len(pair[1])):
        shown = longest.setdefault((edge.source, edge.source_port), 0)
        edge.points = _route(edge, passed, shown)
        longest[edge.source, edge.source_port] = max(shown, len(passed) + 1)
    top = min((box.y - box.above for box in boxes), default=0.0)
    for box in (box for column in columns for box in column):
        box.y -= top
    for edge in edges:
        edge.points = [(x, y - top) for x, y in edge.points]
    height = max((box.y + box.below for box in boxes), default=0.0)
    lowest = max((y for edge in edges for _, y in edge.points), default=0.0)
    return Layout(width, max(height, lowest))


def _layers_of(
    boxes: Sequence[Box], edges: Sequence[Edge], early: Sequence[Box] = ()
) -> dict[Box, int]:
    """Return the layer of each box: behind all that feed it, and close to what it feeds."""
    first = set(early)
    arriving: dict[Box, list[Box]] = {}
    leaving: dict[Box, list[Box]] = {}
    for edge in edges:
        arriving.setdefault(edge.target, []).append(edge.source)
        leaving.setdefault(edge.source, []).append(edge.target)
    layer: dict[Box, int] = {}
    for box in boxes:
        layer[box] = max((layer[source] for source in arriving.get(box, ())), default=-1) + 1
    for box in reversed(boxes):  # as late as possible, where that shortens more than it lengthens
        leaves = leaving.get(box, ())
        if leaves and box not in first and len(arriving.get(box, ())) <= len(leaves):
            layer[box] = min(layer[target] for target in leaves) - 1
    return layer


def _with_bends(
    edges: Sequence[Edge], layer: dict[Box, int], columns: list[list[Box]]
) -> tuple[list[Link], list[list[Box]]]:
    """Give every port a small box in each layer that its edges pass; return links of one layer.

    Beside each edge comes the list of the boxes that it passes.
    """
    links: list[Link] = []
    chains = []
    trunks: dict[tuple[Box, int], list[Box]] = {}
    for edge in edges:
        trunk = trunks.setdefault((edge.source, edge.source_port), [])
        start = layer[edge.source] + 1
        for number in range(start + len(trunk), layer[edge.target]):
            bend = Box(0.0, _BEND / 2, _BEND / 2, (0.0,), (0.0,))
            columns[number].append(bend)
            links.append(_link(edge, trunk, bend, 0))
            trunk.append(bend)
        passed = trunk[: layer[edge.target] - start]
        links.append(_link(edge, passed, edge.target, edge.target_port))
        chains.append(passed)
    return links, chains


def _link(edge: Edge, passed: Sequence[Box], target: Box, port: int) -> Link:
    """Return the link to a box from where its edge has come so far."""
    if passed:
        return Link(passed[-1], target, 0, port)
    return Link(edge.source, target, edge.source_port, port)


def _set_heights(columns: Sequence[Sequence[Box]], links: Sequence[Link]) -> None:
    """Move boxes to the heights of their neighbours, as near as their order and sizes allow."""
    near: dict[Box, list[tuple[Box, float, float]]] = {}
    for link in links:
        near.setdefault(link.source, []).append((link.target, -link.rise, link.pull))
        near.setdefault(link.target, []).append((link.source, link.rise, link.pull))
    for column in columns:
        _fit(column, [(0.0, 1.0)] * len(column))
    for sweep in range(_FITS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            _fit(column, [_wish(box, near.get(box, ())) for box in column])


def _wish(box: Box, near: Sequence[tuple[Box, float, float]]) -> tuple[float, float]:
    """Return the height that a box's neighbours want it to have, and how much."""
    total = sum(pull for _, _, pull in near)
    if not total:
        return box.y, 1.0
    return sum((other.y + rise) * pull for other, rise, pull in near) / total, total


def _fit(column: Sequence[Box], wanted: Sequence[tuple[float, float]]) -> None:
    """Set the heights of a column next to those wanted, in the sense of weighted least squares.

    With the room that each box needs taken off, heights have only to increase: isotonic regression
    by pooling adjacent violators.
    """
    offsets, reach = [], 0.0
    for i, box in enumerate(column):
        reach += column[i - 1].below + _ROW_GAP + box.above if i else 0.0
        offsets.append(reach)
    pools: list[tuple[float, float, int]] = []  # weighted sum, weight, and number of the members
    for (height, weight), offset in zip(wanted, offsets):
        pools.append(((height - offset) * weight, weight, 1))
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            (a, b, c), (d, e, f) = pools.pop(), pools.pop()
            pools.append((a + d, b + e, c + f))
    levels = [total / weight for total, weight, number in pools for _ in range(number)]
    for box, level, offset in zip(column, levels, offsets):
        box.y = level + offset


def _set_columns(columns: Sequence[Sequence[Box]]) -> float:
    x = 0.0
    for column in columns:
        width = max((box.width for box in column), default=0.0)
        for box in column:
            box.x, box.room = x, width
        x += width + _LAYER_GAP
    return x - _LAYER_GAP


def _route(edge: Edge, passed: Sequence[Box], shown: int) -> list[tuple[float, float]]:
    """Return the points of an edge: horizontal inside columns, free to climb between them.

    If a longer one was `shown`, only the end of the way that it does not share.
    """
    source, target = edge.source, edge.target
    y = source.y + source.right[edge.source_port]
    points = [(source.x + source.width, y), (source.x + source.room, y)]
    points += [p for bend in passed for p in ((bend.x, bend.y), (bend.x + bend.room, bend.y))]
    end = (target.x, target.y + target.left[edge.target_port])
    return [points[-1], end] if shown else [*points, end]
