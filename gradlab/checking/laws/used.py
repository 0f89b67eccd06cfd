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
    upstreams = trial.subject.upstreams
    keys = ("rule", "reference") if trial.has_reference else ("rule",)
    names = []
    for upstream in upstreams:
        crossed = trial.gradients_crossed if len(upstreams) == 1 else _crossed(trial, upstream)
        moved = [_moved(trial.gradients_here(key), crossed[key]) for key in keys]
        here = trial.gradients_here("rule")
        dead = 0 in upstream.shape or not any(np.any(g) and np.isfinite(g).all() for g in here)
        if not moved[0] and (moved[-1] or (len(keys) == 1 and not dead)):
            names.append(upstream.output)
    return names


def _crossed(trial: Trial, upstream: Upstream) -> dict[str, list[Any]]:
    """Return the gradients under another upstream of one output alone."""
    other = {upstream.name: widen(trial.other_upstreams[upstream.name])}
    return trial.gradients_under(other)


def _moved(before: list[Any], after: list[Any]) -> bool:
    return any(
        a.shape != b.shape or not np.array_equal(a, b, equal_nan=True)
        for a, b in zip(before, after)
    )
