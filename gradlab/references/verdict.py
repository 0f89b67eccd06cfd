"""The verdict on a gradient, entry by entry, in units of the error that rounding explains.

No tolerance is set anywhere. The floor of an entry comes from the entry's own rounding, and the
limit on the number of floors from a trial over operations, dtypes, scales and wrong rules: correct
rules stay far below it, wrong ones far above.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from gradlab.references.blocking import blocks
from gradlab.references.estimates import Estimate, known
from gradlab.references.precision import largest, smallest_normal, unit_roundoff

__all__ = ["LIMIT", "LOST", "WARN", "Verdict", "floor", "judge"]

Array: TypeAlias = np.ndarray[Any, Any]

LIMIT = 8.0
"""Floors by which a correct gradient may be off.

In the trial (tests/benchmarks/bench_floors.py: 72 operations, four dtypes, scales 1e-3 to 1e3,
mixed, saturated and offset inputs) the worst of 7,200 correct leaves was at 3.9 floors, and from 4
to 32 the share of wrong leaves that are caught moves from 97.7 % to 96.6 %; the rest is
inconclusive.
"""

_MASKS = ("right", "wrong", "inconclusive")
_DOUBLE = unit_roundoff("float64")
LOST = 2.0**64 * smallest_normal("float64") ** 0.5
"""Below it a gradient in float64 may be wrong on either side: 1 / (1 + exp(-x)) ** 2 overflows on
the way to it, and its square underflows."""

WARN = 100.0
"""How many times the reference's scatter a rule's own may reach before it is called unstable."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is known of each entry; `right`, `wrong` and `inconclusive` are disjoint and complete.

    Attributes:
        error: distance from the reference, in floors, in float32.
        resolution: the smallest relative error that would have been seen, in float32.
        instability: the rule's scatter in units of the reference's, in float32.
    """

    right: Array
    wrong: Array
    inconclusive: Array
    error: Array
    resolution: Array
    instability: Array

    @property
    def ok(self) -> bool:
        """Whether no entry is wrong."""
        return not self.wrong.any()

    @property
    def worst(self) -> tuple[int, ...] | None:
        """The index of the largest error, or None where there is no entry."""
        if not self.error.size:
            return None
        flat = int(np.argmax(np.where(self.inconclusive, -1.0, np.nan_to_num(self.error))))
        return tuple(int(i) for i in np.unravel_index(flat, self.error.shape))

    def excused_by(self, peer: "Verdict") -> "Verdict":
        """Return this verdict with entries at which `peer` fails too made inconclusive.

        For a rule that is right in float64, `peer` judges plain autodiff run in the same dtype.
        Where both fail (float16 overflows inside), the dtype is to blame and not the rule.
        """
        shared = self.wrong & ~(peer.error <= LIMIT)
        return replace(self, wrong=self.wrong & ~shared, inconclusive=self.inconclusive | shared)

    @property
    def unstable(self) -> Array:
        """Entries at which the rule loses digits that the reference keeps."""
        return self.instability > WARN

    @property
    def lost_digits(self) -> float:
        """How many decimal digits the rule loses at worst, against the reference."""
        worst = float(np.max(self.instability, initial=1.0))
        return float(np.log10(worst)) if np.isfinite(worst) else np.inf


def floor(reference: Estimate, rule: Estimate | None, unit: float, smallest_normal: float) -> Array:
    """Return the error that rounding alone explains, entry by entry.

    It is the largest of the rounding of the result itself, the reference's scatter, the rule's
    scatter and the smallest normal number. A scatter that is not finite explains nothing.
    """
    base: Array = np.maximum(unit * np.abs(reference.value), smallest_normal)
    for estimate in (reference, rule):
        if estimate is not None:
            base = np.maximum(base, known(estimate.scatter))
    return base


def judge(
    actual: Any,
    reference: Estimate,
    rule: Estimate | None,
    dtype: Any,
    limit: float = LIMIT,
) -> Verdict:
    """Judge each entry of a gradient against a reference.

    An entry is wrong where it is more than `limit` floors off, or not finite though the reference
    is and the dtype could hold it (inconclusive if the rule, finite in float64, overflows here).
    Otherwise it is right if the floors are fine enough to tell: 0, -q and 2q in its place would
    each have been called wrong. A reference that is exactly zero and does not scatter is always
    fine enough.

    Args:
        actual: the gradient, any dtype.
        reference: what it should be.
        rule: its own estimate, or None where nothing is known of its rounding.
        dtype: the dtype of the gradient, whose rounding counts.
        limit: in floors.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> q = Estimate(np.array([1.0, 1.0, 0.0]), np.full(3, 1e-16))
        >>> judge(np.array([1.0, 1.001, 0.0]), q, None, np.float64).wrong
        array([False,  True, False])
    """
    value = np.asarray(actual)
    if value.shape != reference.value.shape:
        raise ValueError(f"judge: gradient of shape {value.shape}, not {reference.value.shape}")
    rows = list(blocks(value.size))
    if len(rows) <= 1:
        return _judge(value, reference, rule, dtype, limit)
    flat = value.ravel()
    joined: dict[str, Array] = {}
    for each in fields(Verdict):
        kind = np.bool_ if each.name in _MASKS else np.float32
        joined[each.name] = np.zeros(flat.size, kind)
    for row in rows:
        own = None if rule is None else _part(rule, row)
        part = _judge(flat[row], _part(reference, row), own, dtype, limit)
        for name, array in joined.items():
            found = getattr(part, name)
            if name not in _MASKS or found.any():  # untouched zeros take no memory
                array[row] = found
    return Verdict(**{name: array.reshape(value.shape) for name, array in joined.items()})


def _judge(
    value: Array, reference: Estimate, rule: Estimate | None, dtype: Any, limit: float
) -> Verdict:
    value = value.astype(np.complex128 if np.iscomplexobj(value) else np.float64, copy=False)
    unit = unit_roundoff(dtype)
    smallest = LOST if unit == _DOUBLE else smallest_normal(dtype)
    size = np.abs(reference.value)
    kept = floor(reference, None, unit, smallest)
    base = kept if rule is None else np.maximum(kept, known(rule.scatter))
    with np.errstate(all="ignore"):
        off, told = np.abs(value - reference.value), limit * base
        error = off / base
        instability = (0.0 if rule is None else rule.scatter) / kept
        clear = (off <= told) & (told < size)
        if clear.all():  # as most are: everything is finite, and nothing else to be asked
            none = (np.zeros(size.shape, bool) for _ in ("wrong", "inconclusive"))
            return Verdict(clear, *none, *map(_roughly, (error, told / size, instability)))
        sure, finite = np.isfinite(size) & np.isfinite(base), np.isfinite(value)
        broken = sure & ~finite & (size <= largest(dtype))
        error = np.where(broken, np.inf, error) if broken.any() else error
        wrong = broken | (sure & finite & (error > limit))
        if rule is not None and unit > _DOUBLE and wrong.any():
            wrong &= ~(np.isfinite(rule.value) & ~np.isfinite(rule.scatter))
        zero = (size == 0) & (base <= smallest)
        right = sure & finite & (error <= limit) & (zero | (size > told))
        resolution = np.where(zero, 0.0, told / size)
    return Verdict(
        right=right,
        wrong=wrong,
        inconclusive=~(right | wrong),
        error=_roughly(error),
        resolution=_roughly(resolution),
        instability=_roughly(instability),
    )


def _roughly(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32)


def _part(estimate: Estimate, row: slice) -> Estimate:
    return Estimate(estimate.value.ravel()[row], estimate.scatter.ravel()[row])
