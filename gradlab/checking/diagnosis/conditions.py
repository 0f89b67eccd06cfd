"""Wrong only where a condition holds: a sign, a size, a tie, a mask, a border, a repeated index."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gradlab.checking.diagnosis.symptom import Point, Symptom
from gradlab.common.arrays import Function
from gradlab.common.arrays import NumPyArray as Array
from gradlab.report import Finding

Mask = Callable[[dict[str, Any]], Array]  # an array at some inputs
Predicate = tuple[str, Mask]  # in words, and where it holds

_PERMUTATIONS = 3
_NEARLY_EVERYWHERE = ("is beyond index 0 on", "is not at the border on")


def conditions(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield the condition that holds exactly where entries are wrong."""
    leaf = symptom.subject.targets[target]
    if not leaf.shape:
        return
    for text, mask_at in _predicates(symptom, target):
        mask = mask_at(_inputs(symptom))
        # the first two cases share their inputs
        fits = all(_fits(symptom, k, target, mask) for k in range(2))
        if fits and _moved(symptom, target, mask_at):
            what = _instead(symptom, target, mask)
            if not what and any(words in text for words in _NEARLY_EVERYWHERE):
                continue
            words = f"the gradient of {leaf.path} is wrong only where {text}{what}"
            yield Finding("condition", leaf.path, words)
            return


def _inputs(symptom: Symptom) -> dict[str, Array]:
    return {**symptom.trial.values, **symptom.cases[0].point.values}


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


def _moved(symptom: Symptom, target: int, mask_at: Mask) -> bool:
    """Whether entries are wrong only under the condition when the input's entries change places."""
    if not symptom.trial.has_reference:
        return _gap(symptom, target)
    rng = np.random.default_rng(7)
    held, seen = symptom.cases[0].point, False
    for _ in range(_PERMUTATIONS):
        values = {n: rng.permutation(np.ravel(v)).reshape(v.shape) for n, v in held.values.items()}
        there = symptom.at(Point(values, held.upstreams))
        slack = 1e-9 * np.max(np.abs(there.expected[target]), initial=0.0)
        wrong = ~(np.abs(there.actual[target] - there.expected[target]) <= slack)
        if np.any(wrong & ~mask_at({**_inputs(symptom), **values})):
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
    upstreams = (u[mask] for u in case.point.upstreams.values() if u.shape == mask.shape)
    if any(np.allclose(actual, u, rtol=1e-9) for u in upstreams):
        return ": there it is the upstream"
    if np.allclose(actual, -expected, rtol=1e-9):
        return ": there it has the wrong sign"
    with np.errstate(all="ignore"):
        ratio = actual / expected
    if np.isfinite(ratio).all() and np.ptp(np.real(ratio)) < 1e-9 * np.max(np.abs(ratio)):
        return f": there it is off by a factor {np.real(ratio).flat[0]:.6g}"
    return ""


def _predicates(symptom: Symptom, target: int) -> Iterator[Predicate]:
    """Yield conditions on the entries of the inputs."""
    values, leaf = _inputs(symptom), symptom.subject.targets[target]
    for name in sorted(values, key=lambda name: name != leaf.path):
        yield from _of_one(symptom, target, name, values)
    yield from _borders(leaf.path, leaf.shape)
    yield f"{leaf.path} is tied with another entry", partial(_tied, leaf.path)


def _of_one(
    symptom: Symptom, target: int, name: str, values: dict[str, Any]
) -> Iterator[Predicate]:
    """Yield conditions on the entries of one input."""
    path, shape = symptom.subject.targets[target].path, symptom.subject.targets[target].shape
    given, kind = np.shape(values[name]), getattr(getattr(values[name], "dtype", None), "kind", "O")

    def read(at: dict[str, Any]) -> Array:
        return np.broadcast_to(np.asarray(at[name]), shape)

    def counts(at: dict[str, Any]) -> Array:
        """Return how often an index names each row."""
        index = np.ravel(at[name])
        found = np.bincount(index[(index >= 0) & (index < shape[0])], minlength=shape[0])
        return np.broadcast_to(found.reshape(-1, *[1] * (len(shape) - 1)), shape)

    if _fitted(given, shape):
        if kind == "b":
            yield f"{name} is False", lambda at: ~read(at)
            yield f"{name} is True", read
        elif kind in "iufc":
            yield f"{name} == 0", lambda at: read(at) == 0
            yield f"{name} != 0", lambda at: read(at) != 0
            yield f"{name} != 1", lambda at: read(at) != 1
            yield from _limits(symptom.differs(0, target), name, read, values, kind == "c")
        if name != path and given == shape:
            yield f"{path} == {name}", lambda at: read(at) == np.asarray(at[path])
    if kind in "iu":
        yield f"an index in {name} is repeated", lambda at: counts(at) > 1
        yield f"an index is in {name} once", lambda at: counts(at) == 1
        yield f"an index is not in {name}", lambda at: counts(at) == 0
        yield f"an index is in {name}", lambda at: counts(at) > 0


def _fitted(shape: tuple[int, ...], wide: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wide) == wide
    except ValueError:
        return False


def _limits(
    wrong: Array, name: str, read: Mask, values: dict[str, Any], sized: bool
) -> Iterator[Predicate]:
    """Yield the limits on an input, or on its size, that part wrong entries from right ones."""
    if wrong.all() or not wrong.any():
        return
    for label, take in ((name, np.real), (f"|{name}|", np.abs))[sized:]:
        x = take(read(values))
        for sign, sides in ((1.0, ("<", "<=")), (-1.0, (">", ">="))):
            top, bottom = float(np.max(sign * x[wrong])), float(np.min(sign * x[~wrong]))
            if not top < bottom:
                continue
            middle = (top + bottom) / 2
            plain = [0.0, 1.0, -1.0, *(float(f"{middle:.{digits}g}") for digits in (1, 2, 3, 17))]
            limit = next(c for c in plain if top <= c <= bottom)
            beyond = np.less_equal if limit == top else np.less
            text = f"{label} {sides[limit == top]} {sign * limit:.3g}"
            yield text, partial(_beyond, read, take, sign, beyond, limit)


def _beyond(
    read: Mask, take: Function, sign: float, compare: np.ufunc, limit: float, at: dict[str, Any]
) -> Array:
    return np.asarray(compare(sign * take(read(at)), limit))


def _tied(path: str, at: dict[str, Any]) -> Array:
    x = np.asarray(at[path])
    _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((count[inverse] > 1).reshape(x.shape))


def _borders(path: str, shape: tuple[int, ...]) -> Iterator[Predicate]:
    for axis, n in enumerate(shape):
        if n < 3:
            continue
        at = np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        for text, mask in (
            (f"{path} has index 0 on axis {axis}", at == 0),
            (f"{path} has index {n - 1}, the last, on axis {axis}", at == n - 1),
            (f"{path} is before the last step on axis {axis}", at < n - 1),
            (f"{path} is beyond index 0 on axis {axis}", at > 0),
            (f"{path} is at the border on axis {axis}", (at == 0) | (at == n - 1)),
            (f"{path} is not at the border on axis {axis}", (at > 0) & (at < n - 1)),
        ):
            yield text, partial(_there, np.broadcast_to(mask, shape))


def _there(mask: Array, at: dict[str, Any]) -> Array:
    return mask
