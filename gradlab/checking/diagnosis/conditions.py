"""Wrong only where a condition holds: a sign, a tie, a mask, a border, a repeated index."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding

__all__ = ["conditions"]

Array = np.ndarray[Any, Any]

_PERMUTATIONS = 3


def conditions(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield the condition that holds exactly where entries are wrong."""
    leaf = symptom.subject.targets[target]
    if not leaf.shape:
        return
    values = symptom.cases[0].values
    for text, mask in predicates(symptom, target, values, _thresholds(symptom, target)):
        # the first two cases share their inputs
        if all(_fits(symptom, k, target, mask) for k in range(2)) and _moved(symptom, target, text):
            what = _instead(symptom, target, mask)
            words = f"the gradient of {leaf.path} is wrong only where {text}{what}"
            yield Finding("condition", leaf.path, words)
            return


def _fits(symptom: Symptom, case: int, target: int, mask: Array) -> bool:
    """Whether entries are wrong exactly where a mask holds, but for those that cannot show it."""
    if case >= len(symptom.cases):
        return True
    wrong = symptom.differs(case, target)
    if not wrong.any() or np.any(wrong & ~mask) or mask.all():
        return False
    here = symptom.cases[case]
    mute = (here.expected[target] == 0) & (here.actual[target] == 0)
    return bool(np.all(wrong | ~mask | mute))


def _moved(symptom: Symptom, target: int, text: str) -> bool:
    """Whether entries are wrong only under the condition when the input's entries change places."""
    if not symptom.trial.has_reference:
        return _gap(symptom, target)
    rng = np.random.default_rng(7)
    case, seen = symptom.cases[0], False
    for _ in range(_PERMUTATIONS):
        values = {
            name: rng.permutation(np.ravel(value)).reshape(np.shape(value))
            for name, value in case.values.items()
        }
        there = symptom.at(values, case.upstreams)
        mask = dict(predicates(symptom, target, values, _thresholds(symptom, target))).get(text)
        slack = 1e-9 * np.max(np.abs(there.expected[target]), initial=0.0)
        wrong = ~(np.abs(there.actual[target] - there.expected[target]) <= slack)
        if mask is None or np.any(wrong & ~mask):
            return False
        seen |= bool(wrong.any())
    return seen


def _gap(symptom: Symptom, target: int) -> bool:
    """Whether wrong entries are far from right: a small smooth error has no clear border."""
    case, wrong = symptom.cases[0], symptom.differs(0, target)
    off = np.abs(case.actual[target] - case.expected[target])[wrong]
    size = np.abs(case.expected[target])[wrong]
    return bool(np.all(off > 1e-2 * size)) and bool(np.all(off > 1e-4 * np.max(off)))


def _instead(symptom: Symptom, target: int, mask: Array) -> str:
    """Say what the rule gives there, where that has a name."""
    case = symptom.cases[0]
    actual, expected = case.actual[target][mask], case.expected[target][mask]
    if not np.any(actual):
        return ": there it is zero"
    upstreams = [
        case.upstreams[u.name][mask]
        for u in symptom.subject.upstreams
        if case.upstreams[u.name].shape == mask.shape
    ]
    if any(np.allclose(actual, u, rtol=1e-9) for u in upstreams):
        return ": there it is the upstream"
    if np.allclose(actual, -expected, rtol=1e-9):
        return ": there it has the wrong sign"
    with np.errstate(all="ignore"):
        ratio = actual / expected
    if np.isfinite(ratio).all() and np.ptp(np.real(ratio)) < 1e-9 * np.max(np.abs(ratio)):
        return f": there it is off by a factor {np.real(ratio).flat[0]:.6g}"
    return ""


