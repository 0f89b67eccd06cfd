"""Value: the forward that a custom rule runs returns what the primal function returns."""

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.references import judge

__all__ = ["value"]


def value(trial: Trial) -> Law:
    """The outputs of the rule are the outputs of the reference."""
    if not (trial.has_rule and trial.has_reference):
        return Law("value", "skipped", "there is no second forward to compare with")
    known = trial.accuracy if trial.subject.opaque else trial.formula
    ours, theirs = known["rule"], known["reference"]
    worst = 0.0
    for upstream in trial.subject.upstreams:
        name, k = upstream.output, trial.subject.outputs.index(upstream.output)
        mine, other = ours[k], theirs[k]
        finest = upstream.dtype if trial.subject.opaque else np.float64
        verdict = judge(mine.value, other, mine, finest)
        if verdict.wrong.any():
            at = verdict.worst or ()
            return Law(
                "value",
                "failed",
                f"{name}{list(at) if at else ''} is {mine.value[at]:.9g} under differentiation; "
                f"the reference returns {other.value[at]:.9g}",
                float(verdict.error[at]),
            )
        finite = verdict.error[np.isfinite(verdict.error)]
        worst = max(worst, float(finite.max(initial=0.0)))
    return Law("value", "passed", error=worst)
