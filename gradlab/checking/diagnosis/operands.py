"""Another input was read wrongly: forgotten, transposed, with its sign turned."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradlab.checking.diagnosis.layout import moves
from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding

__all__ = ["operands"]

_ENTRIES, _FEW = 1 << 14, 64


def operands(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield which input, read otherwise than it was given, gives the gradient that came."""
    leaf = symptom.subject.targets[target]
    if not symptom.trial.has_reference and symptom.entries > _FEW:
        return
    yield from _exchanged(symptom, target)
    for other in symptom.subject.targets:
        for kind, text, change in _changes(other.shape):
            if kind == "input ignored" and other.path == leaf.path:
                continue
            points = [
                ({**c.values, other.path: change(c.values[other.path])}, c.upstreams)
                for c in symptom.cases
            ]
            claims = symptom.expected_many(points)
            if all(symptom.explains(k, target, claim[target]) for k, claim in enumerate(claims)):
                words = f"the gradient of {leaf.path} {text.format(other.path)}"
                yield Finding(kind, leaf.path, words)
                return


def _exchanged(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield that two inputs are taken for each other, where another's gradient came."""
    targets = symptom.subject.targets
    leaf = targets[target]
    for k, other in enumerate(targets):
        if k == target or other.shape != leaf.shape:
            continue
        here = [case.expected[k] for case in symptom.cases]
        points = [
            (
                {
                    **c.values,
                    leaf.path: c.values[other.path],
                    other.path: c.values[leaf.path],
                },
                c.upstreams,
            )
            for c in symptom.cases
        ]
        turned = [claim[k] for claim in symptom.expected_many(points)]
        both = f"the gradient of {leaf.path} is that of {other.path}"
        for claims, words in (
            (here, f"{both}: it stands in the place of the right one"),
            (turned, f"{both} with {leaf.path} and {other.path} exchanged"),
        ):
            if all(symptom.explains(i, target, claim) for i, claim in enumerate(claims)):
                yield Finding("exchanged", leaf.path, words)
                return


def _changes(shape: tuple[int, ...]) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    yield "input ignored", "is right only if {} were all ones: it is left out", np.ones_like
    yield "input negated", "is the one at -{}: a comparison or a sign is turned round", np.negative
    if np.prod(shape, dtype=np.int64) <= _ENTRIES:
        for kind, text, move in moves(shape):
            if kind in ("transposed", "flipped"):
                yield f"input {kind}", f"reads {{}} {text}", move
