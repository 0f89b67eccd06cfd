"""Large arrays, a block at a time: what is computed on the way stays in the processor's cache."""

import math
from collections.abc import Iterator

import numpy as np

from gradlab.common.arrays import Array

_BLOCK = 1 << 16


def blocks(size: int) -> Iterator[slice]:
    """Yield slices that cover a flat array of `size` entries."""
    for start in range(0, size, _BLOCK):
        yield slice(start, min(start + _BLOCK, size))


def inner(a: Array, b: Array) -> float:
    """Return Re sum(a b), without conjugation."""
    a, b = np.ravel(a), np.ravel(b)
    return math.fsum(float(np.sum(np.real(a[row] * b[row]))) for row in blocks(a.size))


def norm(a: Array, b: Array) -> float:
    """Return the root of sum(|a b| ** 2), whose squares may neither overflow nor vanish."""
    a, b = np.ravel(a), np.ravel(b)
    return float(np.hypot.reduce([_norm(a[row] * b[row]) for row in blocks(a.size)], initial=0.0))


def _norm(array: Array) -> float:
    sizes = np.abs(array)
    largest = float(np.max(sizes, initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.sum((sizes / largest) ** 2)))
