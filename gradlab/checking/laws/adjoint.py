"""Adjoint: <J t, u> = <t, J' u>. The transpose is held against forward mode, not against itself."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import LIMIT, LOST

__all__ = ["adjoint"]

_UNIT = 2.0**-53


def adjoint(trial: Trial) -> Law:
    """The rule is the transpose of the reference's pushforward."""
    subject = trial.subject
    if subject.tangent is None or not trial.has_rule:
        return Law("adjoint", "skipped", "the reference has no forward mode")
    if "tangent" not in trial.formula:
        return Law("adjoint", "skipped", "the inputs are large: finite differences stand for it")
    if any(subject.odd):
        return Law("adjoint", "skipped", "a gradient has a wrong shape")
    if not subject.linear:
        return Law("adjoint", "skipped", "there is no upstream: the loss returns its own gradient")
    left, above = _product([trial.upstreams[u.name] for u in subject.upstreams], trial, "tangent")
    right, below = _product([trial.tangents[t.path] for t in subject.targets], trial, "rule")
    floor = max(above + below, LOST)
    if not np.isfinite(left - right) or not np.isfinite(floor):
        return Law("adjoint", "inconclusive", "the products are not finite")
    error = abs(left - right) / floor
    text = f"<J t, u> = {left:.9g}, <t, J' u> = {right:.9g}"
    if error <= 4 * LIMIT:
        return Law("adjoint", "passed", error=error)
    if subject.loops and not trial.any_wrong:
        return Law("adjoint", "inconclusive", f"{text}; the primal iterates", error)
    if trial.only_kinks:
        reason = f"{text}, where the rule was found right and the reference is not the judge"
        return Law("adjoint", "inconclusive", reason, error)
    return Law("adjoint", "failed", text, error)


def _product(directions: list[Any], trial: Trial, keyword: str) -> tuple[float, float]:
    """Return a program's product with directions, and how far rounding may move it."""
    product = spread = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for direction, estimate in zip(directions, trial.formula[keyword][trial.outputs :]):
            product += float(np.sum(np.real(direction * estimate.value)))
            moves = np.ravel(np.abs(direction) * estimate.scatter)
            spread = float(np.hypot.reduce(moves, initial=spread))
            spread += _UNIT * float(np.sum(np.abs(direction * estimate.value)))
    return product, spread
