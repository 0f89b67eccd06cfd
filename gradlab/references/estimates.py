"""An array with its rounding scatter, and how the scatter is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gradlab.common.arrays import NumPyArray

Array: TypeAlias = NumPyArray

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
                totals[i] = np.hypot(totals[i], off)  # squares may overflow
        return [total / np.sqrt(draws) for total in totals]


def estimate(value: Array, deviations: Sequence[Array], scales: Sequence[float]) -> Estimate:
    """Return an estimate from deviations, each drawn at `scale` times the real rounding."""
    with np.errstate(all="ignore"):
        parts = [_divided(np.asarray(d), scale) for d, scale in zip(deviations, scales)]
        total = parts[0] if len(parts) == 1 else np.hypot(*parts)
        if np.isnan(total).any():
            total = np.where(np.isnan(total), np.inf, total)
        return Estimate(np.asarray(value), total)


def _divided(array: Array, scale: float) -> Array:
    return array if scale == 1.0 else array / scale
