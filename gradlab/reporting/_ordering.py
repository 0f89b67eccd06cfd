"""The order of boxes within layers, such that few edges between the layers cross.

Sweeps by the median and by the mean of the neighbours' places, each followed by exchanges of
adjacent boxes; the best order that was seen is kept. Source: Gansner, Koutsofios, North and Vo, A
technique for drawing directed graphs, IEEE Trans. Software Eng. 19 (1993), section 3.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from statistics import fmean, median

from gradlab.reporting._boxes import Box, Link

_SWEEPS = 12
_EXCHANGES = 8  # passes over a layer, at most
_NUDGE = 1e-4  # how much the port counts beside the place of the box

End = tuple[Box, float]  # the box at the other end of a link, and the height of the port there


def order(columns: list[list[Box]], links: Sequence[Link]) -> None:
    """Reorder each column, and the ports of boxes that are free to; both are changed in place."""
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
