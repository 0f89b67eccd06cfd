"""Used: every output's upstream reaches the gradients. Catches `dx = p - onehot` without g."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.subject import Upstream
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen

__all__ = ["ignored_outputs", "used"]


def used(trial: Trial) -> Law:
    """Changing an output's upstream changes the gradients, where it changes the reference's."""
    if not trial.subject.linear:
        return Law("used", "skipped", "there is no upstream: the loss returns its own gradient")
    if not trial.has_rule and trial.wide is None:
        return Law("used", "skipped", "the rule cannot be run in float64")
    ignored = ignored_outputs(trial)
    names = ", ".join(ignored)
    if ignored and trial.only_kinks:
        reason = f"the upstream of {names} changes nothing here, where the gradient was found right"
        return Law("used", "inconclusive", reason)
    if ignored:
        return Law("used", "failed", f"the upstream of {names} is ignored")
    return Law("used", "passed")


def ignored_outputs(trial: Trial) -> list[str]:
    """Return the outputs whose upstream changes nothing, though it should."""
    names = []
    for upstream in trial.subject.upstreams:
        if _moves(trial, upstream, "rule"):
            continue
        here = trial.gradients_here("rule")
        dead = 0 in upstream.shape or not any(np.any(g) and np.isfinite(g).all() for g in here)
        if _moves(trial, upstream, "reference") if trial.has_reference else not dead:
            names.append(upstream.output)
    return names


def _moves(trial: Trial, upstream: Upstream, keyword: str) -> bool:
    """Whether another upstream of one output alone changes the gradients."""
    if len(trial.subject.upstreams) == 1:
        crossed = trial.gradients_crossed(keyword)
    else:
        other = {upstream.name: widen(trial.other_upstreams[upstream.name])}
        crossed = trial.gradients_under(other, keyword)[keyword]
    return _moved(trial.gradients_here(keyword), crossed)


def _moved(before: list[Any], after: list[Any]) -> bool:
    return any(
        a.shape != b.shape or not np.array_equal(a, b, equal_nan=True)
        for a, b in zip(before, after)
    )
