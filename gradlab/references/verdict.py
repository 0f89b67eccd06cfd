"""The verdict on a gradient, entry by entry, in units of the error that rounding explains.

No tolerance is set anywhere. The floor of an entry comes from the entry's own rounding, and the
limit on the number of floors from a trial over operations, dtypes, scales and wrong rules: correct
rules stay far below it, wrong ones far above.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Any, Literal

import numpy as np

from gradlab.common.arrays import DTypeLike
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references.estimates import Estimate, blocks, known
from gradlab.references.precision import largest, smallest_normal, unit_roundoff
from gradlab.report import Cell, ErrorMap

LIMIT = 8.0
"""Floors by which a correct gradient may be off.

In the trial (tests/benchmarks/bench_floors.py: 72 operations, four dtypes, scales 1e-3 to 1e3,
mixed, saturated and offset inputs) the worst of 7,200 correct leaves was at 3.9 floors, and from 4
to 32 the share of wrong leaves that are caught moves from 97.7 % to 96.6 %; the rest is
inconclusive.
"""

_DOUBLE = unit_roundoff("float64")
LOST = 2.0**64 * smallest_normal("float64") ** 0.5
"""Below it a gradient in float64 may be wrong on either side: 1 / (1 + exp(-x)) ** 2 overflows on
the way to it, and its square underflows."""

WARN = 100.0
"""How many times the reference's scatter a rule's own may reach before it is called unstable."""

_MANY = 1 << 20  # entries among which some are typical of all


class State(IntEnum):
    """The verdict on one entry."""

    UNDECIDED = 0
    RIGHT = 1
    WRONG = 2


class Reason(Enum):
    """What decided an entry: a code that never changes its meaning, and a sentence."""

    NOT_JUDGED = "not judged", "no law judged it"
    WITHIN_ROUNDING = "within rounding", "it differs by no more than rounding explains"
    BEYOND_ROUNDING = "beyond rounding", "it differs by more than rounding explains"
    ZERO = "zero", "it is zero, up to the rounding of the terms that cancel"
    ZERO_BY_CHANCE = "zero by chance", "both are zero here, and differ at inputs nearby"
    NOT_FINITE = "not finite", "it is not finite, although the reference is"
    REFERENCE_NOT_FINITE = "reference not finite", "the reference is not finite here"
    OUTPUT_NOT_FINITE = "output not finite", "an output that depends on it is not finite"
    TOO_COARSE = "too coarse", "rounding hides its sign and its size"
    OVERFLOWS = "overflows", "it overflows in this dtype on the way to a finite value"
    OVERFLOWS_LIKE_AUTODIFF = "overflows like autodiff", "autodiff fails in this dtype too"
    AT_A_KINK = "at a kink", "it lies between the slopes on both sides of a kink"
    BESIDE_A_KINK = "beside a kink", "no slope near this kink is as large or as small"
    NOT_TOGETHER = "impossible together", "tied entries cannot all have these values at once"
    POINTS_CONFIRM = "confirmed nearby", "inputs nearby confirm it, and refute autodiff here"
    SLOPE_CONFIRMS = "confirmed by differences", "finite differences confirm it"
    SLOPE_REFUTES = "refuted by differences", "finite differences refute it"
    NOT_ASKED = "no calls left", "the allowed calls of the forward were used up"
    SLOPE_UNKNOWN = "differences too coarse", "finite differences are too coarse to tell"
    AT_A_JUMP = "at a jump", "the function jumps here, or is not finite nearby"
    CONVERGED = "converged", "it is the slope of the loop, run on until it converges"
    NOT_CONVERGED = "not converged", "the function iterates, and its own error may be as large"
    APPROXIMATION = "approximation", "it differs by less than float32 can hold"
    RIGHT_IN_FLOAT64 = "right in float64", "it is right in float64; gradlab cannot see its rounding"
    LIFTING_CHANGES = "dtype on purpose", "in float64 the function returns something else"

    @property
    def code(self) -> str:
        """A few words that never change their meaning."""
        return self.value[0]

    @property
    def sentence(self) -> str:
        """The same as a sentence about one entry."""
        return self.value[1]

    @property
    def number(self) -> int:
        """Its place among all reasons, as verdicts store it."""
        return _NUMBERS[self]


_NUMBERS = {reason: number for number, reason in enumerate(Reason)}
_REASONS = tuple(Reason)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is known of each entry of one gradient; `settle` returns another verdict."""

    actual: Array  # the gradient that came
    expected: Array  # what it should be; NaN where that is not known
    state: Array  # a `State` for each entry
    reason: Array  # the number of a `Reason` for each entry
    error: Array  # distance from what was expected, in floors, in float32
    resolution: Array  # the smallest relative error that would have been seen, in float32
    instability: Array  # the rule's scatter in units of the reference's, in float32
    path: str = ""  # the input whose gradient it is
    dtype: str = ""  # the input's dtype
    forgiven: float = 0.0  # relative errors up to it are warned about and do not fail
    notes: tuple[str, ...] = ()  # what else should be said, such as where autodiff is wrong

    @classmethod
    def unknown(cls, actual: Array, path: str = "", dtype: str = "") -> "Verdict":
        """Return the verdict on a gradient that nothing has judged."""
        shape = np.shape(actual)
        return cls(
            actual=actual,
            expected=np.full(shape, np.nan, actual.dtype),
            state=np.zeros(shape, np.uint8),
            reason=np.zeros(shape, np.uint8),
            error=np.zeros(shape, np.float32),
            resolution=np.full(shape, np.inf, np.float32),
            instability=np.ones(shape, np.float32),
            path=path,
            dtype=dtype,
        )

    @property
    def right(self) -> Array:
        """The entries that are right."""
        return np.asarray(self.state == State.RIGHT)

    @property
    def wrong(self) -> Array:
        """The entries that are wrong."""
        return np.asarray(self.state == State.WRONG)

    @property
    def inconclusive(self) -> Array:
        """The entries that could not be judged."""
        return np.asarray(self.state == State.UNDECIDED)

    @property
    def ok(self) -> bool:
        """Whether no entry is wrong."""
        return not self.wrong.any()

    @property
    def judged(self) -> int:
        """How many entries are right or wrong."""
        return int(np.count_nonzero(self.state))

    @property
    def unstable(self) -> Array:
        """Entries at which the rule loses digits that the reference keeps."""
        unstable = np.asarray(self.instability > WARN)
        if not unstable.any():
            return unstable
        known = (self.expected != 0) & ~self.decided_by(Reason.OUTPUT_NOT_FINITE)
        return np.asarray(unstable & known)

    @property
    def worst(self) -> tuple[int, ...] | None:
        """The index of the largest error, a wrong entry if there is one; None without entries."""
        if not self.error.size:
            return None
        told = self.wrong if not self.ok else ~self.inconclusive
        error = np.where(np.isnan(self.error), np.inf, self.error)
        flat = int(np.argmax(np.where(told, error, -1.0)))
        return tuple(int(i) for i in np.unravel_index(flat, self.error.shape))

    @property
    def typical_resolution(self) -> float:
        """The smallest relative error that would have failed in a typical entry."""
        some = slice(None, None, 1 + self.state.size // _MANY)
        resolution, state = self.resolution.ravel()[some], self.state.ravel()[some]
        seen = resolution[(state == State.RIGHT) & np.isfinite(resolution)]
        return max(float(np.median(seen)), self.forgiven) if seen.size else float("inf")

    def excused_by(self, peer: "Verdict") -> "Verdict":
        """Return this verdict with entries at which `peer` fails too made undecided.

        For a rule that is right in float64, `peer` judges plain autodiff run in the same dtype.
        Where both fail (float16 overflows inside), the dtype is to blame and not the rule.
        """
        shared = self.wrong & ~(peer.error <= LIMIT)
        return self.settle(shared, State.UNDECIDED, Reason.OVERFLOWS_LIKE_AUTODIFF)

    def decided_by(self, *reasons: Reason) -> Array:
        """Return the entries that one of these reasons decided."""
        found = [self.reason == reason.number for reason in reasons]
        return np.asarray(functools.reduce(np.bitwise_or, found))

    def counts(self) -> dict[Reason, int]:
        """Return how many entries each reason decided, most entries first."""
        numbers = np.bincount(self.reason.ravel(), minlength=len(_REASONS))
        order = np.argsort(-numbers, kind="stable")
        return {_REASONS[k]: int(numbers[k]) for k in order if numbers[k]}

    def settle(
        self,
        where: Array,
        state: State,
        reason: Reason,
        *,
        notes: Sequence[str] = (),
    ) -> "Verdict":
        """Return this verdict with some entries decided otherwise, and why.

        An entry that a witness calls wrong has an infinite error: it was not measured in floors.
        """
        if not where.any():
            return self
        error = self.error
        if state == State.WRONG:
            error = np.where(where, np.float32(np.inf), error)
        return replace(
            self,
            state=np.where(where, np.uint8(state), self.state),
            reason=np.where(where, np.uint8(reason.number), self.reason),
            error=error,
            notes=(*self.notes, *notes),
        )


def error_map(verdict: Verdict) -> ErrorMap:
    """Return a gradient seen from far: at most 16 x 32 blocks, each with its worst entry."""
    shape = verdict.error.shape
    wide = shape[-1] if shape else 1
    high = verdict.error.size // wide
    height, width = -(-high // 16), -(-wide // 32)
    down, across = -(-high // height), -(-wide // width)
    ranked = np.full((down * height, across * width), -1.0, np.float32)
    error = np.nan_to_num(verdict.error.reshape(high, wide), nan=np.inf, posinf=np.inf)
    ranked[:high, :wide] = np.where(verdict.wrong.reshape(high, wide), error + LIMIT, error)
    parts = ranked.reshape(down, height, across, width).transpose(0, 2, 1, 3)
    place = parts.reshape(down, across, -1).argmax(-1)
    row = np.arange(down)[:, None] * height + place // width
    column = np.arange(across) * width + place % width
    index = np.unravel_index((row * wide + column).ravel(), shape or (1,))
    actual, expected = (a.reshape(shape or (1,))[index] for a in (verdict.actual, verdict.expected))
    with np.errstate(all="ignore"):
        off = np.abs(actual - expected)
        relative = np.where(off == 0, 0.0, off / np.abs(expected))
    state = np.asarray(verdict.state).reshape(shape or (1,))[index]
    places = zip(*(axis.tolist() for axis in index)) if shape else [()]
    cells = zip(
        places,
        actual.tolist(),
        expected.tolist(),
        relative.tolist(),
        map(_WORDS.__getitem__, state.tolist()),  # NumPy's numbers ask an enum for much
    )
    return ErrorMap(down, across, height, width, tuple(map(Cell._make, cells)))


_WORDS: dict[int, Literal["right", "wrong", "undecided"]] = {
    State.UNDECIDED: "undecided",
    State.RIGHT: "right",
    State.WRONG: "wrong",
}


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
    actual: Any, reference: Estimate, rule: Estimate | None, dtype: DTypeLike, limit: float = LIMIT
) -> Verdict:
    """Judge each entry of a gradient against a reference.

    An entry is wrong where it is more than `limit` floors off, or not finite though the reference
    is and the dtype could hold it (inconclusive if the rule, finite in float64, overflows here).
    Otherwise it is right if the floors are fine enough to tell: 0, -q and 2q in its place would
    each have been called wrong. A reference that is exactly zero and does not scatter is always
    fine enough.
    """
    value = np.asarray(actual)
    if value.shape != reference.value.shape:
        raise ValueError(f"judge: gradient of shape {value.shape}, not {reference.value.shape}")
    rows = list(blocks(value.size))
    if len(rows) <= 1:
        parts = _judge(value, reference, rule, dtype, limit)
    else:
        flat = value.ravel()
        kinds = (np.uint8, np.uint8, np.float32, np.float32, np.float32)
        joined = [np.zeros(flat.size, kind) for kind in kinds]
        for row in rows:
            own = None if rule is None else _part(rule, row)
            found = _judge(flat[row], _part(reference, row), own, dtype, limit)
            for array, part in zip(joined, found, strict=True):
                array[row] = part
        parts = tuple(array.reshape(value.shape) for array in joined)
    state, reason, error, resolution, instability = parts
    return Verdict(value, reference.value, state, reason, error, resolution, instability)


def _judge(
    value: Array, reference: Estimate, rule: Estimate | None, dtype: DTypeLike, limit: float
) -> tuple[Array, ...]:
    """Return state, reason, error, resolution and instability."""
    value = value.astype(np.complex128 if np.iscomplexobj(value) else np.float64, copy=False)
    unit = unit_roundoff(dtype)
    smallest = LOST if unit == _DOUBLE else smallest_normal(dtype)
    size = np.abs(reference.value)
    kept = floor(reference, None, unit, smallest)
    base = kept if rule is None else np.maximum(kept, known(rule.scatter))
    state = np.full(size.shape, State.RIGHT, np.uint8)
    reason = np.full(size.shape, Reason.WITHIN_ROUNDING.number, np.uint8)
    with np.errstate(all="ignore"):
        off, told = np.abs(value - reference.value), limit * base
        error = off / base
        instability = (0.0 if rule is None else rule.scatter) / kept
        clear = (off <= told) & (told < size)
        if clear.all():  # as most are: everything is finite, and nothing else to be asked
            return state, reason, *map(_roughly, (error, told / size, instability))
        sure, finite = np.isfinite(size) & np.isfinite(base), np.isfinite(value)
        broken = sure & ~finite & (size <= largest(dtype))
        error = np.where(broken, np.inf, error) if broken.any() else error
        wrong = broken | (sure & finite & (error > limit))
        overflows = np.zeros(size.shape, bool)
        if rule is not None and unit > _DOUBLE and wrong.any():
            overflows = wrong & np.isfinite(rule.value) & ~np.isfinite(rule.scatter)
            wrong &= ~overflows
        zero = (size == 0) & (base <= smallest)
        right = sure & finite & (error <= limit) & (zero | (size > told))
        resolution = np.where(zero, 0.0, told / size)
    for mask, verdict, why in (
        (~right, State.UNDECIDED, Reason.TOO_COARSE),
        (~right & ~sure, State.UNDECIDED, Reason.REFERENCE_NOT_FINITE),
        (overflows, State.UNDECIDED, Reason.OVERFLOWS),
        (wrong, State.WRONG, Reason.BEYOND_ROUNDING),
        (wrong & broken, State.WRONG, Reason.NOT_FINITE),
    ):
        state[mask], reason[mask] = verdict, why.number
    return state, reason, *map(_roughly, (error, resolution, instability))


def _roughly(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(np.float32)


def _part(estimate: Estimate, row: slice) -> Estimate:
    return Estimate(estimate.value.ravel()[row], estimate.scatter.ravel()[row])


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
