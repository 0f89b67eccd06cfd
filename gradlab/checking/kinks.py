"""Is a disagreement a kink of the function, or the reference's own mistake, rather than the rule's?

The reference's gradients at points close by are the witnesses. If they stay apart however close the
points come, the function has a kink there, and every value in the hull of those gradients is a
gradient (Clarke, "Optimization and nonsmooth analysis", 1983). If they agree with each other but
not with the reference at the point itself, autodiff of the primal is what is wrong there.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.checking.evidence import Evidence, typical
from gradlab.references import Reason, State, Verdict

__all__ = ["nudged", "possible_together", "settle_kinks"]

Array = np.ndarray[Any, Any]

_NEAR, _NEARER = 2.0**-18, 2.0**-28
_FEW, _MANY = 16, 160
_TOGETHER = 64
_SLACK = 1e-6


@dataclass(frozen=True)
class _Suspects:
    """The entries of all gradients that need another witness, in one row."""

    entries: dict[int, Array]  # flat positions, by target
    actual: Array
    reference: Array


def settle_kinks(verdicts: tuple[Verdict, ...], evidence: Evidence) -> tuple[Verdict, ...]:
    """Take back `wrong` where the rule lies in the hull of gradients close by, at a kink.

    Where the function is smooth and the reference alone is off, the rule is held against the limit
    of its neighbours instead.
    """
    suspects = _suspects(verdicts)
    if not suspects.actual.size or np.iscomplexobj(suspects.actual):
        return verdicts
    for count in (_FEW, _MANY):  # a corner of the hull may not have been seen yet
        near, nearer = (_witnesses(evidence, suspects, r, count) for r in (_NEAR, _NEARER))
        kinked = _kinked(near, nearer)
        inside = kinked & _inside(suspects.actual, nearer)
        possible = possible_together(suspects.actual, nearer, inside)
        limit, close = _limit(near, nearer)
        astray = ~kinked & np.isfinite(limit) & ~(np.abs(suspects.reference - limit) <= close)
        agrees = np.abs(suspects.actual - limit) <= close
        if possible.all() and not (astray & ~agrees).any():
            break
    inside &= possible
    return _written(verdicts, suspects, inside, astray & agrees, astray & ~agrees, limit)


def _suspects(verdicts: tuple[Verdict, ...]) -> _Suspects:
    entries, actual, reference = {}, [], []
    for i, verdict in enumerate(verdicts):
        mask = verdict.wrong | (verdict.inconclusive & ~np.isfinite(verdict.expected))
        found = np.flatnonzero(mask.ravel())
        if found.size and not verdict.decided_by(Reason.NOT_JUDGED).any():
            entries[i] = found
            actual.append(verdict.actual.ravel()[found])
            reference.append(np.ravel(verdict.expected)[found])
    empty = np.zeros(0)
    return _Suspects(entries, np.concatenate([empty, *actual]), np.concatenate([empty, *reference]))


def _witnesses(evidence: Evidence, suspects: _Suspects, reach: float, count: int) -> Array:
    """Return the reference's gradients at points close by: one row each."""
    rng = np.random.default_rng([evidence.seed, 4])
    paths = [target.path for target in evidence.subject.targets]
    cases = [
        {path: nudged(rng, evidence.values[path], reach) for path in paths} for _ in range(count)
    ]
    rows = []
    for result in evidence.many(cases):
        gradients = evidence.gradients(result["reference"])
        rows.append(np.concatenate([gradients[i].ravel()[e] for i, e in suspects.entries.items()]))
    return np.array(rows)


def nudged(rng: np.random.Generator, value: Any, reach: float) -> Any:
    """Return an array in float64, each entry moved by up to `reach` of its size."""
    array = np.asarray(value)
    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    size = np.maximum(np.abs(wide), typical(value))
    return wide + reach * size * rng.uniform(0.5, 1.0, wide.shape) * rng.choice((-1, 1), wide.shape)


