"""Accuracy: the rule as it runs, in its own dtype, is as good as rounding lets it be."""

from gradlab.checking.laws.entries import from_verdicts
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["accuracy"]


def accuracy(trial: Trial) -> Law:
    """Every entry of the rule, in its own dtype, is the reference's up to that dtype's rounding."""
    if not (trial.has_reference or trial.formula_verdicts):
        return Law("accuracy", "skipped", "there is nothing to hold it against")
    # finite differences do not tell which digits another way to compute would keep
    return from_verdicts("accuracy", trial.accuracy_verdicts, stable=trial.has_reference)
