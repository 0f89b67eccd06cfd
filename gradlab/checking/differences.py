"""Finite differences as the oracle: entry by entry where they are few, in groups where many.

Every group of entries has one direction with random signs. A group that agrees with the slope along
its direction is right as a whole, up to the slope's error; one that does not is split until the
wrong entry stands alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.checking.evidence import Evidence, typical
from gradlab.checking.subject import Arrays
from gradlab.checking.widen import widen
from gradlab.references import (
    LIMIT,
    Estimate,
    Reason,
    Slope,
    State,
    Verdict,
    finite_differences,
    known,
    norm,
    unit_roundoff,
)
from gradlab.tracing import Leaf

__all__ = [
    "directional",
    "entry_slopes",
    "gradient_by_differences",
    "judge_by_differences",
    "left_by_loops",
    "pairing",
    "real_slope",
    "spread_along",
]

_GROUPS, _FEW_GROUPS = 256, 16  # of small and of large inputs
_CHUNK, _HELD = 64, 1 << 22  # directions at once, and entries that they may have together
_AT_ONCE = 1 << 19  # entries of the points of several steps
_SPLITS = 12
_WORK = 1 << 21  # outputs of all groups together, of one step
_LARGE = 1 << 18
_FEW_STEPS, _FEW_POINTS = 6, 7  # of a large forward
_SHORTER = 2.0**-4  # its steps are 2^-6 to 2^-11; others are seldom the best
_UNKNOWN = Slope(*(np.full(1, each) for each in (np.nan, np.inf, np.nan, np.nan, False, np.inf)))
_NOTHING = 2.0**24  # roundings: a slope of zero known this well is zero


def pairing(upstreams: Sequence[Any], outputs: Sequence[Any]) -> float:
    """Return the real number of which JAX's gradients are the gradient: Re sum(u y)."""
    return float(sum(np.sum(np.real(u * y)) for u, y in zip(upstreams, outputs)))


def directional(evidence: Evidence, direction: dict[str, Any]) -> Slope:
    """Return the slope of <upstream, forward> along one direction over all inputs."""
    if evidence.moves_in_steps:
        return _UNKNOWN
    if _large(evidence):
        return _along_line(evidence, direction)
    if not (evidence.has_rule and evidence.has_reference):
        return _slopes(evidence, [direction])
    assert evidence.evaluation is not None
    at = evidence.evaluation.along(evidence.full_point, direction, "reference")
    upstreams, inexact = _upstreams(evidence), _inexact(evidence)

    def function(steps: Sequence[float]) -> list[list[Any]]:
        found = evidence.dropped.attempt(lambda: at(steps)["reference"])
        if found is None and len(steps) > 1:
            return [row for step in steps for row in function([step])]
        if found is None:
            return [[np.array([np.nan])]]
        outputs = [found[i] for i in inexact]
        return [[np.array([pairing(upstreams, row)])] for row in zip(*outputs)]

    return finite_differences(function)[0]


