"""The gradients that came and those that were expected, at several points: what hypotheses explain.

A hypothesis is believed only if it turns what was expected into what came in every case: under the
upstream of the check, under another one, and at inputs nearby.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradlab.checking.differences import gradient_by_differences
from gradlab.checking.evidence import draw_upstreams, nearby
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.common.arrays import NumPyArray as Array

_RELATIVE = 1e-9
_FEW = 64  # entries whose gradient may be taken by differences again and again


class Point(NamedTuple):
    """Inputs and upstreams, in float64."""

    values: dict[str, Array]
    upstreams: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One point, the gradients that came there and those expected."""

    point: Point
    actual: list[Array]
    expected: list[Array]


class Claim(NamedTuple):
    """What a gradient may be instead of the right one.

    `made` makes it of a case and of the right gradients at another point, `at`; None: at the same.
    `meant` is code that says so, where an author may mean it; empty: nobody does.
    """

    kind: str
    text: str
    made: Callable[[Case, list[Array]], Array | None]
    at: Callable[[Case], Point] | None = None
    meant: str = ""


class Symptom:
    """A wrong gradient, as hypotheses see it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.subject = trial.subject

    @property
    def wrong(self) -> list[int]:
        """The targets whose gradient is wrong, and has the shape of its input."""
        verdicts = zip(self.trial.formula_verdicts, self.subject.odd)
        return [i for i, (v, odd) in enumerate(verdicts) if v.wrong.any() and not odd]

    @property
    def entries(self) -> int:
        """How many entries all gradients have together."""
        return sum(int(np.prod(t.shape, dtype=np.int64)) for t in self.subject.targets)

    @property
    def goes_elsewhere(self) -> bool:
        """Whether the right gradients can be had at other points."""
        few = not self.subject.unread and self.entries <= _FEW
        return self.trial.has_reference or few

    @functools.cached_property
    def cases(self) -> list[Case]:
        """The point of the check; the same under another upstream; inputs close by."""
        trial, subject = self.trial, self.subject
        same = {t.path: trial.values[t.path] for t in subject.targets}
        points = [Point(same, trial.upstreams)]
        if subject.upstreams:
            points.append(Point(same, draw_upstreams(subject, trial.seed + 1)))
        if trial.has_reference:
            points.append(Point(nearby(subject, trial.values, trial.seed), trial.upstreams))
        return [self.at(point) for point in points]

    @functools.cached_property
    def mixed(self) -> list[Case]:
        """The case of the check with the entries of each input in other places."""
        rng, held = np.random.default_rng(7), self.cases[0].point
        values = {n: rng.permutation(np.ravel(v)).reshape(v.shape) for n, v in held.values.items()}
        return [self.at(Point(values, held.upstreams))] if self.trial.has_reference else []

    def at(self, point: Point) -> Case:
        """Return the case at these inputs and upstreams."""
        wide = Point(*({name: widen(x) for name, x in part.items()} for part in point))
        actual = self.trial.gradients_at("rule", [wide.values | wide.upstreams])[0]
        return Case(wide, [widen(a) for a in actual], self.expected([wide])[0])

    def expected(self, points: Sequence[Point]) -> list[list[Array]]:
        """Return what the gradients should be at points; NaN where that cannot be known."""
        targets = self.subject.targets
        if self.trial.has_reference:
            return self.trial.gradients_at("reference", [p.values | p.upstreams for p in points])
        if self.subject.unread:  # opaque: each would cost hundreds of calls
            return [[np.full(t.shape, np.nan) for t in targets] for _ in points]
        return [[gradient_by_differences(self.trial, t, *p) for t in targets] for p in points]

    def holds(self, claim: Claim, target: int) -> bool:
        """Whether a claim is what came, in every case."""
        if claim.at is not None and not self.goes_elsewhere:
            return False
        for k, case in enumerate(self.cases + self.mixed * (claim.kind == "index shifted")):
            right = case.expected if claim.at is None else self.expected([claim.at(case)])[0]
            made = claim.made(case, right)
            if made is None or not self.explains(k, target, made):
                return False
        return True

    def explains(self, case: int, target: int, claim: Any) -> bool:
        """Whether a claimed gradient is the one that came."""
        same = np.shape(claim) == self.cases[0].actual[target].shape
        return same and bool(np.all(self.close(case, target, np.asarray(claim))))

    def close(self, case: int, target: int, claim: Array) -> Array:
        """Say at which entries a claim is what came, up to rounding; NaN agrees with NaN alone."""
        actual = [*self.cases, *(self.mixed if case >= len(self.cases) else ())][case].actual[
            target
        ]
        slack = self._slack(target)
        with np.errstate(all="ignore"):
            size = np.abs(claim)
            scale = float(np.max(size[np.isfinite(size)], initial=0.0))
            near = np.abs(actual - claim) <= _RELATIVE * size + slack + 1e-13 * scale
            answer: Array = near | (actual == claim) | (np.isnan(actual) & np.isnan(claim))
        return answer

    def differs(self, case: int, target: int) -> Array:
        """Say at which entries what came is not what was expected."""
        return ~self.close(case, target, self.cases[case].expected[target])

    def _slack(self, target: int) -> float:
        """Return the absolute error that the oracle and the constants of the rule explain."""
        gradients = self.trial.formula_gradients
        scatter = gradients[target].scatter if gradients is not None else np.zeros(())
        base = 64.0 * float(np.max(scatter[np.isfinite(scatter)], initial=0.0))
        if self.trial.has_reference:
            return base
        sizes = np.abs(self.cases[0].expected[target])
        return base + 1e-7 * float(np.max(sizes[np.isfinite(sizes)], initial=0.0))
