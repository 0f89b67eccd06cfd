"""A forward that can be called but not read: a bounded number of calls judges all gradients.

First all gradients together are held to slopes along directions with random signs. What these do
not tell is asked entry by entry, at two calls each: a step to both sides gives both slopes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradlab.checking.differences import LINE, Answer, answer, moves, scales, slopes
from gradlab.checking.evidence import Evidence, nearby
from gradlab.checking.widen import widen
from gradlab.checking.witness import REASONS, STATES, evidence_of_infinities
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import LIMIT, Estimate, Reason, Slope, State, Verdict, known

_DIRECTIONS, _ALONE = 1, 3  # more directions over all entries; entries asked with all care
_LEAST = 2.0**-3  # of its step, by which a number moves in a direction at least
_LATER = 40  # calls that the other laws need
_SEARCH = _LATER + 13 * LINE  # and the search for one wrong entry among thousands
_FINEST, _COARSEST = 2.0**-17, 2.0**-5  # steps, as parts of an entry
_CLOSER = 2.0**-3
_AGREE = {Answer.AGREES, Answer.ZERO, Answer.TOO_COARSE}
_AT_KINKS = (Reason.AT_A_KINK, Reason.BESIDE_A_KINK, Reason.NOT_ASKED)
_CLASSES = 6  # of tied entries that are asked later
_NEAR_POINTS, _ROUGH, _FAR_OUT = 6, 1e-2, 5e-2  # of the distance of two slopes at a kink
_SURE = 4.0  # times the noise
_CURVED = 64.0  # by how many steps the slopes to both sides differ at most where there is no kink
_ROUNDINGS, _SAME = 2.0**-48, 1e-6
_NOTHING = 2.0**24  # roundings: a slope of zero known this well is zero


@dataclass(frozen=True, eq=False)
class _Row:
    """Every real number of all gradients, in one row."""

    owner: Array  # which gradient it is of, and `entry`: which entry
    entry: Array
    weight: Array  # the step that moves it, as long as its input; imaginary for an imaginary part
    claim: Array  # by how much the gradient says that the step moves <upstream, forward>
    spread: Array  # how far rounding may move the claim

    @classmethod
    def of(cls, evidence: Evidence, gradients: Sequence[Estimate]) -> "_Row":
        """Return all that can be asked of: outputs that are not finite hide what they depend on."""
        nothing = np.zeros(0, int), np.zeros(0, int), *(np.zeros(0),) * 3
        columns: list[tuple[Array, ...]] = [nothing]
        for i, (target, gradient) in enumerate(zip(evidence.subject.targets, gradients)):
            if evidence.subject.odd[i] or not gradient.value.size:
                continue
            entry = np.flatnonzero(~evidence_of_infinities(evidence, i))
            size = scales(evidence.values[target.path]).ravel()[entry]
            value = np.ravel(gradient.value)[entry]
            spread = known(gradient.scatter).ravel()[entry] * size
            for turn in (1.0, 1.0j) if target.kind == "complex" else (1.0,):
                with np.errstate(invalid="ignore"):
                    claim = np.real(value * size * turn)
                columns.append((np.full(entry.size, i), entry, size * turn, claim, spread))
        return cls(*map(np.concatenate, zip(*columns)))

    def direction(self, evidence: Evidence, moves: Array) -> dict[str, Array]:
        """Return the direction that moves every number by so many of its steps."""
        ways: dict[str, Array] = {}
        for i in np.unique(self.owner[moves != 0]):
            target = evidence.subject.targets[i]
            mine = (self.owner == i) & (moves != 0)
            way = np.zeros(int(np.prod(target.shape, dtype=np.int64)), np.complex128)
            np.add.at(way, self.entry[mine], self.weight[mine] * moves[mine])
            part: Array = way if target.kind == "complex" else way.real
            ways[target.path] = part.reshape(target.shape)
        return ways

    def along(self, evidence: Evidence, group: Any, step: float = 1.0) -> dict[str, Array]:
        """Return the direction that moves a group of numbers, each by the same part of its step."""
        steps = np.zeros(self.claim.size)
        steps[group] = step
        return self.direction(evidence, steps)


@dataclass(frozen=True, eq=False)
class _Told:
    """What was said of each number: the number of a reason, the slope, and the slope's error."""

    reason: Array
    value: Array
    error: Array

    def put(self, where: Any, reason: Any, value: Any, error: Any) -> "_Told":
        """Return this with other answers at some numbers."""
        found = _Told(*(each.copy() for each in (self.reason, self.value, self.error)))
        found.reason[where], found.value[where], found.error[where] = reason, value, error
        return found


