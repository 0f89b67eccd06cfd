"""From verdicts on entries to what a law says."""

import math
from collections.abc import Sequence

import numpy as np

from gradlab.checking.widen import widen
from gradlab.formatting import count
from gradlab.references import LIMIT, Reason, Verdict, blocks
from gradlab.report import Entry, Law, LawStatus


def entry_name(path: str, index: Sequence[int]) -> str:
    """Return an entry as people write it."""
    return f"{path}[{', '.join(str(int(i)) for i in index)}]" if len(index) else path


def worst_entry(verdict: Verdict, law: str, path: str, output: str = "") -> Entry:
    """Return the entry of a gradient that is furthest off, a wrong one if there is one."""
    index = verdict.worst or ()
    actual, expected = (
        complex(array[index]) if np.iscomplexobj(array) else float(array[index])
        for array in (verdict.actual, verdict.expected)
    )
    return Entry(
        path=path,
        index=index,
        actual=actual,
        expected=expected,
        error=float(verdict.error[index]),
        law=law,
        output=output,
        relative=abs(actual - expected) / abs(expected) if expected else math.inf,
        explained=float(verdict.resolution[index]) / LIMIT,
    )


def not_exact(name: str, text: str, error: float | None = None) -> Law:
    """Return a law that a function which iterates breaks: its reference is not exact."""
    reason = f"{text}; the function iterates, so the reference is not exact"
    return Law(name, "inconclusive", reason, error)


def from_verdicts(name: str, verdicts: Sequence[Verdict], *, stable: bool = True) -> Law:
    """Return the law that holds where no entry is wrong; `stable`: nor loses digits."""
    judged = sum(int(np.sum(v.right | v.wrong)) for v in verdicts)
    wrong = [v for v in verdicts if v.wrong.any()]
    if wrong:
        reasons = [_wrong(v) for v in wrong]
        return Law(name, "failed", "; ".join(reasons), max(map(_error, wrong)), judged=judged)
    error = max((_error(v) for v in verdicts), default=0.0)
    remarks = [remark for v in verdicts for remark in _remarks(v)]
    status: LawStatus = "passed"
    undecided = [v for v in verdicts if v.inconclusive.all() and v.inconclusive.size]
    unstable = [v for v in verdicts if stable and (v.unstable & ~v.wrong).any()]
    if any(v.decided_by(Reason.APPROXIMATION, Reason.RIGHT_IN_FLOAT64).any() for v in verdicts):
        status = "warned"
    if unstable:
        status = "warned"
        remarks = [*map(_unstable, unstable), *remarks]
    if undecided:
        status = "inconclusive"
        paths = ", ".join(v.path for v in undecided)
        remarks.insert(0, f"no entry of {paths} could be judged in {undecided[0].dtype}")
    return Law(name, status, "; ".join(remarks), error, judged=judged)


def _wrong(verdict: Verdict) -> str:
    index = verdict.worst
    assert index is not None
    number = int(verdict.wrong.sum())
    total = count(verdict.wrong.size, "entry", "entries")
    return (
        f"{number:,} of {total} of the gradient of {verdict.path} "
        f"{'is' if number == 1 else 'are'} wrong: "
        f"{entry_name(verdict.path, index)} is {widen(verdict.actual[index]):.9g}, "
        f"expected {verdict.expected[index]:.9g}"
    )


def _unstable(verdict: Verdict) -> str:
    masked = np.where(verdict.unstable, verdict.instability, -1.0)
    index = np.unravel_index(int(np.argmax(masked)), masked.shape)
    digits = np.log10(np.clip(float(masked[index]), 1.0, 1e308))
    return (
        f"loses {digits:.0f} digits that the reference keeps, "
        f"at {entry_name(verdict.path, [int(i) for i in index])}"
    )


def _remarks(verdict: Verdict) -> list[str]:
    remarks = list(verdict.notes)
    kinks = np.argwhere(verdict.decided_by(Reason.AT_A_KINK))
    if len(kinks):
        first = entry_name(verdict.path, kinks[0])
        more = f" and {len(kinks) - 1:,} more" if len(kinks) > 1 else ""
        remarks.append(f"kink at {first}{more}: the rule's value lies between the slopes")
    left = int(verdict.inconclusive.sum())
    if left and not verdict.inconclusive.all():
        remarks.append(f"{count(left, 'entry', 'entries')} of {verdict.path} could not be judged")
    return remarks


def _error(verdict: Verdict) -> float:
    right, wrong, error = verdict.right.ravel(), verdict.wrong.ravel(), verdict.error.ravel()
    worst = 0.0
    for row in blocks(error.size):
        told = right[row] | wrong[row]
        worst = float(np.fmax(worst, np.fmax.reduce(error[row], initial=0.0, where=told)))
    return worst
