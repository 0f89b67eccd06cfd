"""What became of the upstream: ignored, taken for ones, passed through, clipped."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.laws.linearity import ignored_outputs
from gradlab.checking.report import Finding

__all__ = ["upstream_changed", "upstream_ignored"]

_CHANGES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("sign", "has its sign turned", np.negative),
    ("upstream averaged", "is averaged over all entries", lambda u: np.full_like(u, np.mean(u))),
    ("upstream averaged", "is summed over all entries", lambda u: np.full_like(u, np.sum(u))),
)


def upstream_ignored(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield that an upstream does not reach the gradient, or is taken for ones."""
    subject, path = symptom.subject, symptom.subject.targets[target].path
    if not subject.linear or not np.any(symptom.cases[0].actual[target]):
        return
    if set(ignored_outputs(symptom.trial)) == {u.output for u in subject.upstreams}:
        ones = _changed(symptom, target, None, np.ones_like)
        more = ", as if it were all ones" if ones else ""
        yield Finding("upstream ignored", path, f"the upstream is ignored{more}")
        return
    for upstream in subject.upstreams if len(subject.upstreams) > 1 else ():
        for change, more in ((np.zeros_like, ""), (np.ones_like, ", taken for ones")):
            if _changed(symptom, target, upstream.name, change):
                text = f"in the gradient of {path}, the upstream of {upstream.output} is ignored"
                text += more
                yield Finding("upstream ignored", path, text)
                return


def upstream_changed(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield that the upstream is passed on as it is, or summed, or turned, before it is used."""
    yield from _passed(symptom, target)
    path, upstreams = symptom.subject.targets[target].path, symptom.subject.upstreams
    for upstream in upstreams:
        for kind, text, change in _CHANGES:
            if _changed(symptom, target, upstream.name, change):
                of = f" of {upstream.output}" if len(upstreams) > 1 else ""
                yield Finding(kind, path, f"in the gradient of {path}, the upstream{of} {text}")
                return


def _passed(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield the straight-through estimator, whatever its factor."""
    path, shape = symptom.subject.targets[target].path, symptom.subject.targets[target].shape
    for upstream in symptom.subject.upstreams:
        if upstream.shape != shape:
            continue
        for factor, text in (
            (1.0, "passes the upstream through, as the identity would (straight-through)"),
            (-1.0, "passes the upstream through with its sign reversed"),
        ):
            if all(
                symptom.explains(k, target, factor * case.upstreams[upstream.name])
                for k, case in enumerate(symptom.cases)
            ):
                yield Finding("upstream passed", path, f"the gradient of {path} {text}")
                return


def _changed(symptom: Symptom, target: int, name: str | None, change: Callable[[Any], Any]) -> bool:
    """Whether the reference gives what came, once one upstream (None: each) has been changed."""
    points = []
    for case in symptom.cases:
        chosen = case.upstreams if name is None else {name: case.upstreams[name]}
        moved = {n: change(u) for n, u in chosen.items()}
        points.append((case.values, {**case.upstreams, **moved}))
    claims = symptom.expected_many(points)
    return all(symptom.explains(k, target, claim[target]) for k, claim in enumerate(claims))
