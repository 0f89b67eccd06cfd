"""What the laws themselves have witnessed: writes, chance, layout, clips, NaN, coarse rounding."""

from collections.abc import Iterator, Sequence

import numpy as np

from gradlab.checking.judged import Judged
from gradlab.checking.laws.linear import nonlinearity
from gradlab.checking.report import Finding, Law
from gradlab.checking.trial import Trial
from gradlab.references import judge
from gradlab.tracing import narrowings

__all__ = ["lower_precision", "nonfinite", "witnessed"]

_COARSER = ("float32", "float16", "bfloat16")


def witnessed(trial: Trial, laws: Sequence[Law]) -> Iterator[Finding]:
    """Yield what failed laws have seen happen, whatever the numbers."""
    path = trial.subject.targets[0].path
    failed = {law.name: law.reason for law in laws if law.status == "failed"}
    if "pure" in failed:
        kind = "modifies" if "modifies" in failed["pure"] else "not deterministic"
        yield Finding(
            kind, path, f"the backward {failed['pure']}" if kind == "modifies" else failed["pure"]
        )
    if "reuse" in failed:
        kind = "layout" if "contiguous" in failed["reuse"] else "not deterministic"
        yield Finding(kind, path, failed["reuse"])
    if "linear" in failed and "used" not in failed:
        yield Finding("not linear", path, nonlinearity(trial, "rule"))
    for complaint in trial.subject.complaints:
        if complaint.kind == "dtype":
            yield Finding("dtype", complaint.path, complaint.text)


def nonfinite(judged: Judged) -> Iterator[Finding]:
    """Yield NaN and Inf where the reference is finite."""
    bad = judged.wrong & ~np.isfinite(judged.actual)
    if bad.any():
        kinds = "NaN" if np.isnan(judged.actual[bad]).any() else "infinite"
        path = judged.target.path
        text = (
            f"the gradient of {path} is {kinds} in {int(bad.sum())} of {bad.size} entries, "
            "where the right one is finite (0 * inf, 0 / 0, inf - inf?)"
        )
        yield Finding("nonfinite", path, text)


def lower_precision(trial: Trial) -> Iterator[Finding]:
    """Yield the coarser dtype whose rounding explains gradients that are right in float64."""
    for i, (formula, own) in enumerate(zip(trial.formula_verdicts, trial.accuracy_verdicts)):
        if formula.wrong.any() or not own.wrong.any() or not trial.has_reference:
            continue
        target = own.target
        for coarse in _COARSER:
            finer = np.dtype(target.dtype).itemsize
            if finer <= (4 if coarse == "float32" else 2):
                continue
            verdict = judge(own.actual, trial.expected("accuracy", i), None, coarse)
            if verdict.ok:
                places = (
                    [str(n) for n in narrowings(trial.subject.rule)] if trial.subject.rule else []
                )
                where = f" ({places[0]})" if places else ""
                text = f"the gradient of {target.path} has the precision of {coarse}{where}"
                yield Finding("lower precision", target.path, text)
                break
