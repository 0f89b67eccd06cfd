"""Used: every output's upstream reaches the gradients. Catches `dx = p - onehot` without g."""

from typing import Any

import numpy as np

from gradlab.checking.evidence import draw_upstreams
from gradlab.checking.laws.linear import gradients_at
from gradlab.checking.report import Law
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
    if ignored:
        names = ", ".join(ignored)
        return Law("used", "failed", f"the upstream of {names} is ignored")
    return Law("used", "passed")


def ignored_outputs(trial: Trial) -> list[str]:
    """Return the outputs whose upstream changes nothing, though it should."""
    other = draw_upstreams(trial.subject, trial.seed + 1)
    base = {name: widen(value) for name, value in trial.upstreams.items()}
    cases = [base] + [{**base, u.name: widen(other[u.name])} for u in trial.subject.upstreams]
    before, *after = gradients_at(trial, "rule", cases)
    expected = gradients_at(trial, "reference", cases) if trial.has_reference else None
    names = []
    for k, upstream in enumerate(trial.subject.upstreams):
        if (upstream.shape and 0 in upstream.shape) or _moved(before, after[k]):
            continue
        if expected is None:
            if any(np.any(g) for g in before):
                names.append(upstream.output)
        elif _moved(expected[0], expected[k + 1]):
            names.append(upstream.output)
    return names


def _moved(before: list[Any], after: list[Any]) -> bool:
    return any(
        a.shape != b.shape or not np.array_equal(a, b, equal_nan=True)
        for a, b in zip(before, after)
    )
