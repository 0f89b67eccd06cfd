"""The gradients that came and those that were expected, at several points: what hypotheses explain.

A hypothesis is believed only if it turns what was expected into what came in every case: under the
upstream of the check, under another one, and at inputs nearby.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.checking.differences import gradient_by_differences
from gradlab.checking.evidence import draw_upstreams, nearby
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen

__all__ = ["Case", "Symptom"]

Array = np.ndarray[Any, Any]

_RELATIVE = 1e-9


@dataclass(frozen=True)
class Case:
    """One point: the inputs, the upstreams, the gradients that came and those expected."""

    values: dict[str, Any]
    upstreams: dict[str, Any]
    actual: list[Array]
    expected: list[Array]


class Symptom:
    """A wrong gradient, as hypotheses see it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.subject = trial.subject

    @property
    def wrong(self) -> list[int]:
        """The targets whose gradient is wrong, and has the shape of its input."""
        odd = self.subject.odd
        return [
            i for i, v in enumerate(self.trial.formula_verdicts) if v.wrong.any() and not odd[i]
        ]

    @property
    def entries(self) -> int:
        """How many entries all gradients have together."""
        return sum(int(np.prod(t.shape, dtype=np.int64)) for t in self.subject.targets)

    @functools.cached_property
    def cases(self) -> list[Case]:
        """The point of the check; the same under another upstream; inputs close by."""
        trial, subject = self.trial, self.subject
        same = {t.path: widen(trial.values[t.path]) for t in subject.targets}
        other = draw_upstreams(subject, trial.seed + 1)
        moved = nearby(subject, trial.values, trial.seed)
        points = [(same, trial.upstreams)]
        if subject.upstreams:
            points.append((same, other))
        if trial.has_reference:
            points.append((moved, trial.upstreams))
        return [self.at(values, upstreams) for values, upstreams in points]

    def at(self, values: dict[str, Any], upstreams: dict[str, Any]) -> Case:
        """Return the case at these inputs and upstreams."""
        values = {name: widen(value) for name, value in values.items()}
        wide = {name: widen(value) for name, value in upstreams.items()}
        actual = self.trial.gradients_at("rule", [{**values, **wide}])[0]
        return Case(values, wide, [widen(a) for a in actual], self.expected(values, wide))

    def expected(self, values: dict[str, Any], upstreams: dict[str, Any]) -> list[Array]:
        """Return what the gradients should be there; NaN where that cannot be known."""
        return self.expected_many([(values, upstreams)])[0]

    def expected_many(
        self, points: Sequence[tuple[dict[str, Any], dict[str, Any]]]
    ) -> list[list[Array]]:
        """Return what the gradients should be at several points."""
        if self.trial.has_reference:
            cases = [{**values, **upstreams} for values, upstreams in points]
            return self.trial.gradients_at("reference", cases)
        if self.subject.forward is None:  # opaque: each would cost hundreds of calls
            unknown = [np.full(target.shape, np.nan) for target in self.subject.targets]
            return [unknown for _ in points]
        return [
            [
                gradient_by_differences(self.trial, target, values, upstreams)
                for target in self.subject.targets
            ]
            for values, upstreams in points
        ]

    def explains(self, case: int, target: int, claim: Any) -> bool:
        """Whether a claimed gradient is the one that came, and not simply the right one."""
        actual = self.cases[case].actual[target]
        claim = np.asarray(claim)
        if claim.shape != actual.shape:
            return False
        return bool(np.all(self.close(case, target, claim)))

    def close(self, case: int, target: int, claim: Array) -> Array:
        """Say at which entries a claim is what came, up to rounding."""
        actual = self.cases[case].actual[target]
        return close(actual, claim, self._slack(target))

    def differs(self, case: int, target: int) -> Array:
        """Say at which entries what came is not what was expected."""
        return ~self.close(case, target, self.cases[case].expected[target])

    def _slack(self, target: int) -> float:
        """Return the absolute error that the oracle and the constants of the rule explain."""
        gradients = self.trial.formula_gradients
        scatter = gradients[target].scatter if gradients is not None else np.zeros(())
        finite = scatter[np.isfinite(scatter)]
        base = 64.0 * float(np.max(finite, initial=0.0))
        if self.trial.has_reference:
            return base
        sizes = np.abs(self.cases[0].expected[target])
        return base + 1e-7 * float(np.max(sizes[np.isfinite(sizes)], initial=0.0))


def close(actual: Array, claim: Array, slack: float) -> Array:
    """Say where two gradients agree; NaN agrees with NaN alone."""
    with np.errstate(all="ignore"):
        size = np.abs(claim)
        scale = float(np.max(size[np.isfinite(size)], initial=0.0))
        near = np.abs(actual - claim) <= _RELATIVE * size + slack + 1e-13 * scale
        answer: Array = near | (actual == claim) | (np.isnan(actual) & np.isnan(claim))
    return answer
