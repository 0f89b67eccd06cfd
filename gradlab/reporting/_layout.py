"""Boxes and the edges between them, laid out from left to right in layers with few crossings.

The method of Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system
structures, IEEE Trans. SMC 11 (1981): layers by the longest path, an edge that spans several layers
has a place in each of them, layers are reordered by the barycentres of their neighbours. Within a
layer, heights are the least-squares fit to the neighbours' heights that keeps boxes apart.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Box", "Edge", "Layout", "lay_out"]

_SWEEPS = 12
_FITS = 40
_NUDGE = 1e-4  # how much the port counts beside the place of the box
_BEND = 6.0  # the height that an edge takes where it passes through a layer
_ROW_GAP = 14.0
_LAYER_GAP = 44.0


@dataclass(eq=False)
class Box:
    """A rectangle to be placed; ports are heights of edge ends, measured from its middle.

    Attributes:
        width: how wide it is.
        above: how far it reaches above its middle.
        below: how far it reaches below.
        left: the ports where edges arrive, by position.
        right: the ports where edges leave.
        x: the left side, once placed.
        y: the middle, once placed.
        room: the width of its column, once placed.
    """

    width: float
    above: float
    below: float
    left: Sequence[float] = ()
    right: Sequence[float] = ()
    x: float = 0.0
    y: float = 0.0
    room: float = 0.0


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


@dataclass(frozen=True)
class Layout:
    """How large the drawing became."""

    width: float
    height: float


def lay_out(boxes: Sequence[Box], edges: Sequence[Edge], early: Sequence[Box] = ()) -> Layout:
    """Place the boxes and route the edges; both are changed in place.

    Args:
        boxes: in an order in which edges run forward.
        edges: what connects them.
        early: boxes without arriving edges that are wanted in the first column; others stand just
            before their first user.
    """
    layer = _layers(boxes, edges, set(early))
    columns: list[list[Box]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for box in boxes:
        columns[layer[box]].append(box)
    links, chains = _with_bends(edges, layer, columns)
    _order(columns, links)
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


Link = tuple[Box, Box, float, float]  # from, to, and the heights of the ports at both ends


def _layers(boxes: Sequence[Box], edges: Sequence[Edge], early: set[Box]) -> dict[Box, int]:
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
        if leaves and box not in early and len(arriving.get(box, ())) <= len(leaves):
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
        leaves = edge.source.right[edge.source_port]
        for number in range(start + len(trunk), layer[edge.target]):
            bend = Box(0.0, _BEND / 2, _BEND / 2, (0.0,), (0.0,))
            columns[number].append(bend)
            links.append((trunk[-1], bend, 0.0, 0.0) if trunk else (edge.source, bend, leaves, 0.0))
            trunk.append(bend)
        passed = trunk[: layer[edge.target] - start]
        arrives = edge.target.left[edge.target_port]
        if passed:
            links.append((passed[-1], edge.target, 0.0, arrives))
        else:
            links.append((edge.source, edge.target, leaves, arrives))
        chains.append(passed)
    return links, chains


def _order(columns: list[list[Box]], links: Sequence[Link]) -> None:
    """Reorder each column by the mean place of its neighbours, and keep the best that was seen."""
    before: dict[Box, list[tuple[Box, float]]] = {}
    after: dict[Box, list[tuple[Box, float]]] = {}
    for a, b, leaves, arrives in links:
        after.setdefault(a, []).append((b, arrives * _NUDGE))
        before.setdefault(b, []).append((a, leaves * _NUDGE))
    place = {box: i / len(column) for column in columns for i, box in enumerate(column)}
    best, fewest = [list(column) for column in columns], _crossings(columns, links)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            _sort(column, before if forward else after, place)
        crossings = _crossings(columns, links)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    columns[:] = best


def _sort(
    column: list[Box], near: dict[Box, list[tuple[Box, float]]], place: dict[Box, float]
) -> None:
    """Sort a column by the mean place of the neighbours on one side; places run from 0 to 1."""

    def mean(box: Box) -> float:
        others = near.get(box)
        if not others:
            return place[box]
        return sum(place[other] + port for other, port in others) / len(others)

    column.sort(key=mean)
    place.update((box, i / len(column)) for i, box in enumerate(column))


def _crossings(columns: Sequence[Sequence[Box]], links: Sequence[Link]) -> int:
    """Return how many pairs of links between neighbouring columns cross."""
    place = {box: i for column in columns for i, box in enumerate(column)}
    number = {box: i for i, column in enumerate(columns) for box in column}
    between: dict[int, list[tuple[tuple[int, float], tuple[int, float]]]] = {}
    for a, b, leaves, arrives in links:
        ends = (place[a], leaves), (place[b], arrives)
        between.setdefault(number[a], []).append(ends)
    total = 0
    for pairs in between.values():
        seen: list[tuple[int, float]] = []
        for _, arrival in sorted(pairs):
            total += len(seen) - bisect_right(seen, arrival)
            insort(seen, arrival)
    return total


def _set_heights(columns: Sequence[Sequence[Box]], links: Sequence[Link]) -> None:
    """Move boxes to the heights of their neighbours, as near as their order and sizes allow."""
    near: dict[Box, list[tuple[Box, float]]] = {}
    for a, b, leaves, arrives in links:
        near.setdefault(a, []).append((b, arrives - leaves))
        near.setdefault(b, []).append((a, leaves - arrives))
    for column in columns:
        _fit(column, [0.0] * len(column))
    for sweep in range(_FITS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = []
            for box in column:
                targets = [other.y + shift for other, shift in near.get(box, ())]
                wanted.append(sum(targets) / len(targets) if targets else box.y)
            _fit(column, wanted)


def _fit(column: Sequence[Box], wanted: Sequence[float]) -> None:
    """Set the heights of a column next to those wanted, in the sense of least squares.

    With the room that each box needs taken off, heights have only to increase: isotonic regression
    by pooling adjacent violators.
    """
    offsets, reach = [], 0.0
    for i, box in enumerate(column):
        reach += column[i - 1].below + _ROW_GAP + box.above if i else 0.0
        offsets.append(reach)
    pools: list[list[float]] = []  # sum and number of the members
    for height, offset in zip(wanted, offsets):
        pools.append([height - offset, 1])
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] > pools[-1][0] * pools[-2][1]:
            total, number = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += number
    levels = [total / number for total, number in pools for _ in range(int(number))]
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
