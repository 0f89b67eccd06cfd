"""Pictures of patterns in braille, at any size.

Entries are gathered into bins by composing with two small patterns, one that gathers the rows and
one that gathers the columns, so that the picture of 10^14 entries costs what that of ten costs, and
every dot says exactly whether its bin holds an entry. Bins follow the axes: leading ones stay, the
one that exceeds the picture is cut into equal runs, and those after it lie within a dot.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gradlab.patterns import maps
from gradlab.patterns.pattern import Pattern

__all__ = ["bins", "draw", "occupied"]

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot of a braille character: four rows of two."""


def bins(shape: Sequence[int], most: int) -> Pattern:
    """Return the pattern that gathers the entries of an array into at most so many bins."""
    kept = 1
    parts = []
    for k, n in enumerate(shape):
        if kept * n > most:
            run = -(-n // max(most // kept, 1))
            count = -(-n // run)
            padded = maps.pad((n,), (0,), (count * run - n,))
            split = maps.reduce((count, run), (1,)) @ maps.reshape((count * run,), (count, run))
            rest = tuple(shape[k + 1 :])
            parts += [split @ padded, maps.reduce(rest, tuple(range(len(rest))))]
            break
        kept *= n
        parts.append(maps.reshape((n,), (n,)))
    return maps.product(*parts) if parts else maps.reshape((), ())


def occupied(pattern: Pattern, rows: int, columns: int) -> Any:
    """Return a boolean array, at most rows x columns: which bins of the matrix hold an entry."""
    gathered = bins(pattern.output_shape, rows) @ pattern @ bins(pattern.input_shape, columns).T
    return gathered.to_dense()


def draw(pattern: Pattern, rows: int = 20, columns: int = 40) -> str:
    """Return the picture as lines of braille characters, four by two dots each."""
    if not prod(pattern.shape):
        return ""
    dots = occupied(pattern, 4 * rows, 2 * columns)
    height, width = -(-dots.shape[0] // 4), -(-dots.shape[1] // 2)
    padded = np.zeros((4 * height, 2 * width), np.bool_)
    padded[: dots.shape[0], : dots.shape[1]] = dots
    cells = padded.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
    codes = 0x2800 + (cells * _DOTS).sum(axis=(2, 3))
    return "\n".join("".join(map(chr, line)) for line in codes.tolist())
