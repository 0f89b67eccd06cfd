"""Index arrays in pieces: runs of even steps along digits of the index.

A flattened grid, shifted along an axis and wrapped around, is no even sequence. Its index is, along
each digit: row and column of the place that is read are those of the place that reads, shifted, but
for the last. So an array of ten million indices becomes a few zones.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]

_RUNS = 4
"""How many runs of even steps one digit may fall into."""

_MOST = 32
"""How many pieces are worth it."""


class Run(NamedTuple):
    """Places from `first` on, so many; what is read there: `start`, and so on by `step`."""

    first: int
    length: int
    start: int
    step: int


class Digit(NamedTuple):
    """A digit of the places that read, and what it adds to the index that is read."""

    size: int
    runs: tuple[Run, ...]


Piece: TypeAlias = tuple[Run, ...]
"""One run along each digit; the index that is read is the sum of theirs."""


def pieces(indices: Indices) -> tuple[tuple[int, ...], list[Piece]] | None:
    """Return the sizes of the digits and the pieces of an index array, where they are few."""
    digits = _digits(indices)
    if digits is None or prod(len(digit.runs) for digit in digits) > _MOST:
        return None
    return tuple(d.size for d in digits), list(product(*(digit.runs for digit in digits)))


def _digits(indices: Indices) -> list[Digit] | None:
    """Read an array as a sum over digits: the last one first, what remains as an array again."""
    found: list[Digit] = []
    while (runs := _runs(indices)) is None:
        inner = _inner(indices)
        if inner is None:
            return None
        size, runs = inner
        found.insert(0, Digit(size, runs))
        indices = indices[::size]
    return [Digit(len(indices), runs), *found]


def _inner(indices: Indices) -> tuple[int, tuple[Run, ...]] | None:
    """Return the smallest digit along which all parts of the array step alike, and how."""
    for size in _divisors(len(indices)):
        parts = indices.reshape(-1, size)
        steps = parts[0] - parts[0, 0]
        if not (parts[-1] - parts[-1, 0] == steps).all():
            continue
        if (parts - parts[:, :1] == steps).all() and (runs := _runs(steps)) is not None:
            return size, runs
    return None


def _divisors(n: int) -> Iterator[int]:
    small = [d for d in range(2, int(n**0.5) + 1) if n % d == 0]
    yield from sorted({*small, *(n // d for d in small)})


def _runs(indices: Indices) -> tuple[Run, ...] | None:
    """Return the runs of even steps, or None where they are many."""
    if len(indices) == 1:
        return (Run(0, 1, int(indices[0]), 0),)
    steps = np.diff(indices)
    turns = np.flatnonzero(np.diff(steps)) + 1
    if len(turns) > 2 * _RUNS:
        return None
    edges = [0, *turns.tolist(), len(steps)]  # stretches of equal steps
    found: list[Run] = []
    place = 0
    for low, high in pairwise(edges):
        last = high  # the place after the stretch's last step
        if high - low > 1 or len(edges) == 2:
            first = max(low, place)
            found += [Run(k, 1, int(indices[k]), 0) for k in range(place, first)]
            if last >= first:
                step = int(steps[low])
                found.append(Run(first, last - first + 1, int(indices[first]), step))
            place = last + 1
    found += [Run(k, 1, int(indices[k]), 0) for k in range(place, len(indices))]
    return tuple(found) if len(found) <= _RUNS else None
