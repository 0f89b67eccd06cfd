"""Monte Carlo arithmetic: a lifted program whose every result is rounded at random.

Parker, "Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic" (1997); Vignes,
"Discrete stochastic arithmetic for validating results of numerical software" (2004). How much a
result is perturbed follows the bounds of Higham, "Accuracy and stability of numerical algorithms"
(2002), with the root of the number of terms for the number of terms (Higham and Mary 2019).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.primitives import lookup
from gradlab.primitives.rounding import BackwardStable, Near, Spectrum, Steep, SumOf
from gradlab.references.bounds import (
    is_exact,
    multiplies_matrices,
    rounding_of,
    terms,
    terms_inside,
    units_of_result,
)
from gradlab.references.digits import digits_of
from gradlab.references.noise import Noise
from gradlab.references.precision import name_with_bits, real_name, unit_roundoff
from gradlab.references.products import cut_to
from gradlab.tracing import Lifter, Value
from gradlab.tracing.arithmetic import JAX, Arithmetic, bind_lifted
from gradlab.tracing.constants import Constants
from gradlab.tracing.identity import fingerprint
from gradlab.tracing.interpreter import Step
from gradlab.tracing.jaxprs import dtype_of, inner_jaxprs
from gradlab.tracing.leaves import is_inexact

__all__ = ["Exact", "Quiet", "Rounder"]

_BLOCK = 64  # XLA sums half precision in blocks: more terms do not add to the error
_FINITE = 1e300  # the largest amount to add: an infinite one would make infinities NaN
_SMALL = 1 << 12  # constants up to this many entries are compared by value


class Exact(Lifter):
    """Lifts without noise, with the digits that constants have lost in a narrow trace."""

    def __init__(self, constants: Constants, arithmetic: Arithmetic = JAX) -> None:
        super().__init__(arithmetic)
        self._constants = constants

    def enters(self, array: Any, dtype: Any, rough: bool) -> Any:
        """Return a constant with the digits that it lost; anything else as any lifter does."""
        if isinstance(array, np.ndarray):
            return self._constants.lifted(array)[0]
        return super().enters(array, dtype, rough)


class Rounder(Lifter):
    """Lifts programs and perturbs every rounded result by its unit roundoff.

    Equal values are computed, and so perturbed, once: a recomputed `x == max(x)` still holds, and
    programs that one Rounder evaluates share what they have in common.

    Args:
        noise: what is drawn.
        constants: of the programs.
        allowed: the dtypes whose rounding counts.
        sums: how far rounding moves the sums outside loops, in order, where it is known already.
        device: where the programs are run in their own dtypes.
    """

    counts_iterations = True

    def __init__(
        self,
        noise: Noise,
        constants: Constants,
        allowed: frozenset[str],
        sums: Iterator[Any] | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self._noise = noise
        self._device = device
        self._constants = constants
        self._seen: dict[Any, tuple[Any, list[Value]]] = {}
        self._entered: dict[Any, tuple[Any, Any]] = {}
        self._sizes: dict[int, tuple[Any, Any]] = {}
        self._sums = sums
        self.allowed = allowed
        self.stays_narrow: set[str] = set()

    def enter(self, turn: Any = None) -> Self:
        """Return a Rounder for the body of a loop, with noise of its own per iteration."""
        inner = type(self)(self._noise.shifted(turn), self._constants, self.allowed)
        inner._device = self._device
        inner.stays_narrow = self.stays_narrow
        return inner

    def steady(self) -> Lifter:
        """Return a lifter without noise, which decides how often a `while` runs."""
        return Exact(self._constants)

    def share(
        self, step: Step, inputs: list[Value], evaluate: Callable[[], list[Value]]
    ) -> list[Value]:
        """Evaluate an equation, unless an equal one has been."""
        names = [(_identity(value.array), value.depends) for value in inputs]
        if lookup(step.equation.primitive.name).commutes:
            names.sort(key=repr)
        try:
            key = (fingerprint(step.equation), tuple(names))
        except TypeError:  # a parameter that cannot be compared
            return evaluate()
        if key not in self._seen:
            self._seen[key] = (inputs, evaluate())
        return self._seen[key][1]

    def rounds(self, equation: Any) -> bool:
        """Whether an equation that runs as traced rounds its results."""
        return not is_exact(equation)

    def enters(self, array: Any, dtype: Any, rough: bool) -> Any:
        """Widen a constant, or another value that does not depend on the inputs."""
        key = _identity(array)
        if key not in self._entered:
            if isinstance(array, np.ndarray):
                wide, rough = self._constants.lifted(array)
            else:
                wide = super().enters(array, dtype, rough)
            if rough:
                wide = self._narrow(jnp.asarray(wide), dtype)
            self._entered[key] = (array, wide)
        return self._entered[key][1]

    def opaque_result(self, equation: Any, array: Any, dtype: Any) -> Any:
        """Widen what an equation that cannot be lifted returned."""
        return self._narrow(super().opaque_result(equation, array, dtype), dtype)

    def as_traced(self, equation: Any, arrays: list[Any]) -> list[Any]:
        """Perturb what an equation reads that cannot be lifted: how it rounds inside is not seen.

        Moving the terms of a sum, each by the root of their number, moves it as rounding does.
        """
        if is_exact(equation):
            return arrays
        units = math.sqrt(terms_inside(equation))
        inside = {d for _, inner in inner_jaxprs(equation) for d in digits_of(inner, None)}
        narrow = []
        for array, dtype in zip(arrays, map(dtype_of, equation.invars)):
            if is_inexact(dtype):
                coarsest = max({real_name(dtype), *inside}, key=unit_roundoff)
                array = self._narrow(array, coarsest, units)
            narrow.append(array)
        return self._cut(equation, narrow)

    def before(self, equation: Any, arrays: list[Any]) -> list[Any]:
        """Perturb the factors of a product, or the matrix of a backward stable algorithm."""
        if multiplies_matrices(equation):
            return self._cut(equation, arrays)
        rounding = rounding_of(equation)
        if not isinstance(rounding, BackwardStable):
            return arrays
        size = rounding.size(arrays[0]) * math.sqrt(arrays[0].shape[-1])
        return [self._shift(arrays[0], size, dtype_of(equation.invars[0])), *arrays[1:]]

    def after(
        self, equation: Any, inputs: Sequence[Value], arrays: list[Any], outputs: list[Any]
    ) -> list[Any]:
        """Perturb the results of an equation as rounding would."""
        name = equation.primitive.name
        stable = isinstance(rounding_of(equation), BackwardStable)
        if stable or is_exact(equation) or _scales_by_two(name, arrays):
            return outputs
        dtypes = [dtype_of(variable) for variable in equation.outvars]
        return [
            self._bounded(self._rounded(equation, arrays, array, dtype), dtype)
            if is_inexact(dtype)
            else array
            for array, dtype in zip(outputs, dtypes)
        ]

    def _bounded(self, array: Any, dtype: Any) -> Any:
        """Let float16 overflow: the only dtype whose range everyday numbers leave."""
        if self._slot(dtype) != "float16" or jnp.iscomplexobj(array):
            return array
        over = lax.abs(array) > self._noise.largest("float16")
        return lax.select(over, array * np.inf, array)

    def _rounded(self, equation: Any, arrays: list[Any], array: Any, dtype: Any) -> Any:
        name = equation.primitive.name
        if name == "reduce_precision":
            dtype = name_with_bits(equation.params["mantissa_bits"])
        rounding, underflows = rounding_of(equation), lookup(name).underflows
        if isinstance(rounding, Spectrum):
            return self._shift(array, _spectrum_size(equation, array), dtype)
        if isinstance(rounding, SumOf) and terms(equation) > 1:
            return self._sum(equation, arrays, array, dtype)
        if isinstance(rounding, Near):
            return self._shift(array, (lax.abs(array) + 1.0) * rounding.units, dtype)
        slot = self._slot(dtype)
        units: Any = units_of_result(equation)
        if isinstance(rounding, Steep):
            units = 1.0 + lax.abs(arrays[0])
        if jnp.iscomplexobj(array):
            return self._shift(array, lax.abs(array) * units, dtype)
        if isinstance(units, float) and units in (1.0, 2.0):
            kind = "once" if units == 1.0 else "twice"
            rounded = array * self._noise.factors(slot, kind, array.shape)
        else:
            rounded = self._shift(array, lax.abs(array) * units, dtype)
        if underflows == "everyday" or (slot == "float16" and underflows == "possible"):
            moved = rounded + self._noise.amounts(slot, "tiny", array.shape)
            return lax.select(lax.eq(array, lax.full_like(array, 0.0)), array, moved)
        return rounded

    def _sum(self, equation: Any, arrays: list[Any], array: Any, dtype: Any) -> Any:
        """Perturb a sum of K terms: by u sqrt(K) times the sum of their magnitudes."""
        name = equation.primitive.name
        size = self._units(equation, arrays) if self._sums is None else next(self._sums)
        if name.startswith("scatter") or unit_roundoff(dtype) <= unit_roundoff("float32"):
            return self._moved(array, size, dtype)
        inside = self._moved(array, size, "float32")
        if multiplies_matrices(equation):
            return self._shift(inside, lax.abs(inside), dtype)
        blocks = max(1.0, terms(equation) / _BLOCK)
        return self._moved(inside, size / math.sqrt(blocks), dtype)

    def _cut(self, equation: Any, arrays: list[Any]) -> list[Any]:
        """Perturb factors of which the device keeps fewer digits than their dtype has.

        Some devices do not round them but truncate: all of an array then err to one side.
        """
        digits = cut_to(equation, self._device)
        if digits is None:
            return arrays
        slot = self._slot(digits)

        def cut(array: Any) -> Any:
            one, common = (self._noise.factors(slot, "once", s) for s in (array.shape, ()))
            return array * one * common

        return [cut(array) if is_inexact(array.dtype) else array for array in arrays]

    def _units(self, equation: Any, arrays: list[Any]) -> Any:
        """Return how many units rounding moves a sum: root of K times its terms' magnitudes.

        K is the number of terms, for a scatter that of the hits.
        """
        sizes = [self._size(a) if is_inexact(a.dtype) else a for a in arrays]
        size = lax.abs(bind_lifted(equation, sizes, real=True)[0])
        if equation.primitive.name.startswith("scatter"):
            ones = [lax.full_like(a, 1.0) if is_inexact(a.dtype) else a for a in sizes]
            return _finite(size * lax.sqrt(lax.abs(bind_lifted(equation, ones, real=True)[0])))
        return _finite(size * math.sqrt(terms(equation)))

    def _size(self, array: Any) -> Any:
        if id(array) not in self._sizes:
            self._sizes[id(array)] = (array, lax.abs(array))
        return self._sizes[id(array)][1]

    def _narrow(self, array: Any, dtype: Any, units: float = 1.0) -> Any:
        """Perturb a value that has only the digits of a narrow dtype, in the formula law too."""
        self.stays_narrow.add(real_name(dtype))
        factors = self._noise.factors(self._slot(dtype), "constant", array.shape)
        return array * (factors if units == 1.0 else 1.0 + units * (factors - 1.0))

    def _shift(self, array: Any, size: Any, dtype: Any) -> Any:
        """Perturb by `size` units, however large."""
        return self._moved(array, _finite(size), dtype)

    def _moved(self, array: Any, size: Any, dtype: Any) -> Any:
        """Perturb by `size` units; a complex number gets half the variance on each part."""
        if jnp.iscomplexobj(array):
            real = self._moved(array.real, size * math.sqrt(0.5), dtype)
            return lax.complex(real, self._moved(array.imag, size * math.sqrt(0.5), dtype))
        return array + size * self._noise.amounts(self._slot(dtype), "unit", array.shape)

    def _slot(self, dtype: Any) -> str:
        """Return the dtype that counts: none coarser than those allowed to the program."""
        name = real_name(dtype)
        coarsest = max(self.allowed, key=unit_roundoff)
        return name if unit_roundoff(name) <= unit_roundoff(coarsest) else coarsest


class Quiet(Rounder):
    """Evaluates what a Rounder does, array for array, and rounds nothing.

    Attributes:
        seen: how many units rounding moves the sums outside loops, in order, for the Rounders that
            follow.
    """

    def __init__(self, noise: Noise, constants: Constants, allowed: frozenset[str]) -> None:
        super().__init__(noise, constants, allowed)
        self.seen: list[Any] = []

    def before(self, equation: Any, arrays: list[Any]) -> list[Any]:
        """Return the inputs of an equation as they are."""
        return arrays

    def _bounded(self, array: Any, dtype: Any) -> Any:
        return array

    def _rounded(self, equation: Any, arrays: list[Any], array: Any, dtype: Any) -> Any:
        if terms(equation) > 1:
            self.seen.append(self._units(equation, arrays))
        return array * 1.0  # another array, as there: outputs are told apart by it

    def _narrow(self, array: Any, dtype: Any, units: float = 1.0) -> Any:
        self.stays_narrow.add(real_name(dtype))
        return array * 1.0


def _finite(size: Any) -> Any:
    return lax.min(size, lax.full_like(size, _FINITE))


def _identity(array: Any) -> Any:
    if isinstance(array, np.ndarray) and array.size <= _SMALL:
        return array.dtype.name, array.shape, array.tobytes()
    return id(array)


def _scales_by_two(name: str, arrays: Sequence[Any]) -> bool:
    """Whether a product or quotient with a constant power of two, which is exact."""
    factors = arrays if name == "mul" else arrays[1:] if name == "div" else ()
    constants = [a for a in factors if isinstance(a, np.ndarray) and a.size == 1]
    return any(np.isreal(a).all() and abs(np.frexp(a.real)[0]) == 0.5 for a in constants)


def _spectrum_size(equation: Any, array: Any) -> Any:
    """Return the error of a transform in units: log2(n) times the root mean square."""
    lengths = equation.params["fft_lengths"]
    axes = tuple(range(array.ndim - len(lengths), array.ndim))
    power = jnp.mean(jnp.abs(array) ** 2, axes, keepdims=True)
    size = jnp.sqrt(power) * math.log2(math.prod(lengths) + 1)
    return jnp.broadcast_to(size, array.shape)
