"""Monte Carlo arithmetic: a lifted program whose every result is rounded at random.

Parker, "Monte Carlo arithmetic: exploiting randomness in floating-point arithmetic" (1997); Vignes,
"Discrete stochastic arithmetic for validating results of numerical software" (2004). How much a
result is perturbed follows the bounds of Higham, "Accuracy and stability of numerical algorithms"
(2002), with the root of the number of terms for the number of terms (Higham and Mary 2019).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, DTypeLike, Tree
from gradlab.primitives import lookup
from gradlab.primitives.rounding import BackwardStable, Near, Spectrum, Steep, SumOf
from gradlab.references.bounds import (
    cut_to,
    digits_of,
    is_exact,
    multiplies_matrices,
    rounding_of,
    terms,
    terms_inside,
    units_of_result,
)
from gradlab.references.noise import Noise
from gradlab.references.precision import name_with_bits, real_name, unit_roundoff
from gradlab.tracing import Lifter, Value, repeated
from gradlab.tracing.arithmetic import JAX, Arithmetic
from gradlab.tracing.constants import Constants
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.interpreter import Step
from gradlab.tracing.jaxprs import Loop, body, dtype_of, inner_jaxprs
from gradlab.tracing.leaves import is_inexact

_BLOCK = 64  # XLA sums half precision in blocks: more terms do not add to the error
_FINITE = 1e300  # the largest amount to add: an infinite one would make infinities NaN
_SMALL = 1 << 12  # constants up to this many entries are compared by value


class Exact(Lifter):
    """Lifts without noise, with the digits that constants have lost in a narrow trace.

    `further`: for how many turns loops to a fixed point go on after their end.
    """

    def __init__(
        self, constants: Constants, arithmetic: Arithmetic = JAX, further: int = 0
    ) -> None:
        super().__init__(arithmetic)
        self._constants, self._further = constants, further

    def while_loop(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Run a `while`, and further than it would."""
        return self._on(equation, inputs, super().while_loop(equation, inputs))

    def scan(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Run a `scan`, and further where each turn is like the last."""
        outputs = super().scan(equation, inputs)
        return self._on(equation, inputs, outputs) if repeated(equation) else outputs

    def _on(self, equation: Any, inputs: list[Value], carry: list[Value]) -> list[Value]:
        if not self._further:
            return carry
        loop, join = Loop.of(equation), self.joining(equation, inputs)
        fixed, _, _ = loop.split(inputs)
        self.hold(fixed)
        for _ in range(self._further):
            self._count()
            self.hold(carry)
            following = join(self, self(loop.body, [*fixed, *carry]))
            self.release(carry)
            carry = following
        self.release(fixed)
        return carry

    def enters(self, array: Array, dtype: DTypeLike, rough: bool) -> Any:
        """Return a constant with the digits that it lost; anything else as any lifter does."""
        if isinstance(array, np.ndarray) and not rough:
            return self._constants.lifted(array)[0]
        return super().enters(array, dtype, rough)


class Rounder(Lifter):
    """Lifts programs and perturbs every rounded result by its unit roundoff.

    Equal values are computed, and so perturbed, once: a recomputed `x == max(x)` still holds, and
    programs that one Rounder evaluates share what they have in common.

    `allowed`: the dtypes whose rounding counts. `sums`: how far rounding moves the sums outside
    loops, in order, where it is known. NumPy rounds all draws at once: they are the first axis, and
    the first of them is not rounded at all.
    """

    counts_iterations = True

    def __init__(
        self,
        noise: Noise,
        constants: Constants,
        allowed: frozenset[str],
        sums: Iterator[Array] | None = None,
        device: Any = None,
        arithmetic: Arithmetic = JAX,
    ) -> None:
        super().__init__(arithmetic)
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
        inner.arithmetic, inner.staged = self.arithmetic, self.staged
        inner.stays_narrow, inner.turns = self.stays_narrow, self.turns
        return inner

    def goes_on(self, value: Value, rows: int) -> Any:
        """Return whether a `while` goes on: as it does without noise, for all draws."""
        array = self.concrete(value)
        return array[0] if array.ndim > rows else array

    def steady(self) -> Lifter:
        """Return a lifter without noise, which decides how often a `while` runs."""
        steady = Exact(self._constants)
        steady.turns = self.turns
        return steady

    def step(self, step: Step, inputs: list[Value]) -> list[Value]:
        """Evaluate an equation, unless an equal one has been."""
        names = [_identity(value) for value in inputs]
        if lookup(step.equation.primitive.name).commutes:
            names.sort(key=repr)
        if step.key is None:
            return super().step(step, inputs)
        key = step.key, tuple(names)
        if key not in self._seen:
            self._seen[key] = (inputs, super().step(step, inputs))
            self.hold(self._seen[key][1])
        return self._seen[key][1]

    def rounds(self, equation: Any) -> bool:
        """Whether an equation that runs as traced rounds its results."""
        called = call_jaxpr(equation)
        if called is None:
            inexact = any(is_inexact(dtype_of(variable)) for variable in equation.outvars)
            return inexact and not is_exact(equation)
        return any(self.rounds(inner) for inner in body(called).equations)

    def enters(self, array: Array, dtype: DTypeLike, rough: bool) -> Any:
        """Widen a constant, or another value that does not depend on the inputs."""
        key = _identity(Value(array, False)), rough
        if key not in self._entered:
            if isinstance(array, np.ndarray) and not rough:
                wide, rough = self._constants.lifted(array)
            else:
                wide = super().enters(array, dtype, rough)
            if rough:
                wide = self._narrow(self.arithmetic.arrays.asarray(wide), wide.shape, dtype)
            self._entered[key] = (array, wide)
        return self._entered[key][1]

    def opaque_result(self, variable: Any, array: Array) -> Tree:
        """Widen what an equation that cannot be lifted returned."""
        wide = super().opaque_result(variable, array)
        return self._narrow(wide, variable.aval.shape, dtype_of(variable))

    def as_traced(self, equation: Any, arrays: list[Array]) -> list[Any]:
        """Perturb what an equation reads that cannot be lifted: how it rounds inside is not seen.

        Moving the terms of a sum, each by the root of their number, moves it as rounding does.
        """
        if is_exact(equation):
            return arrays
        units = math.sqrt(terms_inside(equation))
        inside = {d for _, inner in inner_jaxprs(equation) for d in digits_of(inner, None)}
        narrow = []
        for array, atom in zip(arrays, equation.invars):
            if is_inexact(dtype_of(atom)):
                coarsest = max({real_name(dtype_of(atom)), *inside}, key=unit_roundoff)
                array = self._narrow(array, atom.aval.shape, coarsest, units)
            narrow.append(array)
        return self._cut(equation, narrow)

    def before(self, equation: Any, arrays: list[Array]) -> list[Array]:
        """Perturb the factors of a product, or the matrix of a backward stable algorithm."""
        if multiplies_matrices(equation):
            return self._cut(equation, arrays)
        rounding = rounding_of(equation)
        if not isinstance(rounding, BackwardStable):
            return arrays
        size = rounding.size(arrays[0]) * math.sqrt(arrays[0].shape[-1])
        return [self._shift(arrays[0], size, equation.invars[0]), *arrays[1:]]

    def after(
        self, equation: Any, inputs: Sequence[Value], arrays: list[Array], outputs: list[Any]
    ) -> list[Array]:
        """Perturb the results of an equation as rounding would."""
        name = equation.primitive.name
        stable = isinstance(rounding_of(equation), BackwardStable)
        if stable or is_exact(equation) or _scales_by_two(name, inputs, arrays):
            return outputs
        return [
            self._bounded(self._rounded(equation, arrays, array, variable), dtype_of(variable))
            if is_inexact(dtype_of(variable))
            else array
            for array, variable in zip(outputs, equation.outvars)
        ]

    def _bounded(self, array: Array, dtype: DTypeLike) -> Any:
        """Let float16 overflow: the only dtype whose range everyday numbers leave."""
        xp = self.arithmetic.arrays
        if self._slot(dtype) != "float16" or xp.iscomplexobj(array):
            return array
        over = xp.abs(array) > self._noise.largest("float16", array.ndim)
        return xp.where(over, array * np.inf, array)

    def _rounded(self, equation: Any, arrays: list[Array], array: Array, variable: Any) -> Any:
        name, xp = equation.primitive.name, self.arithmetic.arrays
        shape, dtype = variable.aval.shape, dtype_of(variable)
        if name == "reduce_precision":
            dtype = name_with_bits(equation.params["mantissa_bits"])
        rounding, underflows = rounding_of(equation), lookup(name).underflows
        if isinstance(rounding, Spectrum):
            return self._shift(array, _spectrum_size(xp, equation, array), variable)
        if isinstance(rounding, SumOf) and terms(equation) > 1:
            return self._sum(equation, arrays, array, variable)
        if isinstance(rounding, Near):
            return self._shift(array, (xp.abs(array) + 1.0) * rounding.units, variable)
        slot = self._slot(dtype)
        units: Any = units_of_result(equation)
        if isinstance(rounding, Steep):
            units = 1.0 + xp.abs(arrays[0])
        if xp.iscomplexobj(array):
            return self._shift(array, xp.abs(array) * units, variable)
        if isinstance(units, float) and units in (1.0, 2.0):
            kind = "once" if units == 1.0 else "twice"
            rounded = array * self._noise.factors(slot, kind, shape)
        else:
            rounded = self._shift(array, xp.abs(array) * units, variable)
        if underflows == "everyday" or (slot == "float16" and underflows == "possible"):
            moved = rounded + self._noise.amounts(slot, "tiny", shape)
            return xp.where(array == 0, array, moved)
        return rounded

    def _sum(self, equation: Any, arrays: list[Array], array: Array, variable: Any) -> Any:
        """Perturb a sum of K terms: by u sqrt(K) times the sum of their magnitudes."""
        name, dtype, shape = equation.primitive.name, dtype_of(variable), variable.aval.shape
        size = self._units(equation, arrays) if self._sums is None else next(self._sums)
        if name.startswith("scatter") or unit_roundoff(dtype) <= unit_roundoff("float32"):
            return self._moved(array, size, shape, dtype)
        inside = self._moved(array, size, shape, "float32")
        if multiplies_matrices(equation):
            return self._shift(inside, self.arithmetic.arrays.abs(inside), variable)
        blocks = max(1.0, terms(equation) / _BLOCK)
        return self._moved(inside, size / math.sqrt(blocks), shape, dtype)

    def _cut(self, equation: Any, arrays: list[Array]) -> list[Any]:
        """Perturb factors of which the device keeps fewer digits than their dtype has.

        Some devices do not round them but truncate: all of an array then err to one side.
        """
        digits = cut_to(equation, self._device)
        if digits is None:
            return arrays
        slot = self._slot(digits)

        def cut(array: Array, shape: tuple[int, ...]) -> Any:
            one, common = (self._noise.factors(slot, "once", s) for s in (shape, (1,) * len(shape)))
            return array * one * common

        return [
            cut(array, atom.aval.shape) if is_inexact(array.dtype) else array
            for array, atom in zip(arrays, equation.invars)
        ]

    def _units(self, equation: Any, arrays: list[Array]) -> Any:
        """Return how many units rounding moves a sum: root of K times its terms' magnitudes.

        K is the number of terms, for a scatter that of the hits. Of many draws, the first one's
        magnitudes are those of all.
        """
        xp = self.arithmetic.arrays
        if not self.staged:
            arrays = [
                a[0] if a.ndim > len(v.aval.shape) else a for a, v in zip(arrays, equation.invars)
            ]
        sizes = [self._size(a) if is_inexact(a.dtype) else a for a in arrays]
        size = xp.abs(self._of_magnitudes(equation, sizes))
        if equation.primitive.name.startswith("scatter"):
            ones = [xp.ones_like(a) if is_inexact(a.dtype) else a for a in sizes]
            return self._finite(size * xp.sqrt(xp.abs(self._of_magnitudes(equation, ones))))
        return self._finite(size * math.sqrt(terms(equation)))

    def _of_magnitudes(self, equation: Any, sizes: list[Any]) -> Any:
        outputs = self.arithmetic.lifted(equation, sizes, real=True)
        assert outputs is not None  # it has been evaluated before
        return outputs[0]

    def _size(self, array: Array) -> Any:
        if not self.staged:
            return np.abs(array)
        if id(array) not in self._sizes:
            self._sizes[id(array)] = (array, jnp.abs(array))
        return self._sizes[id(array)][1]

    def _narrow(self, array: Any, shape: tuple[int, ...], dtype: Any, units: float = 1.0) -> Any:
        """Perturb a value that has only the digits of a narrow dtype, in the formula law too."""
        self.stays_narrow.add(real_name(dtype))
        factors = self._noise.factors(self._slot(dtype), "constant", shape)
        return array * (factors if units == 1.0 else 1.0 + units * (factors - 1.0))

    def _shift(self, array: Array, size: Any, variable: Any) -> Any:
        """Perturb by `size` units, however large, what a variable of an equation holds."""
        return self._moved(array, self._finite(size), variable.aval.shape, dtype_of(variable))

    def _moved(self, array: Array, size: Any, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Perturb by `size` units; a complex number gets half the variance on each part."""
        xp = self.arithmetic.arrays
        if xp.iscomplexobj(array):
            half = size * math.sqrt(0.5)
            real = self._moved(array.real, half, shape, dtype)
            return real + 1j * self._moved(array.imag, half, shape, dtype)
        return array + size * self._noise.amounts(self._slot(dtype), "unit", shape)

    def _slot(self, dtype: DTypeLike) -> str:
        """Return the dtype that counts: none coarser than those allowed to the program."""
        name = real_name(dtype)
        coarsest = max(self.allowed, key=unit_roundoff)
        return name if unit_roundoff(name) <= unit_roundoff(coarsest) else coarsest

    def _finite(self, size: Any) -> Any:
        return self.arithmetic.arrays.minimum(size, _FINITE)


class Quiet(Rounder):
    """Evaluates what a Rounder does, array for array, and rounds nothing.

    `seen`: how many units rounding moves the sums outside loops, for the Rounders that follow.
    """

    def __init__(self, noise: Noise, constants: Constants, allowed: frozenset[str]) -> None:
        super().__init__(noise, constants, allowed)
        self.seen: list[Any] = []

    def before(self, equation: Any, arrays: list[Array]) -> list[Array]:
        """Return the inputs of an equation as they are."""
        return arrays

    def _bounded(self, array: Array, dtype: DTypeLike) -> Any:
        return array

    def _rounded(self, equation: Any, arrays: list[Array], array: Array, variable: Any) -> Any:
        if terms(equation) > 1:
            self.seen.append(self._units(equation, arrays))
        return array * 1.0  # another array, as there: outputs are told apart by it

    def _narrow(self, array: Any, shape: tuple[int, ...], dtype: Any, units: float = 1.0) -> Any:
        self.stays_narrow.add(real_name(dtype))
        return array * 1.0


def _identity(value: Value) -> Any:
    array = value.array
    if not value.depends and isinstance(array, np.ndarray) and array.size <= _SMALL:
        return array.dtype, array.shape, array.tobytes()
    return id(array), value.depends


def _scales_by_two(name: str, inputs: Sequence[Value], arrays: Sequence[Array]) -> bool:
    """Whether a product or quotient with a constant power of two, which is exact."""
    start = {"mul": 0, "div": 1}.get(name, len(arrays))
    constants = [
        array
        for value, array in zip(inputs[start:], arrays[start:])
        if not value.depends and isinstance(array, np.ndarray) and array.size == 1
    ]
    return any(np.isreal(a).all() and abs(np.frexp(a.real)[0]) == 0.5 for a in constants)


def _spectrum_size(xp: Any, equation: Any, array: Array) -> Any:
    """Return the error of a transform in units: log2(n) times the root mean square."""
    lengths = equation.params["fft_lengths"]
    power = xp.mean(xp.abs(array) ** 2, tuple(range(-len(lengths), 0)), keepdims=True)
    size = xp.sqrt(power) * math.log2(math.prod(lengths) + 1)
    return xp.broadcast_to(size, array.shape)
