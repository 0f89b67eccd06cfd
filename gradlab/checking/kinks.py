"""At a kink several gradients are right; gradients at inputs close by are the witnesses.

If they stay apart however close the inputs come, the function has a kink there, and every value in
the hull of those gradients is a gradient (Clarke, "Optimization and nonsmooth analysis", 1983). If
they agree with each other and not with the reference at the point itself, autodiff of the primal is
wrong there. What entries may be together is told by what stays the same at every input close by.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.checking.differences import slopes
from gradlab.checking.evidence import Evidence, typical
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import Reason, State, Verdict

__all__ = ["kinks", "ties"]


_NEAR, _NEARER = 2.0**-18, 2.0**-28
_FEW, _MANY = 16, 160
_TOGETHER = 32
_SLACK = 1e-6
_FAR, _ROUGH, _CLASSES = 2.0**-10, 1e-2, 8  # where slopes are measured, and how well they agree
_SEEN = 4  # how often each of two slopes is seen before two entries are called tied


@dataclass(frozen=True)
class _Suspects:
    """Chosen entries of all gradients, in one row."""

    entries: dict[int, Array]  # flat positions, by target
    actual: Array
    expected: Array


def kinks(verdicts: tuple[Verdict, ...], evidence: Evidence) -> tuple[Verdict, ...]:
    """Take back `wrong` where the rule lies in the hull of gradients close by, at a kink.

    Where the function is smooth and the reference alone is off, the rule is held against the limit
    of its neighbours instead.
    """
    masks = [v.wrong | v.decided_by(Reason.REFERENCE_NOT_FINITE) for v in verdicts]
    suspects = _chosen(verdicts, masks)
    if not suspects.actual.size or np.iscomplexobj(suspects.actual):
        return verdicts
    for count in (_FEW, _MANY):  # an end of the hull may not have been seen yet
        near, nearer = (_close_by(evidence, suspects, reach, count) for reach in (_NEAR, _NEARER))
        kinked = _kinked(near, nearer)
        inside = kinked & _inside(suspects.actual, nearer)
        limit, close = _limit(near, nearer)
        astray = ~kinked & np.isfinite(limit) & ~(np.abs(suspects.expected - limit) <= close)
        with np.errstate(invalid="ignore"):
            agrees = np.abs(suspects.actual - limit) <= close
        if inside[kinked].all() and not (astray & ~agrees).any():
            break
    return _written(verdicts, suspects, inside, astray & agrees, astray & ~agrees, limit)


def ties(verdicts: tuple[Verdict, ...], evidence: Evidence) -> tuple[Verdict, ...]:
    """Call entries at kinks wrong that no gradient close by has, alone or together.

    Two equal inputs of a maximum share one upstream: each may have all of it, and not both. Where
    two entries are tied, one gives the other at every input close by. Where several are, their sum
    is the same at every input close by, for they move together without leaving the tie.
    """
    if evidence.subject.is_called:
        from gradlab.checking.opaque import tied as tied_by_calls  # few forwards cannot be read

        return tied_by_calls(verdicts, evidence)
    masks = [v.decided_by(Reason.AT_A_KINK, Reason.BESIDE_A_KINK) for v in verdicts]
    if not any(mask.any() for mask in masks):
        return verdicts
    inputs = [widen(evidence.values[target.path]) for target in evidence.subject.targets]
    equal = np.unique(np.concatenate([x[mask].ravel() for x, mask in zip(inputs, masks)]))
    tied = [m | (v.right & np.isin(x, equal)) for m, v, x in zip(masks, verdicts, inputs)]
    suspects = _chosen(verdicts, tied)
    if np.iscomplexobj(suspects.actual):
        return verdicts
    values = np.concatenate([inputs[i].ravel()[e] for i, e in suspects.entries.items()])
    if not evidence.has_reference:
        beside = _row(verdicts, suspects, Reason.BESIDE_A_KINK)
        bad = _refuted_by_slopes(evidence, suspects, values, beside)
        return _together(verdicts, suspects, bad)
    seen = _close_by(evidence, suspects, _NEARER, _TOGETHER)
    seen = seen[np.isfinite(seen).all(axis=1)]
    if len(seen) < 2 * _SEEN:
        return verdicts
    bad = _outside(suspects.actual, seen) | _beside_partner(suspects.actual, seen)
    classes = [np.unique(values, return_inverse=True)[1], np.zeros(values.size, np.int64)]
    for members in classes:
        if not bad.any():
            bad |= _beside_sum(suspects.actual, seen, members)
    return _together(verdicts, suspects, bad)


def _together(
    verdicts: tuple[Verdict, ...], suspects: _Suspects, bad: Array
) -> tuple[Verdict, ...]:
    """Return the verdicts with some of the suspects called wrong."""
    found = list(verdicts)
    for i, mask in _masks(verdicts, suspects, bad):
        found[i] = found[i].settle(mask, State.WRONG, Reason.NOT_TOGETHER)
    return tuple(found)


def _row(verdicts: Sequence[Verdict], suspects: _Suspects, reason: Reason) -> Array:
    """Say which suspects a reason decided."""
    masks = [verdicts[i].decided_by(reason).ravel()[e] for i, e in suspects.entries.items()]
    return np.concatenate(masks)


def _refuted_by_slopes(
    evidence: Evidence, suspects: _Suspects, values: Array, beside: Array
) -> Array:
    """Say which entries slopes refute, at the point and at inputs close by.

    Equal inputs are moved together: where the slope is the same close by, their sum is known. An
    entry beside a kink is refuted if its slope close by takes two values, and it is outside.
    """
    members, bad = np.unique(values, return_inverse=True)[1], np.zeros(values.size, bool)
    sizes = np.bincount(members)
    tied = [np.flatnonzero(members == k) for k in np.argsort(-sizes)[:_CLASSES] if sizes[k] > 1]
    groups = [*tied, np.arange(values.size)][: _CLASSES + 1 if values.size > 1 else 0]
    alone = [np.array([n]) for n in np.flatnonzero(beside)[:_CLASSES]]
    directions = [_moved(evidence, suspects, group) for group in (*groups, *alone)]
    if not directions:
        return bad
    here = slopes(evidence, directions)
    rng = np.random.default_rng([evidence.seed, 7])
    seen = []
    for _ in range(2 * _SEEN):
        moved = {
            target.path: _nudged(rng, evidence.values[target.path], _FAR)
            for target in evidence.subject.targets
        }
        there = evidence.at({**evidence.values, **moved}, evidence.upstreams)
        seen.append(slopes(there, directions, _FAR / 8).value)
    near = np.array(seen)
    for k, group in enumerate((*groups, *alone)):
        step = max(float(np.max(np.abs(values[group]))), 1.0)
        claim, low, high = float(np.sum(suspects.actual[group])) * step, *_ends(near[:, k])
        scale = max(float(np.sum(np.abs(suspects.actual[group]))) * step, abs(low), abs(high))
        if group.size > 1:  # moved together they stay tied
            low, high = min(low, float(here.value[k])), max(high, float(here.value[k]))
            told = not here.kink[k] and high - low <= _ROUGH * scale
        else:
            told = bool(np.all(np.minimum(near[:, k] - low, high - near[:, k]) <= _ROUGH * scale))
        slack = 5 * _ROUGH * scale
        if told and np.isfinite(high - low) and not low - slack <= claim <= high + slack:
            bad[group] = True
    return bad


def _ends(seen: Array) -> tuple[float, float]:
    return float(np.min(seen)), float(np.max(seen))


def _moved(evidence: Evidence, suspects: _Suspects, group: Array) -> dict[str, Array]:
    """Return the direction that moves a group of suspects by one step, all by the same."""
    start, direction = 0, {}
    for i, entries in suspects.entries.items():
        target = evidence.subject.targets[i]
        value = widen(evidence.values[target.path]).ravel()
        way = np.zeros(value.size)
        mine = entries[group[(group >= start) & (group < start + entries.size)] - start]
        way[mine] = 1.0
        start += entries.size
        direction[target.path] = way.reshape(target.shape)
    chosen = np.concatenate(
        [
            widen(evidence.values[evidence.subject.targets[i].path]).ravel()[e]
            for i, e in suspects.entries.items()
        ]
    )[group]
    step = max(float(np.max(np.abs(chosen))), 1.0)
    return {path: way * step for path, way in direction.items()}


def _outside(actual: Array, seen: Array) -> Array:
    """Say which entries lie outside of two slopes, if no others are seen close by."""
    low, high = seen.min(axis=0), seen.max(axis=0)
    width, slack = high - low, _SLACK * np.maximum(np.abs(low), np.abs(high))
    two = (np.minimum(seen - low, high - seen) <= slack).all(axis=0) & _often(seen)
    bad: Array = two & ((actual < low - 10 * slack) | (actual > high + 10 * slack)) & (width > 0)
    return bad


def _often(seen: Array) -> Array:
    """Say which entries were seen several times on both sides of their middle."""
    above = seen > (seen.min(axis=0) + seen.max(axis=0)) / 2
    often: Array = np.minimum(above.sum(axis=0), (~above).sum(axis=0)) >= _SEEN
    return often


def _beside_partner(actual: Array, seen: Array) -> Array:
    """Say which entries contradict another one that gives their value at every input close by."""
    low, high = seen.min(axis=0), seen.max(axis=0)
    width = high - low
    above = seen > (low + high) / 2
    often = _often(seen)
    pattern = np.packbits(above ^ above[:1], axis=0)
    bad = np.zeros(actual.size, bool)
    order = np.lexsort(pattern)
    order = order[often[order]]
    for k, j in itertools.pairwise(order):
        if not np.array_equal(pattern[:, k], pattern[:, j]):
            continue
        sign = 1.0 if above[0, k] == above[0, j] else -1.0
        slope = sign * width[j] / width[k]
        rest = seen[:, j] - slope * seen[:, k]
        slack = _SLACK * (np.abs(seen[:, j]).max() + np.abs(slope * seen[:, k]).max())
        if np.ptp(rest) <= slack:
            off = actual[j] - slope * actual[k] - rest.mean()
            if abs(off) > 10 * slack:
                bad[[k, j]] = True
    return bad


def _beside_sum(actual: Array, seen: Array, members: Array) -> Array:
    """Say which classes of entries have another sum than at every input close by."""
    size = int(members.max()) + 1
    sums = np.array([np.bincount(members, weights=row, minlength=size) for row in seen])
    scale = np.bincount(members, weights=np.abs(seen).max(axis=0), minlength=size)
    claim = np.bincount(members, weights=actual, minlength=size)
    slack = _SLACK * np.maximum(scale, np.bincount(members, weights=np.abs(actual), minlength=size))
    several = np.bincount(members, minlength=size) > 1
    constant = several & (np.ptp(sums, axis=0) <= slack)
    bad: Array = (constant & (np.abs(claim - sums.mean(axis=0)) > 10 * slack))[members]
    return bad


def _chosen(verdicts: Sequence[Verdict], masks: Sequence[Array]) -> _Suspects:
    entries, actual, expected = {}, [], []
    for i, (verdict, mask) in enumerate(zip(verdicts, masks)):
        found = np.flatnonzero(mask.ravel())
        if found.size:
            entries[i] = found
            actual.append(verdict.actual.ravel()[found])
            expected.append(np.ravel(verdict.expected)[found])
    empty = np.zeros(0)
    return _Suspects(entries, np.concatenate([empty, *actual]), np.concatenate([empty, *expected]))


def _close_by(evidence: Evidence, suspects: _Suspects, reach: float, count: int) -> Array:
    """Return the reference's gradients at inputs close by: one row each."""
    rng = np.random.default_rng([evidence.seed, 4])
    paths = [target.path for target in evidence.subject.targets]
    cases = [
        {path: _nudged(rng, evidence.values[path], reach) for path in paths} for _ in range(count)
    ]
    return np.array(
        [
            np.concatenate([gradients[i].ravel()[e] for i, e in suspects.entries.items()])
            for gradients in evidence.gradients_at("reference", cases)
        ]
    )


