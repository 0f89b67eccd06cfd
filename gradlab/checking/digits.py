"""How many digits a gradient has left, and whether the lost ones could have been kept."""

from typing import NamedTuple

import numpy as np

from gradlab.checking.evidence import Evidence
from gradlab.checking.laws.entries import entry_name
from gradlab.checking.steps import truth
from gradlab.checking.widen import widen
from gradlab.checking.witness import Verdicts
from gradlab.references import (
    LEAST_DIGITS,
    digits_left,
    full_digits,
    known,
    unit_roundoff,
    zero_to_rounding,
)
from gradlab.report import Digits, ReasonCount

_FLOAT32 = unit_roundoff("float32")  # compilers compute in float32 what has fewer digits


class Left(NamedTuple):
    """The digits of one gradient, how many of its entries are zero, and where digits are lost."""

    digits: Digits
    zeros: int
    reasons: tuple[ReasonCount, ...]


def count_digits(evidence: Evidence, formula: Verdicts, i: int) -> Left:
    """Return how many digits are left of one gradient, as it came in its own dtype.

    A lost entry is avoidable if autodiff of the reference keeps a digit more there in the same
    dtype, or if it is not finite where it should be. A wrong formula is not asked.
    """
    target, k = evidence.subject.targets[i], evidence.outputs + i
    right = truth(evidence, formula, i)
    own = known(evidence.own(k, evidence.draws).scatter)
    if evidence.has_reference:
        own = np.fmax(own, known(evidence.expected("accuracy", i).scatter))
    came = widen(evidence.gradients(evidence.actual)[i])
    left = digits_left(came, right, own, target.dtype)
    steps = evidence.stepwise("rule") if unit_roundoff(target.dtype) <= _FLOAT32 else None
    if steps is not None:  # XLA may compile a cancellation away, which is there as it is written
        left = np.minimum(left, digits_left(widen(steps[k]), right, own, target.dtype))
    lost = left < LEAST_DIGITS
    autodiff = avoidable = None
    if lost.any() and not formula[i].wrong.any():
        peer = left
        if evidence.has_reference:
            peer = digits_left(widen(evidence.peers[k]), right, own, target.dtype)
            steps = None if steps is None else evidence.stepwise("reference")
            if steps is not None:
                peer = np.minimum(peer, digits_left(widen(steps[k]), right, own, target.dtype))
        autodiff = float(np.nanmin(peer)) if evidence.has_reference or evidence.has_rule else None
        avoidable = lost & ((peer >= left + 1) | (~np.isfinite(came) & np.isfinite(right.value)))
    is_known = ~np.isnan(left)
    at = np.unravel_index(int(np.nanargmin(left)), left.shape) if is_known.any() else ()
    index = tuple(map(int, at))
    digits = Digits(
        least=float(left[index]) if is_known.any() else float("nan"),
        median=float(np.nanmedian(left)) if is_known.any() else float("nan"),
        full=full_digits(target.dtype),
        lost=int(lost.sum()),
        avoidable=0 if avoidable is None else int(avoidable.sum()),
        unknown=int(left.size - is_known.sum()),
        total=int(left.size),
        at=index,
        autodiff_least=autodiff,
        dtype=str(target.dtype),
    )
    zeros = int(np.sum(zero_to_rounding(right)))
    return Left(digits, zeros, _reasons(evidence, target.path, digits))


def _reasons(evidence: Evidence, path: str, digits: Digits) -> tuple[ReasonCount, ...]:
    if not digits.lost:
        return ()
    value = widen(evidence.values[path])[digits.at]
    place = f"{entry_name(path, digits.at)} = {value:.6g}"
    return (ReasonCount("digits lost", f"loses digits at {place}", digits.lost),)
