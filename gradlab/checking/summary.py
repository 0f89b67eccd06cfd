"""From trials to a report: each law at its worst, each input's count, the worst entry, the why."""

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.checking.digits import Left, count_digits
from gradlab.checking.laws.book import hold_laws
from gradlab.checking.laws.entries import entry_name, worst_entry
from gradlab.checking.laws.linearity import nonlinearity
from gradlab.checking.reach import Settings, look_further
from gradlab.checking.report import CheckReport
from gradlab.checking.trial import Trial
from gradlab.common.arrays import NumPyArray
from gradlab.common.faults import forgiven
from gradlab.progress import step, tracked
from gradlab.references import Reason, Verdict
from gradlab.references.verdict import error_map
from gradlab.report import (
    STATUSES,
    Entry,
    ErrorMap,
    Finding,
    Law,
    LawStatus,
    Leaf,
    ReasonCount,
    Unchecked,
    leaf_status,
)

if TYPE_CHECKING:
    from gradlab.repair.written import Cause, Repaired

explaining: ContextVar[bool] = ContextVar("gradlab_explaining", default=True)
"""Whether the cause of a wrong gradient is searched for, and a right one followed further."""

_PRODUCTS = ("pushforward", "adjoint", "linear", "finite differences")
_OPEN = (
    Reason.CONVERGED,
    Reason.NOT_CONVERGED,
    Reason.LIFTING_CHANGES,
    Reason.AT_A_KINK,
    Reason.BESIDE_A_KINK,
    Reason.AT_A_JUMP,
)
_MAPS = 12  # inputs
_WORST_FIRST: tuple[LawStatus, ...] = ("failed", "inconclusive", "warned", "passed", "skipped")


def summarise(
    trials: Sequence[Trial],
    seed: int,
    order: int,
    settings: Settings | None = None,
    mend: "Callable[[str, Trial], Repaired] | None" = None,
) -> CheckReport:
    """Return the report of one or more trials of the same function.

    `mend` searches the source for fixes, where a formula is wrong and nothing hides the cause.
    Where digits are lost that another form keeps, it is given their dtype. It starts at the inputs
    of the trial.
    """
    subject = trials[0].subject
    found: list[tuple[Trial, list[Law]]] = []
    for trial in tracked(trials, _dtype):
        if found and trial.subject is not found[-1][0].subject:
            trial.subject.calls.renew()
        found.append((trial, _held(trial, order)))
    if subject.intended == "any":
        return _not_judged(found, seed)
    with step("digits"):
        counted = _leaves(trials)
    with step("branches and proof"):
        settings = settings or Settings()
        if not explaining.get():  # a mutant is judged where the tests look, and nowhere else
            settings = dataclasses.replace(settings, branches=False, prove=False)
        if not subject.domain.everything:
            legal = subject.domain.broken
            settings = dataclasses.replace(settings, legal=lambda values: not legal(dict(values)))
        reach = look_further(trials, [leaf for leaf, _ in counted], settings)
    if reach.wrong:
        trials = [*trials, *reach.wrong]
        found = [*found, *((trial, _held(trial, order)) for trial in reach.wrong)]
        counted = _leaves(trials)
    label = _dtype(trials[0]) if len(set(map(_dtype, trials))) > 1 else ""
    failing = (pair for pair in found if any(law.status == "failed" for law in pair[1]))
    wrong = next(failing, None) if explaining.get() else None
    with step("cause and fix"):
        (fixes, first), findings = _explained(wrong, mend)
        right = wrong is None or (wrong[0].runs and not wrong[0].any_wrong)
        lost = [left.digits.dtype for _, left in counted if left and left.digits.avoidable]
        if mend is not None and right and lost and explaining.get():
            fixes, first = mend(lost[0], trials[0])
    if first is not None and not fixes:
        path = next(leaf.path for leaf, _ in counted if leaf.wrong)
        line = Finding("line", path, first.told, code=first.code, line=first.place)
        findings = _with_line(findings, line, first)
    notes = [n for trial in trials for n in (*trial.subject.notes, *trial.dropped.notes)]
    notes += subject.calls.notes
    return CheckReport(
        function=subject.name,
        laws=(*_merged(found), dataclasses.replace(reach.law, dtype=label)),
        leaves=tuple(leaf for leaf, _ in counted),
        unchecked=subject.unchecked,
        rules=subject.rules,
        worst=_worst(trials),
        findings=findings,
        fixes=fixes,
        oracle=subject.oracle,
        digits={leaf.path: left.digits for leaf, left in counted if left is not None},
        resolution={t.path: _resolution(trials, k) for k, t in enumerate(subject.targets)},
        notes=tuple(dict.fromkeys((*reach.notes, *notes))),
        evidence=dict(reach.evidence),
        seed=seed,
        dtypes=tuple(dict.fromkeys(map(_dtype, trials))),
        maps=_maps(trials, [leaf for leaf, _ in counted]),
    )


