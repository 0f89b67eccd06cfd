"""Kinks that inputs share, where finite differences are the only oracle.

Two equal inputs of a maximum: each may have all of the upstream, or nothing, and every value in
between lies between its one-sided slopes; but both cannot have all of it. Slopes at points close by
say what is possible together.
"""

from typing import Any

import numpy as np

from gradlab.checking.differences import entry_slopes
from gradlab.checking.evidence import Evidence
from gradlab.checking.judged import Judged
from gradlab.checking.kinks import nudged, possible_together

__all__ = ["settle_shared_kinks"]

_REACH = 2.0**-10
_FEW, _MANY, _ENTRIES = 24, 160, 12


def settle_shared_kinks(evidence: Evidence, judged: list[Judged]) -> None:
    """Call entries at kinks wrong whose values are impossible together."""
    entries = [
        (k, int(np.ravel_multi_index(index, each.actual.shape)) if index else 0)
        for k, each in enumerate(judged)
        for index in each.kinks
        if each.target.kind == "real"
    ][:_ENTRIES]
    if len(entries) < 2:
        return
    actual = np.array([judged[k].actual.ravel()[i] for k, i in entries])
    every = np.ones(actual.size, bool)
    for count in (_FEW, _MANY):  # a corner of the hull may not have been seen yet
        possible = possible_together(actual, _witnesses(evidence, judged, entries, count), every)
        if possible.all():
            return
    for (k, i), fine in zip(entries, possible):
        if not fine:
            mask = np.arange(judged[k].actual.size) == i
            judged[k].reject(mask.reshape(judged[k].actual.shape))


def _witnesses(
    evidence: Evidence, judged: list[Judged], entries: list[tuple[int, int]], count: int
) -> np.ndarray[Any, Any]:
    """Return the slopes of these entries at points close by: one row each."""
    rng = np.random.default_rng([evidence.seed, 7])
    paths = [target.path for target in evidence.subject.targets]
    rows = []
    for _ in range(count):
        there = {path: nudged(rng, evidence.values[path], _REACH) for path in paths}
        row = np.zeros(len(entries))
        for k, each in enumerate(judged):
            mine = [n for n, (target, _) in enumerate(entries) if target == k]
            if mine:
                chosen = np.array([entries[n][1] for n in mine])
                row[mine] = entry_slopes(evidence, each.target, chosen, there, _REACH / 8)
        rows.append(row)
    return np.array(rows)
