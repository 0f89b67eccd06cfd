"""Special: at zeros, ones and ties the rule is finite where the reference is."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["special"]

_LARGE = 1 << 20


def special(trial: Trial) -> Law:
    """Inputs of all zeros, all ones and equal entries give no NaN that the reference avoids."""
    if not (trial.has_rule and trial.has_reference):
        return Law("special", "skipped", "there is no reference that can be run elsewhere")
    if trial.subject.loops:
        return Law("special", "skipped", "a loop inside might never end elsewhere")
    if sum(np.size(trial.values[t.path]) for t in trial.subject.targets) > _LARGE:
        return Law("special", "skipped", "the inputs are large; hold a small one to this law")
    cases = {
        f"{target.path} = {text}": {target.path: make(np.asarray(trial.values[target.path]))}
        for target in trial.subject.targets
        for text, make in _POINTS.items()
    }
    for where, result in zip(cases, trial.many(list(cases.values()))):
        pairs = zip(trial.gradients(result["rule"]), trial.gradients(result["reference"]))
        for target, (ours, theirs) in zip(trial.subject.targets, pairs):
            if ours.shape == theirs.shape and np.any(~np.isfinite(ours) & np.isfinite(theirs)):
                return Law(
                    "special",
                    "warned",
                    f"the gradient of {target.path} is not finite at {where}; the reference's is",
                )
    return Law("special", "passed")


def _zeros(x: Any) -> Any:
    return np.zeros(x.shape)


def _ones(x: Any) -> Any:
    return np.ones(x.shape)


_POINTS = {"0": _zeros, "1": _ones}
