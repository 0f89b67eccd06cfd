"""The second witness of every dispute: slopes of the lifted forward, asked in groups of entries.

A group of entries has one direction with random signs. A gradient that agrees with the slope along
it is right in the whole group, up to the slope's error; a group that cannot be told as a whole is
split until each entry stands alone. Thousands of entries cost a few dozen slopes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.checking.differences import (
    Answer,
    answer,
    groups_of,
    left_by_loops,
    scales,
    slopes,
    spread_along,
)
from gradlab.checking.evidence import Evidence
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Estimate, Reason, State, Verdict
from gradlab.tracing import Leaf, TooLong

__all__ = [
    "REASONS",
    "STATES",
    "disputes",
    "evidence_of_infinities",
    "infinities",
    "judge_by_slopes",
    "loops",
    "zeros",
]

Verdicts = tuple[Verdict, ...]

_SPLITS = 12
_PARTS = 16
_TURNS, _CONVERGED = 40, 1e-13  # for which a loop runs on, and by which it still changes
_MOST = 64  # entries that are not finite, and directions of one round of a dispute
REASONS = {
    Answer.AGREES: Reason.SLOPE_CONFIRMS,
    Answer.ZERO: Reason.ZERO,
    Answer.AT_A_KINK: Reason.AT_A_KINK,
    Answer.BESIDE_A_KINK: Reason.BESIDE_A_KINK,
    Answer.DISAGREES: Reason.SLOPE_REFUTES,
    Answer.TOO_COARSE: Reason.SLOPE_UNKNOWN,
    Answer.UNKNOWN: Reason.AT_A_JUMP,
}
STATES = {
    Reason.SLOPE_CONFIRMS: State.RIGHT,
    Reason.ZERO: State.RIGHT,
    Reason.AT_A_KINK: State.RIGHT,
    Reason.SLOPE_REFUTES: State.WRONG,
    Reason.NOT_TOGETHER: State.WRONG,
}
_STRONGER = (Reason.SLOPE_REFUTES, Reason.BESIDE_A_KINK, Reason.AT_A_KINK)  # in another direction


def judge_by_slopes(evidence: Evidence, i: int, gradient: Estimate) -> Verdict:
    """Judge one gradient by slopes alone: there is no reference to compare it with."""
    target = evidence.subject.targets[i]
    verdict = Verdict.unknown(gradient.value, target.path, str(target.dtype))
    if gradient.value.size == 0:
        return verdict
    sheet = _Sheet(verdict, evidence, i, gradient)
    rng = np.random.default_rng([evidence.seed, 3])
    scale = scales(evidence.values[target.path]).ravel()
    signs = rng.choice((-1.0, 1.0), gradient.value.shape).ravel()
    for turn in (1.0, 1.0j) if target.kind == "complex" else (1.0,):
        groups = sheet.groups(rng.permutation(gradient.value.size))
        for _ in range(_SPLITS):
            groups = sheet.ask(groups, signs * scale * turn)
            if not groups:
                break
    return sheet.verdict()


class _Sheet:
    """The answers of slopes to one gradient, entry by entry."""

    def __init__(self, start: Verdict, evidence: Evidence, i: int, gradient: Estimate) -> None:
        self._start, self._evidence, self._i = start, evidence, i
        self.actual, self._scatter = start.actual.ravel(), gradient.scatter.ravel()
        self._expected, self._reason = start.expected.ravel(), start.reason.ravel()
        self._error, self._resolution = start.error.ravel(), start.resolution.ravel()
        self._reason[:] = Reason.SLOPE_UNKNOWN.number

    def groups(self, order: Array) -> list[Array]:
        """Return the entries in groups; what is not finite stands alone."""
        outside = evidence_of_infinities(self._evidence, self._i).ravel()
        self._reason[outside] = Reason.OUTPUT_NOT_FINITE.number
        order = order[~outside[order]]
        finite = np.isfinite(self.actual[order])
        alone = [np.array([k]) for k in order[~finite][:_MOST]]
        rest = order[finite]
        return [*np.array_split(rest, max(1, min(groups_of(self._evidence), rest.size))), *alone]

    def ask(self, groups: list[Array], direction: Array) -> list[Array]:
        """Judge groups along a direction; return the parts of those that must be split."""
        shape, path = self._start.actual.shape, self._start.path
        groups = [group for group in groups if group.size]

        def alone(group: Array) -> Array:
            step = np.zeros_like(direction)
            step[group] = direction[group]
            return step.reshape(shape)

        slope = slopes(self._evidence, ({path: alone(group)} for group in groups))
        left = left_by_loops(self._evidence)
        split: list[Array] = []
        for i, group in enumerate(groups):
            steps = direction[group]
            with np.errstate(invalid="ignore"):
                claim = float(np.real(np.sum(self.actual[group] * steps)))
            spread = float(np.hypot(spread_along(self._scatter[group], steps), left))
            strict = group.size == 1
            said = answer(claim, slope, i, spread, strict)
            if said == Answer.TOO_COARSE:
                moved = self._evidence.input_scatter[self._i].ravel()[group]
                spread = float(np.hypot(spread, spread_along(moved, steps)))
                said = answer(claim, slope, i, spread, strict)
            parted = said in (Answer.DISAGREES, Answer.BESIDE_A_KINK, Answer.UNKNOWN)
            if parted and group.size > 1:
                split += np.array_split(group, min(group.size, _PARTS))
                continue
            self._mark(said, group, float(slope.error[i]), steps)
            if group.size == 1:
                self._alone(group[0], slope.value[i] / steps[0], claim - slope.value[i], slope, i)
        return split[: 4 * groups_of(self._evidence)]

    def _mark(self, said: Answer, group: Array, error: float, steps: Array) -> None:
        reason, told = REASONS[said], self._reason[group]
        stronger = _STRONGER[: _STRONGER.index(reason)] if reason in _STRONGER else _STRONGER
        keep = np.isin(told, [each.number for each in stronger])
        if said in (Answer.TOO_COARSE, Answer.UNKNOWN):  # right in one direction is told
            keep = keep | (told == Reason.SLOPE_CONFIRMS.number)
        self._reason[group] = np.where(keep, told, reason.number)
        if said == Answer.DISAGREES:
            self._error[group] = np.inf
        sizes = np.abs(self.actual[group] * steps)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            measured = said in (Answer.AGREES, Answer.DISAGREES)
            known = (sizes > 0) & measured & np.isfinite(error)
            self._resolution[group] = np.where(known, LIMIT * error / sizes, np.inf)

    def _alone(self, entry: int, value: complex, off: complex, slope: Any, i: int) -> None:
        """Note the value that a slope gives for one entry, and how far off the gradient is."""
        vertical = [end for end in (slope.left[i], slope.right[i]) if np.isinf(end)]
        self._expected[entry] = np.sign(value) * np.inf if vertical else value
        with np.errstate(over="ignore", invalid="ignore"):
            excess = abs(off) / max(float(slope.error[i]), 1e-300)
            self._error[entry] = excess if np.isfinite(excess) else np.inf

    def verdict(self) -> Verdict:
        """Return the verdict that all answers together make."""
        state = np.zeros(self._reason.shape, np.uint8)
        for reason, verdict in STATES.items():
            state[self._reason == reason.number] = verdict
        shape = self._start.actual.shape
        return replace(
            self._start,
            expected=self._expected.reshape(shape),
            state=state.reshape(shape),
            reason=self._reason.reshape(shape),
            error=self._error.reshape(shape),
            resolution=self._resolution.reshape(shape),
        )


def evidence_of_infinities(evidence: Evidence, i: int) -> Array:
    """Return the entries of a gradient on which outputs depend that are not finite.

    They are those that change, or are not finite, when the upstreams of these outputs are zero.
    """
    shape = evidence.subject.targets[i].shape
    without = evidence.without_infinities
    if without is None:
        return np.zeros(shape, bool)
    gradients = evidence.formula_gradients or ()
    return np.asarray(~(gradients[i].value == without[i]))


def infinities(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Nothing is known of an entry on which an output depends that is not finite itself."""
    return tuple(
        verdict.settle(
            verdict.decided_by(Reason.REFERENCE_NOT_FINITE) & evidence_of_infinities(evidence, i),
            State.UNDECIDED,
            Reason.OUTPUT_NOT_FINITE,
        )
        for i, verdict in enumerate(verdicts)
    )


