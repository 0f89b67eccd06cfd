"""Floats that are written into a program, known between two bounds.

XLA may round what it computes, in any order and fused at will. The bounds are wide enough for all
that. What they leave no choice is known: a floor, a comparison, the zeros of a resampling kernel.
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
    corners = _together(sides) if moved else list(itertools.product(*sides))
    with np.errstate(all="ignore"):
        found = [evaluate(equation, [_wide(a) for a in corner]) for corner in corners]
        made = [np.asarray(each[0]) for each in found if each is not None]
        if len(made) < len(corners) or out.aval.dtype.kind not in "biuf":
            return None
        if out.aval.dtype.kind != "f":
            same = all(np.array_equal(made[0], each) for each in made)
            return (Known(array=made[0].astype(out.aval.dtype)),) if same else None
        low, high = np.minimum.reduce(made), np.maximum.reduce(made)
        if name in ("abs", "square") and len(sides[0]) == 2:
            low = np.where((sides[0][0] < 0) & (sides[0][1] > 0), 0.0, low)
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


def _is_flag(variable: Any) -> bool:
    return bool(variable.aval.dtype.kind == "b")


def _one_sign(side: Sequence[Array]) -> bool:
    return bool((side[0] > 0).all() or (side[-1] < 0).all())


def _together(sides: Sequence[Sequence[Array]]) -> list[tuple[Array, ...]]:
    return [tuple(side[0] for side in sides), tuple(side[-1] for side in sides)]


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
