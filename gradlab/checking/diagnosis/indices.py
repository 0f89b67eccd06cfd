"""Repeated indices: overwritten instead of added, and integers that are off by one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding

__all__ = ["indices"]

Array = np.ndarray[Any, Any]

_FEW = 64


def indices(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield findings about integer inputs: which contributions were lost, or went elsewhere."""
    path = symptom.subject.targets[target].path
    for name, value in symptom.trial.values.items():
        index = _integers(value)
        if index is None:
            continue
        for text, keep in (("last", _last(index)), ("first", _first(index))):
            if not keep.all() and _explained_by_mask(symptom, target, keep):
                text = (
                    f"where an index in {name} is repeated, the gradient of {path} "
                    f"is overwritten, not added: only the {text} one counts"
                )
                yield Finding("overwritten", path, text)
                return
        yield from _off_by_one(symptom, target, name, index)


def _integers(value: Any) -> Array | None:
    try:
        array = np.asarray(value)
    except TypeError:  # a PRNG key
        return None
    return array if array.dtype.kind in "iu" and array.size > 1 else None


def _first(index: Array) -> Array:
    keep = np.zeros(index.size, bool)
    keep[np.unique(index.ravel(), return_index=True)[1]] = True
    return keep.reshape(index.shape)


def _last(index: Array) -> Array:
    return np.flip(_first(np.flip(index)))


def _explained_by_mask(symptom: Symptom, target: int, keep: Array) -> bool:
    """Whether the reference gives what came once the upstream is zero where `keep` is False."""
    points = []
    for case in symptom.cases:
        masked = {
            name: u * keep.reshape(*keep.shape, *[1] * (u.ndim - keep.ndim))
            for name, u in case.upstreams.items()
            if u.shape[: keep.ndim] == keep.shape
        }
        if not masked:
            return False
        points.append((case.values, {**case.upstreams, **masked}))
    claims = symptom.expected_many(points)
    return all(symptom.explains(k, target, claim[target]) for k, claim in enumerate(claims))


def _off_by_one(symptom: Symptom, target: int, name: str, index: Array) -> Iterator[Finding]:
    if not symptom.trial.has_reference and symptom.entries > _FEW:
        return
    path = symptom.subject.targets[target].path
    lengths = {n for t in symptom.subject.targets for n in t.shape if n > int(index.max())}
    for step in (1, -1):
        for length in sorted(lengths):
            moved = ((index + step) % length).astype(index.dtype)
            points = [({**c.values, name: moved}, c.upstreams) for c in symptom.cases]
            claims = symptom.expected_many(points)
            if all(symptom.explains(k, target, claim[target]) for k, claim in enumerate(claims)):
                text = f"the gradient of {path} reads {name} shifted by {step}"
                yield Finding("index shifted", path, text)
                return
