"""The rounding scatter of functions that JAX cannot trace: they are run a unit away."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlab.common.arrays import Array
from gradlab.references.estimates import Estimate
from gradlab.tracing.leaves import is_inexact


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
                spread[...] = np.hypot(spread, off)
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