def judge_by_calls(evidence: Evidence, gradients: Sequence[Estimate]) -> tuple[Verdict, ...]:
    """Judge all gradients by slopes of a forward that is called as often as it may be."""
    row = _Row.of(evidence, gradients)
    size = row.claim.size
    start = np.full(size, Reason.NOT_ASKED.number), np.full(size, np.nan), np.full(size, np.inf)
    refuted, noise, told = _together(evidence, row, _Told(*start))
    for k in np.flatnonzero(~np.isfinite(row.claim))[:_ALONE]:
        told = _asked_alone(evidence, row, k, told)
    told = _each(evidence, row, noise, told, _SEARCH if refuted else _LATER)
    if refuted and not (told.reason == Reason.SLOPE_REFUTES.number).any():
        told = _searched(evidence, row, told)
    if not refuted:
        told = _confirmed(evidence, row, told)
    return tuple(_verdict(evidence, i, gradient, row, told) for i, gradient in enumerate(gradients))


def _together(evidence: Evidence, row: _Row, told: _Told) -> tuple[bool, float, _Told]:
    """Hold all claims together to slopes: whether one refutes them, the noise, what they tell."""
    finite = np.isfinite(row.claim)
    said, error, noise = [], 0.0, 0.0
    for direction, steps in _directions(evidence, row, finite) if finite.any() else ():
        slope = slopes(evidence, [direction])
        claim = float(np.sum(row.claim[finite] * steps[finite]))
        spread = float(np.linalg.norm(row.spread[finite] * steps[finite]))
        said.append(answer(claim, slope, 0, spread, strict=False))
        error = max(error, float(slope.error[0]), spread)
        noise = float(slope.noise[0]) if np.isfinite(slope.error[0]) else np.nan
        if said[-1] not in _AGREE:  # another direction tells no more
            break
    if set(said) <= _AGREE and np.isfinite(error):
        least = _LEAST * np.abs(row.claim)  # of a step along a direction
        seen = finite & (least > LIMIT * error)
        told = told.put(seen, Reason.SLOPE_CONFIRMS.number, row.claim[seen], error / _LEAST)
        zero = finite & ~seen & (np.abs(row.claim) <= LIMIT * row.spread)
        if error <= _NOTHING * noise:
            told = told.put(zero, Reason.ZERO.number, 0.0, error)
    return Answer.DISAGREES in said, noise, told


def _directions(
    evidence: Evidence, row: _Row, finite: Array
) -> Iterator[tuple[dict[str, Array], Array]]:
    """Yield directions over all entries, and by how many of its steps each number moves.

    The first is that of the law of finite differences, so that it costs no more calls.
    """
    rng = np.random.default_rng([evidence.seed, 3])
    if finite.all() and row.weight.dtype.kind == "f":
        ways = [widen(evidence.tangents[t.path]).ravel() for t in evidence.subject.targets]
        steps = np.array([ways[i][k] for i, k in zip(row.owner, row.entry)]) / row.weight
        if (np.abs(steps) >= _LEAST).all():
            yield evidence.tangents, steps
    for _ in range(_DIRECTIONS):
        steps = np.where(finite, rng.choice((-1.0, 1.0), finite.size), 0.0)
        yield row.direction(evidence, steps), steps