def _explained(
    wrong: tuple[Trial, list[Law]] | None, mend: "Callable[[str, Trial], Repaired] | None"
) -> "tuple[Repaired, tuple[Finding, ...]]":
    """Return the fixes and the first wrong line of what is wrong, and its causes."""
    if wrong is None:
        return ((), None), ()
    from gradlab.checking.diagnosis import diagnose, mendable  # right gradients never need it

    with _young_garbage():
        repaired: Repaired = ((), None)
        with forgiven("search for a fix"):
            repaired = mend("", wrong[0]) if mend and mendable(*wrong) else repaired
        fixes, first = repaired
        known = bool(fixes) or (first is not None and first.whole)
        return repaired, diagnose(*wrong, known)


def _with_line(findings: tuple[Finding, ...], line: Finding, first: "Cause") -> tuple[Finding, ...]:
    """Return the causes with that of the search among them; none is told twice."""
    # what half a fix mends needs no other cause, but for a gradient in another's place
    rest = tuple(f for f in findings if f.path not in first.right or f.code == "GL313")
    if first.code != "GL900" or first.whole:
        return (line, *rest)
    only_looks = all(f.code == "GL409" for f in rest)  # and no cause, which says more than a line
    return (line, *rest) if only_looks else rest


@contextlib.contextmanager
def _young_garbage() -> Iterator[None]:
    """Keep the garbage collector from scanning what is older than a search.

    A search makes many objects, and JAX has many that stay. What the user froze stays frozen.
    """
    apart = not gc.get_freeze_count()
    if apart:
        gc.freeze()
    try:
        yield
    finally:
        if apart:
            gc.unfreeze()


def _maps(trials: Sequence[Trial], leaves: Sequence[Leaf]) -> dict[str, ErrorMap]:
    """Return the gradients' errors seen from far, of the worst inputs."""
    order = sorted(range(len(leaves)), key=lambda k: STATUSES.index(leaves[k].status))
    made = {}
    for k in order[:_MAPS]:
        judged = [each for trial in trials for each in _judged(trial, k)]
        worst = next((each for each in judged if each.wrong.any()), judged[0] if judged else None)
        if worst is not None and worst.error.size:
            made[leaves[k].path] = error_map(worst)
    return made


def _leaves(trials: Sequence[Trial]) -> list[tuple[Leaf, Left | None]]:
    return [_leaf(trials, k) for k in range(len(trials[0].subject.targets))]


def _held(trial: Trial, order: int) -> list[Law]:
    return [_excused(trial, law) for law in hold_laws(trial, order)]


def _excused(trial: Trial, law: Law) -> Law:
    """Return a law on a product of all entries, undecided where the formula leaves entries so."""
    if law.status != "failed" or law.name not in _PRODUCTS or trial.any_wrong:
        return law
    for reason in _OPEN:
        if any(verdict.decided_by(reason).any() for verdict in trial.formula_verdicts):
            text = f"{law.reason}; at some entries {reason.sentence}"
            return dataclasses.replace(law, status="inconclusive", reason=text)
    return law


def _not_judged(found: Sequence[tuple[Trial, list[Law]]], seed: int) -> CheckReport:
    """Return the report of a rule whose derivative is meant to be what it is."""
    trials = [trial for trial, _ in found]
    subject = trials[0].subject
    targets = tuple(
        Unchecked(
            t.path, str(t.dtype), f"the gradient of {t.path} is intended, so it was not judged"
        )
        for t in subject.targets
    )
    notes = [n for trial in trials for n in (*trial.subject.notes, *trial.dropped.notes)]
    return CheckReport(
        function=subject.name,
        laws=tuple(_merged(found)),
        leaves=(),
        unchecked=(*targets, *subject.unchecked),
        oracle="none: any derivative is intended",
        rules=subject.rules,
        notes=tuple(dict.fromkeys(notes)),
        seed=seed,
        dtypes=tuple(dict.fromkeys(map(_dtype, trials))),
    )


def _dtype(trial: Trial) -> str:
    return trial.subject.dtypes


def _merged(found: Sequence[tuple[Trial, list[Law]]]) -> Iterator[Law]:
    """Yield each law once per dtype, as it was at its worst."""
    dtypes = dict.fromkeys(_dtype(trial) for trial, _ in found)
    for dtype in dtypes:
        label = dtype if len(dtypes) > 1 else ""
        for same in zip(*(laws for trial, laws in found if _dtype(trial) == dtype)):
            worst = min(same, key=lambda law: _WORST_FIRST.index(law.status))
            yield dataclasses.replace(worst, dtype=label)


def _judged(trial: Trial, k: int) -> list[Verdict]:
    """Return the verdicts on one input's gradient: the formula's, then the rule's own."""
    if not trial.runs:
        return []
    return [each[k] for each in (trial.formula_verdicts, trial.accuracy_verdicts) if each]


