"""Formula: the mathematics is right, whatever the dtype. Rule and reference, both in float64."""

from gradlab.checking.laws.entries import from_verdicts
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["formula"]


def formula(trial: Trial) -> Law:
    """Every entry of the rule, in float64, is the reference's up to float64's rounding."""
    if not trial.formula_verdicts:
        return Law("formula", "skipped", "the rule cannot be run in float64")
    narrow = bool(trial.subject.opaque)  # rounds in its own dtype here too: accuracy judges that
    return from_verdicts("formula", trial.formula_verdicts, stable=not narrow)
