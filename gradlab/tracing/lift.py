"""Evaluate a traced program with every inexact value that depends on its inputs in float64.

Calling a function with float64 inputs evaluates another function: a dropout mask changes under
x64, `finfo(x.dtype).eps` too, and a scan with a float32 carry raises. A lifted program is the one
that was traced. What does not depend on the inputs runs at the dtype of the trace and is widened.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.common.arrays import Array, DTypeLike, Tree
from gradlab.tracing.arithmetic import JAX, Arithmetic, NumPy, convert, widen_dtype
from gradlab.tracing.dependence import call_jaxpr, flow
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.implementing import HIGHER, expansion
from gradlab.tracing.jaxprs import Equation, Jaxpr, Literal, Variable, dtype_of, once, source
from gradlab.tracing.leaves import digits, is_inexact
from gradlab.tracing.program import Program

_SILENT = frozenset({"debug_callback", "debug_print"})
_OPAQUE = frozenset(
    [
        *("bitcast_convert_type", "pallas_call", "pure_callback", "io_callback", "ffi_call"),
        *("custom_call", "tpu_custom_call", "triton_kernel_call", "shard_map"),
        *("custom_partitioning", "custom_transpose_call", "reduce_window"),
    ]
)


@dataclass(frozen=True)
class Narrowing:
    """A place where a program rounds to a narrower dtype: "rounds to bfloat16 at layer.py:12"."""

    dtype: str
    source: str

    def __str__(self) -> str:
        return f"rounds to {self.dtype}" + (f" at {self.source}" if self.source else "")


@dataclass(frozen=True)
class Opaque:
    """An equation that cannot be lifted, and runs at the dtypes of the trace.

    `digits`: how many bits of the mantissa the coarsest number has that goes in or comes out.
    """

    name: str
    source: str
    digits: int

    def __str__(self) -> str:
        return f"{self.name} runs as traced" + (f" at {self.source}" if self.source else "")


def swapped(equations: Sequence[Any], outvars: Sequence[Any]) -> list[Any]:
    """Return the equations of a jaxpr with every `transpose(a @ b)` that may be as `b @ a`.

    Autodiff writes `(u' x)'`. XLA folds that by itself, but not once noise stands in between. A
    product among `outvars`, the outputs of the jaxpr, is left as it is.
    """
    atoms = [atom for equation in equations for atom in equation.invars]
    uses = Counter(atom for atom in (*atoms, *outvars) if not isinstance(atom, Literal))
    products = {
        equation.outvars[0]: equation
        for equation in equations
        if equation.primitive.name == "dot_general" and uses[equation.outvars[0]] == 1
    }
    exchanged = {}
    for equation in equations:
        if equation.primitive.name == "transpose" and not isinstance(equation.invars[0], Literal):
            product = products.get(equation.invars[0])
            if product and tuple(equation.params["permutation"]) == _exchange(product):
                exchanged[id(equation)] = product
    dropped = {id(product) for product in exchanged.values()}
    return [
        _other_way_round(exchanged[id(e)], e.outvars) if id(e) in exchanged else e
        for e in equations
        if id(e) not in dropped
    ]


def _exchange(product: Any) -> tuple[int, ...] | None:
    """Return the permutation that exchanges the rows and columns of a product."""
    if product.params.get("out_sharding") is not None:
        return None
    (contracted, _), (batch, _) = product.params["dimension_numbers"]
    first = len(batch)
    second = product.invars[0].aval.ndim - len(contracted)  # the columns come after the rows
    last = product.outvars[0].aval.ndim
    return (*range(first), *range(second, last), *range(first, second))


def _other_way_round(product: Any, outvars: Sequence[Any]) -> Any:
    (left, right), (left_batch, right_batch) = product.params["dimension_numbers"]
    precision = product.params["precision"]
    return product.replace(
        invars=product.invars[::-1],
        outvars=list(outvars),
        params={
            **product.params,
            "dimension_numbers": ((right, left), (right_batch, left_batch)),
            "precision": precision[::-1] if isinstance(precision, tuple) else precision,
        },
    )


class Lifter(Evaluator):
    """Evaluates in float64; subclasses may round where the traced program rounds."""

    simplified = staticmethod(swapped)  # no product is computed only to be transposed

    def __init__(self, arithmetic: Arithmetic = JAX) -> None:
        self.arithmetic = arithmetic
        self.staged = arithmetic.staged

    def hold(self, values: Iterable[Value]) -> None:
        """Note that values are kept: none of them may be written into."""
        if isinstance(self.arithmetic, NumPy):
            self.arithmetic.hold(value.array for value in values)

    def release(self, values: Iterable[Value]) -> None:
        """Note that values are no longer kept."""
        if isinstance(self.arithmetic, NumPy):
            self.arithmetic.release(value.array for value in values)

    def before(self, equation: Equation, arrays: list[Array]) -> list[Array]:
        """Return the widened inputs of an equation; the place to perturb them."""
        return arrays

    def as_traced(self, equation: Equation, arrays: list[Array]) -> list[Any]:
        """Return the inputs of an equation that cannot be lifted; the place to perturb them."""
        return arrays

    def after(
        self, equation: Equation, inputs: Sequence[Value], arrays: list[Array], outputs: list[Array]
    ) -> list[Array]:
        """Return the lifted outputs of an equation; the place to perturb them."""
        return outputs

    def enters(self, array: Array, dtype: DTypeLike, rough: bool) -> Any:
        """Widen a value that does not depend on the inputs where it meets one that does."""
        return convert(array, widen_dtype(dtype))

    def wide(self, value: Value) -> Array:
        """Return a value's array in float64."""
        if value.depends:
            return value.array
        dtype = dtype_of(value.array)
        return self.enters(value.array, dtype, value.rough) if is_inexact(dtype) else value.array

    def fit(self, value: Value, depends: bool) -> Any:
        """Return a value's array, widened where what it joins may depend."""
        return self.wide(value) if depends else value.array

    def equation(self, equation: Equation, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate one equation in float64, or as traced where nothing depends on the inputs."""
        name = equation.primitive.name
        if name in _SILENT:
            return []
        if name == "convert_element_type" and _keeps_dtype(equation):
            return list(inputs)  # a constant stays one
        if not any(value.depends for value in inputs):
            arrays = [value.array for value in inputs]
            outputs = self.arithmetic.bind(equation, arrays)
            rough = any(value.rough for value in inputs)
            rough = rough or (self.rounds(equation) and not _kept(equation, arrays, outputs))
            return [Value(array, False, rough) for array in outputs]
        if name == HIGHER:  # its value is what it stands for, whatever its derivatives are
            return self(expansion(equation), inputs)
        arrays = [self.wide(value) for value in inputs]
        if cannot_lift(equation):
            outputs = self._as_traced(equation, arrays)
        else:
            arrays = self.before(equation, arrays)
            lifted = self.arithmetic.lifted(equation, arrays)
            if lifted is not None and name == "eig":
                own = self._as_traced(equation, arrays)
                lifted = _ordered(own, lifted, self.arithmetic.arrays)
            if lifted is None:
                outputs = self._as_traced(equation, arrays)
            else:
                outputs = self.after(equation, inputs, arrays, lifted)
        return [Value(array, True) for array in outputs]

    def rounds(self, equation: Equation) -> bool:
        """Whether an equation's results are rounded."""
        return False

    def opaque_result(self, variable: Variable, array: Array) -> Tree:
        """Widen what an equation that cannot be lifted returned."""
        return convert(array, widen_dtype(dtype_of(variable)))

    def _as_traced(self, equation: Equation, arrays: list[Array]) -> list[Any]:
        dtypes = [dtype_of(atom) for atom in equation.invars]
        given = self.as_traced(equation, arrays)
        narrow = [convert(a, d) for a, d in zip(given, dtypes)]
        outputs = self.arithmetic.bind(equation, narrow)
        return [
            self.opaque_result(variable, array) if is_inexact(dtype_of(variable)) else array
            for variable, array in zip(equation.outvars, outputs)
        ]


def lift(program: Program) -> Callable[..., list[Any]]:
    """Return the program as a function of flat inputs that computes in float64.

    Call it, or compile it, inside `jax.enable_x64(True)`; its inexact inputs are widened.
    """

    def lifted(*arrays: Array) -> list[Any]:
        lifter = Lifter()
        values = [
            Value(convert(a, widen_dtype(dtype_of(a))), is_inexact(dtype_of(a))) for a in arrays
        ]
        return [lifter.wide(value) for value in lifter(program.jaxpr, values)]

    return lifted


def narrowings(program: Program) -> list[Narrowing]:
    """Return the places where a program rounds to a dtype with fewer digits, without repeats."""
    return _narrowings(program.jaxpr)


@once
def _narrowings(jaxpr: Jaxpr) -> list[Narrowing]:
    found: list[Narrowing] = []

    def see(equation: Equation, flags: Sequence[bool]) -> None:
        name = equation.primitive.name
        if name == "reduce_precision":
            bits = equation.params["mantissa_bits"]
            found.append(Narrowing(f"{bits} mantissa bits", source(equation)))
        elif name == "convert_element_type":
            before, after = dtype_of(equation.invars[0]), dtype_of(equation.outvars[0])
            if is_inexact(before) and is_inexact(after) and digits(after) < digits(before):
                found.append(Narrowing(np.dtype(after).name, source(equation)))

    flow(jaxpr, [is_inexact(aval.dtype) for aval in jaxpr.in_avals], see)
    return list(dict.fromkeys(found))


def opaque(program: Program) -> list[Opaque]:
    """Return the equations of a program that are not lifted, without repeats."""
    return _opaque(program.jaxpr)


@once
def _opaque(jaxpr: Jaxpr) -> list[Opaque]:
    found: list[Opaque] = []

    def see(equation: Equation, flags: Sequence[bool]) -> None:
        atoms = [atom for atom, flag in zip(equation.invars, flags) if flag]
        touched = [dtype_of(atom) for atom in (*atoms, *equation.outvars)]
        kept = [digits(dtype) for dtype in touched if is_inexact(dtype)]
        if kept and cannot_lift(equation):
            found.append(Opaque(equation.primitive.name, source(equation), min(kept)))

    flow(jaxpr, [is_inexact(aval.dtype) for aval in jaxpr.in_avals], see)
    return list(dict.fromkeys(found))


def _kept(equation: Equation, arrays: Sequence[Array], outputs: Sequence[Array]) -> bool:
    """Whether a conversion changed no number; a number that is being traced is not known."""
    pair = (arrays[0], outputs[0]) if equation.primitive.name == "convert_element_type" else ()
    known = len(pair) == 2 and all(isinstance(array, np.ndarray) for array in pair)
    return known and np.array_equal(*(array.astype(np.float64) for array in pair))


def _ordered(own: Sequence[Any], wide: Sequence[Any], xp: Any) -> list[Any]:
    """Return eigenvalues, and vectors, in the order and with the signs that their dtype chose."""
    apart = xp.abs(own[0][..., :, None] - wide[0][..., None, :])
    chosen, given = xp.argmin(apart, -1), xp.arange(apart.shape[-1])
    single = (xp.sort(chosen, -1) == given).all(-1, keepdims=True)
    order = xp.where(single, chosen, given)
    made = [xp.take_along_axis(wide[0], order, -1)]
    for narrow, vectors in zip(own[1:], wide[1:]):
        moved = xp.take_along_axis(vectors, order[..., None, :], -1)
        turned = xp.real(xp.sum(xp.conj(narrow) * moved, -2, keepdims=True)) < 0
        made.append(xp.where(turned, -moved, moved))
    return made


def _keeps_dtype(equation: Equation) -> bool:
    return bool(dtype_of(equation.invars[0]) == dtype_of(equation.outvars[0]))


def cannot_lift(equation: Equation) -> bool:
    """Return whether an equation runs at the dtypes of its trace, whatever is lifted around it."""
    name = equation.primitive.name
    typed = name == "scatter" and equation.params.get("update_jaxpr") is not None
    return typed or (name in _OPAQUE and call_jaxpr(equation) is None)
