"""Laws that ask another witness: finite differences, and inputs at which formulas break."""

import dataclasses

import numpy as np

from gradlab.checking.differences import (
    Answer,
    along,
    answer,
    directional,
    left_by_loops,
    real_slope,
)
from gradlab.checking.evidence import draw_tangents
from gradlab.checking.laws.entries import not_exact
from gradlab.checking.subject import Arrays
from gradlab.checking.trial import Trial
from gradlab.references import LIMIT, Reason, Slope
from gradlab.report import Law

_CLOSER = 2.0**-6  # of the steps, where these disagree
_DIRECTIONS = 3  # along which a function that was read is checked, not trusted


def finite_differences(trial: Trial) -> Law:
    """Hold the gradient's product with directions to the slopes of <u, f> along them."""
    subject, seed = trial.subject, trial.seed
    first = _along(trial, trial.tangents)
    if not subject.read or first.status == "failed":
        return first
    others = [
        _along(trial, draw_tangents(subject, trial.values, seed + k)) for k in range(1, _DIRECTIONS)
    ]
    order = ("failed", "warned", "passed", "inconclusive")  # crossing a kink judges nothing
    worst = min([first, *others], key=lambda law: order.index(law.status))
    return dataclasses.replace(worst, judged=sum(law.judged for law in (first, *others)))


def _along(trial: Trial, tangents: Arrays) -> Law:
    name = "finite differences"
    gradients = trial.formula_gradients
    assert gradients is not None
    slope = real_slope(trial, tangents) if trial.subject.read else directional(trial, tangents)
    steps = [tangents[target.path] for target in trial.subject.targets]
    claim, spread, size = along(steps, gradients)
    if trial.has_reference:  # the forward itself may hold constants of few digits
        spread = max(spread, along(steps, trial.formula["reference"][trial.outputs :])[1])
    approximate = (each.decided_by(Reason.APPROXIMATION) for each in trial.formula_verdicts)
    if any(mask.any() for mask in approximate):  # one of the two approximates
        spread += max(each.forgiven for each in trial.formula_verdicts) / LIMIT * size
    spread = float(np.hypot(spread, left_by_loops(trial)))
    said = answer(claim, slope, 0, spread, strict=False)
    if said.refutes and trial.subject.read:  # a kink may lie close by, not so close as this
        slope = real_slope(trial, tangents, _CLOSER)
        said = answer(claim, slope, 0, spread, strict=False)
    text = (
        f"the forward rises by {float(slope.value[0]):.9g} along a direction; the "
        f"gradient predicts {claim:.9g}"
    )
    if said.refutes:
        if trial.subject.stated and not trial.any_wrong:
            return Law(name, "warned", f"{text}; the given reference has the same fault")
        if trial.subject.approximate and not trial.any_wrong:
            return not_exact(name, text)
        return Law(name, "failed", text, _error(claim, slope))
    if said == Answer.AT_A_KINK:
        return Law(name, "passed", "at a kink: the gradient lies between the one-sided slopes")
    if said.is_silent:
        finest = float(slope.error[0])
        none = "no slope can be measured here: the function jumps, or is not finite nearby"
        told = f"the slope is known only to {finest:.2g}" if np.isfinite(finest) else none
        return Law(name, "inconclusive", told)
    return Law(name, "passed", error=_error(claim, slope), judged=1)


def _error(claim: float, slope: Slope) -> float:
    error = float(slope.error[0])
    return abs(claim - float(slope.value[0])) / error if error > 0 else 0.0


def special(trial: Trial) -> Law:
    """Hold the rule to give no NaN where the reference gives none: at zeros and equal entries."""
    cases = {
        f"{target.path} = {number}": {target.path: np.full(np.shape(value), float(number))}
        for target in trial.subject.targets
        for value in (trial.values[target.path],)
        for number in (0, 1)
    }
    for where, result in zip(cases, trial.many(list(cases.values()), "rule")):
        gradients = trial.gradients(result["rule"])
        if all(np.isfinite(ours).all() for ours in gradients):
            continue  # and the reference is not asked
        (other,) = trial.many([cases[where]], "reference")
        pairs = zip(gradients, trial.gradients(other["reference"]))
        for target, (ours, theirs) in zip(trial.subject.targets, pairs):
            if ours.shape == theirs.shape and np.any(~np.isfinite(ours) & np.isfinite(theirs)):
                text = f"the gradient of {target.path} is not finite at {where}; the reference's is"
                return Law("special", "warned", text)
    return Law("special", "passed", judged=len(cases))
