"""At a kink several gradients are right; gradients at inputs close by are the witnesses.

If they stay apart however close the inputs come, the function has a kink there, and every value in
the hull of those gradients is a gradient (Clarke, "Optimization and nonsmooth analysis", 1983).
What entries may be together is told by what stays the same at every input close by.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlab.checking.calls import CLOSER, noise_and_step, slopes_by_calls, to_both_sides
from gradlab.checking.differences import left_by_loops, slopes
from gradlab.checking.evidence import Evidence, typical
from gradlab.checking.widen import widen
from gradlab.checking.witness import Entries, Verdicts
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Reason, Slope, State
from gradlab.tracing.dependence import flow

_NEAR, _NEARER = 2.0**-18, 2.0**-28  # how close inputs are
_FEW, _TOGETHER, _MANY = 16, 32, 160  # and how many
_SLACK = 1e-6
_FAR, _ROUGH, _CLASSES = 2.0**-10, 1e-2, 8  # where slopes are measured, and how well they agree
_SEEN = 4  # how often each of two slopes is seen before two entries are called tied
_FEW_SEEN = 4  # inputs close by at which a forward is called
_CALLS = 2 * (1 + _FEW_SEEN)  # for each group of tied entries
_SAME = 1e-5  # of the terms of a sum
_AT_KINKS = (Reason.AT_A_KINK, Reason.BESIDE_A_KINK)


def kinks(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Take back `wrong` where the rule is a gradient at inputs close by, or between those there.

    Where these agree with each other and not with the reference, autodiff of the primal is off at
    the point itself. Thousands of entries cost no more than one.
    """
    entries = Entries.where([v.wrong | v.decided_by(Reason.REFERENCE_NOT_FINITE) for v in verdicts])
    rule, reference = entries.both(verdicts)
    if not rule.size or np.iscomplexobj(rule) or not _changes(evidence):
        return verdicts
    for count in (_FEW, _MANY):  # an end of the hull may not have been seen yet
        far, close = (_close_by(evidence, entries, reach, count) for reach in (_NEAR, _NEARER))
        known, width = np.isfinite(close).any(axis=0), np.ptp(_finite(far), axis=0)
        close = _finite(close)
        low, high, limit = close.min(axis=0), close.max(axis=0), np.median(close, axis=0)
        largest = np.maximum(np.abs(low), np.abs(high))
        with np.errstate(invalid="ignore"):
            kinked = (high - low > 0.25 * width) & (high - low > 1e-5 * largest)
            slack, error = _SLACK * largest, 1e-5 * np.abs(limit) + 8 * width
            inside = kinked & (low - slack <= rule) & (rule <= high + slack)
            astray = ~kinked & known & ~(np.abs(reference - limit) <= error)
            agrees = np.abs(rule - limit) <= error
        if inside[kinked].all() and agrees[astray].all():
            break
    verdicts = entries.settled(verdicts, inside, State.RIGHT, Reason.AT_A_KINK)
    told = astray & agrees
    notes = entries.notes(verdicts, told, "Inputs nearby")
    return entries.settled(verdicts, told, State.RIGHT, Reason.POINTS_CONFIRM, notes)


def _changes(evidence: Evidence) -> bool:
    """Whether the reference's gradients depend on the inputs; else they are the same close by."""
    reference = evidence.subject.reference
    if reference is None:
        return True
    moved = {target.path for target in evidence.subject.targets}
    return any(
        flow(reference.jaxpr, [name in moved for name in reference.in_names])[evidence.outputs :]
    )


