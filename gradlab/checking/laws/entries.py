"""From verdicts on entries to what a law says."""

from collections.abc import Sequence

import numpy as np

from gradlab.checking.judged import Judged
from gradlab.checking.report import Law
from gradlab.checking.widen import widen
from gradlab.formatting import count
from gradlab.references import blocks
from gradlab.report import LawStatus

__all__ = ["entry_name", "from_verdicts"]


def entry_name(path: str, index: Sequence[int]) -> str:
    """Return an entry as people write it.

    Example:
        >>> entry_name("x", (3, 1)), entry_name("scale", ())
        ('x[3, 1]', 'scale')
    """
    return f"{path}[{', '.join(str(int(i)) for i in index)}]" if len(index) else path


def from_verdicts(name: str, verdicts: Sequence[Judged], *, stable: bool = True) -> Law:
    """Return the law that holds where no entry is wrong; `stable`: nor loses digits."""
    wrong = [v for v in verdicts if v.wrong.any()]
    if wrong:
        reasons = [_wrong(v) for v in wrong]
        return Law(name, "failed", "; ".join(reasons), max(map(_error, wrong)))
    error = max((_error(v) for v in verdicts), default=0.0)
    remarks = [remark for v in verdicts for remark in _remarks(v)]
    status: LawStatus = "passed"
    undecided = [v for v in verdicts if v.inconclusive.all() and v.inconclusive.size]
    unstable = [v for v in verdicts if stable and (v.unstable & ~v.wrong).any()]
    if any(v.warnings for v in verdicts):
        status = "warned"
        remarks = [*(text for v in verdicts for text in v.warnings), *remarks]
    if unstable:
        status = "warned"
        remarks = [*map(_unstable, unstable), *remarks]
    if undecided:
        status = "inconclusive"
        paths = ", ".join(v.target.path for v in undecided)
        remarks.insert(0, f"no entry of {paths} could be judged in {undecided[0].target.dtype}")
    return Law(name, status, "; ".join(remarks), error)


def _wrong(judged: Judged) -> str:
    index = judged.worst
    assert index is not None
    number = count(int(judged.wrong.sum()), "entry", "entries")
    return (
        f"{number} of {judged.wrong.size:,} wrong in the gradient of {judged.target.path}: "
        f"{entry_name(judged.target.path, index)} is {widen(judged.actual[index]):.9g}, "
        f"expected {judged.expected[index]:.9g}"
    )


def _unstable(judged: Judged) -> str:
    masked = np.where(judged.unstable, judged.instability, -1.0)
    index = np.unravel_index(int(np.argmax(masked)), masked.shape)
    digits = np.log10(np.clip(float(masked[index]), 1.0, 1e308))
    return (
        f"loses {digits:.0f} digits that the reference keeps, "
        f"at {entry_name(judged.target.path, [int(i) for i in index])}"
    )


def _remarks(judged: Judged) -> list[str]:
    remarks = list(judged.notes)
    if judged.kinks:
        first = entry_name(judged.target.path, judged.kinks[0])
        more = f" and {len(judged.kinks) - 1:,} more" if len(judged.kinks) > 1 else ""
        remarks.append(f"kink at {first}{more}: the rule's value lies between the slopes")
    left = int(judged.inconclusive.sum())
    if left and not judged.inconclusive.all():
        remarks.append(
            f"{count(left, 'entry', 'entries')} of {judged.target.path} could not be judged"
        )
    return remarks


def _error(judged: Judged) -> float:
    right, wrong, error = judged.right.ravel(), judged.wrong.ravel(), judged.error.ravel()
    worst = 0.0
    for row in blocks(error.size):
        told = right[row] | wrong[row]
        worst = float(np.fmax(worst, np.fmax.reduce(error[row], initial=0.0, where=told)))
    return worst