def _leaf(trials: Sequence[Trial], k: int) -> tuple[Leaf, Left | None]:
    """Return the verdict on one gradient and its digits, in the dtype in which it is worst."""
    dtypes = dict.fromkeys(map(_dtype, trials))
    found = [_counted([t for t in trials if _dtype(t) == dtype], k) for dtype in dtypes]
    return min(found, key=lambda pair: STATUSES.index(pair[0].status))


def _counted(trials: Sequence[Trial], k: int) -> tuple[Leaf, Left | None]:
    """Count the entries of one gradient that were right, wrong, or could not be judged."""
    target = trials[0].subject.targets[k]
    right, wrong = np.zeros(target.shape, bool), np.zeros(target.shape, bool)
    for trial in trials:
        judged = _judged(trial, k)
        if trial.runs and trial.subject.odd[k]:
            wrong |= True
        for each in judged:
            wrong |= each.wrong
        for each in judged[:1]:
            right |= each.right
    right &= ~wrong
    counts = int(right.sum()), int(wrong.sum())
    lefts = [
        count_digits(trial, trial.formula_verdicts, k)
        for trial in trials
        if trial.runs and trial.formula_verdicts and not trial.subject.odd[k]
    ]
    left = min(lefts, key=lambda n: (-n.digits.avoidable, -n.digits.lost), default=None)
    digits, zeros, lost = (None, 0, ()) if left is None else left
    leaf = Leaf(
        path=target.path,
        shape=tuple(target.shape),
        dtype=str(target.dtype),
        right=counts[0],
        wrong=counts[1],
        inconclusive=right.size - sum(counts),
        status=leaf_status(*counts, right.size, digits, zeros),
        reasons=(*_reasons(trials[0], k), *lost),
    )
    return leaf, left


def _reasons(trial: Trial, k: int) -> tuple[ReasonCount, ...]:
    """Return what decided the entries of one gradient's formula, most entries first."""
    counts = [verdict.counts() for verdict in _judged(trial, k)[:1]]
    return tuple(
        ReasonCount(reason.code, reason.sentence, entries)
        for count in counts
        for reason, entries in count.items()
    )


def _resolution(trials: Sequence[Trial], k: int) -> float:
    seen = [each.typical_resolution for trial in trials for each in _judged(trial, k)[:1]]
    return min(seen, default=float("inf"))


def _worst(trials: Sequence[Trial]) -> Entry | None:
    """Return the wrong entry that is furthest off, and the output through which it is."""
    found = [
        (law, each, trial, k)
        for trial in trials
        for k in range(len(trial.subject.targets))
        for law, each in enumerate(_judged(trial, k))
        if each.wrong.any()
    ]
    if not found:
        return None
    law, judged, trial, k = min(found, key=lambda f: (f[0], -f[1].error[f[1].worst]))
    name = "formula" if trial.formula_verdicts and not law else "accuracy"
    output = worst_output(trial, k, judged.worst or ()) if name == "formula" else ""
    return worst_entry(judged, name, judged.path, output)


def worst_output(trial: Trial, target: int, index: tuple[int, ...]) -> str:
    """Return the output entry through which an entry is wrong: by bisecting the upstream."""
    subject = trial.subject
    if not (subject.linear and trial.has_reference) or trial.formula_gradients is None:
        return ""
    if nonlinearity(trial, "rule"):
        return ""
    positions = np.arange(sum(int(np.prod(u.shape, dtype=np.int64)) for u in subject.upstreams))
    error = _share(trial, target, index, positions)
    while positions.size > 1 and np.abs(error) > 0:
        first, rest = np.array_split(positions, 2)
        share = _share(trial, target, index, first)
        larger = np.abs(share) >= np.abs(error - share)
        positions, error = (first, share) if larger else (rest, error - share)
    return _name(trial, int(positions[0])) if positions.size and np.abs(error) > 0 else ""


def _share(trial: Trial, target: int, index: tuple[int, ...], part: NumPyArray) -> Any:
    """Return how much of the error of one entry comes from a part of the outputs."""
    case = [_restricted(trial, part)]
    ours, theirs = (trial.gradients_at(key, case)[0][target] for key in ("rule", "reference"))
    return ours[index] - theirs[index]


def _restricted(trial: Trial, part: NumPyArray) -> dict[str, Any]:
    """Return the upstreams with everything outside a part of the outputs set to zero."""
    case, start = {}, 0
    for upstream in trial.subject.upstreams:
        value = np.asarray(trial.upstreams[upstream.name])
        inside = part[(part >= start) & (part < start + value.size)] - start
        kept = np.zeros(value.size, value.dtype)
        kept[inside] = value.ravel()[inside]
        case[upstream.name] = kept.reshape(value.shape)
        start += value.size
    return case


def _name(trial: Trial, position: int) -> str:
    for upstream in trial.subject.upstreams:
        size = int(np.prod(upstream.shape, dtype=np.int64))
        if position < size:
            index = np.unravel_index(position, upstream.shape) if upstream.shape else ()
            return entry_name(upstream.output, [int(i) for i in index])
        position -= size
    return ""
