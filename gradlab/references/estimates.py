"""An array with its rounding scatter, and how the scatter is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["DRAWS", "Estimate", "estimate", "mean_square"]

Array: TypeAlias = np.ndarray[Any, Any]

DRAWS = 12
"""How many times rounding is drawn for an estimate."""

_LARGE = 1 << 20  # entries from which on compiling the sum pays


@dataclass(frozen=True, eq=False)
class Estimate:
    """One array in float64 and, entry by entry, how far rounding may move it.

    `scatter` is the root mean square of the draws' deviations; infinite where a draw is not finite
    though the value is.
    """

    value: Array
    scatter: Array


def mean_square(draw: Callable[[], Sequence[Any]], values: Sequence[Any], draws: int) -> list[Any]:
    """Return the mean square deviation of drawn arrays from their values."""
    totals: list[Any] = [np.zeros(np.shape(value)) for value in values]
    with np.errstate(all="ignore"):
        for _ in range(draws):
            for i, array in enumerate(draw()):
                totals[i] = _add_square(totals[i], array, values[i])
        return [np.asarray(total) / draws for total in totals]


def estimate(value: Any, squares: Sequence[Array], scales: Sequence[float]) -> Estimate:
    """Return an estimate from mean squares, each drawn at `scale` times the real rounding."""
    with np.errstate(all="ignore"):
        total = np.asarray(sum(s / scale**2 for s, scale in zip(squares, scales)))
        return Estimate(np.asarray(value), np.where(np.isnan(total), np.inf, np.sqrt(total)))


def _add_square(total: Any, array: Any, value: Any) -> Any:
    if np.size(value) > _LARGE:
        return _fused(total, array, value)
    difference = np.abs(np.asarray(array) - np.asarray(value))
    return total + difference * difference


@jax.jit
def _fused(total: Any, array: Any, value: Any) -> Any:
    difference = jnp.abs(array - value)
    return total + difference * difference
