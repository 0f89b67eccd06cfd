"""How an entry becomes right, wrong or undecided: a list of steps from verdicts to verdicts.

`FORMULA_STEPS` judges the mathematics, rule and reference both in float64; `ACCURACY_STEPS` judges
the rule as it runs, in its own dtype. A step is pure: it returns other verdicts, and each entry
that it decides carries the step's reason. A new step is one function and one line in a list.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.checking.by_slopes import judge_by_slopes
from gradlab.checking.evidence import Evidence, nearby
from gradlab.checking.kinks import kinks, ties
from gradlab.checking.widen import widen
from gradlab.checking.witness import Verdicts, disputes, infinities, loops, zeros
from gradlab.common.arrays import DTypeLike
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import (
    LIMIT,
    Estimate,
    Reason,
    State,
    Verdict,
    judge,
    unit_roundoff,
    zero_to_rounding,
)
from gradlab.references.precision import largest
from gradlab.tracing import repeats

_FLOAT32 = unit_roundoff("float32")
_APPROXIMATE = 2.0**6 * _FLOAT32  # slopes of polynomials fitted to float32 err more
_ROUNDED = 2 * LIMIT * _FLOAT32  # constants of a primal may be float32 numbers
_UNCONVERGED = 5e-3  # of an entry, or of a typical one: by how much loops may be unfinished
_CLOSE = 1e4  # floors; an entry further off is wrong however often rounding is drawn


Step = tuple[Callable[[Evidence], bool], Callable[[Verdicts, Evidence], Verdicts]]
"""When a step applies, and what it makes of the verdicts so far."""


def formula_verdicts(evidence: Evidence) -> Verdicts:
    """Judge the mathematics: rule and reference, both in float64. Empty where the rule refuses."""
    gradients = evidence.formula_gradients
    if gradients is None:
        return ()
    first = _by_reference if evidence.has_reference else _by_slopes
    return _settled(first(evidence, gradients), FORMULA_STEPS, evidence)


def accuracy_verdicts(evidence: Evidence, formula: Verdicts) -> Verdicts:
    """Judge the rule as it runs, in its own dtypes, against what its formula was found to be."""
    actual = evidence.gradients(evidence.actual)
    first = tuple(
        _unknown(evidence, i)
        if evidence.subject.odd[i]
        else judged_in_own_dtype(evidence, formula, i, actual[i])
        for i in range(len(evidence.subject.targets))
    )
    if any(not verdict.ok for verdict in formula):
        return first
    return _settled(first, ACCURACY_STEPS, evidence)


def _settled(verdicts: Verdicts, steps: Sequence[Step], evidence: Evidence) -> Verdicts:
    for applies, settle in steps:
        if applies(evidence):
            verdicts = settle(verdicts, evidence)
    return verdicts


def _unknown(evidence: Evidence, i: int) -> Verdict:
    """Return the verdict on a gradient whose shape is wrong: no entry can be compared."""
    target = evidence.subject.targets[i]
    return Verdict.unknown(np.full(target.shape, np.nan), target.path, str(target.dtype))


def _by_reference(evidence: Evidence, gradients: Sequence[Estimate]) -> Verdicts:
    """Judge each gradient by the reference's."""
    return tuple(
        _unknown(evidence, i) if evidence.subject.odd[i] else _compared(evidence, i, gradient)
        for i, gradient in enumerate(gradients)
    )


def _compared(evidence: Evidence, i: int, gradient: Estimate) -> Verdict:
    """Judge one gradient by the reference's, both lifted to float64."""
    target, k = evidence.subject.targets[i], evidence.outputs + i
    opaque = evidence.subject.opaque  # what is not lifted rounds as it runs

    def known(draws: int) -> tuple[Estimate, Estimate]:
        found = evidence.drawn(draws)[opaque]
        return found["reference"][k], found["rule"][k] if evidence.has_rule else gradient

    finest = target.dtype if opaque else np.float64
    verdict = _drawn(evidence, i, gradient.value, finest, known)
    if verdict.ok:
        return verdict
    with np.errstate(invalid="ignore"):  # infinite in float64 too, where the dtype has no such size
        unsure = ~np.isfinite(verdict.actual) | ~np.isfinite(known(evidence.draws)[0].scatter)
        beyond = unsure & (np.abs(verdict.expected) > largest(target.dtype))
    return verdict.settle(verdict.wrong & beyond, State.UNDECIDED, Reason.OVERFLOWS)