def _nudged(rng: np.random.Generator, value: Any, reach: float) -> Any:
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
                f"at {verdict.path}{where or ''} autodiff gives {suspects.expected[here][k]:.6g}, "
                f"and the rule gives {limit[here][k]:.6g}. Inputs nearby confirm the rule"
            )
        for chosen, state, reason in (
            (kinks[here], State.RIGHT, Reason.AT_A_KINK),
            (confirmed[here], State.RIGHT, Reason.POINTS_CONFIRM),
            (refuted[here], State.WRONG, Reason.POINTS_REFUTE),
        ):
            said = notes if reason == Reason.POINTS_CONFIRM else []
            mask = _mask(shape, entries[chosen])
            verdict = verdict.settle(mask, state, reason, expected=expected, notes=said)
        found[i] = verdict
    return tuple(found)


def _masks(
    verdicts: Sequence[Verdict], suspects: _Suspects, chosen: Array
) -> Iterator[tuple[int, Array]]:
    """Yield the chosen entries among the suspects, target by target."""
    start = 0
    for i, entries in suspects.entries.items():
        here = chosen[start : start + entries.size]
        start += entries.size
        yield i, _mask(verdicts[i].actual.shape, entries[here])


def _mask(shape: tuple[int, ...], entries: Array) -> Array:
    mask = np.zeros(int(np.prod(shape, dtype=np.int64)), bool)
    mask[entries] = True
    return mask.reshape(shape)
