"""An array with its rounding scatter, and how the scatter is measured."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.tracing.leaves import is_inexact

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


def hypot(a: Array, b: Array) -> Any:
    """Return what `np.hypot` does, several times sooner where no square overflows or vanishes."""
    root = np.asarray(np.sqrt(a * a + b * b))
    safe = (root > 1e-140) & (root < 1e150)
    return root if safe.all() else np.hypot(a, b, out=root, where=~safe)


DRAWS = (12, 120)
"""How many times rounding is drawn for an estimate; then, where a verdict of wrong is close."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One array in float64 and, entry by entry, how far rounding may move it.

    `scatter` is the root mean square of the draws' deviations; infinite where a draw is not finite
    though the value is.
    """

    value: Array
    scatter: Array


def known(scatter: Array) -> Array:
    """Return a scatter with 0 where it is not finite, and so explains nothing."""
    finite = np.isfinite(scatter)
    return scatter if finite.all() else np.where(finite, scatter, 0.0)


def deviation(draw: Callable[[], Sequence[Any]], values: Sequence[Array], draws: int) -> list[Any]:
    """Return the root mean square deviation of drawn arrays from their values."""
    totals: list[Any] = [np.zeros(np.shape(value)) for value in values]
    with np.errstate(all="ignore"):
        for _ in range(draws):
            for i, array in enumerate(draw()):
                off = np.abs(np.asarray(array) - np.asarray(values[i]))
                totals[i] = hypot(totals[i], off)
        return [total / np.sqrt(draws) for total in totals]


def estimate(value: Array, deviations: Sequence[Array], scales: Sequence[float]) -> Estimate:
    """Return an estimate from deviations, each drawn at `scale` times the real rounding."""
    with np.errstate(all="ignore"):
        parts = [_divided(np.asarray(d), scale) for d, scale in zip(deviations, scales)]
        total = parts[0] if len(parts) == 1 else hypot(*parts)
        if np.isnan(total).any():
            total = np.where(np.isnan(total), np.inf, total)
        return Estimate(np.asarray(value), total)


def _divided(array: Array, scale: float) -> Array:
    return array if scale == 1.0 else array / scale


def numpy_estimate(
    function: Callable[..., Sequence[Any]], inputs: Sequence[Array], draws: int = 8, seed: int = 0
) -> list[Estimate]:
    """Return a function's results, and their scatter at inputs a unit or two away.

    Integer inputs and exact zeros are not moved.
    """
    generator = np.random.default_rng(seed)
    values = [_wide(array) for array in function(*map(np.array, inputs))]
    spreads = [np.zeros(value.shape) for value in values]
    with np.errstate(all="ignore"):
        for _ in range(draws):
            results = function(*(_moved(np.asarray(array), generator) for array in inputs))
            for spread, result, value in zip(spreads, results, values):
                off = np.abs(_wide(result) - value) / np.sqrt(draws)
                spread[...] = hypot(spread, off)
        return [
            Estimate(value, np.where(np.isnan(spread), np.inf, spread))
            for value, spread in zip(values, spreads)
        ]


def _moved(array: Array, generator: np.random.Generator) -> Array:
    if not is_inexact(array.dtype):
        return array.copy()
    if np.iscomplexobj(array):
        parts = _moved(array.real, generator), _moved(array.imag, generator)
        return (parts[0] + 1j * parts[1]).astype(array.dtype)
    target = generator.choice(np.array([-np.inf, np.inf]), array.shape).astype(array.dtype)
    once = np.nextafter(array, target)
    moved = np.where(generator.random(array.shape) < 0.5, once, np.nextafter(once, target))
    return np.where(array == 0, array, moved)


def _wide(array: Array) -> Array:
    array = np.asarray(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