def _each(evidence: Evidence, row: _Row, noise: float, told: _Told, later: int = _LATER) -> _Told:
    """Ask for what is not told, the largest claims first; some calls are left for later."""
    calls, finite = evidence.subject.calls, np.isfinite(row.claim)
    waiting = np.flatnonzero((told.reason == Reason.NOT_ASKED.number) & finite)
    order = waiting[np.argsort(-np.abs(row.claim[waiting]), kind="stable")]
    if calls.made + 2 * order.size + _LATER <= calls.allowed:  # none is left to be searched for
        later = _LATER
    later += 4 * len(_tied(evidence, row))
    chosen = order[: calls.share(order.size, 2, later)]
    if not chosen.size:
        return told
    noise, step = _step(evidence, noise)
    sides = _sides(evidence, row, list(chosen), step, noise)
    bent = sides.apart > _CURVED * step * sides.largest + 4 * LIMIT * sides.error
    looked = np.flatnonzero(bent)
    looked = looked[: calls.share(looked.size, 2, later)]
    kink, jump = np.zeros(chosen.size, bool), np.zeros(chosen.size, bool)
    steps = np.full(chosen.size, step)
    if looked.size:
        closer = _sides(evidence, row, list(chosen[looked]), _CLOSER * step, noise)
        moved = np.abs(closer.right - sides.right[looked]) + np.abs(
            closer.left - sides.left[looked]
        )
        smooth = closer.apart <= 0.5 * sides.apart[looked]
        kink[looked] = ~smooth & (moved <= 0.1 * sides.apart[looked])
        jump[looked] = ~smooth & ~kink[looked]
        steps[looked] = _CLOSER * step
        sides = sides.replaced(looked, closer)
    curved = steps * sides.apart + steps**2 * (sides.largest + sides.here)
    slope = Slope(
        value=(sides.right + sides.left) / 2,
        error=np.where(jump, np.inf, sides.error + np.where(kink, sides.apart / 2, curved)),
        left=sides.left,
        right=sides.right,
        kink=kink,
        noise=sides.error * steps,
    )
    said = [answer(row.claim[k], slope, n, row.spread[k]) for n, k in enumerate(chosen)]
    reasons = np.array([REASONS[each].number for each in said])
    reasons[np.setdiff1d(np.flatnonzero(bent), looked)] = Reason.NOT_ASKED.number
    beside = [n for n, each in enumerate(said) if each == Answer.BESIDE_A_KINK]
    for n in beside[: calls.share(min(len(beside), _ALONE), 3 * _NEAR_POINTS, later)]:
        ends = sorted((float(sides.left[n]), float(sides.right[n])))
        if _refuted(evidence, row, int(chosen[n]), ends, float(_CLOSER * step)):
            reasons[n] = Reason.NOT_TOGETHER.number
    return told.put(chosen, reasons, slope.value, slope.error)


