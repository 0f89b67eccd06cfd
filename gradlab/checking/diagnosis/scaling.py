"""Detached, sign, conjugate, constant factor: the gradient is right up to one number."""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding

__all__ = ["scaling"]


def scaling(symptom: Symptom, target: int) -> Iterator[Finding]:
    """Yield findings that say by which number a gradient is off."""
    path = symptom.subject.targets[target].path
    if _explained(symptom, target, 0.0):
        text = f"the gradient of {path} is zero, as if it were detached"
        yield Finding("detached", path, text)
        return
    factor = _ratio(symptom, target)
    if factor is not None and abs(factor - 1) > 1e-6 and _explained(symptom, target, factor):
        if abs(factor + 1) < 1e-9:
            yield Finding("sign", path, f"the gradient of {path} has the wrong sign")
        else:
            text = f"the gradient of {path} is off by a factor {_named(factor)}"
            yield Finding("factor", path, text)
    elif symptom.subject.targets[target].kind == "complex" and all(
        symptom.explains(k, target, np.conj(case.expected[target]))
        for k, case in enumerate(symptom.cases)
    ):
        yield Finding("conjugated", path, f"the gradient of {path} is the complex conjugate")


def _explained(symptom: Symptom, target: int, factor: complex) -> bool:
    return all(
        symptom.explains(k, target, factor * case.expected[target])
        for k, case in enumerate(symptom.cases)
    )


def _ratio(symptom: Symptom, target: int) -> complex | None:
    """Return what came over what was expected, at the largest entry."""
    case = symptom.cases[0]
    expected, actual = case.expected[target].ravel(), case.actual[target].ravel()
    if not expected.size:
        return None
    size = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    if np.count_nonzero(size) < min(2, size.size) or not np.isfinite(actual[size.argmax()]):
        return None  # one number alone always has a ratio
    ratio = actual[size.argmax()] / expected[size.argmax()]
    return complex(ratio) if np.iscomplexobj(ratio) else float(ratio)


def _named(factor: complex) -> str:
    if factor.imag:
        return f"{factor:.6g}"
    factor = float(np.real(factor))
    fraction = Fraction(factor).limit_denominator(64)
    return str(fraction) if math.isclose(fraction, factor, rel_tol=1e-9) else _short(factor)


def _short(factor: float) -> str:
    """Return six digits of a factor, more where those would say that it is 1."""
    short = f"{factor:.6g}"
    return f"{factor:.12g}" if short in ("1", "-1") else short
