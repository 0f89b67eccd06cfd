"""An array with its rounding scatter, and how the scatter is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["DRAWS", "Estimate", "deviation", "estimate"]

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


def deviation(draw: Callable[[], Sequence[Any]], values: Sequence[Any], draws: int) -> list[Any]:
    """Return the root mean square deviation of drawn arrays from their values."""
    totals: list[Any] = [np.zeros(np.shape(value)) for value in values]
    with np.errstate(all="ignore"):
        for _ in range(draws):
            for i, array in enumerate(draw()):
                totals[i] = _joined(totals[i], array, values[i])
        return [np.asarray(total) / np.sqrt(draws) for total in totals]


def estimate(value: Any, deviations: Sequence[Array], scales: Sequence[float]) -> Estimate:
    """Return an estimate from deviations, each drawn at `scale` times the real rounding."""
    with np.errstate(all="ignore"):
        parts = [np.asarray(part) / scale for part, scale in zip(deviations, scales)]
        total = parts[0] if len(parts) == 1 else np.hypot(*parts)
        return Estimate(np.asarray(value), np.where(np.isnan(total), np.inf, total))


def _joined(total: Any, array: Any, value: Any) -> Any:
    if np.size(value) > _LARGE:
        return _fused(total, array, value)
    return np.hypot(total, np.abs(np.asarray(array) - np.asarray(value)))  # squares may overflow


@jax.jit
def _fused(total: Any, array: Any, value: Any) -> Any:
    return jnp.sqrt(total * total + jnp.abs(array - value) ** 2)
