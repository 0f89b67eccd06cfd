"""Form: every gradient has the shape and the dtype of its input, and its place in the tree."""

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial

__all__ = ["form"]


def form(trial: Trial) -> Law:
    """Each gradient has its input's shape, dtype and structure."""
    complaints = trial.subject.complaints
    texts = "; ".join(complaint.text for complaint in complaints)
    if any(complaint.fault for complaint in complaints):
        return Law("form", "failed", texts)
    if complaints:
        return Law("form", "inconclusive", f"reverse mode cannot run: {texts}")
    return Law("form", "passed")