def disputes(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Settle where rule and reference differ, or are not finite: the slope sides with one of them.

    Where it confirms the rule and refutes the reference, the entry is right. Where it confirms
    neither, or both as far as it can tell, the verdict stays.
    """
    rows = [
        (i, int(k))
        for i, (verdict, target) in enumerate(zip(verdicts, evidence.subject.targets))
        if target.kind == "real"
        for k in np.flatnonzero(verdict.wrong | verdict.decided_by(Reason.REFERENCE_NOT_FINITE))
    ]
    if not rows:
        return verdicts
    rule = np.array([verdicts[i].actual.ravel()[k] for i, k in rows])
    reference = np.array([verdicts[i].expected.ravel()[k] for i, k in rows])
    said = _sides(evidence, rows, rule, reference)
    found = list(verdicts)
    for i, verdict in enumerate(verdicts):
        mine = [n for n, (owner, _) in enumerate(rows) if owner == i and n in said]
        notes = []
        told = [n for n in mine if said[n] == Reason.SLOPE_CONFIRMS and rule[n] != reference[n]]
        if evidence.subject.stated:  # the user believes the reference; at a kink both may be right
            mine, told = [n for n in mine if said[n] == Reason.AT_A_KINK], []
        if told:
            index = list(map(int, np.unravel_index(rows[told[0]][1], verdict.state.shape)))
            notes.append(
                f"at {verdict.path}{index or ''} autodiff gives {reference[told[0]]:.6g}, and the "
                f"rule gives {rule[told[0]]:.6g}. Finite differences confirm the rule"
            )
        for reason in (
            Reason.SLOPE_CONFIRMS,
            Reason.AT_A_KINK,
            Reason.BESIDE_A_KINK,
            Reason.SLOPE_REFUTES,
        ):
            mask = _marked(verdict, [rows[n][1] for n in mine if said[n] == reason])
            if reason == Reason.SLOPE_REFUTES:
                mask &= ~verdict.wrong
            state = STATES.get(reason, State.UNDECIDED)
            verdict = verdict.settle(
                mask, state, reason, notes=notes if reason == Reason.SLOPE_CONFIRMS else ()
            )
        found[i] = verdict
    return tuple(found)


def _marked(verdict: Verdict, entries: Sequence[int]) -> Array:
    mask = np.zeros(verdict.state.size, bool)
    mask[list(entries)] = True
    return mask.reshape(verdict.state.shape)


def _sides(
    evidence: Evidence, rows: Sequence[tuple[int, int]], rule: Array, reference: Array
) -> dict[int, Reason]:
    """Return what slopes say of the entries in dispute, where they tell rule from reference."""
    said: dict[int, Reason] = {}
    steps, signs = _steps(evidence, rows), np.random.default_rng([evidence.seed, 8])
    weights = steps * signs.choice((-1.0, 1.0), len(rows))
    everything = np.arange(len(rows))
    finite = np.isfinite(rule) & np.isfinite(reference)
    groups = [everything[finite], *(np.array([n]) for n in everything[~finite][:_MOST])]
    for _ in range(_SPLITS):
        groups = [group for group in groups if group.size][:_MOST]
        if not groups:
            break
        slope = slopes(evidence, (_direction(evidence, rows, weights, group) for group in groups))
        split: list[Array] = []
        for i, group in enumerate(groups):
            ours, theirs = (
                answer(float(np.sum(claim[group] * weights[group])), slope, i)
                for claim in (rule, reference)
            )
            reason = _decided(ours, theirs, finite[group[0]])
            if reason in (Reason.SLOPE_CONFIRMS, Reason.SLOPE_REFUTES) or group.size == 1:
                said |= {int(n): reason for n in group if reason is not None}
            else:
                split += np.array_split(group, min(group.size, _PARTS))
        groups = split
    return said


def _decided(ours: Answer, theirs: Answer, finite: bool) -> Reason | None:
    """Return what two answers tell; None where both gradients agree, or neither does."""
    if ours == Answer.AGREES and (theirs == Answer.DISAGREES or not finite):
        return Reason.SLOPE_CONFIRMS
    if ours == Answer.DISAGREES and theirs == Answer.AGREES:
        return Reason.SLOPE_REFUTES
    if ours == Answer.AT_A_KINK:
        return Reason.AT_A_KINK
    if ours == theirs == Answer.BESIDE_A_KINK:
        return Reason.BESIDE_A_KINK
    return None


def _steps(evidence: Evidence, rows: Sequence[tuple[int, int]]) -> Array:
    sizes = {
        i: scales(evidence.values[target.path]).ravel()
        for i, target in enumerate(evidence.subject.targets)
    }
    return np.array([sizes[i][k] for i, k in rows])


def _direction(
    evidence: Evidence, rows: Sequence[tuple[int, int]], weights: Array, group: Array
) -> dict[str, Array]:
    """Return a direction over all inputs in dispute: the weights of one group of entries."""
    targets: dict[int, Leaf] = {i: evidence.subject.targets[i] for i, _ in rows}
    direction = {i: np.zeros(int(np.prod(t.shape, dtype=np.int64))) for i, t in targets.items()}
    for n in group:
        owner, entry = rows[n]
        direction[owner][entry] = weights[n]
    return {targets[i].path: row.reshape(targets[i].shape) for i, row in direction.items()}


def zeros(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """An entry whose terms cancel is zero to their rounding; slopes confirm that it is no accident.

    Both sides must be zero as far as their own rounding tells, and no slope be found there.
    """
    found = list(verdicts)
    for i, (verdict, target) in enumerate(zip(verdicts, evidence.subject.targets)):
        coarse = verdict.decided_by(Reason.TOO_COARSE)
        if not coarse.any() or target.kind != "real":
            continue
        theirs, ours = (evidence.scatter_here(key, i) for key in ("reference", "rule"))
        moves = np.fmax(theirs, ours) if np.isfinite(ours).all() else theirs
        small = np.abs(verdict.expected) <= LIMIT * theirs
        candidates = coarse & small & (np.abs(verdict.actual) <= LIMIT * moves)
        if candidates.any():
            confirmed = _no_slope(evidence, i, verdict, candidates, moves)
            found[i] = verdict.settle(confirmed, State.RIGHT, Reason.ZERO)
    return tuple(found)


def _no_slope(
    evidence: Evidence, i: int, verdict: Verdict, candidates: Array, moves: Array
) -> Array:
    """Say at which candidates no slope is found."""
    rows = [(i, int(k)) for k in np.flatnonzero(candidates)]
    claims = np.array([verdict.actual.ravel()[k] for _, k in rows])
    spreads = np.array([np.ravel(moves)[k] for _, k in rows])
    told = _told(evidence, rows, claims, spreads, Answer.ZERO)
    return _marked(verdict, [rows[n][1] for n, said in told.items() if said == Answer.ZERO])


def _told(
    evidence: Evidence,
    rows: Sequence[tuple[int, int]],
    gradients: Array,
    spreads: Array,
    wanted: Answer,
) -> dict[int, Answer]:
    """Return what slopes say of gradients: one answer for a group, which is split for another."""
    signs = np.random.default_rng([evidence.seed, 9]).choice((-1.0, 1.0), len(rows))
    weights = _steps(evidence, rows) * signs
    found: dict[int, Answer] = {}
    groups = [np.arange(len(rows))]
    for _ in range(_SPLITS):
        groups = [group for group in groups if group.size][:_MOST]
        if not groups:
            break
        slope = slopes(evidence, (_direction(evidence, rows, weights, group) for group in groups))
        split: list[Array] = []
        for n, group in enumerate(groups):
            spread = float(np.linalg.norm(spreads[group] * weights[group]))
            said = answer(float(np.sum(gradients[group] * weights[group])), slope, n, spread)
            if said == wanted or group.size == 1:
                found |= dict.fromkeys(map(int, group), said)
            else:
                split += np.array_split(group, min(group.size, _PARTS))
        groups = split
    return found


def loops(verdicts: Verdicts, evidence: Evidence) -> Verdicts:
    """Where rule and reference differ and something iterates, both run on until it converges.

    A rule for the exact solution is right there, and another one wrong. What does not converge is
    left as it is.
    """
    rows = [
        (i, int(k))
        for i, (verdict, target) in enumerate(zip(verdicts, evidence.subject.targets))
        if target.kind == "real"
        for k in np.flatnonzero(verdict.wrong | verdict.decided_by(Reason.NOT_CONVERGED))
    ]
    if not rows or not evidence.has_rule or evidence.subject.is_called:
        return verdicts
    try:
        (there, rule), (more, _) = evidence.further(_TURNS), evidence.further(2 * _TURNS)
        here = {t.path: widen(evidence.values[t.path]) for t in evidence.subject.targets}
        pairs = zip(there.forward([here]), more.forward([here]))
        if not all(a is None or np.allclose(a, b, _CONVERGED, 0.0) for a, b in pairs):
            return verdicts
        gradients = np.array([np.ravel(rule[i])[k] for i, k in rows])
        told = _told(there, rows, gradients, np.zeros(len(rows)), Answer.AGREES)
    except TooLong:
        return verdicts
    found = list(verdicts)
    for said, state, reason in (
        (Answer.AGREES, State.RIGHT, Reason.CONVERGED),
        (Answer.DISAGREES, State.WRONG, Reason.SLOPE_REFUTES),
    ):
        for i, verdict in enumerate(found):
            mine = [rows[n][1] for n, each in told.items() if each == said and rows[n][0] == i]
            mask = _marked(verdict, mine) & (verdict.state != state)
            found[i] = verdict.settle(mask, state, reason)
    return tuple(found)
