"""Kinks that inputs share, where finite differences are the only oracle.

Two equal inputs of a maximum: each may have all of the upstream, or nothing, and every value in
between lies between its one-sided slopes; but both cannot have all of it. Slopes at points close by
say what is possible together.
"""

from typing import Any

import numpy as np

from gradlab.checking.differences import entry_slopes
from gradlab.checking.evidence import Evidence
from gradlab.checking.kinks import nudged, possible_together
from gradlab.references import Reason, State, Verdict

__all__ = ["settle_shared_kinks"]

_REACH = 2.0**-10
_FEW, _MANY, _ENTRIES = 24, 160, 12


def settle_shared_kinks(verdicts: tuple[Verdict, ...], evidence: Evidence) -> tuple[Verdict, ...]:
    """Call entries at kinks wrong whose values are impossible together."""
    entries = [
        (k, int(i))
        for k, (verdict, target) in enumerate(zip(verdicts, evidence.subject.targets))
        if target.kind == "real"
        for i in np.flatnonzero(verdict.decided_by(Reason.AT_A_KINK))
    ][:_ENTRIES]
    if len(entries) < 2:
        return verdicts
    actual = np.array([verdicts[k].actual.ravel()[i] for k, i in entries])
    every = np.ones(actual.size, bool)
    for count in (_FEW, _MANY):  # a corner of the hull may not have been seen yet
        possible = possible_together(actual, _witnesses(evidence, entries, count), every)
        if possible.all():
            return verdicts
    found = []
    for k, verdict in enumerate(verdicts):
        chosen = [i for (target, i), fine in zip(entries, possible) if target == k and not fine]
        mask = np.isin(np.arange(verdict.actual.size), chosen).reshape(verdict.actual.shape)
        found.append(verdict.settle(mask, State.WRONG, Reason.NOT_TOGETHER))
    return tuple(found)


def _witnesses(
    evidence: Evidence, entries: list[tuple[int, int]], count: int
) -> np.ndarray[Any, Any]:
    """Return the slopes of these entries at points close by: one row each."""
    rng = np.random.default_rng([evidence.seed, 7])
    targets = evidence.subject.targets
    rows = []
    for _ in range(count):
        there = {t.path: nudged(rng, evidence.values[t.path], _REACH) for t in targets}
        row = np.zeros(len(entries))
        for k, target in enumerate(targets):
            mine = [n for n, (owner, _) in enumerate(entries) if owner == k]
            if mine:
                chosen = np.array([entries[n][1] for n in mine])
                row[mine] = entry_slopes(evidence, target, chosen, there, _REACH / 8)
        rows.append(row)
    return np.array(rows)
