"""Why is a gradient wrong? Hypotheses, each verified before it is said, simplest first."""

from collections.abc import Callable, Iterator, Sequence

from gradlab.checking.diagnosis.behaviour import lower_precision, nonfinite, witnessed
from gradlab.checking.diagnosis.conditions import conditions
from gradlab.checking.diagnosis.functions import diagonal, other_function
from gradlab.checking.diagnosis.indices import indices
from gradlab.checking.diagnosis.layout import layout, swapped, wrong_shape
from gradlab.checking.diagnosis.operands import operands
from gradlab.checking.diagnosis.scaling import scaling
from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.diagnosis.terms import terms
from gradlab.checking.diagnosis.upstreams import upstream_changed, upstream_ignored
from gradlab.checking.report import Finding, Law
from gradlab.checking.trial import Trial

__all__ = ["diagnose"]

_HYPOTHESES: tuple[Callable[[Symptom, int], Iterator[Finding]], ...] = (
    upstream_ignored,
    scaling,
    layout,
    upstream_changed,
    indices,
    diagonal,
    conditions,
    terms,
    other_function,
    operands,
)
_ENTRIES = 1 << 16


def diagnose(trial: Trial, laws: Sequence[Law]) -> tuple[Finding, ...]:
    """Return what is wrong with a gradient, as far as it could be verified."""
    if not trial.runs:
        return ()
    found = list(witnessed(trial, laws))
    found += lower_precision(trial)
    if any(f.kind in ("modifies", "not deterministic", "layout") for f in found):
        return tuple(found)
    found += [f for judged in trial.formula_verdicts for f in nonfinite(judged)]
    explained = {f.path for f in found if f.kind != "dtype"}
    symptom = Symptom(trial)
    if any(trial.subject.odd):
        for target, odd in enumerate(trial.subject.odd):
            found += wrong_shape(symptom, target) if odd else ()
        return tuple(found)
    small = [i for i in symptom.wrong if trial.formula_verdicts[i].wrong.size <= _ENTRIES]
    small = [i for i in small if symptom.differs(0, i).any()]  # else too little is off to explain
    pairs = list(swapped(symptom)) if small else []
    explained |= {f.path for f in pairs}
    found += pairs
    for target in small:
        if trial.subject.targets[target].path not in explained:
            found += _first(symptom, target)
    return tuple(found)


def _first(symptom: Symptom, target: int) -> list[Finding]:
    for hypothesis in _HYPOTHESES:
        for finding in hypothesis(symptom, target):
            return [finding]
    return []
