"""Form: every gradient has the shape and the dtype of its input, and its place in the tree."""

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["form"]


def form(trial: Trial) -> Law:
    """Each gradient has its input's shape, dtype and structure."""
    complaints = [complaint.text for complaint in trial.subject.complaints]
    if complaints:
        return Law("form", "failed", "; ".join(complaints))
    return Law("form", "passed")
