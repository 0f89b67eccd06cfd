"""Linear: a backward is linear in its upstream, and zero to zero. Catches clips, |g| and g * g."""

from typing import Any

import numpy as np

from gradlab.checking.evidence import draw_upstreams
from gradlab.checking.report import Law
from gradlab.checking.trial import Trial
from gradlab.checking.widen import widen

__all__ = ["gradients_at", "linear", "nonlinearity"]

_A, _B = 1.75, -0.625
_LARGE, _SMALL = 2.0**10, 2.0**-10
_SLACK, _COARSE = 1e-9, 2e-3  # lifted programs; NumPy, which may round to float16 on its way


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
    v = {n: widen(x) for n, x in draw_upstreams(trial.subject, trial.seed + 1).items()}
    slack = _SLACK if keyword == "reference" or trial.has_rule else _COARSE
    cases = {
        "u": u,
        "v": v,
        "both": {n: _A * u[n] + _B * v[n] for n in u},
        "zero": {n: 0 * x for n, x in u.items()},
        "large": {n: _LARGE * x for n, x in u.items()},
        "small": {n: _SMALL * x for n, x in u.items()},
    }
    gradients = dict(zip(cases, gradients_at(trial, keyword, list(cases.values()))))
    for i, target in enumerate(trial.subject.targets):
        if trial.subject.odd[i]:
            continue
        at = {name: values[i] for name, values in gradients.items()}
        claims = (
            ("zero", 0 * at["u"], "an upstream of zero does not give zero"),
            ("both", _A * at["u"] + _B * at["v"], "R(a u + b v) is not a R(u) + b R(v)"),
            ("large", _LARGE * at["u"], "R(1024 u) is not 1024 R(u)"),
            ("small", _SMALL * at["u"], "R(u / 1024) is not R(u) / 1024"),
        )
        for name, expected, text in claims:
            if _differs(slack, at[name], expected, at["u"], at["v"]):
                return f"not linear in the upstream: {text}, in the gradient of {target.path}"
    return ""


def gradients_at(trial: Trial, keyword: str, cases: list[dict[str, Any]]) -> list[list[Any]]:
    """Return the gradients of the rule or the reference in float64, at changes to the point."""
    if keyword == "reference" or trial.has_rule:
        return [trial.gradients(result[keyword]) for result in trial.many(cases)]
    point = {name: widen(value) for name, value in trial.point.items()}
    return [trial.gradients(trial.run({**point, **case})) for case in cases]


def _differs(slack: float, actual: Any, expected: Any, *seen: Any) -> bool:
    """Whether a gradient is off by more than rounding could make of what was added up."""
    with np.errstate(all="ignore"):
        scale = max(float(np.max(np.abs(x), initial=0.0)) for x in (expected, *seen))
        off = np.abs(np.asarray(actual) - expected)
        if not np.isfinite(scale):
            return False
        return bool(np.any(~(off <= slack * scale) & np.isfinite(expected)))
