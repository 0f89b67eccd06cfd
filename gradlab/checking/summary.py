"""From trials to a report: each law at its worst, each input's count, the worst entry, the why."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradlab.checking.diagnosis import diagnose
from gradlab.checking.judged import Judged
from gradlab.checking.laws import LAWS, second_order
from gradlab.checking.locate import worst_output
from gradlab.checking.report import CheckReport, Entry, Law, Leaf
from gradlab.checking.trial import Trial

__all__ = ["summarise"]

_ORDER = ("failed", "inconclusive", "warned", "passed", "skipped")


def summarise(trials: Sequence[Trial], seed: int, order: int) -> CheckReport:
    """Return the report of one or more trials of the same function."""
    subject = trials[0].subject
    dtypes = tuple(dict.fromkeys(_dtype(trial) for trial in trials))
    laws: list[Law] = []
    for dtype in dtypes:
        here = [trial for trial in trials if _dtype(trial) == dtype]
        label = dtype if len(dtypes) > 1 else ""
        chosen = (*LAWS, second_order) if order == 2 else LAWS
        laws += [_worst_law((law(trial) for trial in here), label) for law in chosen]
    first = next((t for t in trials if _any_failed(t, laws)), trials[0])
    here = [law for law in laws if law.dtype in ("", _dtype(first))]
    broken = any(law.status == "failed" for law in laws)
    notes = [note for trial in trials for note in trial.subject.notes]
    return CheckReport(
        function=subject.name,
        laws=tuple(laws),
        leaves=_leaves(trials),
        worst=_located(trials),
        findings=diagnose(first, here) if broken else (),
        oracle=subject.oracle,
        resolution=_resolution(trials),
        notes=tuple(dict.fromkeys(notes)),
        seed=seed,
        dtypes=dtypes,
    )


def _worst_law(laws: Iterable[Law], dtype: str) -> Law:
    worst = min(laws, key=lambda law: _ORDER.index(law.status))
    return Law(worst.name, worst.status, worst.reason, worst.error, dtype)


def _dtype(trial: Trial) -> str:
    return ", ".join(dict.fromkeys(str(target.dtype) for target in trial.subject.targets))


def _leaves(trials: Sequence[Trial]) -> tuple[Leaf, ...]:
    leaves = []
    for k, target in enumerate(trials[0].subject.targets):
        judged = [each for trial in trials for each in _judged(trial, k)]
        size = int(np.prod(target.shape, dtype=np.int64))
        wrong = np.zeros(target.shape, bool)
        right = np.zeros(target.shape, bool)
        for trial in trials:
            here = _judged(trial, k)
            if trial.subject.complaints and (not here or trial.subject.odd[k]):
                wrong |= True
            for each in here:
                wrong |= each.wrong
            if here:
                right |= np.any([each.right for each in here], axis=0)
        right &= ~wrong
        leaves.append(
            Leaf(
                path=target.path,
                shape=tuple(target.shape),
                dtype=str(target.dtype),
                right=int(right.sum()),
                wrong=int(wrong.sum()),
                inconclusive=size - int(right.sum()) - int(wrong.sum()),
            )
        )
        del judged
    return tuple(leaves)


def _judged(trial: Trial, k: int) -> list[Judged]:
    if trial.subject.oracle.startswith("none"):
        return []
    verdicts = (trial.formula_verdicts, trial.accuracy_verdicts)
    return [each[k] for each in verdicts if each]


def _worst_entry(trials: Sequence[Trial]) -> tuple[Entry, Trial, int] | None:
    best: tuple[Entry, Trial, int] | None = None
    for trial in trials:
        if trial.subject.oracle.startswith("none"):
            continue
        for law, verdicts in (
            ("formula", trial.formula_verdicts),
            ("accuracy", trial.accuracy_verdicts),
        ):
            for k, each in enumerate(verdicts):
                index = each.worst
                if index is None:
                    continue
                entry = Entry(
                    path=each.target.path,
                    index=index,
                    actual=_number(each.actual[index]),
                    expected=_number(each.expected[index]),
                    error=float(each.error[index]),
                    law=law,
                )
                if best is None or (law == best[0].law and entry.error > best[0].error):
                    best = (entry, trial, k)
    return best


def _located(trials: Sequence[Trial]) -> Entry | None:
    """Return the worst entry, and the output through which it is wrong."""
    worst = _worst_entry(trials)
    if worst is None or worst[0].law != "formula":
        return worst and worst[0]
    entry, trial, target = worst
    return dataclasses.replace(entry, output=worst_output(trial, target, entry.index))


def _any_failed(trial: Trial, laws: Sequence[Law]) -> bool:
    if trial.subject.oracle.startswith("none"):
        return False
    verdicts = (trial.formula_verdicts, trial.accuracy_verdicts)
    return any(each.wrong.any() for group in verdicts for each in group)


def _resolution(trials: Sequence[Trial]) -> dict[str, float]:
    resolution: dict[str, float] = {}
    for k, target in enumerate(trials[0].subject.targets):
        seen = [each.typical_resolution for trial in trials for each in _judged(trial, k)[:1]]
        resolution[target.path] = min(seen, default=float("inf"))
    return resolution


def _number(value: Any) -> complex:
    return complex(value) if np.iscomplexobj(value) else float(value)
