"""Why is a gradient wrong? Hypotheses, each verified before it is said, simplest first."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gradlab.checking.diagnosis.behaviour import lower_precision, nonfinite, witnessed
from gradlab.checking.diagnosis.claims import (
    claims,
    further_claims,
    scaling,
    through,
    wrong_shape,
)
from gradlab.checking.diagnosis.conditions import conditions
from gradlab.checking.diagnosis.symptom import Claim, Symptom
from gradlab.checking.diagnosis.terms import terms
from gradlab.checking.subject import Subject
from gradlab.checking.trial import Trial
from gradlab.common.faults import forgiven
from gradlab.formatting import listed
from gradlab.report import Finding, Law
from gradlab.tracing.jaxprs import contains
from gradlab.tracing.work import work

_CODES = {
    "sign": "GL101",
    "factor": "GL102",
    "missing sum": "GL303",
    "missing mean": "GL103",
    "term": "GL211",
    "upstream ignored": "GL223",
    "upstream passed": "GL414",
    "drawn": "GL414",
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
_RANDOM = ("random_bits", "threefry2x32", "rng_bit_generator")
_ENTRIES = 1 << 16
_CHEAP_ENTRIES = 1 << 24  # of a gradient for which cheap hypotheses alone are tried
_LONG = 1_000  # equations of a rule; `terms` would put another gradient into each
_LEAST = 0.6  # seconds that hypotheses may take in any case
_CHECK = 35  # evaluations that take half the time of a check
_GATED, _CLAIM = 5e-3, 1e-3  # seconds of an equation in `terms`, and of a claim


@dataclass
class _Budget:
    """What hypotheses may take, in seconds that depend on the programs and on no clock."""

    seconds: float
    steps: int
    each: float  # of one evaluation

    @classmethod
    def of(cls, subject: Subject) -> "_Budget":
        programs = (subject.rule, subject.believed or subject.forward)
        sizes = [work(program.jaxpr) for program in programs if program is not None]
        each = 2 * sum(size.seconds for size in sizes)
        return cls(_LEAST + _CHECK * each, sum(size.steps for size in sizes), each)

    def grants(self, cost: float) -> bool:
        """Say whether the budget has so much left, and take it."""
        granted = self.seconds >= cost
        self.seconds -= cost * granted
        return granted


def mendable(trial: Trial, laws: Sequence[Law]) -> bool:
    """Whether an edit of the source can be searched for: a formula is wrong, and the code pure.

    A backward that changes its upstream alone can be mended: it is given copies.
    """
    failed = {law.name: law.reason for law in laws if law.status == "failed"}
    if re.fullmatch(r"modifies its upstream\S* in place", failed.get("pure", "")):
        failed = {name: reason for name, reason in failed.items() if name not in ("pure", "reuse")}
    wrong = not failed.keys().isdisjoint(("formula", "form", "linear"))
    return wrong and failed.keys().isdisjoint(("pure", "reuse"))


def diagnose(trial: Trial, laws: Sequence[Law], mended: bool) -> tuple[Finding, ...]:
    """Return what is wrong with a gradient, each cause with its code, as far as it was verified.

    `mended`: the source was; then what was seen is told, and nothing is searched for.
    """
    found = _diagnose(trial, laws, mended)
    return tuple(dataclasses.replace(f, code=f.code or _CODES.get(f.kind, "")) for f in found)


def _diagnose(trial: Trial, laws: Sequence[Law], mended: bool) -> tuple[Finding, ...]:
    if not trial.runs:
        return ()
    found = list(witnessed(trial, laws))
    found += lower_precision(trial)
    if any(f.kind in ("modifies", "not deterministic", "layout") for f in found):
        return tuple(found)
    found += [f for judged in trial.formula_verdicts for f in nonfinite(trial, judged)]
    explained = {f.path for f in found if f.kind != "dtype"}
    symptom = Symptom(trial)
    if mended:
        return (*found, *_meant_by_all(symptom))
    if any(trial.subject.odd):
        odd = (k for k, odd in enumerate(trial.subject.odd) if odd)
        return (*found, *(f for target in odd for f in wrong_shape(symptom, target)))
    # nothing is tried where too little is off to explain
    wrong = [k for k in symptom.wrong if symptom.differs(0, k).any()]
    budget = _Budget.of(trial.subject)
    for target in wrong:
        path = trial.subject.targets[target].path
        tried = _tried(symptom, target, budget) if path not in explained else ()
        with forgiven("search for a cause"):
            found += itertools.islice(tried, 1)
    return tuple(found)


def _tried(symptom: Symptom, target: int, budget: _Budget) -> Iterator[Finding]:
    """Yield what holds, simplest first, in reasonable time, which grows with the entries."""
    subject = symptom.subject
    small = symptom.trial.formula_verdicts[target].wrong.size <= _ENTRIES
    if small or (symptom.trial.has_reference and symptom.entries <= _CHEAP_ENTRIES):
        yield from _held(scaling, symptom, target)
    if not small:
        return
    yield from _held(claims, symptom, target, budget)
    if budget.grants(_CLAIM):
        yield from conditions(symptom, target)
    long = subject.rule is not None and len(subject.rule.jaxpr.eqns) > _LONG
    if not long and budget.grants(_GATED * budget.steps):
        yield from terms(symptom, target)
    yield from _held(further_claims, symptom, target, budget)
    yield from _drawn(subject, target)


def _held(
    made: Callable[[Symptom, int], Iterator[Claim]],
    symptom: Symptom,
    target: int,
    budget: _Budget | None = None,
) -> Iterator[Finding]:
    subject = symptom.subject
    for claim in made(symptom, target):
        if claim.meant and subject.intended:  # what is meant was said
            continue
        if budget and not budget.grants(_CLAIM + (claim.at is not None) * budget.each):
            return
        if symptom.holds(claim, target):
            text = claim.text + (
                _declaring(claim.meant, subject, "you meant it") if claim.meant else ""
            )
            yield Finding(claim.kind, subject.targets[target].path, text)


def _meant(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield what the author of a rule may mean, though it is not its function's derivative."""

    def made(symptom: Symptom, target: int) -> Iterator[Claim]:
        found = itertools.chain(scaling(symptom, target), through(symptom, target))
        return (claim for claim in found if claim.meant)

    if symptom.subject.rules:
        yield from _held(made, symptom, target)