def _groups(evidence: Evidence) -> int:
    """Return into how many groups entries are divided: fewer where each costs many outputs."""
    if _large(evidence):
        return _FEW_GROUPS
    outputs = sum(int(np.prod(u.shape, dtype=np.int64)) for u in evidence.subject.upstreams)
    return min(_GROUPS, max(_FEW_GROUPS, _WORK // max(outputs, 1)))


def _large(evidence: Evidence) -> bool:
    """Whether directions are so long that only one is held, and few points are taken on it."""
    return sum(np.size(evidence.values[t.path]) for t in evidence.subject.targets) > _LARGE


def real_slope(evidence: Evidence, direction: dict[str, Any]) -> Slope:
    """Return the slope of the function itself, which is called, not of the program it became."""
    return _along_line(evidence, direction, 1 / _SHORTER, real=True)


def _along_line(
    evidence: Evidence, direction: dict[str, Any], scale: float = 1.0, real: bool = False
) -> Slope:
    """Return the slope along one direction from few points, all of them on one line."""
    upstreams = _upstreams(evidence)
    if evidence.subject.forward is not None and not real:
        line = evidence.line(direction, upstreams)
    else:
        forward = _forward(evidence, real)

        def line(steps: Sequence[float]) -> list[float]:
            cases = (_ahead(evidence, direction, step) for step in steps)
            return [pairing(upstreams, forward([case])[0]) for case in cases]

    def products(steps: Sequence[float]) -> list[list[Any]]:
        return [[np.array([product])] for product in line(steps)]

    return finite_differences(products, _SHORTER * scale, _FEW_STEPS, _FEW_POINTS)[0]


def _inexact(evidence: Evidence) -> list[int]:
    subject = evidence.subject
    return [subject.outputs.index(u.output) for u in subject.upstreams] or [0]


def judge_by_differences(evidence: Evidence, target: Leaf, gradient: Estimate) -> Verdict:
    """Judge one gradient by finite differences of the forward."""
    verdict = Verdict.unknown(gradient.value, target.path, str(target.dtype))
    if gradient.value.size == 0:
        return verdict
    rng = np.random.default_rng([evidence.seed, 3])
    scale = _scales(evidence.values[target.path])
    signs = rng.choice((-1.0, 1.0), gradient.value.shape)
    turns = (1.0, 1.0j) if target.kind == "complex" else (1.0,)
    most = _groups(evidence)
    sheet = _Sheet(verdict)
    for turn in turns:
        groups = np.array_split(
            rng.permutation(gradient.value.size), min(most, gradient.value.size)
        )
        for _ in range(_SPLITS):
            groups = _judge_groups(evidence, sheet, groups, signs * scale * turn, gradient)
            if not groups:
                break
    return sheet.verdict()


class _Sheet:
    """What finite differences have said of each entry so far."""

    def __init__(self, start: Verdict) -> None:
        self._start = start
        self.actual = start.actual.ravel()
        self._expected, self._reason = start.expected.ravel(), start.reason.ravel()
        self._error, self._resolution = start.error.ravel(), start.resolution.ravel()
        self._reason[:] = Reason.SLOPE_UNKNOWN.number

    @property
    def path(self) -> str:
        """The input whose gradient is judged."""
        return self._start.path

    def mark(self, answer: str, group: Any, error: float, steps: np.ndarray[Any, Any]) -> None:
        """Note the answer for a group of entries; wrong in one direction is wrong."""
        reason = _ANSWERS.get(answer)
        if reason is None:
            return
        told = self._reason[group]
        keep = told == Reason.SLOPE_REFUTES.number
        if answer == "right":  # a kink in another direction stays one
            keep = keep | (told == Reason.AT_A_KINK.number)
        self._reason[group] = np.where(keep, told, reason.number)
        if answer == "wrong":
            self._error[group] = np.inf
            return
        sizes = np.abs(self.actual[group] * steps)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            known = (sizes > 0) & (answer == "right")
            self._resolution[group] = np.where(known, LIMIT * error / sizes, np.inf)

    def alone(self, entry: int, value: complex, excess: float) -> None:
        """Note the value that finite differences give for one entry, and how far off it is."""
        self._expected[entry] = value
        with np.errstate(over="ignore"):
            self._error[entry] = excess if np.isfinite(excess) else np.inf

    def verdict(self) -> Verdict:
        """Return the verdict that all answers together make."""
        state = np.zeros(self._reason.shape, np.uint8)
        for reason, verdict in (
            (Reason.SLOPE_CONFIRMS, State.RIGHT),
            (Reason.AT_A_KINK, State.RIGHT),
            (Reason.SLOPE_REFUTES, State.WRONG),
        ):
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


_ANSWERS = {
    "right": Reason.SLOPE_CONFIRMS,
    "kink": Reason.AT_A_KINK,
    "wrong": Reason.SLOPE_REFUTES,
}


def settle_by_slopes(verdicts: tuple[Verdict, ...], evidence: Evidence) -> tuple[Verdict, ...]:
    """Take back `wrong` where finite differences confirm the rule and refute the reference.

    Both are needed: a rule may be too little off for finite differences to see.
    """
    targets = evidence.subject.targets
    return tuple(
        _settled(verdict, evidence) if target.kind == "real" else verdict
        for verdict, target in zip(verdicts, targets)
    )


def _settled(verdict: Verdict, evidence: Evidence) -> Verdict:
    wrong = np.flatnonzero(verdict.wrong.ravel())
    if not wrong.size:
        return verdict
    order = np.argsort(-verdict.error.ravel()[wrong])
    together = max(1, min(_CHUNK, _HELD // verdict.state.size))
    # points nearby may have been believed in the reference's place; then they were asked already
    reference = verdict.expected.ravel()
    for part in np.array_split(wrong[order], max(1, wrong.size // together)):
        confirmed = _confirmed(evidence, verdict, reference, part)
        mask = np.isin(np.arange(verdict.state.size), confirmed).reshape(verdict.state.shape)
        notes = []
        if confirmed.size:
            k = int(confirmed[0])
            index = list(map(int, np.unravel_index(k, verdict.state.shape)))
            notes.append(
                f"autodiff of the primal is wrong at {verdict.path}{index or ''}: it gives "
                f"{reference[k]:.6g}; finite differences confirm the rule's "
                f"{verdict.actual.ravel()[k]:.6g}"
            )
        verdict = verdict.settle(mask, State.RIGHT, Reason.SLOPE_CONFIRMS, notes=notes)
        if confirmed.size < part.size:
            break
    return verdict


def _confirmed(evidence: Evidence, judged: Verdict, reference: Any, entries: Any) -> Any:
    """Return the entries whose slope is the rule's and not the reference's."""
    shape = judged.state.shape
    steps = np.zeros((len(entries), judged.state.size))
    steps[np.arange(len(entries)), entries] = _scales(evidence.values[judged.path]).ravel()[entries]
    rows = [{judged.path: step.reshape(shape)} for step in steps]
    slope = _slopes(evidence, rows)
    sizes = steps[np.arange(len(entries)), entries]
    answers = [
        compare(float(judged.actual.ravel()[k] * s), slope, i) in ("right", "kink")
        and compare(float(reference[k] * s), slope, i) == "wrong"
        for i, (k, s) in enumerate(zip(entries, sizes))
    ]
    return np.asarray(entries)[np.array(answers, bool)]


def gradient_by_differences(
    evidence: Evidence, target: Leaf, values: Arrays, upstreams: Arrays
) -> np.ndarray[Any, Any]:
    """Return one gradient, entry by entry; all NaN where it has too many entries."""
    size = int(np.prod(target.shape, dtype=np.int64))
    kind = np.complex128 if target.kind == "complex" else np.float64
    if not 0 < size <= _GROUPS:
        return np.full(target.shape, np.nan, kind)
    there = evidence.at({**evidence.values, **values}, upstreams)
    scale = _scales(there.values[target.path]).ravel()
    parts = []
    for turn in (1.0, 1.0j) if target.kind == "complex" else (1.0,):
        steps = (np.eye(size) * scale * turn).reshape(size, *target.shape)
        slope = _slopes(there, [{target.path: step} for step in steps])
        parts.append(np.where(np.isfinite(slope.error), slope.value, np.nan) / scale)
    gradient = parts[0] if len(parts) == 1 else parts[0] - 1j * parts[1]
    return np.asarray(gradient, kind).reshape(target.shape)


def entry_slopes(
    evidence: Evidence, target: Leaf, entries: Any, values: Arrays, reach: float
) -> np.ndarray[Any, Any]:
    """Return the slopes of chosen entries at other inputs, from steps of at most `reach`."""
    there = evidence.at({**evidence.values, **values}, evidence.upstreams)
    scale = _scales(there.values[target.path]).ravel()[entries]
    steps = np.zeros((len(entries), int(np.prod(target.shape, dtype=np.int64))))
    steps[np.arange(len(entries)), entries] = scale
    rows = [{target.path: step.reshape(target.shape)} for step in steps]
    slopes: np.ndarray[Any, Any] = _slopes(there, rows, reach).value / scale
    return slopes


def _judge_groups(
    evidence: Evidence,
    sheet: _Sheet,
    groups: list[Any],
    direction: np.ndarray[Any, Any],
    gradient: Estimate,
) -> list[Any]:
    """Judge groups of entries; return the halves of those that are wrong and can be split."""
    path = sheet.path
    flat = direction.ravel()
    left = left_by_loops(evidence)
    claims, spreads = [], []
    for group in groups:
        claims.append(float(np.real(np.sum(sheet.actual[group] * flat[group]))))
        moved = spread_along(gradient.scatter.ravel()[group], flat[group])
        spreads.append(float(np.hypot(moved, left)))

    def alone(group: Any) -> np.ndarray[Any, Any]:
        step = np.zeros_like(flat)
        step[group] = flat[group]
        return step.reshape(direction.shape)

    slope = _slopes(evidence, ({path: alone(group)} for group in groups))
    split: list[Any] = []
    for i, (group, claim) in enumerate(zip(groups, claims)):
        answer = compare(claim, slope, i, spreads[i])
        if answer == "wrong" and len(group) > 1:
            split += np.array_split(group, min(len(group), 16))
            continue
        sheet.mark(answer, group, float(slope.error[i]), flat[group])
        if len(group) == 1:
            excess = abs(claim - slope.value[i]) / max(float(slope.error[i]), 1e-300)
            sheet.alone(group[0], slope.value[i] / flat[group[0]], excess)
    return split[: 4 * _groups(evidence)]


def spread_along(scatter: np.ndarray[Any, Any], direction: np.ndarray[Any, Any]) -> float:
    """Return how far rounding may move a gradient's product with a direction."""
    return norm(known(scatter), direction)


def left_by_loops(evidence: Evidence) -> float:
    """Return how far off a slope may be because loops end once their own dtype has converged.

    What a series leaves out is small beside the forward, and so is its change over a step of the
    input's own size; beside a small slope it is not.
    """
    targets = evidence.subject.targets
    if not evidence.subject.loops:
        return 0.0
    path = targets[0].path
    (outputs,) = _forward(evidence)([{path: widen(evidence.values[path])}])
    size = sum(float(np.sum(np.abs(u * y))) for u, y in zip(_upstreams(evidence), outputs))
    digits = max(unit_roundoff(target.dtype) for target in targets)
    return 2.0 * digits * size if np.isfinite(size) else 0.0


def compare(claim: float, slope: Slope, i: int, spread: float = 0.0) -> str:
    """Say whether a claimed slope is right, wrong, at a kink, or cannot be told."""
    value = float(np.ravel(slope.value)[i])
    error = max(float(np.ravel(slope.error)[i]), spread)
    if not np.isfinite(value):
        return "inconclusive"
    if not np.isfinite(claim):
        return "wrong"
    if not np.isfinite(error):
        return "inconclusive"
    slack = LIMIT * error
    if bool(np.ravel(slope.kink)[i]):
        ends = sorted((float(np.ravel(slope.left)[i]), float(np.ravel(slope.right)[i])))
        slack += 1e-6 * (ends[1] - ends[0])
        inside = ends[0] - slack <= claim <= ends[1] + slack
        return "kink" if inside else "wrong"
    if abs(claim - value) > slack:
        return "wrong"
    size = max(abs(value), abs(claim))
    nothing = claim == 0.0 and error <= _NOTHING * float(np.ravel(slope.noise)[i])
    return "right" if size > slack or nothing else "inconclusive"


def _slopes(evidence: Evidence, directions: Iterable[dict[str, Any]], scale: float = 1.0) -> Slope:
    """Return the slopes of <upstream, forward> along several directions.

    Large ones are taken one by one, so that only one is held; others are found together.
    """
    if evidence.moves_in_steps:
        return Slope.joined([_UNKNOWN for _ in directions])
    if _large(evidence):
        return Slope.joined([_along_line(evidence, each, scale) for each in directions])
    directions = list(directions)
    upstreams = _upstreams(evidence)
    forward = _forward(evidence)

    entries = sum(int(np.size(way)) for direction in directions for way in direction.values())
    together = max(1, _AT_ONCE // max(entries, 1)) if len(directions) <= _CHUNK else 1

    def function(steps: Sequence[float]) -> list[list[Any]]:
        sums: list[float] = []
        for first in range(0, len(steps), together):
            pairs = [(d, t) for t in steps[first : first + together] for d in directions]
            for start in range(0, len(pairs), together * _CHUNK):
                part = pairs[start : start + together * _CHUNK]
                cases = [_ahead(evidence, direction, t) for direction, t in part]
                sums += [pairing(upstreams, outputs) for outputs in forward(cases)]
        return [[row] for row in np.array(sums).reshape(len(steps), len(directions))]

    return finite_differences(function, scale)[0]


def _forward(
    evidence: Evidence, real: bool = False
) -> Callable[[Sequence[dict[str, Any]]], list[list[Any]]]:
    """Return the forward in float64, at many points: compiled where it can be traced."""
    subject, inexact = evidence.subject, _inexact(evidence)
    if subject.forward is not None and not real:

        def traced(cases: Sequence[dict[str, Any]]) -> list[list[Any]]:
            outputs = evidence.forward(cases)
            return [[outputs[i][k] for i in inexact] for k in range(len(cases))]

        return traced

    def called(cases: Sequence[dict[str, Any]]) -> list[list[Any]]:
        wide = {name: widen(value) for name, value in evidence.values.items()}
        outputs = [_called(subject.primal, {**wide, **case}) for case in cases]
        return [[each[i] for i in inexact] if each else [np.nan] * len(inexact) for each in outputs]

    return called


def _called(primal: Callable[[dict[str, Any]], list[Any]], values: dict[str, Any]) -> list[Any]:
    """Call a NumPy forward a step away, where its domain may have ended."""
    try:
        with np.errstate(all="ignore"):
            return primal(values)
    except Exception:  # an index out of range, a matrix that is singular there
        return []


def _upstreams(evidence: Evidence) -> list[Any]:
    named = [widen(evidence.upstreams[u.name]) for u in evidence.subject.upstreams]
    return named or [np.float64(1.0)]  # a loss that returns its own gradient


def _scales(value: Any) -> np.ndarray[Any, Any]:
    sizes = np.abs(np.asarray(widen(value)))
    scales: np.ndarray[Any, Any] = np.maximum(sizes, 1e-2 * typical(value) if sizes.any() else 1.0)
    return scales


def _ahead(evidence: Evidence, direction: dict[str, Any], t: float) -> dict[str, Any]:
    return {name: widen(evidence.values[name]) + t * step for name, step in direction.items()}
