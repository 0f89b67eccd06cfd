"""Detached, sign, conjugate, constant factor: the gradient is right up to one number."""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from gradlab.checking.diagnosis.symptom import Symptom
from gradlab.checking.report import Finding

__all__ = ["scaling"]

_NUMBERS = {
    "pi": math.pi,
    "2 pi": 2 * math.pi,
    "ln 2": math.log(2),
    "ln 10": math.log(10),
    "e": math.e,
    "sqrt(2)": math.sqrt(2),
    "sqrt(pi)": math.sqrt(math.pi),
}


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
            text = f"the gradient of {path} is off by a factor {_named(symptom, factor)}"
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


def _named(symptom: Symptom, factor: complex) -> str:
    """Return a factor, and where it may come from: a constant, the lengths of axes."""
    if factor.imag:
        return f"{factor:.6g}"
    factor = float(np.real(factor))
    sources = [name for value, name in _sources(symptom) if math.isclose(abs(factor), value)]
    sources = list(dict.fromkeys(sources))[:3]
    fraction = Fraction(factor).limit_denominator(64)
    number = str(fraction) if math.isclose(fraction, factor, rel_tol=1e-9) else _short(factor)
    return f"{number} (perhaps {', or '.join(sources)})" if sources else number


def _short(factor: float) -> str:
    """Return six digits of a factor, more where those would say that it is 1."""
    short = f"{factor:.6g}"
    return f"{factor:.12g}" if short in ("1", "-1") else short


def _sources(symptom: Symptom) -> Iterator[tuple[float, str]]:
    for name, value in _NUMBERS.items():
        yield value, name
        yield 1 / value, f"1/({name})" if " " in name else f"1/{name}"
    lengths = list(_lengths(symptom))
    for n, where in lengths:
        yield n, f"the length of {where}"
        yield 1 / n, f"1 over the length of {where}"
        yield 1 / n**2, f"divided by the length of {where} twice"
    for n, where in lengths:
        for m, other in lengths:
            if m != n and not where.startswith("all") and not other.startswith("all"):
                yield n / m, f"the length of {where} over that of {other}"
        yield math.sqrt(n), f"the square root of the length of {where}"
        yield 1 / math.sqrt(n), f"1 over the square root of the length of {where}"
        if n > 2:
            yield n / (n - 1), f"n over n - 1, n the length of {where}"
            yield (n - 1) / n, f"n - 1 over n, n the length of {where}"


def _lengths(symptom: Symptom) -> Iterator[tuple[int, str]]:
    """Yield the lengths of all axes, each once, with the first axis that has it."""
    shapes = [(t.path, t.shape) for t in symptom.subject.targets]
    shapes += [(u.output, u.shape) for u in symptom.subject.upstreams]
    found: dict[int, str] = {}
    for path, shape in shapes:
        for axis, n in enumerate(shape):
            found.setdefault(n, f"axis {axis} of {path}")
        if len(shape) > 1:
            found.setdefault(math.prod(shape), f"all of {path}")
    yield from ((n, place) for n, place in found.items() if n > 1)
