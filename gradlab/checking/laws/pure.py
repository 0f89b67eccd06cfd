"""Pure: inputs and upstream are left as they were, and the same call gives the same bits."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["modified", "pure"]


def pure(trial: Trial) -> Law:
    """Running the rule changes no argument, and running it again changes no result."""
    changed = modified(trial)
    if changed:
        return Law("pure", "failed", f"modifies its {' and '.join(changed)} in place")
    again = trial.run(trial.point)
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


def modified(trial: Trial) -> list[str]:
    """Return the names of the arguments that the rule wrote into; JAX arrays cannot be."""
    point = {name: _fresh(value) for name, value in trial.point.items()}
    trial.subject.run(point)
    return [n for n, value in point.items() if not _same_bits(value, trial.point[n])]


def _fresh(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _same_bits(before: Any, after: Any) -> bool:
    if not isinstance(before, np.ndarray):
        return True
    return before.shape == np.shape(after) and before.tobytes() == np.asarray(after).tobytes()