def _thresholds(symptom: Symptom, target: int) -> dict[str, float]:
    """Return, in words, the thresholds on an input's values that part wrong entries from right."""
    found: dict[str, float] = {}
    wrong = symptom.differs(0, target)
    point = {**symptom.trial.values, **symptom.cases[0].values}
    for name, value in point.items():
        x = _real(value)
        if x is None or x.shape != wrong.shape or x.dtype.kind != "f" or wrong.all():
            continue
        for label, size in ((name, x), (f"|{name}|", np.abs(x))):
            for sign, side in ((1.0, "<"), (-1.0, ">")):
                top, bottom = np.max(sign * size[wrong]), np.min(sign * size[~wrong])
                if top < bottom:
                    limit = float(top + bottom) / 2
                    found[f"{label} {side} {sign * limit:.3g}"] = limit
    return found


def predicates(
    symptom: Symptom, target: int, values: dict[str, Any], thresholds: dict[str, float]
) -> Iterator[tuple[str, Array]]:
    """Yield conditions on the entries of an input, in words and as masks."""
    leaf = symptom.subject.targets[target]
    point = {**symptom.trial.values, **values}
    mine = np.asarray(point[leaf.path])
    if np.iscomplexobj(mine):
        return
    names = [leaf.path, *(name for name in point if name != leaf.path)]
    for name in names:
        other = _real(point[name])
        if other is None:
            continue
        yield from _of_values(name, other, mine.shape)
        if name != leaf.path and other.shape == mine.shape:
            yield f"{leaf.path} == {name}", mine == other
        if other.dtype.kind in "iu":
            yield from _of_index(name, other, mine.shape)
    yield from _borders(leaf.path, mine.shape)
    yield from _ties(leaf.path, mine)
    for text, limit in thresholds.items():
        label, side, _ = text.rsplit(" ", 2)
        x = np.asarray(_real(point[label.strip("|")]))
        size = np.abs(x) if label.startswith("|") else x
        yield text, size < limit if side == "<" else -size < limit


def _real(value: Any) -> Array | None:
    try:
        array = np.asarray(value)
    except TypeError:  # a PRNG key has no values
        return None
    return array if array.dtype.kind in "fiub" else None


def _of_values(name: str, other: Array, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    try:
        x = np.broadcast_to(other, shape)
    except ValueError:
        return
    if x.dtype.kind == "b":
        yield f"{name} is False", ~x
        yield f"{name} is True", x
        return
    yield f"{name} == 0", x == 0
    yield f"{name} != 0", x != 0
    yield f"{name} < 0", x < 0
    yield f"{name} > 0", x > 0
    yield f"{name} <= 0", x <= 0
    yield f"{name} >= 0", x >= 0
    yield f"|{name}| > 1", np.abs(x) > 1
    yield f"|{name}| < 1", np.abs(x) < 1
    yield f"{name} != 1", x != 1


def _of_index(name: str, index: Array, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Conditions on rows: those that an index names once, several times, never."""
    n = shape[0]
    inside = index[(index >= 0) & (index < n)]
    count = np.bincount(inside.ravel(), minlength=n)
    column = count.reshape((n, *[1] * (len(shape) - 1)))
    yield f"an index in {name} is repeated", np.broadcast_to(column > 1, shape)
    yield f"an index is in {name} once", np.broadcast_to(column == 1, shape)
    yield f"an index is not in {name}", np.broadcast_to(column == 0, shape)
    yield f"an index is in {name}", np.broadcast_to(column > 0, shape)


def _borders(path: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    for axis, n in enumerate(shape):
        if n < 3:
            continue
        position = np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        for text, mask in (
            (f"{path} has index 0 on axis {axis}", position == 0),
            (f"{path} has index {n - 1}, the last, on axis {axis}", position == n - 1),
            (f"{path} is before the last step along axis {axis}", position < n - 1),
            (f"{path} is beyond index 0 on axis {axis}", position > 0),
            (f"{path} is at the border of axis {axis}", (position == 0) | (position == n - 1)),
            (f"{path} is not at the border of axis {axis}", (position > 0) & (position < n - 1)),
        ):
            yield text, np.broadcast_to(mask, shape)


def _ties(path: str, x: Array) -> Iterator[tuple[str, Array]]:
    _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    yield f"{path} is tied with another entry", (count[inverse] > 1).reshape(x.shape)