def _meant_by_all(symptom: Symptom) -> Iterator[Finding]:
    """Yield what an author may mean, where it is so for every wrong gradient."""
    meant = [each for k in symptom.wrong for each in itertools.islice(_meant(symptom, k), 1)]
    if meant and len(meant) == len(symptom.wrong) and len({each.kind for each in meant}) == 1:
        others = listed([each.path for each in meant[1:]])
        said = meant[0].text.replace("; if", f" ({others} too); if", 1) if others else meant[0].text
        yield dataclasses.replace(meant[0], text=said)


def _drawn(subject: Subject, target: int) -> Iterator[Finding]:
    """Yield that a function draws random numbers: its gradient may be that of a distribution."""
    program = subject.believed or subject.forward
    if program and contains(program.jaxpr, lambda e: e.primitive.name in _RANDOM):
        text = f"{subject.name} draws random numbers; this is not the gradient for the drawn values"
        text += _declaring('"any"', subject, "it is the slope of a distribution")
        yield Finding("drawn", subject.targets[target].path, text)


def _declaring(meaning: str, subject: Subject, what: str) -> str:
    """Return how to say that a gradient is meant: by the name of the only rule."""
    rules = [rule.name for rule in subject.rules]
    if len(rules) > 1:
        return ""
    code = f'{{"{rules[0]}": {meaning}}}' if rules else meaning
    return f"; if {what}, pass intended={code}"
