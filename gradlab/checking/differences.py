"""Finite differences of the lifted forward: the one place where slopes are measured.

A slope is that of <upstream, forward> along a direction over the inputs; it knows its own error.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from gradlab.checking.evidence import Evidence, typical
from gradlab.checking.subject import Arrays
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array
from gradlab.references import (
    LIMIT,
    Estimate,
    Slope,
    finite_differences,
    inner,
    known,
    norm,
    unit_roundoff,
)
from gradlab.tracing import Leaf
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.work import work

_GROUPS, _FEW_GROUPS = 256, 16  # of small and of large inputs
_CHUNK = 64  # directions at once
_AT_ONCE = 1 << 19  # entries of the points of several steps
_WORK = 1 << 21  # entries of all groups together, of one step
_LARGE = 1 << 18
_FEW_STEPS, _MORE_STEPS, _FEW_POINTS = 6, 10, 7  # of a large forward, and of one that is called
LINE = 2 * _MORE_STEPS + 3 * _FEW_POINTS + 3  # calls of the latter, at most
_SHORTER = 2.0**-4  # its steps are 2^-6 to 2^-11; others are seldom the best
_FAR = 1.0  # a step at which a term shows that depends on the entry that moves
_UNKNOWN = Slope(*(np.full(1, each) for each in (np.nan, np.inf, np.nan, np.nan, False, np.inf)))
_ROUNDING = 2.0**-53  # of the terms of a sum
NOTHING = 2.0**24  # roundings: a slope of zero known this well is zero


def pairing(upstreams: Sequence[Any], outputs: Sequence[Any]) -> float:
    """Return the real number of which JAX's gradients are the gradient: Re sum(u y)."""
    return float(sum(np.sum(np.real(u * y)) for u, y in zip(upstreams, outputs)))


def pairings(upstreams: Sequence[Any], outputs: Sequence[Any]) -> Array:
    """Return the same number for each row of the outputs."""
    terms = [np.real(u * y) for u, y in zip(upstreams, outputs)]
    return np.asarray(sum(np.sum(each, axis=tuple(range(1, each.ndim))) for each in terms))


def directional(evidence: Evidence, direction: dict[str, Any]) -> Slope:
    """Return the slope of <upstream, forward> along one direction over all inputs."""
    if evidence.moves_in_steps or evidence.without_infinities is not None:
        return _UNKNOWN
    alone = not (evidence.has_rule and evidence.has_reference)
    if evidence.subject.unread and (alone or _large(evidence)):
        return slopes(evidence, [direction])
    if _large(evidence):
        return _along_line(evidence, direction)
    if alone:
        return slopes(evidence, [direction])
    assert evidence.evaluation is not None
    point, first = evidence.full_point, evidence.outputs
    at = evidence.evaluation.along(point, direction, "reference", first)
    upstreams, inexact = _upstreams(evidence), _inexact(evidence)

    def function(steps: Sequence[float]) -> list[list[Any]]:
        legal = all(evidence.legal(_ahead(evidence, direction, step)) for step in steps)
        found = evidence.dropped.attempt(lambda: at(steps)["reference"]) if legal else None
        if found is None and len(steps) > 1:
            return [row for step in steps for row in function([step])]
        if found is None:
            return [[np.array([np.nan])]]
        outputs = [found[i] for i in inexact]
        return [[np.array([pairing(upstreams, row)])] for row in zip(*outputs)]

    return finite_differences(function)[0]


def groups_of(evidence: Evidence) -> int:
    """Return into how many groups entries are divided: fewer where each slope costs more."""
    outputs = sum(int(np.prod(u.shape, dtype=np.int64)) for u in evidence.subject.upstreams)
    forward = evidence.subject.forward
    decomposed = 0 if forward is None else work(forward.jaxpr).decomposed
    most = _WORK // max(outputs, _moving(evidence), decomposed, 1)
    return min(_GROUPS, max(_FEW_GROUPS, most))


def _large(evidence: Evidence) -> bool:
    """Whether directions are so long that only one is held, and few points are taken on it."""
    return _moving(evidence) > _LARGE


