"""Finite differences as the oracle: entry by entry where they are few, in groups where many.

Every group of entries has one direction with random signs. A group that agrees with the slope along
its direction is right as a whole, up to the slope's error; one that does not is split until the
wrong entry stands alone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gradlab.checking.evidence import Evidence, typical
from gradlab.checking.judged import Judged
from gradlab.checking.subject import Arrays
from gradlab.checking.widen import widen
from gradlab.references import (
    LIMIT,
    Estimate,
    Slope,
    finite_difference,
    finite_differences,
    known,
    norm,
    unit_roundoff,
)
from gradlab.tracing import Leaf, opaque

__all__ = [
    "directional",
    "entry_slopes",
    "gradient_by_differences",
    "judge_by_differences",
    "left_by_loops",
    "pairing",
    "spread_along",
]

_GROUPS, _FEW_GROUPS = 256, 16  # of small and of large inputs
_CHUNK, _HELD = 64, 1 << 22  # directions at once, and entries that they may have together
_SPLITS = 12
_WORK = 1 << 21  # outputs of all groups together, of one step
_LARGE = 1 << 18
_FEW_STEPS, _FEW_POINTS = 6, 7  # of a large forward
_SHORTER = 2.0**-4  # its steps are 2^-6 to 2^-11; others are seldom the best
_FLOAT32 = 23  # binary digits
_UNKNOWN = Slope(*(np.full(1, each) for each in (np.nan, np.inf, np.nan, np.nan, False, np.inf)))
_NOTHING = 2.0**24  # roundings: a slope of zero known this well is zero


def pairing(upstreams: Sequence[Any], outputs: Sequence[Any]) -> float:
    """Return the real number of which JAX's gradients are the gradient: Re sum(u y)."""
    return float(sum(np.sum(np.real(u * y)) for u, y in zip(upstreams, outputs)))


def directional(evidence: Evidence, direction: dict[str, Any]) -> Slope:
    """Return the slope of <upstream, forward> along one direction over all inputs."""
    if _moves_in_steps(evidence):
        return _UNKNOWN
    if _large(evidence):
        return _along_line(evidence, direction)
    if not (evidence.has_rule and evidence.has_reference):
        return _slopes(evidence, [direction])
    assert evidence.evaluation is not None
    at = evidence.evaluation.along(evidence.full_point, direction)
    upstreams, inexact = _upstreams(evidence), _inexact(evidence)

    def function(t: float) -> np.ndarray[Any, Any]:
        outputs = evidence.dropped.attempt(lambda: at(t)["reference"])
        if outputs is None:
            return np.array([np.nan])
        return np.array([pairing(upstreams, [outputs[i] for i in inexact])])

    return finite_difference(function)


def _moves_in_steps(evidence: Evidence) -> bool:
    """Whether the forward holds what is not lifted and has fewer digits than float32.

    Its slope is that of a staircase: zero, or a jump.
    """
    programs = (evidence.subject.forward, evidence.subject.reference)
    parts = [part for program in programs if program is not None for part in opaque(program)]
    return any(part.digits < _FLOAT32 for part in parts)


