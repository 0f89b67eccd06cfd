"""Pictures of patterns in braille, at any size.

Entries are gathered into bins by composing with two small patterns, one that gathers the rows and
one that gathers the columns, so that the picture of 10^14 entries costs what that of ten costs, and
every dot says exactly whether its bin holds an entry. Bins follow the axes: leading ones stay, the
one that exceeds the picture is cut into equal runs, and those after it lie within a dot.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gradlab.patterns import maps
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.size import names_in

FEW = 8  # the number that is drawn for a size without one
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot of a braille character: four rows of two."""


def _cut(shape: Sequence[int], most: int) -> tuple[int, int]:
    """Return how many leading axes stay whole, and the length of the runs of the next one."""
    kept = 1
    for k, n in enumerate(shape):
        if kept * n > most:
            return k, -(-n // max(most // kept, 1))
        kept *= n
    return len(shape), 1


def bins(shape: Sequence[int], most: int) -> Pattern:
    """Return the pattern that gathers the entries of an array into at most so many bins."""
    k, run = _cut(shape, most)
    parts = [maps.reshape((n,), (n,)) for n in shape[:k]]
    for n in shape[k : k + 1]:
        count = -(-n // run)
        padded = maps.pad((n,), (0,), (count * run - n,))
        split = maps.reduce((count, run), (1,)) @ maps.reshape((count * run,), (count, run))
        rest = tuple(shape[k + 1 :])
        parts += [split @ padded, maps.reduce(rest, tuple(range(len(rest))))]
    return maps.product(*parts) if parts else maps.reshape((), ())


def occupied(pattern: Pattern, rows: int, columns: int) -> Any:
    """Return a boolean array, at most rows x columns: which bins of the matrix hold an entry."""
    gathered = bins(pattern.output_shape, rows) @ pattern @ bins(pattern.input_shape, columns).T
    return gathered.to_dense()


class Level(NamedTuple):
    """A part of a matrix, seen through bins of entries of one size.

    Attributes:
        rows: how many rows of the matrix it shows.
        columns: how many columns.
        height: how many rows of entries lie in a bin, the last ones perhaps fewer.
        width: how many columns.
        cells: a text for each row of bins, with a 1 where the bin may hold an entry.
        inside: the row and the column of the bin that the next level shows.
    """

    rows: int
    columns: int
    height: int
    width: int
    cells: tuple[str, ...]
    inside: tuple[int, int]


def levels(pattern: Pattern, most: int = 100, steps: int = 3) -> list[Level]:
    """Return the whole matrix, then a bin of it that holds entries, down to single entries."""
    found: list[Level] = []
    pattern = _with_numbers(pattern)
    while prod(pattern.shape) and len(found) < steps:
        cells = occupied(pattern, most, most)
        high, wide = (_length(s, most) for s in (pattern.output_shape, pattern.input_shape))
        row = len(cells) // 2 if cells[len(cells) // 2].any() else int(cells.any(1).argmax())
        column = int(cells[row].argmax())
        drawn = tuple("".join("01"[x] for x in line) for line in cells.tolist())
        found.append(Level(*pattern.shape, high, wide, drawn, (row, column)))
        if high == wide == 1 or not cells.any():
            break
        down, across = (
            _within(s, most, k)
            for s, k in ((pattern.output_shape, row), (pattern.input_shape, column))
        )
        pattern = down @ pattern @ across.T
    return found


def _with_numbers(pattern: Pattern) -> Pattern:
    """Return a pattern whose sizes have no numbers at small ones."""
    names = names_in((*pattern.output_shape, *pattern.input_shape))
    return pattern.sized(dict.fromkeys(names, FEW)) if names else pattern


def _length(shape: Sequence[int], most: int) -> int:
    """Return how many entries lie in each of at most so many bins of an array."""
    k, run = _cut(shape, most)
    return run * prod(shape[k + 1 :]) if k < len(shape) else 1


def _within(shape: Sequence[int], most: int, place: int) -> Pattern:
    """Return the pattern that takes the entries of one bin out of an array."""
    shape = tuple(shape)
    k, run = _cut(shape, most)
    low: list[int] = []
    high: list[int] = []
    sizes = [(n, 1, n) for n in shape[:k]] + [(-(-n // run), run, n) for n in shape[k : k + 1]]
    for count, run, n in reversed(sizes):
        place, at = divmod(place, count)
        low.insert(0, at * run)
        high.insert(0, min(n, at * run + run))
    rest = shape[len(sizes) :]
    start, limit = (*low, *(0 for _ in rest)), (*high, *rest)
    kept_shape = tuple(b - a for a, b in zip(start, limit))
    squeezed = tuple(n for n in kept_shape if n > 1)
    return maps.reshape(kept_shape, squeezed) @ maps.slice(shape, start, limit)


def draw(pattern: Pattern, rows: int = 20, columns: int = 40) -> str:
    """Return the picture as lines of braille characters, four by two dots each."""
    pattern = _with_numbers(pattern)
    if not prod(pattern.shape):
        return ""
    dots = occupied(pattern, 4 * rows, 2 * columns)
    height, width = -(-dots.shape[0] // 4), -(-dots.shape[1] // 2)
    padded = np.zeros((4 * height, 2 * width), np.bool_)
    padded[: dots.shape[0], : dots.shape[1]] = dots
    cells = padded.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
    codes = 0x2800 + (cells * _DOTS).sum(axis=(2, 3))
    return "\n".join("".join(map(chr, line)) for line in codes.tolist())
