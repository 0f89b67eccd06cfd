"""What the laws themselves have witnessed: writes, chance, layout, clips, NaN, coarse rounding."""

import linecache
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax
import numpy as np

from gradlab.checking.diagnosis.symptom import Point, Symptom
from gradlab.checking.laws.linearity import nonlinearity
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.common.arrays import Array
from gradlab.references import Verdict, as_read, judge, unit_roundoff
from gradlab.report import Finding, Law
from gradlab.tracing import Lifter, Value, narrowings, source_path
from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.leaves import is_inexact

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


def nonfinite(trial: Trial, judged: Verdict) -> Iterator[Finding]:
    """Yield NaN and Inf where the reference is finite, and the line that makes the first."""
    bad = judged.wrong & ~np.isfinite(judged.actual)
    if bad.any():
        kinds = "NaN" if np.isnan(judged.actual[bad]).any() else "infinite"
        path = judged.path
        text = (
            f"the gradient of {path} is {kinds} in {int(bad.sum())} of {bad.size} entries; "
            "the right one is finite there (look for 0 * inf, 0 / 0, inf - inf)"
        )
        name, place = _first_nonfinite(trial)
        if place:
            file, _, number = place.rpartition(":")
            written = linecache.getline(file, int(number)).strip()
            line = f"{os.path.basename(file)}:{number}"
            text += f"; the first comes from {name} at {line}: `{written}`"
            yield Finding("nonfinite", path, text, line=line)
            return
        text += f"; the first comes from {name}" if name else ""
        yield Finding("nonfinite", path, text)


def _first_nonfinite(trial: Trial) -> tuple[str, str]:
    """Return the first operation that makes NaN or infinity of finite numbers, and its line."""
    rule = trial.subject.rule
    if rule is None:
        return "", ""
    watcher = _Watcher()
    named = zip(rule.in_names, rule.in_avals)
    values = [as_read(np.asarray(trial.point[name]), aval.dtype) for name, aval in named]
    with jax.enable_x64(True):
        watcher(rule.jaxpr, [Value(v, is_inexact(v.dtype)) for v in values])
    return watcher.found


class _Watcher(Lifter):
    """Evaluates in NumPy, and notes where the first number that is not finite arises."""

    def __init__(self) -> None:
        super().__init__(NumPy())
        self.found = ("", "")

    def enter(self, turn: Any = None) -> Self:
        return self

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        outputs = super().equation(equation, inputs)
        fine = all(_finite(value.array) for value in inputs)
        if not self.found[1] and fine and not all(_finite(v.array) for v in outputs):
            self.found = equation.primitive.name, source_path(equation)
        return outputs


def _finite(array: Array) -> bool:
    numbers = np.asarray(array)
    return numbers.dtype.kind not in "fc" or bool(np.isfinite(numbers).all())


def lower_precision(trial: Trial) -> Iterator[Finding]:
    """Yield the coarser dtype whose rounding explains a gradient that is otherwise right."""
    complained = {complaint.path for complaint in trial.subject.complaints}
    for i, (formula, own) in enumerate(zip(trial.formula_verdicts, trial.accuracy_verdicts)):
        target = trial.subject.targets[i]
        if not own.wrong.any() or target.path in complained:
            continue
        if formula.wrong.any() and (trial.has_rule or _smooth(trial, i)):
            continue
        narrow = narrowings(trial.subject.rule) if trial.subject.rule else []
        named = [n.dtype for n in narrow if n.dtype in _COARSER]
        for coarse in dict.fromkeys(named) or _COARSER:
            if unit_roundoff(coarse) <= unit_roundoff(target.dtype):
                continue
            if judge(own.actual, trial.expected_in_own_dtype(i, trial.draws), None, coarse).ok:
                line = next((n.source for n in narrow if n.dtype == coarse), "")
                digits = int(-np.log10(unit_roundoff(coarse)))
                why = f"the backward rounds to {coarse} ({line}), so " if line else ""
                text = f"{why}the gradient of {target.path} has {digits} right digits, "
                text += f"as {coarse} has"
                yield Finding("lower precision", target.path, text, line=line)
                break


def _smooth(trial: Trial, i: int) -> bool:
    """Whether the error hardly changes when the inputs do: a wrong formula's, not rounding's."""
    symptom = Symptom(trial)
    if not trial.has_reference and symptom.entries > _FEW:
        return True
    errors = []
    for factor in (1.0, 1.0 + 2.0**-12):
        values = {t.path: widen(trial.values[t.path]) * factor for t in trial.subject.targets}
        case = symptom.at(Point(values, trial.upstreams))
        errors.append(case.actual[i] - case.expected[i])
    change, size = np.abs(errors[1] - errors[0]), np.abs(errors[0])
    return bool(np.sum(change[np.isfinite(change)]) < 0.1 * np.sum(size[np.isfinite(size)]))