def _groups(evidence: Evidence) -> int:
    """Return into how many groups entries are divided: fewer where each costs many outputs."""
    if _large(evidence):
        return _FEW_GROUPS
    outputs = sum(int(np.prod(u.shape, dtype=np.int64)) for u in evidence.subject.upstreams)
    return min(_GROUPS, max(_FEW_GROUPS, _WORK // max(outputs, 1)))


def _large(evidence: Evidence) -> bool:
    """Whether directions are so long that only one is held, and few points are taken on it."""
    return sum(np.size(evidence.values[t.path]) for t in evidence.subject.targets) > _LARGE


def _along_line(evidence: Evidence, direction: dict[str, Any], scale: float = 1.0) -> Slope:
    """Return the slope along one direction from few points, all of them on one line."""
    upstreams = _upstreams(evidence)
    if evidence.subject.forward is not None:
        line = evidence.line(direction, upstreams)
    else:
        forward = _forward(evidence)

        def line(steps: Sequence[float]) -> list[float]:
            cases = (_ahead(evidence, direction, step) for step in steps)
            return [pairing(upstreams, forward([case])[0]) for case in cases]

    def products(steps: Sequence[float]) -> list[list[Any]]:
        return [[np.array([product])] for product in line(steps)]

    return finite_differences(products, _SHORTER * scale, _FEW_STEPS, _FEW_POINTS)[0]


def _inexact(evidence: Evidence) -> list[int]:
    subject = evidence.subject
    return [subject.outputs.index(u.output) for u in subject.upstreams] or [0]


def judge_by_differences(evidence: Evidence, target: Leaf, gradient: Estimate) -> Judged:
    """Judge one gradient by finite differences of the forward."""
    actual = gradient.value
    judged = Judged.empty(target, actual)
    if actual.size == 0:
        return judged
    rng = np.random.default_rng([evidence.seed, 3])
    scale = _scales(evidence.values[target.path])
    signs = rng.choice((-1.0, 1.0), actual.shape)
    turns = (1.0, 1.0j) if target.kind == "complex" else (1.0,)
    most = _groups(evidence)
    for turn in turns:
        groups = np.array_split(rng.permutation(actual.size), min(most, actual.size))
        for _ in range(_SPLITS):
            groups = _judge_groups(evidence, judged, groups, signs * scale * turn, gradient)
            if not groups:
                break
    judged.right &= ~judged.wrong
    judged.inconclusive = ~(judged.right | judged.wrong)
    return judged


def settle_by_slopes(evidence: Evidence, judged: list[Judged], references: list[Any]) -> None:
    """Take back `wrong` where finite differences confirm the rule and refute the reference.

    Both are needed: a rule may be too little off for finite differences to see.
    """
    for each, reference in zip(judged, references):
        wrong = np.flatnonzero(each.wrong.ravel())
        if not wrong.size or each.target.kind != "real":
            continue
        order = np.argsort(-each.error.ravel()[wrong])
        together = max(1, min(_CHUNK, _HELD // each.wrong.size))
        for part in np.array_split(wrong[order], max(1, wrong.size // together)):
            confirmed = _confirmed(evidence, each, np.ravel(reference), part)
            each.accept(np.isin(np.arange(each.wrong.size), confirmed).reshape(each.wrong.shape))
            if confirmed.size:
                k = int(confirmed[0])
                index = list(map(int, np.unravel_index(k, each.wrong.shape)))
                each.notes.append(
                    f"autodiff of the primal is wrong at {each.target.path}{index or ''}: it gives "
                    f"{np.ravel(reference)[k]:.6g}; finite differences confirm the rule's "
                    f"{each.actual.ravel()[k]:.6g}"
                )
            if confirmed.size < part.size:
                break


def _confirmed(evidence: Evidence, judged: Judged, reference: Any, entries: Any) -> Any:
    """Return the entries whose slope is the rule's and not the reference's."""
    shape = judged.wrong.shape
    steps = np.zeros((len(entries), judged.wrong.size))
    steps[np.arange(len(entries)), entries] = _scales(evidence.values[judged.target.path]).ravel()[
        entries
    ]
    rows = [{judged.target.path: step.reshape(shape)} for step in steps]
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
    judged: Judged,
    groups: list[Any],
    direction: np.ndarray[Any, Any],
    gradient: Estimate,
) -> list[Any]:
    """Judge groups of entries; return the halves of those that are wrong and can be split."""
    path = judged.target.path
    flat = direction.ravel()
    left = left_by_loops(evidence)
    claims, spreads = [], []
    for group in groups:
        claims.append(float(np.real(np.sum(judged.actual.ravel()[group] * flat[group]))))
        moved = spread_along(gradient.scatter.ravel()[group], flat[group])
        spreads.append(float(np.hypot(moved, left)))

    def alone(group: Any) -> np.ndarray[Any, Any]:
        step = np.zeros_like(flat)
        step[group] = flat[group]
        return step.reshape(direction.shape)

    slope = _slopes(evidence, ({path: alone(group)} for group in groups))
    split: list[Any] = []
    for i, (group, claim) in enumerate(zip(groups, claims)):
        state = compare(claim, slope, i, spreads[i])
        if state == "wrong" and len(group) > 1:
            halves = np.array_split(group, min(len(group), 16))
            split += halves
            continue
        judged.mark(state, group, float(slope.error[i]), flat[group])
        if len(group) == 1:
            step = flat[group[0]]
            judged.expect(group[0], slope.value[i] / step)
            excess = abs(claim - slope.value[i]) / max(float(slope.error[i]), 1e-300)
            judged.error.reshape(-1)[group[0]] = excess if np.isfinite(excess) else np.inf
            if state == "kink":
                judged.kinks.append(np.unravel_index(group[0], judged.actual.shape))
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
    if _moves_in_steps(evidence):
        return Slope.joined([_UNKNOWN for _ in directions])
    if _large(evidence):
        return Slope.joined([_along_line(evidence, each, scale) for each in directions])
    directions = list(directions)
    upstreams = _upstreams(evidence)
    forward = _forward(evidence)

    def function(t: float) -> np.ndarray[Any, Any]:
        sums: list[float] = []
        for start in range(0, len(directions), _CHUNK):
            part = directions[start : start + _CHUNK]
            cases = [_ahead(evidence, direction, t) for direction in part]
            sums += [pairing(upstreams, outputs) for outputs in forward(cases)]
        return np.array(sums)

    return finite_difference(function, scale)


def _forward(evidence: Evidence) -> Callable[[Sequence[dict[str, Any]]], list[list[Any]]]:
    """Return the forward in float64, at many points: compiled where it can be traced."""
    subject, inexact = evidence.subject, _inexact(evidence)
    if subject.forward is not None:

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
