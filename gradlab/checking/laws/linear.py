"""Linear: a backward is linear in its upstream, and zero to zero. Catches clips, |g| and g * g."""

from typing import Any

import numpy as np

from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen
from gradlab.references import LIMIT, blocks, known

__all__ = ["linear", "nonlinearity"]

_SMALL = 2.0**-10
_A, _B = 896.0, -320.0  # large: some rules clip
_SUM = "a R(u) + b R(v), with a = 896 and b = -320"
_LARGE = 1 << 20
_SLACK, _COARSE = 1e-9, 2e-3  # lifted programs; NumPy, which may round to float16 on its way
_SPREAD = 16.0 * LIMIT  # scatters: of three gradients, two of them under other upstreams


def linear(trial: Trial) -> Law:
    """R(a u + b v) = a R(u) + b R(v), where a and b are large, R(u / 1024), and R(0) = 0.

    Of millions of entries R(0) is not asked: the first claim implies it, but for NaN at zero.
    """
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
    here, crossed = trial.gradients_here(keyword), trial.gradients_crossed(keyword)
    scales = [(_largest(h), _largest(c)) for h, c in zip(here, crossed)]
    scatters = [_largest(known(trial.scatter_here(keyword, i))) for i in range(len(here))]
    claims = (  # upstream, the factors of R(u) and R(v) in what its gradient should be, in words
        ({n: 0 * x for n, x in u.items()}, 0.0, 0.0, "an upstream of zero does not give zero"),
        ({n: _SMALL * x for n, x in u.items()}, _SMALL, 0.0, "R(u / 1024) is not R(u) / 1024"),
        ({n: _A * u[n] + _B * v[n] for n in u}, _A, _B, f"R(a u + b v) is not {_SUM}"),
    )
    asked = claims[1:] if sum(h.size for h in here) > _LARGE else claims
    for upstream, a, b, text in asked:
        gradients = trial.gradients_at(keyword, [upstream])[0]
        for i, target in enumerate(trial.subject.targets):
            if trial.subject.odd[i]:
                continue
            first, second = scales[i]
            scale = float(np.max([first, second, abs(a) * first + abs(b) * second]))
            spread = _SPREAD * max(a, 1.0) * scatters[i]
            if not np.isfinite(scale):
                continue
            if _differs(slack * scale + spread, gradients[i], (a, here[i]), (b, crossed[i])):
                return f"not linear in the upstream: {text}, in the gradient of {target.path}"
    return ""


def _differs(most: float, actual: Any, *terms: tuple[float, Any]) -> bool:
    """Whether a gradient is further than `most` from a sum of multiples of other gradients."""
    flat = np.ravel(actual)
    parts = [(factor, np.ravel(gradient)) for factor, gradient in terms if factor]
    for row in blocks(flat.size):
        expected = sum(factor * part[row] for factor, part in parts)
        if not np.all(np.abs(flat[row] - expected) <= most):
            return True
    return False


def _largest(gradient: Any) -> float:
    """Return the largest magnitude; NaN where some entry is."""
    flat = np.ravel(gradient)
    largest = [np.max(np.abs(flat[row])) for row in blocks(flat.size)]
    return float(np.max(largest, initial=0.0))
