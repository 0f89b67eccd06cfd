"""Numbers that are known between two bounds: floats that a program writes down, and places.

XLA may round floats that it computes, in any order and fused at will. The bounds are wide enough
for all that. Integers are exact as long as they are small. What the bounds leave no choice is
known: a floor, a comparison, the zeros of a resampling kernel.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.primitives import lookup
from gradlab.primitives.known import Known
from gradlab.primitives.rounding import Exact, SumOf
from gradlab.tracing.jaxprs import view
from gradlab.tracing.numeric import evaluate

Bounds = tuple[Array, Array]

_ENTRIES = 1 << 18
_LARGEST = 1 << 20  # integers whose products do not overflow here
_UNITS = 32.0
"""How many units an operation may round by; a sum of more terms, by one unit for each."""


def between(equation: Any, operands: Sequence[Array | Bounds | None]) -> tuple[Known] | None:
    """Return the one result of an equation, known or between bounds; None where nothing tells.

    A primitive that is monotone in each operand has its extremes at the corners of their bounds.

    Args:
        equation: of a jaxpr.
        operands: values, or bounds of them.
    """
    if len(equation.outvars) != 1:
        return None
    name, [out] = equation.primitive.name, equation.outvars
    record = lookup(name)
    moved = record.moves is not None and name != "select_n"
    sides = [each if isinstance(each, tuple) else (each,) for each in operands if each is not None]
    if len(sides) < len(operands):
        return None
    if name in ("eq", "ne") and ((sides[0][0] > sides[1][-1]) | (sides[0][-1] < sides[1][0])).all():
        return (Known(array=np.full(out.aval.shape, name == "ne")),)
    if not (moved or record.extremes) or (name == "convert_element_type" and _is_flag(out)):
        return None
    if any(a.size > _ENTRIES or a.dtype.kind not in "biuf" for side in sides for a in side):
        return None
    if out.aval.size > _ENTRIES or (name == "div" and not _one_sign(sides[1])):
        return None
    moves = range(len(sides))[record.moves] if record.moves else range(0)
    if moved and any(len(side) > 1 for k, side in enumerate(sides) if k not in moves):
        return None  # nothing tells where entries go
    even = name in ("abs", "square")
    if name == "integer_pow":
        exponent = equation.params["y"]
        if exponent < 0 or (out.aval.dtype.kind != "f" and exponent > 3):
            return None
        even = exponent % 2 == 0
    if not all(_fits(a, out.aval.dtype) for side in sides for a in side):
        return None
    corners = _together(sides) if moved else list(itertools.product(*sides))
    with np.errstate(all="ignore"):
        found = [evaluate(equation, [_wide(a) for a in corner]) for corner in corners]
        made = [np.asarray(each[0]) for each in found if each is not None]
        if len(made) < len(corners) or out.aval.dtype.kind not in "biuf":
            return None
        low, high = np.minimum.reduce(made), np.maximum.reduce(made)
        if even and len(sides[0]) == 2:
            low = np.where((sides[0][0] < 0) & (sides[0][1] > 0), 0, low)
        if out.aval.dtype.kind != "f":
            return _whole(low, high, out.aval.dtype)
        if not (moved or isinstance(record.rounds, Exact)):
            sizes = [np.maximum(abs(_wide(side[0])), abs(_wide(side[-1]))) for side in sides]
            size, units = np.maximum(abs(low), abs(high)), _UNITS
            if record.extremes == "sum":
                size = sizes[0] + sizes[1] if len(sizes) == 2 else sizes[0].sum()
            if isinstance(record.rounds, SumOf):
                units = max(units, record.rounds.terms(view(equation)))
            limits: Any = jnp.finfo(out.aval.dtype)  # type: ignore[no-untyped-call]  # it has no types
            spread = np.where(size > 0, units * float(limits.eps) * size + float(limits.tiny), 0.0)
            low, high = low - spread, high + spread
    finite = np.isfinite(low).all() and np.isfinite(high).all()
    return (Known(between=(low, high)),) if finite else None


def _whole(low: Array, high: Array, dtype: Any) -> tuple[Known] | None:
    if np.array_equal(low, high):
        return (Known(array=low.astype(dtype)),)
    if dtype.kind == "b" or low.min() < np.iinfo(dtype).min or high.max() > np.iinfo(dtype).max:
        return None
    return (Known(between=(low, high)),)


def _fits(array: Array, dtype: Any) -> bool:
    """Whether a cast keeps these numbers; integers must also be small, on either side of it."""
    whole = dtype.kind in "iu"
    if not array.size or array.dtype.kind == "b" or not (whole or array.dtype.kind in "iu"):
        return True
    low, high = -_LARGEST, _LARGEST
    if whole:
        low, high = max(low, np.iinfo(dtype).min), min(high, np.iinfo(dtype).max)
    return bool(low <= array.min() and array.max() <= high)


def _is_flag(variable: Any) -> bool:
    return bool(variable.aval.dtype.kind == "b")


def _one_sign(side: Sequence[Array]) -> bool:
    return bool((side[0] > 0).all() or (side[-1] < 0).all())


def _together(sides: Sequence[Sequence[Array]]) -> list[tuple[Array, ...]]:
    return [tuple(side[0] for side in sides), tuple(side[-1] for side in sides)]


def _wide(array: Array) -> Array:
    wide = {"f": np.float64, "i": np.int64, "u": np.int64}
    return array.astype(wide.get(array.dtype.kind, array.dtype))
