"""Adjoint: <J t, u> = <t, J' u>. The transpose is held against forward mode, not against itself."""

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import LIMIT

__all__ = ["adjoint"]


def adjoint(trial: Trial) -> Law:
    """The rule is the transpose of the reference's pushforward."""
    subject = trial.subject
    if subject.tangent is None or not trial.has_rule:
        return Law("adjoint", "skipped", "the reference has no forward mode")
    if "tangent" not in trial.formula:
        return Law("adjoint", "skipped", "the inputs are large: finite differences stand for it")
    if not subject.linear:
        return Law("adjoint", "skipped", "there is no upstream: the loss returns its own gradient")
    pushed = trial.formula["tangent"][trial.outputs :]
    gradients = trial.formula["rule"][trial.outputs :]
    left = right = spread = 0.0
    for upstream, estimate in zip(subject.upstreams, pushed):
        u = trial.upstreams[upstream.name]
        left += float(np.sum(np.real(u * estimate.value)))
        spread += float(np.sum((np.abs(u) * estimate.scatter) ** 2))
    for target, estimate in zip(subject.targets, gradients):
        t = trial.tangents[target.path]
        right += float(np.sum(np.real(t * estimate.value)))
        spread += float(np.sum((np.abs(t) * estimate.scatter) ** 2))
    floor = max(np.sqrt(spread), 2.0**-53 * max(abs(left), abs(right)), 2.0**-1022)
    if not np.isfinite(left - right) or not np.isfinite(floor):
        return Law("adjoint", "inconclusive", "the products are not finite")
    error = abs(left - right) / floor
    text = f"<J t, u> = {left:.9g}, <t, J' u> = {right:.9g}"
    if error <= 4 * LIMIT:
        return Law("adjoint", "passed", error=error)
    if trial.only_kinks:
        reason = f"{text}, where the rule was found right and the reference is not the judge"
        return Law("adjoint", "inconclusive", reason, error)
    return Law("adjoint", "failed", text, error)
