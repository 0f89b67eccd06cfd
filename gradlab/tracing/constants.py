"""The constants of a program, with the digits that a trace at a narrow dtype has lost.

A trace at float32 holds sqrt(2/pi) already rounded, and a rule may spell the same constant
differently from its reference. So lifting takes constants from a trace at float64: there, the one
constant that rounds to what the narrow trace holds.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gradlab.tracing.jaxprs import Literal, body, dtype_of
from gradlab.tracing.leaves import digits, is_inexact
from gradlab.tracing.lift import widen_dtype
from gradlab.tracing.program import Program
from gradlab.tracing.walking import jaxprs

__all__ = ["Constants"]

_LARGEST = 1 << 16  # entries; larger constants are data, the same in every program


class Constants:
    """Constants in float64: exact, recovered from a trace at float64, or rounded for good."""

    def __init__(self, programs: Iterable[Program]) -> None:
        programs = [p for p in programs if any(_narrow(c.dtype) for c in _constants(p))]
        rounded = {
            _key(c): c for p in programs for c in _constants(p) if _narrow(c.dtype) and _long(c)
        }
        self._known: dict[Any, Any] = {}
        self.rounded: set[Any] = set()
        if not rounded:
            return
        wide = [c for p in programs if p.wide is not None for c in _constants(p.wide)]
        for key, narrow in rounded.items():
            found = [c for c in wide if _rounds_to(c, narrow)]
            if found and all(np.allclose(c, found[0], rtol=1e-14, atol=0.0) for c in found):
                self._known[key] = found[0].astype(widen_dtype(found[0].dtype))
            elif not (found or narrow.ndim) or found:
                self.rounded.add(key)

    def lifted(self, constant: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], bool]:
        """Return a constant in float64, and whether it has only the digits of its narrow dtype."""
        wide = constant.astype(widen_dtype(constant.dtype))
        if constant.size > _LARGEST:
            return wide, False
        key = _key(constant)
        return self._known.get(key, wide), key in self.rounded


def _constants(program: Program) -> Iterator[np.ndarray[Any, Any]]:
    for jaxpr in jaxprs(program.jaxpr):
        parts = body(jaxpr)
        for constant in parts.constants:
            if is_inexact(constant.dtype) and constant.size <= _LARGEST:
                yield np.asarray(constant)
        for equation in parts.equations:
            for atom in equation.invars:
                if isinstance(atom, Literal) and is_inexact(dtype_of(atom)):
                    yield np.asarray(atom.val, dtype_of(atom))


def _narrow(dtype: Any) -> bool:
    return bool(dtype != widen_dtype(dtype))


def _key(constant: np.ndarray[Any, Any]) -> Any:
    return constant.dtype.name, constant.shape, constant.tobytes()


def _long(constant: np.ndarray[Any, Any]) -> bool:
    """Whether some entry uses the last half of its digits, and so was probably rounded."""
    half = 2.0 ** (digits(constant.dtype) // 2)
    parts = (constant.real, constant.imag) if np.iscomplexobj(constant) else (constant,)
    for part in parts:
        mantissa = np.frexp(part.astype(np.float64))[0] * half
        if np.any(np.isfinite(mantissa) & (mantissa != np.rint(mantissa))):
            return True
    return False


def _rounds_to(wide: np.ndarray[Any, Any], narrow: np.ndarray[Any, Any]) -> bool:
    if wide.shape != narrow.shape:
        return False
    with np.errstate(all="ignore"):
        return bool(np.array_equal(wide.astype(narrow.dtype), narrow, equal_nan=True))
