"""Linear: a backward is linear in its upstream, and zero to zero. Catches clips, |g| and g * g."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.references import LIMIT

__all__ = ["linear", "nonlinearity"]

_A, _B = 1.75, -0.625
_LARGE, _SMALL = 2.0**10, 2.0**-10
_SLACK, _COARSE = 1e-9, 2e-3  # lifted programs; NumPy, which may round to float16 on its way
_SPREAD = 16.0 * LIMIT  # scatters: of three gradients, two of them under other upstreams


def linear(trial: Trial) -> Law:
    """R(a u + b v) = a R(u) + b R(v), at large and small upstreams too, and R(0) = 0."""
    if not trial.subject.linear:
        return Law("linear", "skipped", "there is no upstream: the loss returns its own gradient")
    if not trial.has_rule and trial.wide is None:
        return Law("linear", "skipped", "the rule cannot be run in float64")
    found = nonlinearity(trial, "rule")
    if not found:
        return Law("linear", "passed")
    if trial.subject.stated and trial.has_reference and nonlinearity(trial, "reference"):
        return Law("linear", "skipped", "the stated reference is not linear either")
    return Law("linear", "failed", found)


def nonlinearity(trial: Trial, keyword: str) -> str:
    """Return in words how a rule fails to be linear; empty where it is."""
    u = {name: widen(value) for name, value in trial.upstreams.items()}
    v = {name: widen(value) for name, value in trial.other_upstreams.items()}
    slack = _SLACK if keyword == "reference" or trial.has_rule else _COARSE
    here, crossed = trial.gradients_here(keyword), trial.gradients_crossed[keyword]
    claims = (  # upstream, the factors of R(u) and R(v) in what its gradient should be, in words
        ({n: 0 * x for n, x in u.items()}, 0.0, 0.0, "an upstream of zero does not give zero"),
        ({n: _A * u[n] + _B * v[n] for n in u}, _A, _B, "R(a u + b v) is not a R(u) + b R(v)"),
        ({n: _LARGE * x for n, x in u.items()}, _LARGE, 0.0, "R(1024 u) is not 1024 R(u)"),
        ({n: _SMALL * x for n, x in u.items()}, _SMALL, 0.0, "R(u / 1024) is not R(u) / 1024"),
    )
    for upstream, a, b, text in claims:
        gradients = trial.gradients_at(keyword, [upstream])[0]
        for i, target in enumerate(trial.subject.targets):
            if trial.subject.odd[i]:
                continue
            spread = _SPREAD * max(a, 1.0) * _largest(trial.scatter_here(keyword, i))
            with np.errstate(all="ignore"):
                claim = a * here[i] + b * crossed[i] if b else a * here[i]
            if _differs(slack, spread, gradients[i], claim, here[i], crossed[i]):
                return f"not linear in the upstream: {text}, in the gradient of {target.path}"
    return ""


def _differs(slack: float, spread: float, actual: Any, expected: Any, *seen: Any) -> bool:
    """Whether a gradient is off by more than rounding could make of what was added up."""
    with np.errstate(all="ignore"):
        scale = max(float(np.max(np.abs(x), initial=0.0)) for x in (expected, *seen))
        off = np.abs(np.asarray(actual) - expected)
        if not np.isfinite(scale):
            return False
        return bool(np.any(~(off <= slack * scale + spread) & np.isfinite(expected)))


def _largest(scatter: Any) -> float:
    return float(np.max(scatter, initial=0.0, where=np.isfinite(scatter)))