def judged_in_own_dtype(evidence: Evidence, formula: Verdicts, i: int, actual: Any) -> Verdict:
    """Judge one gradient in its own dtype, by what its formula was found to be."""

    def known(draws: int) -> tuple[Estimate, Estimate]:
        own = evidence.own(evidence.outputs + i, draws)
        return known_in_own_dtype(evidence, formula, i, draws), own

    decided = bool(formula) and not formula[i].ok  # wrong already: no draw changes that
    return _drawn(evidence, i, actual, evidence.subject.targets[i].dtype, known, more=not decided)


def _drawn(
    evidence: Evidence,
    i: int,
    actual: Any,
    dtype: DTypeLike,
    known: Callable[[int], tuple[Estimate, Estimate]],
    more: bool = True,
) -> Verdict:
    """Judge a gradient; a verdict of wrong that is close is not left to a few draws."""
    verdict = judge(actual, *known(evidence.draws), dtype)
    for draws in evidence.more_draws if more and evidence.has_rule else ():
        if verdict.ok or not np.any(verdict.wrong & (verdict.error < _CLOSE)):
            break
        verdict = judge(actual, *known(draws), dtype)
    target = evidence.subject.targets[i]
    return replace(verdict, path=target.path, dtype=str(target.dtype))


def known_in_own_dtype(evidence: Evidence, formula: Verdicts, i: int, draws: int) -> Estimate:
    """Return what a gradient should be; where a witness confirmed it, the rule's own formula.

    It is NaN where the formula was not judged.
    """
    verdict = formula[i] if formula else None
    if not evidence.has_reference:
        assert verdict is not None
        error = np.where(np.isfinite(verdict.resolution), verdict.resolution / LIMIT, 0.0)
        expected = np.where(verdict.wrong, verdict.expected, np.nan)
        value = np.where(verdict.right, verdict.actual, expected)
        return Estimate(value, error * np.abs(value))
    reference = evidence.drawn(draws)[1]["reference"][evidence.outputs + i]
    if verdict is None:
        return reference
    moved = verdict.right & ~verdict.decided_by(Reason.WITHIN_ROUNDING, Reason.ZERO)
    unknown = verdict.decided_by(
        Reason.NOT_CONVERGED, Reason.LIFTING_CHANGES, Reason.OUTPUT_NOT_FINITE
    )
    if not (moved.any() or unknown.any()):
        return reference
    own = evidence.own(evidence.outputs + i, draws)
    value = np.where(moved, verdict.actual, np.where(unknown, np.nan, reference.value))
    return Estimate(value, np.where(moved, own.scatter, reference.scatter))


def truth(evidence: Evidence, formula: Verdicts, i: int) -> Estimate:
    """Return what a gradient is in float64, as its formula was judged; NaN where it is unknown."""
    verdict, k = formula[i], evidence.outputs + i
    own = (evidence.formula_gradients or [])[i]
    told = verdict.right | verdict.wrong | verdict.decided_by(Reason.TOO_COARSE, Reason.OVERFLOWS)
    if not evidence.has_reference:
        value = np.where(verdict.wrong, verdict.expected, verdict.actual)
        return Estimate(np.where(told, value, np.nan), own.scatter)
    reference = evidence.drawn(evidence.draws)[evidence.subject.opaque]["reference"][k]
    moved = verdict.right & ~verdict.decided_by(Reason.WITHIN_ROUNDING, Reason.ZERO)
    value = np.where(moved, verdict.actual, verdict.expected)
    scatter = np.where(moved, own.scatter, reference.scatter)
    return Estimate(np.where(told, value, np.nan), scatter)