def _kinked(near: Array, nearer: Array) -> Array:
    """Say where the witnesses stay apart as the points come closer."""
    far, close = (np.ptp(w, axis=0) for w in (_finite(near), _finite(nearer)))
    with np.errstate(invalid="ignore"):
        apart: Array = (close > 0.25 * far) & (close > 1e-5 * np.abs(_finite(nearer)).max(axis=0))
    return apart


def _inside(actual: Array, witnesses: Array) -> Array:
    """Say which values lie between the least and the greatest witness."""
    seen = _finite(witnesses)
    low, high = seen.min(axis=0), seen.max(axis=0)
    slack = _SLACK * np.maximum(np.abs(low), np.abs(high))
    inside: Array = (low - slack <= actual) & (actual <= high + slack)
    return inside


def possible_together(actual: Array, witnesses: Array, chosen: Array) -> Array:
    """Say which entries are possible together with the others.

    Each value may lie between its slopes and the pair still be no gradient: two equal inputs of a
    maximum share one upstream, and cannot both have all of it. So sums and differences of pairs
    must lie in their hull too, as witnesses saw them that know both.
    """
    possible = np.ones(actual.size, bool)
    known = np.isfinite(witnesses)
    for i, j in itertools.combinations(np.flatnonzero(chosen)[:_TOGETHER], 2):
        seen = witnesses[known[:, i] & known[:, j]]
        for sign in (1.0, -1.0) if len(seen) else ():
            both = (seen[:, i] + sign * seen[:, j])[:, None]
            claim = actual[i : i + 1] + sign * actual[j : j + 1]
            if not _inside(claim, both)[0]:
                possible[[i, j]] = False
    return possible


def _limit(near: Array, nearer: Array) -> tuple[Array, Array]:
    """Return the value to which the witnesses tend, and how well that is known."""
    limit = np.median(_finite(nearer), axis=0)
    limit = np.where(np.isfinite(nearer).any(axis=0), limit, np.nan)
    return limit, 1e-5 * np.abs(limit) + 8 * np.ptp(_finite(near), axis=0)


def _finite(witnesses: Array) -> Array:
    """Return the witnesses with those that are not finite replaced by one that is."""
    good = np.isfinite(witnesses)
    first = np.take_along_axis(witnesses, good.argmax(axis=0)[None], 0)
    return np.where(good, witnesses, np.where(np.isfinite(first), first, 0.0))


def _written(
    verdicts: tuple[Verdict, ...],
    suspects: _Suspects,
    kinks: Array,
    confirmed: Array,
    refuted: Array,
    limit: Array,
) -> tuple[Verdict, ...]:
    """Return the verdicts with what the witnesses said."""
    start, found = 0, list(verdicts)
    for i, entries in suspects.entries.items():
        here = slice(start, start + entries.size)
        start += entries.size
        verdict, shape = verdicts[i], verdicts[i].actual.shape
        astray = confirmed[here] | refuted[here]
        expected, notes = verdict.expected, []
        if astray.any():
            expected = expected.copy()
            expected.reshape(-1)[entries[astray]] = limit[here][astray]
        if confirmed[here].any():
            k = int(np.flatnonzero(confirmed[here])[0])
            where = list(map(int, np.unravel_index(entries[k], shape)))
            notes.append(
                f"autodiff of the primal is wrong at {verdict.path}{where or ''}: it gives "
                f"{suspects.reference[here][k]:.6g}; points close by, and the rule, give "
                f"{limit[here][k]:.6g}"
            )
        for chosen, state, reason in (
            (kinks[here], State.RIGHT, Reason.AT_A_KINK),
            (confirmed[here], State.RIGHT, Reason.POINTS_CONFIRM),
            (refuted[here], State.WRONG, Reason.POINTS_REFUTE),
        ):
            said = notes if reason == Reason.POINTS_CONFIRM else []
            where_ = _mask(shape, entries[chosen])
            verdict = verdict.settle(where_, state, reason, expected=expected, notes=said)
        found[i] = verdict
    return tuple(found)


def _mask(shape: tuple[int, ...], entries: Array) -> Array:
    mask = np.zeros(int(np.prod(shape, dtype=np.int64)), bool)
    mask[entries] = True
    return mask.reshape(shape)