def _moving(evidence: Evidence) -> int:
    """Return how many entries a direction has."""
    return sum(np.size(evidence.values[t.path]) for t in evidence.subject.targets)


def real_slope(evidence: Evidence, direction: dict[str, Any], scale: float = 1.0) -> Slope:
    """Return the slope of the function itself, which is called, not of the program it became."""
    return _along_line(evidence, direction, scale / _SHORTER, real=True)


def _along_line(
    evidence: Evidence, direction: dict[str, Any], scale: float = 1.0, real: bool = False
) -> Slope:
    """Return the slope along one direction from few points, all of them on one line."""
    called = evidence.subject.unread or real
    its_own = _Line(evidence, direction) if called else None
    line = its_own or evidence.line(direction, _upstreams(evidence))

    def products(steps: Sequence[float]) -> list[list[Any]]:
        return [[np.array([product])] for product in line(steps)]

    count = _MORE_STEPS if real else _FEW_STEPS
    least = (lambda: 0.0) if its_own is None else its_own.rounding
    return finite_differences(products, _SHORTER * scale, count, _FEW_POINTS, least)[0]


def _inexact(evidence: Evidence) -> list[int]:
    subject = evidence.subject
    return [subject.outputs.index(u.output) for u in subject.upstreams] or [0]


def gradient_by_differences(
    evidence: Evidence, target: Leaf, values: Arrays, upstreams: Arrays
) -> Array:
    """Return one gradient, entry by entry; all NaN where it has too many entries."""
    size = int(np.prod(target.shape, dtype=np.int64))
    kind = np.complex128 if target.kind == "complex" else np.float64
    if not 0 < size <= _GROUPS:
        return np.full(target.shape, np.nan, kind)
    there = evidence.at({**evidence.values, **values}, upstreams)
    scale = scales(there.values[target.path]).ravel()
    parts = []
    for turn in (1.0, 1.0j) if target.kind == "complex" else (1.0,):
        steps = (np.eye(size) * scale * turn).reshape(size, *target.shape)
        slope = slopes(there, [{target.path: step} for step in steps])
        parts.append(np.where(np.isfinite(slope.error), slope.value, np.nan) / scale)
    gradient = parts[0] if len(parts) == 1 else parts[0] - 1j * parts[1]
    return np.asarray(gradient, kind).reshape(target.shape)


def along(directions: Sequence[Array], estimates: Sequence[Estimate]) -> tuple[float, float, float]:
    """Return gradients' product with directions, how far rounding moves it, and its terms' size."""
    value = spread = size = 0.0
    for direction, estimate in zip(directions, estimates, strict=True):
        way = widen(direction)
        value += inner(way, estimate.value)
        spread = float(np.hypot(spread, norm(known(estimate.scatter), way)))
        size += inner(np.abs(way), np.abs(estimate.value))
    return value, float(np.hypot(spread, _ROUNDING * size)), size


def left_by_loops(evidence: Evidence) -> float:
    """Return how far off a slope may be because loops end once their own dtype has converged.

    What a series leaves out is small beside the forward, and so is its change over a step of the
    input's own size; beside a small slope it is not.
    """
    targets = evidence.subject.targets
    if not evidence.subject.loops:
        return 0.0
    path = targets[0].path
    outputs = _rows(evidence, {path: widen(evidence.values[path])[None]})
    size = sum(float(np.sum(np.abs(u * y))) for u, y in zip(_upstreams(evidence), outputs))
    digits = max(unit_roundoff(target.dtype) for target in targets)
    return 2.0 * digits * size if np.isfinite(size) else 0.0


