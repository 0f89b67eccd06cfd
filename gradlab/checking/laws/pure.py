"""Pure: inputs and upstream are left as they were, and the same call gives the same bits."""

from typing import Any

import numpy as np

from gradlab.checking.evidence import copied
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import blocks

__all__ = ["pure"]


def pure(trial: Trial) -> Law:
    """Running the rule changes no argument, and running it again changes no result.

    An accelerator may add in another order at every call: what that changes is within rounding.
    """
    point = copied(trial.point)
    again = trial.run_on(point)
    changed = [n for n, value in point.items() if not _same_bits(value, trial.point[n])]
    if changed:
        return Law("pure", "failed", f"modifies its {' and '.join(changed)} in place")
    moved = ""
    pairs = zip(trial.gradients(trial.actual), trial.gradients(again))
    for i, (before, after) in enumerate(pairs):
        if _same_bits(before, after):
            continue
        moved = f"the gradient of {trial.subject.targets[i].path} changes from call to call"
        if not (trial.accelerated and trial.within_rounding(i, after)):
            return Law("pure", "failed", f"not deterministic: {moved}")
    return Law("pure", "warned", f"{moved}, within rounding") if moved else Law("pure", "passed")


def _same_bits(before: Any, after: Any) -> bool:
    if not isinstance(before, np.ndarray):
        return True
    if before.shape != np.shape(after):
        return False
    a, b = np.ravel(before), np.ravel(after)
    return all(a[row].tobytes() == b[row].tobytes() for row in blocks(a.size))
