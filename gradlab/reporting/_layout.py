"""Boxes and the edges between them, laid out from left to right in layers.

The method of Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system
structures, IEEE Trans. SMC 11 (1981): layers by the longest path; an edge that spans several layers
has a place in each of them. Within a layer, heights are the least-squares fit to the neighbours'
heights that keeps boxes apart; long edges pull more, so that they run straight, with the weights of
Gansner, Koutsofios, North and Vo, A technique for drawing directed graphs, IEEE TSE 19 (1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gradlab.reporting._boxes import Box, Edge, Link
from gradlab.reporting._ordering import order

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
