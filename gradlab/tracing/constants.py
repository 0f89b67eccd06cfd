"""The constants of a program, with the digits that a trace at a narrow dtype has lost.

A trace at float32 holds sqrt(2/pi) already rounded, and a rule may spell the same constant
differently from its reference. So lifting takes constants from a trace at float64: there, the one
constant that rounds to what the narrow trace holds.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gradlab.common.arrays import DTypeLike, NumPyArray
from gradlab.tracing.arithmetic import widen_dtype
from gradlab.tracing.compiling import remember
from gradlab.tracing.jaxprs import Literal, body, dtype_of
from gradlab.tracing.leaves import digits, is_inexact
from gradlab.tracing.program import Program
from gradlab.tracing.walking import jaxprs

_FEW = 16  # different values of an array that was made of constants
_LARGEST = 1 << 16  # entries; larger constants are data, the same in every program


class Constants:
    """Constants in float64: exact, recovered from a trace at float64, or rounded for good."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._known: dict[Any, Any] = {}
        self.rounded: set[Any] = set()
        candidates: dict[Any, dict[Any, Any]] = {}
        everywhere: dict[Any, Any] = {}
        for program in programs:
            own = list(_constants(program))
            short = _distinct(c for c in own if _narrow(c.dtype))
            long = {key: c for key, c in short.items() if _long(c)}
            pairs = []
            unknown = any(
                not any(_rounds_to(w, c) for w in everywhere.values()) for c in long.values()
            )
            if unknown and program.wide is not None:  # tracing once more is what costs here
                everywhere |= _distinct(_constants(program.wide))
                pairs = _paired(own, program.wide)
            for narrow, wide in pairs or ((c, None) for c in short.values()):
                if _narrow(narrow.dtype):
                    key, found = _key(narrow), [] if wide is None else [wide]
                    if wide is None and key in long:
                        found = [c for c in everywhere.values() if _rounds_to(c, narrow)]
                    candidates.setdefault(key, {}).update(_distinct(found or [narrow]))
        for key, every in candidates.items():
            alike = _finest(list(every.values()))
            first = alike[0]
            if all(_same(c, first) for c in alike):
                self._known[key] = first.astype(widen_dtype(first.dtype))
                if _narrow(first.dtype) and _long(first) and not first.ndim:
                    self.rounded.add(key)
            else:
                self.rounded.add(key)

    @property
    def identity(self) -> Hashable:
        """A key that only equal constants share."""
        known = ((key, wide.tobytes()) for key, wide in self._known.items())
        return frozenset(known), frozenset(self.rounded)

    def lifted(self, constant: NumPyArray) -> tuple[NumPyArray, bool]:
        """Return a constant in float64, and whether it has only the digits of its narrow dtype.

        Constants that were spread over an array, or put side by side, are looked up one by one.
        """
        wide = constant.astype(widen_dtype(constant.dtype))
        if constant.size > _LARGEST:
            return wide, False
        key = _key(constant)
        if key in self._known or key in self.rounded or not _narrow(constant.dtype):
            return self._known.get(key, wide), key in self.rounded
        values, places = np.unique(constant, return_inverse=True)
        if values.size > _FEW:
            return wide, False
        keys = [_key(value) for value in values]
        found = [self._known.get(k, v.astype(wide.dtype)) for k, v in zip(keys, values)]
        spread = np.array(found, wide.dtype)[places].reshape(wide.shape)
        return spread, not self.rounded.isdisjoint(keys)


def constants_of(programs: Sequence[Program]) -> Constants:
    """Return the constants of some programs, from memory where the same were met before."""
    names = tuple(program.computes for program in programs)
    key = None if None in names else ("constants", *names)
    return remember(key, lambda: Constants(programs))


def _constants(program: Program) -> Iterator[NumPyArray]:
    for jaxpr in jaxprs(program.jaxpr):
        parts = body(jaxpr)
        for constant in parts.constants:
            if is_inexact(constant.dtype) and constant.size <= _LARGEST:
                yield np.asarray(constant)
        for equation in parts.equations:
            for atom in equation.invars:
                if isinstance(atom, Literal) and is_inexact(dtype_of(atom)):
                    yield np.asarray(atom.val, dtype_of(atom))


def _paired(narrow: list[NumPyArray], wide: Program | None) -> list[tuple[NumPyArray, NumPyArray]]:
    """Return each constant beside its own in the trace at float64, where the two traces match."""
    other = [] if wide is None else list(_constants(wide))
    match = len(other) == len(narrow) and all(map(_rounds_to, other, narrow))
    return list(zip(narrow, other)) if match else []


def _finest(alike: list[NumPyArray]) -> list[NumPyArray]:
    """Return some constants without those that are others, rounded to fewer digits."""

    def is_rounded(constant: NumPyArray) -> bool:
        finer = (c for c in alike if digits(c.dtype) > digits(constant.dtype))
        return any(_rounds_to(c, constant) for c in finer)

    return [constant for constant in alike if not is_rounded(constant)]


def _same(first: NumPyArray, second: NumPyArray) -> bool:
    return bool(np.allclose(first.astype(np.complex128), second, rtol=1e-14, atol=0.0))


def _narrow(dtype: DTypeLike) -> bool:
    return bool(dtype != widen_dtype(dtype))


def _key(constant: NumPyArray) -> Any:
    return constant.dtype, constant.shape, constant.tobytes()


def _distinct(constants: Iterable[NumPyArray]) -> dict[Any, NumPyArray]:
    return {_key(constant): constant for constant in constants}


def _long(constant: NumPyArray) -> bool:
    """Whether some entry uses the last half of its digits, and so was probably rounded."""
    half = 2.0 ** (digits(constant.dtype) // 2)
    parts = (constant.real, constant.imag) if np.iscomplexobj(constant) else (constant,)
    for part in parts:
        mantissa = np.frexp(part.astype(np.float64))[0] * half
        if np.any(np.isfinite(mantissa) & (mantissa != np.rint(mantissa))):
            return True
    return False


def _rounds_to(wide: NumPyArray, narrow: NumPyArray) -> bool:
    if wide.shape != narrow.shape or np.iscomplexobj(wide) != np.iscomplexobj(narrow):
        return False
    with np.errstate(all="ignore"):
        return bool(np.array_equal(wide.astype(narrow.dtype), narrow, equal_nan=True))
