"""How many correct decimal digits each entry of a gradient has left in its own dtype.

A formula may be right and its numbers still be worthless: a NaN in float16, a sum that stalls in
bfloat16, a difference that cancels. Digits are counted against the lifted reference, entry by
entry, and nothing is tolerated: half a digit is an error of 32 %.
"""

from typing import Any

import numpy as np

from gradlab.common.arrays import DTypeLike
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references.blocking import blocks
from gradlab.references.estimates import Estimate, known
from gradlab.references.precision import largest, smallest_normal, unit_roundoff
from gradlab.references.verdict import LIMIT, LOST

LEAST_DIGITS = 0.5
"""An entry with fewer digits is lost: it is off by 32 % or more."""

_UNCERTAIN = 1e-2  # of the reference, which may scatter so far and still count digits


def full_digits(dtype: DTypeLike) -> float:
    """Return how many decimal digits a dtype holds."""
    return float(-np.log10(unit_roundoff(dtype)))


def zero_to_rounding(truth: Estimate) -> Array:
    """Return where a reference is zero, or cannot be told from zero: the terms in it cancel."""
    size = np.abs(truth.value)
    return np.asarray((size == 0) | (np.isfinite(size) & (size <= LIMIT * known(truth.scatter))))


def digits_left(actual: Any, truth: Estimate, rounding: Array, dtype: DTypeLike) -> Array:
    """Return the correct digits of each entry: 0 to `full_digits(dtype)`, NaN where not known.

    `truth` is the lifted reference; `rounding` is how far the dtype moves the terms of each entry.
    """
    came, value = np.ravel(actual), np.ravel(truth.value)
    scatter, moves = np.ravel(truth.scatter), np.ravel(rounding)
    found = np.zeros(value.size)
    for row in blocks(value.size):
        found[row] = _digits(came[row], Estimate(value[row], scatter[row]), moves[row], dtype)
    return found.reshape(np.shape(truth.value))


def _digits(came: Array, truth: Estimate, rounding: Array, dtype: DTypeLike) -> Array:
    full = full_digits(dtype)
    came = came.astype(np.complex128 if np.iscomplexobj(came) else np.float64)
    double = unit_roundoff(dtype) == unit_roundoff("float64")
    smallest = LOST if double else smallest_normal(dtype)
    value, size = truth.value, np.abs(truth.value)
    zero = zero_to_rounding(truth)
    with np.errstate(all="ignore"):
        relative = np.abs(came - value) / np.maximum(size, smallest)
        digits = np.clip(-np.log10(relative), 0.0, full) + 0.0  # no -0.0
        within = np.abs(came) <= LIMIT * np.maximum(known(rounding), smallest)
        beyond = size > largest(dtype)
        infinite = np.isinf(came) & (np.iscomplexobj(came) | (np.sign(came) == np.sign(value)))
        uncertain = ~zero & np.isfinite(size) & ~(truth.scatter <= _UNCERTAIN * size)
    digits = np.where(np.isfinite(came), digits, 0.0)
    digits = np.where(beyond & infinite, full, digits)
    digits = np.where(zero, np.where(within, full, 0.0), digits)
    return np.asarray(np.where(np.isnan(size) | uncertain, np.nan, digits))