def _by_slopes(evidence: Evidence, gradients: Sequence[Estimate]) -> Verdicts:
    """Judge each gradient by slopes of the forward."""
    shaped = [i for i, odd in enumerate(evidence.subject.odd) if not odd]
    if evidence.subject.is_called:
        from gradlab.checking.opaque import judge_by_calls  # few forwards cannot be read

        judged = judge_by_calls(evidence, gradients, shaped)
    else:
        judged = {i: judge_by_slopes(evidence, i, gradients) for i in shaped}
    return tuple(judged.get(i) or _unknown(evidence, i) for i in range(len(gradients)))


def _lifting(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Nothing is judged where the function, lifted to float64, is another one.

    Some code uses its dtype on purpose: it rounds by adding a large number, or counts in bits.
    """
    if evidence.lifts:
        return verdicts
    return tuple(
        v.settle(np.ones(v.state.shape, bool), State.UNDECIDED, Reason.LIFTING_CHANGES)
        for v in verdicts
    )


def _chance(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Zero against zero says nothing where it is chance: such entries are judged elsewhere.

    A converged loss has a zero gradient under a wrong rule too.
    """
    zero = [v.right & ((v.expected == 0) | v.decided_by(Reason.ZERO)) for v in verdicts]
    if not any(mask.any() for mask in zero):
        return verdicts
    moved = {**evidence.values, **nearby(evidence.subject, evidence.values, evidence.seed)}
    there = evidence.at(moved, evidence.upstreams)
    gradients = evidence.gradients(there.many([{}])[0]["reference"])
    if not any((mask & (g != 0)).any() for mask, g in zip(zero, gradients)):
        return verdicts
    ours, found = there.formula_gradients, []
    for i, (verdict, mask) in enumerate(zip(verdicts, zero)):
        theirs = there.expected("formula", i)
        chance = mask & ~zero_to_rounding(theirs)
        if ours is not None and chance.any():
            chance &= ~judge(ours[i].value, theirs, ours[i], np.float64).right
        found.append(verdict.settle(chance, State.UNDECIDED, Reason.ZERO_BY_CHANCE))
    return tuple(found)


def _convergence(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """A function that iterates is right only up to its convergence, as its derivative is.

    A rule for the exact solution differs from it by as little, and finite differences see the same
    loop. So a small difference is undecided, and a large one stays wrong.
    """
    found = []
    for verdict in verdicts:
        if not verdict.ok:
            size = np.abs(verdict.expected)
            known = size[np.isfinite(size)]
            typical = float(np.sqrt(np.mean(known**2))) if known.size else 0.0
            with np.errstate(invalid="ignore"):
                off = np.abs(verdict.actual - verdict.expected)
                near = off <= _UNCONVERGED * np.fmax(size, typical)
                close = verdict.wrong & np.isfinite(off) & near
            verdict = verdict.settle(close, State.UNDECIDED, Reason.NOT_CONVERGED)
        found.append(verdict)
    return tuple(found)


def _unconverged(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Where a reference is no more exact than its loop, slopes confirm a rule as if it had none."""
    found = []
    for i, verdict in enumerate(verdicts):
        doubted = verdict.decided_by(Reason.NOT_CONVERGED)
        if doubted.any():
            told = judge_by_slopes(evidence, i, evidence.formula_gradients or ())
            coarser = np.fmax(verdict.resolution, told.resolution)
            verdict = replace(verdict, resolution=np.where(doubted, coarser, verdict.resolution))
            verdict = verdict.settle(doubted & told.right, State.RIGHT, Reason.SLOPE_CONFIRMS)
        found.append(verdict)
    return tuple(found)


def _approximation(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """A primal may approximate its function to float32, where its rule is exact.

    Such a difference is below what float32 holds, so it is a warning there. Where the terms of an
    entry cancel, it is small beside what the entry is under other upstreams. It is not the same at
    different inputs: one factor for all is a mistake, as n - 1 for n is in a mean.
    """
    return tuple(_forgiven(verdict, evidence, i) for i, verdict in enumerate(verdicts))


def _forgiven(verdict: Verdict, evidence: Evidence, i: int) -> Verdict:
    target = evidence.subject.targets[i]
    if unit_roundoff(target.dtype) < _FLOAT32:
        return verdict
    verdict = replace(verdict, forgiven=_APPROXIMATE)
    if verdict.ok:
        return verdict
    size = np.abs(verdict.expected)
    if evidence.has_reference and evidence.subject.linear:
        size = np.fmax(size, np.abs(evidence.gradients_crossed("reference")[i]))
    with np.errstate(invalid="ignore"):
        off = np.abs(verdict.actual - verdict.expected)
        value = widen(evidence.values[target.path])
        alike = np.any(value != value.flat[0]) and _is_factor(verdict.actual, verdict.expected)
        most = _ROUNDED if alike else _APPROXIMATE
        close = verdict.wrong & np.isfinite(off) & (off <= most * size)
    if not close.any():
        return verdict
    relative = np.max(off[close] / size[close])
    note = (
        f"the gradient of {target.path} differs from the reference by a relative {relative:.1g}; "
        "float32 holds fewer digits, so it counts as right"
    )
    return verdict.settle(close, State.RIGHT, Reason.APPROXIMATION, notes=[note])


def _is_factor(actual: Array, expected: Array) -> bool:
    """Whether all of several entries are off by the same factor."""
    with np.errstate(all="ignore"):
        ratio = np.ravel(actual / expected)
    ratio = ratio[np.isfinite(ratio)]
    if ratio.size < 2:
        return False
    mean = np.mean(ratio)
    return bool(np.max(np.abs(ratio - mean)) <= 1e-2 * np.abs(mean - 1))


def _overflow(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """A rule that fails in its dtype where plain autodiff fails too is not to blame."""
    found = []
    for i, verdict in enumerate(verdicts):
        if not verdict.ok:
            expected, dtype = evidence.expected("accuracy", i), evidence.subject.targets[i].dtype
            peer = judge(evidence.peers[evidence.outputs + i], expected, None, dtype)
            verdict = verdict.excused_by(peer)
        found.append(verdict)
    return tuple(found)


def _rounding_inside(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """A rule that is called and right in float64 fails in no other dtype.

    How it rounds inside is not seen, so that rounding may explain any error in its dtype.
    """
    return tuple(
        verdict.settle(
            verdict.wrong,
            State.RIGHT,
            Reason.RIGHT_IN_FLOAT64,
            notes=[f"the gradient of {verdict.path} is right in float64 and far off in its dtype"],
        )
        for verdict in verdicts
    )


def _is_called(evidence: Evidence) -> bool:
    """Whether the rule was called in float64 because it cannot be read."""
    return not evidence.has_rule and evidence.formula_gradients is not None


def _always(evidence: Evidence) -> bool:
    return True


def _has_reference(evidence: Evidence) -> bool:
    return evidence.has_reference


def _iterates(evidence: Evidence) -> bool:
    """Whether something is repeated until it converges."""
    subject = evidence.subject
    programs = (subject.believed, subject.forward)
    repeated = any(repeats(program) for program in programs if program is not None)
    return not subject.stated and (subject.loops or subject.approximate or repeated)


def _confirmable(evidence: Evidence) -> bool:
    return _iterates(evidence) and evidence.has_reference and not evidence.subject.is_called


FORMULA_STEPS: tuple[Step, ...] = (
    (_always, _lifting),
    (_has_reference, infinities),
    (_has_reference, zeros),
    (_has_reference, _chance),
    (_has_reference, kinks),
    (_has_reference, disputes),
    (_always, ties),
    (_iterates, _convergence),
    (_iterates, loops),
    (_confirmable, _unconverged),
    (_always, _approximation),
)
ACCURACY_STEPS: tuple[Step, ...] = (
    (_has_reference, _overflow),
    (_is_called, _rounding_inside),
)
