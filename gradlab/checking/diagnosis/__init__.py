"""Why is a gradient wrong? Hypotheses, each verified before it is said, simplest first."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from gradlab.checking.diagnosis.behaviour import lower_precision, nonfinite, witnessed
from gradlab.checking.diagnosis.conditions import conditions
from gradlab.checking.diagnosis.functions import diagonal, not_transposed, other_function
from gradlab.checking.diagnosis.indices import indices
from gradlab.checking.diagnosis.layout import layout, swapped, wrong_shape
from gradlab.checking.diagnosis.operands import operands
from gradlab.checking.diagnosis.scaling import scaling
from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.diagnosis.terms import terms
from gradlab.checking.diagnosis.upstreams import upstream_changed, upstream_ignored
from gradlab.checking.report import Finding, Law
from gradlab.checking.trial import Trial

__all__ = ["diagnose", "mendable"]

_Hypothesis = Callable[[Symptom, int], Iterator[Finding]]

_HYPOTHESES: tuple[_Hypothesis, ...] = (
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
    not_transposed,
)
_CODES = {
    "sign": "GL101",
    "factor": "GL102",
    "missing sum": "GL303",
    "missing mean": "GL103",
    "term": "GL211",
    "upstream ignored": "GL223",
    "upstream passed": "GL414",
    "upstream averaged": "GL103",
    "detached": "GL211",
    "transposed": "GL301",
    "input transposed": "GL301",
    "swapped": "GL312",
    "exchanged": "GL313",
    "flipped": "GL322",
    "input flipped": "GL322",
    "index shifted": "GL321",
    "overwritten": "GL331",
    "diagonal": "GL211",
    "other function": "GL204",
    "input ignored": "GL201",
    "input negated": "GL332",
    "condition": "GL409",
    "conjugated": "GL406",
    "not transposed": "GL407",
    "shape": "GL408",
    "not linear": "GL401",
    "modifies": "GL402",
    "not deterministic": "GL403",
    "layout": "GL403",
    "lower precision": "GL404",
    "dtype": "GL404",
    "nonfinite": "GL405",
}
_ENTRIES = 1 << 16
_CHEAP: tuple[_Hypothesis, ...] = (upstream_ignored, scaling)  # for larger gradients
_CHEAP_ENTRIES = 1 << 24
_LONG = 1_000  # equations of a rule; `terms` would put another gradient into each
_SECONDS = 4.0  # of CPU for hypotheses; one that has begun ends


def mendable(trial: Trial, laws: Sequence[Law]) -> bool:
    """Whether an edit of the source can be searched for: a formula is wrong, and the code pure."""
    failed = {law.name for law in laws if law.status == "failed"}
    return (
        trial.runs
        and bool(failed & {"formula", "form", "linear"})
        and not failed & {"pure", "reuse"}
    )


def diagnose(trial: Trial, laws: Sequence[Law], mended: bool = False) -> tuple[Finding, ...]:
    """Return what is wrong with a gradient, each cause with its code; see `_diagnose`."""
    found = _diagnose(trial, laws, mended)
    return tuple(dataclasses.replace(f, code=f.code or _CODES.get(f.kind, "")) for f in found)


def _diagnose(trial: Trial, laws: Sequence[Law], mended: bool) -> tuple[Finding, ...]:
    """Return what is wrong with a gradient, as far as it could be verified.

    Where the source was `mended`, only what was seen is told, and nothing is searched for.
    """
    if not trial.runs:
        return ()
    found = list(witnessed(trial, laws))
    found += lower_precision(trial)
    if any(f.kind in ("modifies", "not deterministic", "layout") for f in found):
        return tuple(found)
    found += [f for judged in trial.formula_verdicts for f in nonfinite(trial, judged)]
    explained = {f.path for f in found if f.kind != "dtype"}
    if mended:
        return tuple(found)
    symptom = Symptom(trial)
    if any(trial.subject.odd):
        for target, odd in enumerate(trial.subject.odd):
            found += wrong_shape(symptom, target) if odd else ()
        return tuple(found)
    tried = {i: _tried(symptom, i) for i in symptom.wrong}
    # nothing is tried where too little is off to explain
    tried = {i: some for i, some in tried.items() if some and symptom.differs(0, i).any()}
    pairs = list(swapped(symptom)) if any(layout in each for each in tried.values()) else []
    explained |= {f.path for f in pairs}
    found += pairs
    end = time.process_time() + _SECONDS
    for target, hypotheses in tried.items():
        if trial.subject.targets[target].path not in explained:
            found += _first(hypotheses, symptom, target, end)
    return tuple(found)


def _tried(symptom: Symptom, target: int) -> tuple[_Hypothesis, ...]:
    """Return what can be tried in reasonable time, which grows with the gradient's entries."""
    if symptom.trial.formula_verdicts[target].wrong.size <= _ENTRIES:
        rule = symptom.trial.subject.rule
        long = rule is not None and len(rule.jaxpr.eqns) > _LONG
        return tuple(each for each in _HYPOTHESES if not (long and each is terms))
    cheap = symptom.trial.has_reference and symptom.entries <= _CHEAP_ENTRIES
    return _CHEAP if cheap else ()


def _first(
    hypotheses: Sequence[_Hypothesis], symptom: Symptom, target: int, end: float
) -> list[Finding]:
    for hypothesis in hypotheses:
        if time.process_time() > end:
            break
        for finding in hypothesis(symptom, target):
            return [finding]
    return []
