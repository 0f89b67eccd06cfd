"""Pushforward: where a rule has a forward mode, it is the reference's."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import judge

__all__ = ["pushforward"]


def pushforward(trial: Trial) -> Law:
    """Every entry of the rule's JVP is the reference's."""
    subject = trial.subject
    if subject.pushforward is None:
        return Law("pushforward", "skipped", "the rule has no forward mode")
    if not trial.has_reference or subject.tangent is None:
        return Law("pushforward", "skipped", "it is the witness of the adjoint law")
    if "tangent" not in trial.formula:
        return Law("pushforward", "skipped", "the inputs are large")
    ours = trial.formula["pushforward"][trial.outputs :]
    theirs = trial.formula["tangent"][trial.outputs :]
    worst = 0.0
    for upstream, mine, other in zip(subject.upstreams, ours, theirs):
        verdict = judge(mine.value, other, mine, np.float64)
        if verdict.wrong.any():
            at = verdict.worst or ()
            text = (
                f"the tangent of {upstream.output}{list(at) if at else ''} is "
                f"{mine.value[at]:.9g}, expected {other.value[at]:.9g}"
            )
            if _approximates(trial, mine.value[verdict.wrong], other.value[verdict.wrong]):
                return Law("pushforward", "warned", f"{text}: one of them approximates")
            if trial.only_kinks:
                return Law("pushforward", "inconclusive", f"{text}; the gradient is right there")
            return Law("pushforward", "failed", text, float(verdict.error[at]))
        finite = verdict.error[np.isfinite(verdict.error)]
        worst = max(worst, float(finite.max(initial=0.0)))
    return Law("pushforward", "passed", error=worst)


def _approximates(trial: Trial, mine: Any, other: Any) -> bool:
    """Whether a difference is one that the formula's law forgives in these dtypes."""
    forgiven = max((each.forgiven for each in trial.formula_verdicts), default=0.0)
    return not trial.any_wrong and bool(np.all(np.abs(mine - other) <= forgiven * np.abs(other)))