def ties(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Call entries at kinks wrong that no gradient close by has, alone or together.

    Two equal inputs of a maximum share one upstream: each may have all of it, and not both. Where
    two entries are tied, one gives the other at every input close by. Where several are, their sum
    is the same at every input close by, for they move together without leaving the tie.
    """
    called = evidence.subject.is_called
    asked = (*_AT_KINKS, Reason.NOT_ASKED) if called else _AT_KINKS
    masks = [v.decided_by(*asked) for v in verdicts]
    if not any(mask.any() for mask in masks):
        return verdicts
    inputs = [widen(evidence.values[target.path]) for target in evidence.subject.targets]
    equal = np.unique(np.concatenate([x[mask].ravel() for x, mask in zip(inputs, masks)]))
    tied = [m | (v.right & np.isin(x, equal)) for m, v, x in zip(masks, verdicts, inputs)]
    entries = Entries.where(tied)
    claims, values = entries.both(verdicts)[0], entries.of(inputs)
    if np.iscomplexobj(claims):
        return verdicts
    if evidence.has_reference and not called:
        bad = _refuted_close_by(evidence, entries, claims, values)
        return entries.settled(verdicts, bad, State.WRONG, Reason.NOT_TOGETHER)
    bad, unasked = _refuted_by_slopes(evidence, entries, verdicts, values)
    suspect = entries.of(masks).astype(bool)
    verdicts = entries.settled(verdicts, suspect & bad, State.WRONG, Reason.NOT_TOGETHER)
    return entries.settled(verdicts, suspect & unasked, State.UNDECIDED, Reason.NOT_ASKED)


def _refuted_close_by(evidence: Evidence, entries: Entries, claims: Array, values: Array) -> Array:
    """Say which entries the reference's gradients at inputs close by refute."""
    bad = np.zeros(claims.size, bool)
    seen = _close_by(evidence, entries, _NEARER, _TOGETHER)
    seen = seen[np.isfinite(seen).all(axis=1)]
    if len(seen) < 2 * _SEEN:
        return bad
    bad |= _outside(claims, seen) | _beside_partner(claims, seen)
    classes = [np.unique(values, return_inverse=True)[1], np.zeros(values.size, np.int64)]
    for members in classes:
        if not bad.any():
            bad |= _beside_sum(claims, seen, members)
    return bad


def _refuted_by_slopes(
    evidence: Evidence, entries: Entries, verdicts: Verdicts, values: Array
) -> tuple[Array, Array]:
    """Say which entries slopes refute, at the point and at inputs close by; and which lack calls.

    Equal inputs are moved together: where the slope is the same close by, their sum is known. An
    entry beside a kink is refuted if its slope close by takes two values, and it is outside.
    """
    claims, every = entries.both(verdicts)[0], np.arange(values.size)
    beside = entries.of([v.decided_by(Reason.BESIDE_A_KINK) for v in verdicts]).astype(bool)
    tied = [group for group in _equal(values) if np.isfinite(claims[group]).all()]
    alone = [np.array([n]) for n in every[beside & np.isfinite(claims)][:_CLASSES]]
    groups, called = [*tied, *alone], evidence.subject.is_called
    count = evidence.subject.calls.share(len(groups), _CALLS) if called else len(groups)
    groups, bad = groups[:count], np.zeros(values.size, bool)
    if not called and every.size > 1 and np.isfinite(claims).all():
        groups.append(every)
    unasked = np.isin(every, np.concatenate([[], *tied[count:]]))
    if not groups:
        return bad, unasked
    steps = [max(float(np.max(np.abs(values[group]))), typical(values)) for group in groups]
    weights = [np.full(values.size, step) for step in steps]
    directions = [entries.direction(evidence, w, g) for w, g in zip(weights, groups)]
    here, near = (_by_calls if called else _by_lines)(evidence, directions)
    left = left_by_loops(evidence)
    for k, (group, step) in enumerate(zip(groups, steps)):
        claim, size = (float(np.sum(each[group])) * step for each in (claims, np.abs(claims)))
        low, high, slope = float(np.min(near[:, k])), float(np.max(near[:, k])), here.value[k]
        scale = max(size, abs(low), abs(high))
        if group.size > 1:  # moved together they stay tied
            told = not here.kink[k] and max(high, slope) - min(low, slope) <= _ROUGH * scale
            slack = LIMIT * (here.error[k] + left) + _SAME * size
            low = high = slope
        else:
            told = bool(np.all(np.minimum(near[:, k] - low, high - near[:, k]) <= _ROUGH * scale))
            slack = 5 * _ROUGH * scale
        if told and np.isfinite(high - low) and not low - slack <= claim <= high + slack:
            bad[group] = True
    return bad, unasked & ~bad


def _by_lines(evidence: Evidence, directions: Sequence[dict[str, Any]]) -> tuple[Slope, Array]:
    """Return slopes of the lifted forward at the point, and those at inputs close by, in rows."""
    rng, seen = np.random.default_rng([evidence.seed, 7]), []
    for moved in _nearby(evidence, rng, _FAR, 2 * _SEEN):
        there = evidence.at({**evidence.values, **moved}, evidence.upstreams)
        seen.append(slopes(there, directions, _FAR / 8).value)
    return slopes(evidence, directions), np.array(seen)


def _by_calls(evidence: Evidence, directions: Sequence[dict[str, Any]]) -> tuple[Slope, Array]:
    """Return the same of a forward that is called."""
    noise, step = noise_and_step(evidence)
    rng, seen = np.random.default_rng([evidence.seed, 7]), []
    for moved in _nearby(evidence, rng, step, _FEW_SEEN):
        there = evidence.at({**evidence.values, **moved}, evidence.upstreams)
        seen.append(to_both_sides(there, directions, CLOSER * step, noise)[:2].mean(axis=0))
    return slopes_by_calls(evidence, directions.__getitem__, len(directions), 0)[0], np.array(seen)


def _equal(values: Array) -> list[Array]:
    """Return the numbers that have one value, for each value that several have: few of these."""
    members = np.unique(values, return_inverse=True)[1]
    sizes = np.bincount(members)
    return [np.flatnonzero(members == k) for k in np.argsort(-sizes)[:_CLASSES] if sizes[k] > 1]


def ties_of(evidence: Evidence) -> int:
    """Return how many values there are that several inputs have, up to a few."""
    values = [widen(evidence.values[t.path]).ravel() for t in evidence.subject.targets]
    return len(_equal(np.concatenate(values)))


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


def _close_by(evidence: Evidence, entries: Entries, reach: float, count: int) -> Array:
    """Return the reference's gradients at inputs close by: one row each."""
    rng = np.random.default_rng([evidence.seed, 4])
    cases = _nearby(evidence, rng, reach, count)
    return np.array([entries.of(each) for each in evidence.gradients_at("reference", cases)])


def _finite(witnesses: Array) -> Array:
    """Return the witnesses with those that are not finite replaced by one that is."""
    good = np.isfinite(witnesses)
    first = np.take_along_axis(witnesses, good.argmax(axis=0)[None], 0)
    return np.where(good, witnesses, np.where(np.isfinite(first), first, 0.0))


def _nearby(
    evidence: Evidence, rng: np.random.Generator, reach: float, count: int
) -> list[dict[str, Array]]:
    """Return inputs close by: each entry moved by between half and all of `reach` of its size."""
    paths = [target.path for target in evidence.subject.targets]
    inputs = {path: widen(evidence.values[path]) for path in paths}
    sizes = {path: reach * np.maximum(np.abs(x), typical(x)) for path, x in inputs.items()}

    def step(path: str) -> Array:
        drawn = rng.uniform(-0.5, 0.5, inputs[path].shape)
        drawn += np.copysign(0.5, drawn)
        moved: Array = drawn * sizes[path]
        return moved

    return [{p: np.asarray(x + step(p)) for p, x in inputs.items()} for _ in range(count)]
