"""Gradients without a reference: what they say of slopes, number by number, and what slopes say."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlab.checking.differences import (
    Answer,
    answer,
    groups_of,
    left_by_loops,
    scales,
    slopes,
)
from gradlab.checking.evidence import Evidence
from gradlab.checking.widen import widen
from gradlab.checking.witness import (
    MOST,
    REASONS,
    STATES,
    Entries,
    ask,
    evidence_of_infinities,
)
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Estimate, Reason, Slope, State, Verdict, known, norm

_STATES = np.array([STATES.get(reason, State.UNDECIDED) for reason in Reason], np.uint8)
_WORST_LAST = np.array([1, 0, 2])  # an undecided part of a complex entry counts, a wrong one more


class Sheet:
    """The real numbers of some gradients in one row, and what slopes have said of each.

    Outputs that are not finite hide what they depend on, and no step moves an infinite input.
    """

    def __init__(
        self,
        evidence: Evidence,
        gradients: Sequence[Estimate],
        chosen: Sequence[int],
        start: Reason,
    ) -> None:
        self.evidence, self._gradients, self._start = evidence, gradients, start
        nothing = np.zeros(0, int), np.zeros(0, int), *(np.zeros(0),) * 3
        columns: list[tuple[Array, ...]] = [nothing]
        self._hidden = {i: evidence_of_infinities(evidence, i).ravel() for i in chosen}
        for i in chosen:
            target, actual = evidence.subject.targets[i], gradients[i].value.ravel()
            value = widen(evidence.values[target.path]).ravel()
            place = np.flatnonzero(~self._hidden[i] & (np.isfinite(value) | (actual == 0)))
            size = scales(value)[place]
            spread = known(gradients[i].scatter).ravel()[place] * size
            for turn in (1.0, 1.0j) if target.kind == "complex" else (1.0,):
                with np.errstate(invalid="ignore"):
                    claim = np.real(actual[place] * size * turn)
                columns.append((np.full(place.size, i), place, size * turn, claim, spread))
        owner, place, self.weight, self.claim, self.spread = map(np.concatenate, zip(*columns))
        self.entries = Entries(owner, place)
        self.reason = np.full(owner.size, start.number)
        self.value, self.error = np.full(owner.size, np.nan), np.full(owner.size, np.inf)

    @functools.cached_property
    def finite(self) -> Array:
        """Which numbers are finite."""
        return np.asarray(np.isfinite(self.claim))

    def told(self, reason: Reason) -> Array:
        """Return which numbers a reason has decided."""
        return np.asarray(self.reason == reason.number)

    def known_well(self, most: float, of_typical: float = 0.0) -> Array:
        """Return which numbers are known up to a small part of them, or of a typical one."""
        sizes = np.abs(self.claim)
        counted = sizes[self.finite & (sizes > 0)]
        least = of_typical * float(np.median(counted)) if counted.size else 0.0
        return np.asarray(LIMIT * self.error <= np.maximum(most * sizes, least))

    def direction(self, group: Array, moves: Array | float = 1.0) -> dict[str, Array]:
        """Return the direction that moves a group of numbers, each by so many of its steps."""
        return self.entries.direction(self.evidence, self.weight * moves, group)

    def put(self, where: Array, reason: Reason, value: Array | float, error: Array | float) -> None:
        """Write down what was said of some numbers: why, the slope, and the slope's error."""
        self.reason[where], self.value[where], self.error[where] = reason.number, value, error

    def answer(self, slope: Slope, n: int, group: Array, signs: Array, strict: bool) -> Answer:
        """Return what the n-th slope says of a group of numbers that move with these signs."""
        claim = float(np.sum(self.claim[group] * signs[group]))
        spread = float(np.hypot(norm(self.spread[group], signs[group]), self._left))
        said = answer(claim, slope, n, spread, strict)
        if said == Answer.TOO_COARSE and self.evidence.subject.forward is not None:
            moved = norm(self._scatter[group], signs[group])
            said = answer(claim, slope, n, float(np.hypot(spread, moved)), strict)
        return said

    def tell(self, signs: Array, slope: Slope, n: int, group: Array) -> bool:
        """Write down what the n-th slope says of a group; whether it needs no splitting."""
        alone = group.size == 1
        said = self.answer(slope, n, group, signs, alone)
        if said in (Answer.DISAGREES, Answer.BESIDE_A_KINK, Answer.UNKNOWN) and not alone:
            return False
        value = self.claim[group]
        if alone:
            value = slope.value[n] * signs[group]
            if np.isinf(slope.left[n]) or np.isinf(slope.right[n]):  # the tangent is vertical
                value = np.sign(value) * np.inf
        self.put(group, REASONS[said], value, float(slope.error[n]))
        return True

    def ask_alone(self, number: int) -> None:
        """Ask for one number by itself."""
        group, signs = np.array([number]), np.ones(self.claim.size)
        self.tell(signs, slopes(self.evidence, [self.direction(group)]), 0, group)

    def verdict(self, i: int) -> Verdict:
        """Return what all that was said makes of the entries of one gradient."""
        target, actual = self.evidence.subject.targets[i], self._gradients[i].value
        verdict = Verdict.unknown(actual, target.path, str(target.dtype))
        mine = self.entries.owner == i
        mine = np.flatnonzero(mine)[np.argsort(_WORST_LAST[_STATES[self.reason[mine]]])]
        place, value, error = self.entries.place[mine], self.value[mine], self.error[mine]
        reason = np.where(self._hidden[i], Reason.OUTPUT_NOT_FINITE.number, self._start.number)
        reason[place] = self.reason[mine]
        expected, off = np.full(actual.size, np.nan, verdict.expected.dtype), np.zeros(actual.size)
        expected[place], errors = 0, np.zeros(actual.size)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope = value / self.weight[mine]  # complex, if any of the gradients is
            np.add.at(expected, place, slope if target.kind == "complex" else slope.real)
            excess = np.abs(self.claim[mine] - value) / np.maximum(error, 1e-300)
            np.maximum.at(off, place, np.where(np.isfinite(excess), excess, np.inf))
            np.maximum.at(errors, place, error)
            sizes = np.abs(actual.ravel()) * scales(self.evidence.values[target.path]).ravel()
            measured = np.isin(reason, [_CONFIRMED, _REFUTED]) & (sizes > 0)
            resolution = np.where(measured, LIMIT * errors / sizes, np.inf)
        state, shape = _STATES[reason], actual.shape
        return replace(
            verdict,
            expected=expected.reshape(shape),
            state=state.reshape(shape),
            reason=reason.astype(np.uint8).reshape(shape),
            error=np.where(state == 0, 0.0, off).astype(np.float32).reshape(shape),
            resolution=resolution.astype(np.float32).reshape(shape),
        )

    @functools.cached_property
    def _left(self) -> float:
        return left_by_loops(self.evidence)

    @functools.cached_property
    def _scatter(self) -> Array:
        """By how much each number moves when the inputs move by their own rounding."""
        return np.asarray(self.entries.of(self.evidence.input_scatter) * np.abs(self.weight))


_CONFIRMED, _REFUTED = Reason.SLOPE_CONFIRMS.number, Reason.SLOPE_REFUTES.number


def judge_by_slopes(evidence: Evidence, i: int, gradients: Sequence[Estimate]) -> Verdict:
    """Judge one gradient by slopes of the lifted forward alone."""
    sheet = Sheet(evidence, gradients, [i], Reason.SLOPE_UNKNOWN)
    rng, most = np.random.default_rng([evidence.seed, 3]), groups_of(evidence)
    signs = rng.choice((-1.0, 1.0), sheet.claim.size)
    for turned in (False, True):
        order = rng.permutation(np.flatnonzero(np.iscomplex(sheet.weight) == turned))
        finite = sheet.finite[order]
        groups = np.array_split(order[finite], max(1, min(most, int(finite.sum()))))
        groups += [np.array([k]) for k in order[~finite][:MOST]]
        tell = functools.partial(sheet.tell, signs)
        ask(evidence, sheet.entries, sheet.weight * signs, groups, tell, 4 * most + MOST)
    return sheet.verdict(i)