def _searched(evidence: Evidence, row: _Row, told: _Told) -> _Told:
    """Look for a wrong entry among those that nobody asked for: half of them, and half of these."""
    suspects = np.flatnonzero((told.reason == Reason.NOT_ASKED.number) & np.isfinite(row.claim))
    rng, calls = np.random.default_rng([evidence.seed, 9]), evidence.subject.calls
    steps = rng.choice((-1.0, 1.0), row.claim.size)
    while suspects.size > 1 and calls.grants(2 * LINE):
        half = rng.permutation(suspects)[: suspects.size // 2]
        moves = np.zeros(row.claim.size)
        moves[half] = steps[half]
        slope = slopes(evidence, [row.direction(evidence, moves)])
        spread = float(np.linalg.norm(row.spread[half]))
        said = answer(float(np.sum(row.claim[half] * steps[half])), slope, 0, spread, strict=False)
        guilty = said in (Answer.DISAGREES, Answer.BESIDE_A_KINK)
        suspects = half if guilty else np.setdiff1d(suspects, half)
    return _asked_alone(evidence, row, int(suspects[0]), told) if suspects.size == 1 else told


def _step(evidence: Evidence, noise: float) -> tuple[float, float]:
    """Return the noise of <upstream, forward>, and a step at which it moves a slope but little."""
    here = moves(evidence, ()).here
    if not np.isfinite(noise):  # at a jump no noise is measured
        noise = _ROUNDINGS * here
    return noise, float(np.clip(np.cbrt(noise / here if here > 0 else 0.0), _FINEST, _COARSEST))


def _refuted(evidence: Evidence, row: _Row, k: int, ends: list[float], step: float) -> bool:
    """Whether a number has no slope close by but those to both sides, and the claim is outside."""
    width = ends[1] - ends[0]
    if ends[0] - _FAR_OUT * width <= row.claim[k] <= ends[1] + _FAR_OUT * width:
        return False
    for n in range(_NEAR_POINTS):
        close = nearby(evidence.subject, evidence.values, evidence.seed + n, 8 * step)
        there = evidence.at({**evidence.values, **close}, evidence.upstreams)
        ahead, behind = moves(there, (row.along(there, k, s * step) for s in (1, -1))).changes
        slope = (ahead - behind) / (2 * step)
        if not min(abs(slope - end) for end in ends) <= _ROUGH * width:
            return False
    return True


@dataclass(frozen=True, eq=False)
class _Sides:
    """The slopes to both sides of a point along several numbers, and how far noise moves them."""

    right: Array
    left: Array
    error: Array
    here: Array

    @property
    def apart(self) -> Array:
        """How much they differ."""
        return np.asarray(np.abs(self.right - self.left))

    @property
    def largest(self) -> Array:
        """The steeper of both."""
        return np.asarray(np.fmax(np.abs(self.right), np.abs(self.left)))

    def replaced(self, where: Array, other: "_Sides") -> "_Sides":
        """Return these with some measured anew."""
        columns = [each.copy() for each in (self.right, self.left, self.error, self.here)]
        for column, new in zip(columns, (other.right, other.left, other.error, other.here)):
            column[where] = new
        return _Sides(*columns)


def _sides(
    evidence: Evidence, row: _Row, groups: Sequence[Any], step: float, noise: float
) -> _Sides:
    """Take one step to each side along every group of numbers, which move alike."""
    ways = (row.along(evidence, group, sign * step) for sign in (1.0, -1.0) for group in groups)
    found = moves(evidence, ways)
    ahead, behind = found.changes.reshape(2, -1)
    sizes = found.sizes.reshape(2, -1).max(axis=0)
    share = found.shares.reshape(2, -1).max(axis=0)
    return _Sides(ahead / step, -behind / step, _SURE * noise * share / step, sizes)


def _tied(evidence: Evidence, row: _Row) -> list[Array]:
    """Return the numbers that have one value, for each value that several have: few of these."""
    if row.weight.dtype.kind == "c":
        return []
    values = [widen(evidence.values[t.path]).ravel() for t in evidence.subject.targets]
    value = np.array([values[i][k] for i, k in zip(row.owner, row.entry)])
    members = np.unique(value, return_inverse=True)[1]
    sizes = np.bincount(members)
    return [np.flatnonzero(members == k) for k in np.argsort(-sizes)[:_CLASSES] if sizes[k] > 1]


def tied(verdicts: tuple[Verdict, ...], evidence: Evidence) -> tuple[Verdict, ...]:
    """Hold the sum of equal entries to the slope along which they stay equal, if it has one.

    Where no calls are left to ask, nothing is known of them.
    """
    suspected = [v.decided_by(*_AT_KINKS).ravel() for v in verdicts]
    row = _Row.of(evidence, evidence.formula_gradients or ())
    suspect = np.array([suspected[i][k] for i, k in zip(row.owner, row.entry)], bool)
    groups = [group for group in _tied(evidence, row) if suspect[group].any()]
    groups = [group for group in groups if np.isfinite(row.claim[group]).all()]
    asked = groups[: evidence.subject.calls.share(len(groups), 4)]
    bad, unknown = np.zeros(suspect.size, bool), np.zeros(suspect.size, bool)
    for group in groups[len(asked) :]:
        unknown[group] = suspect[group]
    if asked:
        noises = [s.noise[0] for _, s in evidence.lines.values() if np.isfinite(s.error[0])]
        noise, step = _step(evidence, float(max(noises, default=np.nan)))
        sides = _sides(evidence, row, asked, step, noise)
        for n, group in enumerate(asked):
            apart, largest = sides.apart[n], sides.largest[n]
            error = sides.error[n] + step * apart + step**2 * (largest + sides.here[n])
            smooth = apart <= _CURVED * step * largest + 4 * LIMIT * sides.error[n]
            off = abs(float(np.sum(row.claim[group])) - (sides.right[n] + sides.left[n]) / 2)
            bad[group] = smooth and off > LIMIT * error + _SAME * np.abs(row.claim[group]).sum()
    found = []
    for i, verdict in enumerate(verdicts):
        for mask, state, reason in (
            (bad & suspect, State.WRONG, Reason.NOT_TOGETHER),
            (unknown, State.UNDECIDED, Reason.NOT_ASKED),
        ):
            where = np.zeros(verdict.state.size, bool)
            where[row.entry[(row.owner == i) & mask]] = True
            verdict = verdict.settle(where.reshape(verdict.state.shape), state, reason)
        found.append(verdict)
    return tuple(found)


def _asked_alone(evidence: Evidence, row: _Row, k: int, told: _Told) -> _Told:
    """Ask for one number along a whole line."""
    slope = slopes(evidence, [row.along(evidence, k)])
    said = answer(row.claim[k], slope, 0, row.spread[k])
    return told.put(k, REASONS[said].number, slope.value[0], slope.error[0])


def _confirmed(evidence: Evidence, row: _Row, told: _Told) -> _Told:
    """Ask once more for what two calls refute, where no direction over all entries does."""
    wrong = told.reason == Reason.SLOPE_REFUTES.number
    wrong &= np.isfinite(row.claim)
    if not wrong.any():
        return told
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(wrong, np.abs(row.claim - told.value) / told.error, -1.0)
    asked = np.argsort(-excess)[: min(_ALONE, int(wrong.sum()))]
    for k in asked:
        told = _asked_alone(evidence, row, int(k), told)
    if (told.reason[asked] == Reason.SLOPE_REFUTES.number).any():
        return told
    rest = told.reason == Reason.SLOPE_REFUTES.number
    return told.put(rest, Reason.SLOPE_UNKNOWN.number, told.value[rest], np.inf)


def _verdict(evidence: Evidence, i: int, gradient: Estimate, row: _Row, told: _Told) -> Verdict:
    """Return what all numbers of one gradient together say of its entries."""
    target = evidence.subject.targets[i]
    verdict = Verdict.unknown(gradient.value, target.path, str(target.dtype))
    if evidence.subject.odd[i] or not gradient.value.size:
        return verdict
    hidden = evidence_of_infinities(evidence, i).ravel()
    state, reason = np.zeros(hidden.size, np.uint8), verdict.reason.ravel().copy()
    reason[hidden] = Reason.OUTPUT_NOT_FINITE.number
    expected, error = verdict.expected.ravel().copy(), verdict.error.ravel().copy()
    resolution = verdict.resolution.ravel().copy()
    first = np.ones(hidden.size, bool)
    for k in np.flatnonzero(row.owner == i):
        at, said = row.entry[k], _BY_NUMBER[int(told.reason[k])]
        slope = told.value[k] / row.weight[k]
        if first[at] or said == Reason.SLOPE_REFUTES or state[at] == 1 != STATES.get(said, 0):
            reason[at], state[at] = said.number, STATES.get(said, 0)
        expected[at] = slope if first[at] else expected[at].real + slope
        first[at] = False
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            off = np.abs(row.claim[k] - told.value[k]) / max(told.error[k], 1e-300)
            error[at] = max(error[at], off if np.isfinite(off) else np.inf)
            if said in (Reason.SLOPE_CONFIRMS, Reason.SLOPE_REFUTES):
                resolution[at] = LIMIT * told.error[k] / np.abs(told.value[k])
    shape = target.shape
    return replace(
        verdict,
        expected=expected.reshape(shape),
        state=state.reshape(shape),
        reason=reason.reshape(shape),
        error=np.where(state == 0, 0.0, error).astype(np.float32).reshape(shape),
        resolution=resolution.reshape(shape),
    )


_BY_NUMBER = {reason.number: reason for reason in Reason}