class Answer(Enum):
    """What a slope that was measured says of one that is claimed."""

    AGREES = auto()
    ZERO = auto()
    """Both are zero, as far as the noise of the function and the rounding of the claim tell."""
    AT_A_KINK = auto()
    """The claim lies between the slopes on both sides."""
    BESIDE_A_KINK = auto()
    """The claim lies outside of the slopes on both sides."""
    DISAGREES = auto()
    TOO_COARSE = auto()
    """The error of the measured slope is as large as the claim."""
    UNKNOWN = auto()
    """The function jumps here, or is not finite nearby."""

    @property
    def refutes(self) -> bool:
        """Whether the claim is wrong."""
        return self in (Answer.DISAGREES, Answer.BESIDE_A_KINK)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is told of the claim."""
        return self in (Answer.TOO_COARSE, Answer.UNKNOWN)


def answer(claim: float, slope: Slope, i: int, spread: float = 0.0, strict: bool = True) -> Answer:
    """Return what the i-th measured slope says of a claim.

    Unless `strict`, the claim is along a direction over several kinks. A right gradient need not
    lie between the slopes on both sides there; what is not finite is told entry by entry.
    """
    value, error, left, right = (
        float(np.real(np.ravel(each)[i]))
        for each in (slope.value, slope.error, slope.left, slope.right)
    )
    ends = sorted(end for end in (left, right) if not np.isnan(end))
    if not np.isfinite(claim):
        if not strict:
            return Answer.UNKNOWN
        vertical = any(map(np.isinf, ends))
        if claim in ends:
            return Answer.AGREES
        told = np.isfinite(value) if np.isnan(claim) else vertical or np.isfinite(error)
        return Answer.DISAGREES if told else Answer.UNKNOWN
    if not np.isfinite(value) or not np.isfinite(error + spread):
        return Answer.UNKNOWN
    slack = LIMIT * max(error, spread)
    if bool(np.ravel(slope.kink)[i]):
        width = ends[1] - ends[0]
        slack = 1e-6 * width + (LIMIT * max(error - width / 2, spread) if strict else slack)
        inside = ends[0] - slack <= claim <= ends[1] + slack
        return Answer.AT_A_KINK if inside else Answer.BESIDE_A_KINK
    if abs(claim - value) > slack:
        return Answer.DISAGREES
    nothing = error <= NOTHING * float(np.ravel(slope.noise)[i])
    if nothing and abs(claim) <= LIMIT * spread and abs(value) <= slack:
        return Answer.ZERO
    return Answer.AGREES if max(abs(value), abs(claim)) > slack else Answer.TOO_COARSE


def slopes(evidence: Evidence, directions: Iterable[dict[str, Any]], scale: float = 1.0) -> Slope:
    """Return the slopes of <upstream, forward> along several directions.

    Large ones are taken one by one, so that only one is held; others are found together.
    """
    if evidence.moves_in_steps:
        return Slope.joined([_UNKNOWN for _ in directions])
    if evidence.subject.is_called:
        return Slope.joined([_by_calls(evidence, each, scale) for each in directions])
    if _large(evidence):
        return Slope.joined([_along_line(evidence, each, scale) for each in directions])
    directions = list(directions)
    upstreams = _upstreams(evidence)
    chunks = [directions[k : k + _CHUNK] for k in range(0, len(directions), _CHUNK)]
    still = _without_infinities([evidence.here[i] for i in _inexact(evidence)])
    entries = sum(int(np.size(way)) for direction in directions for way in direction.values())
    together = max(1, _AT_ONCE // max(entries, 1)) if len(chunks) == 1 else 1

    def function(steps: Sequence[float]) -> list[list[Any]]:
        sums = np.zeros((len(steps), len(directions)))
        for first in range(0, len(steps), together):
            part = steps[first : first + together]
            for k, chunk in enumerate(chunks):
                outputs = still(_rows(evidence, ahead(evidence.values, chunk, part)))
                products = pairings(upstreams, outputs).reshape(len(part), len(chunk))
                sums[first : first + together, k * _CHUNK : (k + 1) * _CHUNK] = products
        return [[row] for row in sums]

    return finite_differences(function, scale)[0]


@dataclass(frozen=True, eq=False)
class Moves:
    """By how much <upstream, forward> changes at several moves away from a point.

    `sizes`: the magnitudes of the terms that change; `here`: the magnitudes of all terms; `shares`:
    how much of the noise of all terms, each rounded by itself, is in the terms that change. Where
    an input is rounded on its way, a steep term is moved by more than its own rounding.
    """

    changes: Array
    sizes: Array
    here: float
    shares: Array


def moves(evidence: Evidence, directions: Iterable[dict[str, Any]], step: float = 1.0) -> Moves:
    """Call the forward at the point and once for each move away from it, by so large a step."""
    forward, upstreams = _forward(evidence), _upstreams(evidence)
    (start,) = forward([{}])
    still = _without_infinities(start)
    here = still(start)
    changes, all_terms = [], _terms(upstreams, here)
    sizes, lengths = [np.sum(all_terms)], [np.linalg.norm(all_terms)]
    for direction in directions:
        there = still(forward([_ahead(evidence, direction, 1.0)])[0])
        with np.errstate(invalid="ignore"):
            differences = [y - x for x, y in zip(here, there)]
        changes.append(pairing(upstreams, differences))
        moved = _terms(upstreams, [np.where(y == x, 0.0, x) for x, y in zip(here, there)])
        sizes.append(np.sum(moved))
        lengths.append(np.linalg.norm(np.hypot(moved, _terms(upstreams, differences) / step)))
    whole, parts = lengths[0], np.array(lengths[1:])
    known = (parts > 0) & (whole > 0)  # where nothing moved, it may be a staircase
    shares = np.where(known, parts / (whole or 1.0), 1.0)
    return Moves(np.array(changes), np.array(sizes[1:]), float(sizes[0]), shares)


def _terms(upstreams: Sequence[Any], outputs: Sequence[Any]) -> Array:
    """Return the magnitudes of all terms of <upstream, forward>."""
    return np.concatenate([np.abs(u * y).ravel() for u, y in zip(upstreams, outputs)])


class _Line:
    """<upstream, forward> as a function of several steps along a direction, each a call.

    Terms that no step changes are left out, and so is their rounding: but not of those that change
    further away, whose change here may be less than it.
    """

    def __init__(self, evidence: Evidence, direction: dict[str, Any]) -> None:
        self._evidence, self._direction = evidence, direction
        self._forward, self._upstreams = _forward(evidence), _upstreams(evidence)
        (start,) = self._forward([{}])
        self._still = _without_infinities(start)
        self._here = self._still(start)
        self._kept: list[Any] = []
        self._moving: list[Any] = []

    def __call__(self, steps: Sequence[float]) -> list[float]:
        there = list(map(self._at, steps))
        if not self._kept:
            changed = [np.any([y[i] != x for y in there], axis=0) for i, x in enumerate(self._here)]
            self._kept = [np.where(mask, x, 0) for mask, x in zip(changed, self._here)]
            self._moving = changed
            if not all(mask.all() for mask in changed):
                sides = zip(self._here, self._at(_FAR), self._at(-_FAR), changed)
                self._moving = [(y != x) | (z != x) | mask for x, y, z, mask in sides]
        with np.errstate(invalid="ignore"):
            changes = [[y - x + k for x, y, k in zip(self._here, row, self._kept)] for row in there]
        return [pairing(self._upstreams, row) for row in changes]

    def _at(self, step: float) -> list[Any]:
        return self._still(self._forward([_ahead(self._evidence, self._direction, step)])[0])

    def rounding(self) -> float:
        """Return by how much rounding moves the terms that change, each to the dtype that it has.

        A zero may be what is left of numbers as large as other outputs, or as 1 where all are zero.
        """
        terms = [np.zeros(0)]
        for upstream, output, mask in zip(
            self._upstreams, map(np.asarray, self._here), self._moving
        ):
            size = np.abs(output)
            size = np.where(size == 0, np.max(size, initial=0.0) or 1.0, size)
            unit = unit_roundoff(output.dtype) if is_inexact(output.dtype) else 0.0
            terms.append(np.ravel(np.where(mask, unit * np.abs(upstream) * size, 0.0)))
        return float(np.linalg.norm(np.concatenate(terms)))


def _by_calls(evidence: Evidence, direction: dict[str, Any], scale: float) -> Slope:
    """Return the slope along one direction of a forward that is called, if calls are left."""
    known = evidence.lines.get(id(direction))
    if known is not None and known[0] is direction:
        return known[1]
    granted = evidence.subject.calls.grants(LINE)
    slope = _along_line(evidence, direction, scale, real=True) if granted else _UNKNOWN
    evidence.lines[id(direction)] = (direction, slope)
    return slope


def _without_infinities(here: list[Any]) -> Callable[[list[Any]], list[Any]]:
    """Return how outputs are read where some are not finite at the point itself.

    Such an output adds nothing to a slope while it stays the same, and makes it unknown otherwise.
    """
    bad = [~np.isfinite(output) for output in here]
    if not any(np.any(mask) for mask in bad):
        return list

    def read(outputs: list[Any]) -> list[Any]:
        return [
            np.where(mask, np.where(_same(y, start), 0.0, np.nan), y)
            for y, start, mask in zip(outputs, here, bad)
        ]

    return read


def _same(a: Any, b: Any) -> Any:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _rows(evidence: Evidence, rows: Arrays) -> list[Any]:
    """Return the outputs of the lifted forward, one row for each row of the inputs that move."""
    outputs = evidence.forward(rows)
    return [outputs[i] for i in _inexact(evidence)]


def _forward(evidence: Evidence) -> Callable[[Sequence[dict[str, Any]]], list[list[Any]]]:
    """Return the forward itself, called with float64 inputs at one point after the other.

    What leaves a program is called out of it: all else in the program is lifted.
    """
    subject, inexact = evidence.subject, _inexact(evidence)

    def lifted(cases: Sequence[dict[str, Any]]) -> list[list[Any]]:
        some = {t.path: widen(evidence.values[t.path]) for t in subject.targets[:1]}
        rows = [{n: x[None] for n, x in (case or some).items()} for case in cases]
        return [[output[0] for output in _rows(evidence, row)] for row in rows]

    def called(cases: Sequence[dict[str, Any]]) -> list[list[Any]]:
        wide = {name: widen(value) for name, value in evidence.values.items()}
        outputs = [_called(subject.primal, {**wide, **case}) for case in cases]
        return [[each[i] for i in inexact] if each else [np.nan] * len(inexact) for each in outputs]

    return lifted if "forward" in subject.outside else called


def _called(primal: Callable[[dict[str, Any]], list[Any]], values: dict[str, Array]) -> list[Any]:
    """Call a NumPy forward a step away, where its domain may have ended."""
    try:
        with np.errstate(all="ignore"):
            return primal(values)
    except Exception:  # an index out of range, a matrix that is singular there
        return []


def _upstreams(evidence: Evidence) -> list[Any]:
    named = [widen(evidence.upstreams[u.name]) for u in evidence.subject.upstreams]
    return named or [np.float64(1.0)]  # a loss that returns its own gradient


def scales(value: Array) -> Array:
    """Return the steps over which entries change their character: their sizes, zeros a little."""
    sizes = np.abs(np.asarray(widen(value)))
    scales: Array = np.maximum(sizes, 1e-2 * typical(value) if sizes.any() else 1.0)
    return np.where(np.isfinite(scales), scales, 1.0)


def ahead(values: Arrays, directions: Sequence[Arrays], steps: Sequence[float]) -> Arrays:
    """Return the inputs that move, in float64: a row for each step along each of the directions."""
    rows = {}
    for name in directions[0]:
        ways = np.stack([direction[name] for direction in directions])
        times = np.reshape(np.array(steps, np.float64), (-1, *(1,) * ways.ndim))
        moved = widen(values[name]) + times * ways
        rows[name] = moved.reshape(len(steps) * len(ways), *ways.shape[1:])
    return rows


def _ahead(evidence: Evidence, direction: dict[str, Any], t: float) -> dict[str, Any]:
    return {name: widen(evidence.values[name]) + t * step for name, step in direction.items()}
