"""What the laws themselves have witnessed: writes, chance, layout, clips, NaN, coarse rounding."""

from collections.abc import Iterator, Sequence

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.laws.linear import nonlinearity
from gradlab.checking.report import Finding, Law
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.references import Verdict, judge, unit_roundoff
from gradlab.tracing import narrowings

__all__ = ["lower_precision", "nonfinite", "witnessed"]

_COARSER = ("float32", "float16", "bfloat16")
_FEW = 64


def witnessed(trial: Trial, laws: Sequence[Law]) -> Iterator[Finding]:
    """Yield what failed laws have seen happen, whatever the numbers."""
    path = trial.subject.targets[0].path
    failed = {law.name: law.reason for law in laws if law.status == "failed"}
    if "pure" in failed:
        kind = "modifies" if "modifies" in failed["pure"] else "not deterministic"
        yield Finding(
            kind, path, f"the backward {failed['pure']}" if kind == "modifies" else failed["pure"]
        )
        return
    if "reuse" in failed:
        kind = "layout" if "contiguous" in failed["reuse"] else "not deterministic"
        yield Finding(kind, path, failed["reuse"])
    if "linear" in failed and "used" not in failed:
        yield Finding("not linear", path, nonlinearity(trial, "rule"))
    for complaint in trial.subject.complaints:
        if complaint.kind == "dtype":
            yield Finding("dtype", complaint.path, complaint.text)


def nonfinite(judged: Verdict) -> Iterator[Finding]:
    """Yield NaN and Inf where the reference is finite."""
    bad = judged.wrong & ~np.isfinite(judged.actual)
    if bad.any():
        kinds = "NaN" if np.isnan(judged.actual[bad]).any() else "infinite"
        path = judged.path
        text = (
            f"the gradient of {path} is {kinds} in {int(bad.sum())} of {bad.size} entries, "
            "where the right one is finite (0 * inf, 0 / 0, inf - inf?)"
        )
        yield Finding("nonfinite", path, text)


def lower_precision(trial: Trial) -> Iterator[Finding]:
    """Yield the coarser dtype whose rounding explains a gradient that is otherwise right."""
    complained = {complaint.path for complaint in trial.subject.complaints}
    for i, (formula, own) in enumerate(zip(trial.formula_verdicts, trial.accuracy_verdicts)):
        target = trial.subject.targets[i]
        if not own.wrong.any() or target.path in complained:
            continue
        if formula.wrong.any() and (trial.has_rule or _smooth(trial, i)):
            continue
        for coarse in _COARSER:
            if unit_roundoff(coarse) <= unit_roundoff(target.dtype):
                continue
            if judge(own.actual, trial.expected_in_own_dtype(i, trial.draws), None, coarse).ok:
                found = narrowings(trial.subject.rule) if trial.subject.rule else []
                where = f" ({found[0]})" if found else ""
                text = f"the gradient of {target.path} has the precision of {coarse}{where}"
                yield Finding("lower precision", target.path, text)
                break


def _smooth(trial: Trial, i: int) -> bool:
    """Whether the error hardly changes when the inputs do: a wrong formula's, not rounding's."""
    symptom = Symptom(trial)
    if not trial.has_reference and symptom.entries > _FEW:
        return True
    errors = []
    for factor in (1.0, 1.0 + 2.0**-12):
        values = {t.path: widen(trial.values[t.path]) * factor for t in trial.subject.targets}
        case = symptom.at(values, trial.upstreams)
        errors.append(case.actual[i] - case.expected[i])
    change, size = np.abs(errors[1] - errors[0]), np.abs(errors[0])
    return bool(np.sum(change[np.isfinite(change)]) < 0.1 * np.sum(size[np.isfinite(size)]))
