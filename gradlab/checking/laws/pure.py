"""Pure: inputs and upstream are left as they were, and the same call gives the same bits."""

from typing import Any

import numpy as np

from gradlab.checking.evidence import copied
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import blocks

__all__ = ["pure"]


def pure(trial: Trial) -> Law:
    """Running the rule changes no argument, and running it again changes no result."""
    point = copied(trial.point)
    again = trial.run_on(point)
    changed = [n for n, value in point.items() if not _same_bits(value, trial.point[n])]
    if changed:
        return Law("pure", "failed", f"modifies its {' and '.join(changed)} in place")
    for target, before, after in zip(
        trial.subject.targets, trial.gradients(trial.actual), trial.gradients(again)
    ):
        if not _same_bits(before, after):
            return Law(
                "pure",
                "failed",
                f"not deterministic: the gradient of {target.path} changes from call to call",
            )
    return Law("pure", "passed")


def _same_bits(before: Any, after: Any) -> bool:
    if not isinstance(before, np.ndarray):
        return True
    if before.shape != np.shape(after):
        return False
    a, b = np.ravel(before), np.ravel(after)
    return all(a[row].tobytes() == b[row].tobytes() for row in blocks(a.size))
