"""Who computes an equation: JAX, which may be tracing to compile, or NumPy, at once.

Both evaluate an equation as it was traced, or lifted: every inexact operand and result in float64.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradlab.common.arrays import Array, DTypeLike, NumPyArray
from gradlab.primitives import lookup
from gradlab.tracing import keys, numeric
from gradlab.tracing.callbacks import call_host, is_callback
from gradlab.tracing.implementing import implementation
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import Equation, bind, bind_compiled, bind_to_run, dtype_of, shape_of
from gradlab.tracing.leaves import in_numpy, is_inexact
from gradlab.tracing.work import VIEWS

_DTYPES = ("dtype", "new_dtype", "out_dtype", "output_dtype", "preferred_element_type")
_TYPED_SCATTERS = ("scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max")


@functools.cache
def is_identity(name: str) -> bool:
    """Return whether a primitive, lifted, gives its operands back."""
    return lookup(name).is_identity or name == "reduce_precision"


class Arithmetic(Protocol):
    """What evaluates equations; `arrays` is `jax.numpy` or NumPy.

    `staged`: JAX rebuilds loops and branches. Otherwise numbers are there, and a loop is run.
    """

    staged: bool
    arrays: Array

    def bind(self, equation: Equation, inputs: Sequence[Array]) -> list[Any]:
        """Evaluate an equation as it was traced."""

    def lifted(
        self, equation: Equation, inputs: Sequence[Array], real: bool = False
    ) -> list[Any] | None:
        """Evaluate it on widened inputs; `real`: on their magnitudes, never complex.

        None: the primitive insists on its dtypes.
        """


class _Jax:
    staged = True
    arrays: Array = jnp

    def bind(self, equation: Equation, inputs: Sequence[Array]) -> list[Any]:
        return bind_to_run(equation, inputs)

    def lifted(
        self, equation: Equation, inputs: Sequence[Array], real: bool = False
    ) -> list[Any] | None:
        return _lifted(equation, list(inputs), real)


JAX: Arithmetic = _Jax()


class NumPy:
    """Evaluates at once; what has no rule in NumPy goes to JAX, draw after draw.

    An array that an update made, and that nobody holds any more, is written into by the next.
    """

    staged = False
    arrays: Array = np

    def __init__(self) -> None:
        self._held: dict[int, list[Any]] = {}  # by the address of what owns memory: how often, it
        self._loose: list[int] = []

    def bind(self, equation: Equation, inputs: Sequence[Array]) -> list[Any]:
        """Evaluate an equation as it was traced."""
        dtypes = [dtype_of(variable) for variable in equation.outvars]
        moves = equation.primitive.name in VIEWS and all(type(a) is np.ndarray for a in inputs)
        if moves or all(map(numeric.is_native, (*map(dtype_of, inputs), *dtypes))):
            outputs = numeric.evaluate(equation, inputs, self._mine(equation, inputs))
            if outputs is not None:
                return self._made(equation, outputs, dtypes)
        if equation.primitive.name == "convert_element_type" and isinstance(inputs[0], np.ndarray):
            return [numeric.cast(inputs[0], dtypes[0])]
        call = call_host if is_callback(equation) else _bound
        outputs = self._rows(
            equation, inputs, lambda a: keys.evaluate(equation, a) or call(equation, a)
        )
        assert outputs is not None
        return outputs

    def lifted(
        self, equation: Equation, inputs: Sequence[Array], real: bool = False
    ) -> list[Any] | None:
        """Evaluate it on widened inputs; `real`: on their magnitudes, never complex."""
        name = equation.primitive.name
        if is_identity(name):
            return list(inputs)
        dtypes = [widen_dtype(dtype_of(variable)) for variable in equation.outvars]
        if name == "convert_element_type":
            return [convert(inputs[0], dtypes[0])]
        if all(map(numeric.is_native, map(dtype_of, inputs))):
            mine = not real and self._mine(equation, inputs)
            outputs = numeric.evaluate(equation, inputs, mine, real)
            if outputs is not None:
                return outputs if real else self._made(equation, outputs, dtypes)
        return self._rows(
            equation,
            inputs,
            lambda arrays: keys.evaluate(equation, arrays) or _lifted(equation, arrays, real),
        )

    def hold(self, arrays: Iterable[Array]) -> None:
        """Note that arrays are kept."""
        if not self._held:
            return
        for array in arrays:
            known = self._held.get(id(_root(array)))
            if known is not None:
                known[0] += 1
        for key in self._loose:
            if key in self._held and self._held[key][0] == 0:
                del self._held[key]
        self._loose.clear()

    def release(self, arrays: Iterable[Array]) -> None:
        """Note that arrays are no longer kept."""
        if not self._held:
            return
        for array in arrays:
            key = id(_root(array))
            known = self._held.get(key)
            if known is not None:
                known[0] -= 1
                if known[0] == 0:
                    self._loose.append(key)

    def _mine(self, equation: Equation, inputs: Sequence[Array]) -> bool:
        if equation.primitive.name not in numeric.UPDATES:
            return False
        known = self._held.get(id(_root(inputs[0])))
        return known is not None and known[0] == 0 and inputs[0].flags.writeable

    def _made(self, equation: Equation, outputs: list[Array], dtypes: Sequence[Any]) -> list[Any]:
        """Return outputs as arrays of their dtypes; what an update made is this walk's own."""
        made = [
            array if type(array) is np.ndarray and array.dtype == d else _at(array, d)
            for array, d in zip(outputs, dtypes)
        ]
        if equation.primitive.name in numeric.UPDATES:
            root = _root(made[0])
            if id(root) not in self._held:
                self._held[id(root)] = [0, root]
                self._loose.append(id(root))
        return made

    def _rows(
        self,
        equation: Equation,
        inputs: Sequence[Array],
        evaluate: Callable[[list[Any]], list[Any] | None],
    ) -> list[Array] | None:
        """Evaluate in JAX, one draw after another where there are draws."""
        ranks = [len(shape_of(v)) for v in equation.invars]
        drawn = [np.ndim(a) > rank for a, rank in zip(inputs, ranks)]
        count = next((len(a) for a, each in zip(inputs, drawn) if each), None)
        if count is None:
            outputs = evaluate(list(inputs))
            return outputs if outputs is None else [in_numpy(array) for array in outputs]
        columns = []
        for i in range(count):
            outputs = evaluate([a[i] if each else a for a, each in zip(inputs, drawn)])
            if outputs is None:
                return outputs
            columns.append([in_numpy(array) for array in outputs])
        return [_stacked(column) for column in zip(*columns)]


@functools.cache
def widen_dtype(dtype: DTypeLike) -> DTypeLike:
    """Return float64 for a real dtype, complex128 for a complex one, others as they are."""
    if jnp.issubdtype(dtype, np.complexfloating):
        return np.dtype("complex128")
    return np.dtype("float64") if is_inexact(dtype) else dtype


def convert(array: Array, dtype: DTypeLike) -> Any:
    """Return an array at another dtype, in JAX or NumPy, whichever it belongs to."""
    if dtype_of(array) == dtype:
        return array
    if isinstance(array, np.ndarray):
        return numeric.cast(array, dtype)
    if jnp.iscomplexobj(array) and not jnp.issubdtype(dtype, np.complexfloating):
        array = array.real
    return lax.convert_element_type(array, dtype)


def _lifted(equation: Equation, arrays: list[Array], real: bool) -> list[Any] | None:
    try:
        return bind_lifted(equation, arrays, real)
    except (TypeError, ValueError):  # a primitive that insists on its dtypes
        return None


def bind_lifted(equation: Equation, arrays: list[Array], real: bool = False) -> list[Any]:
    """Evaluate an equation in JAX on widened inputs; `real`: on magnitudes, never complex."""
    name = equation.primitive.name
    if is_identity(name):
        return arrays
    if name == "convert_element_type":
        return [convert(arrays[0], widen_dtype(equation.params["new_dtype"]))]
    if name in _SPECIAL:
        return _SPECIAL[name](equation, arrays, real)
    outputs = _bound(equation, arrays, **_widened_params(equation, real))
    if real:
        return outputs
    wanted = [widen_dtype(dtype_of(variable)) for variable in equation.outvars]
    return [convert(array, dtype) for array, dtype in zip(outputs, wanted)]


def _bound(equation: Equation, arrays: Sequence[Array], **changed: Any) -> list[Any]:
    """Evaluate an equation in JAX; the solver of a library, say, is compiled once."""
    traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
    if not traced and implementation(equation) is not None:
        try:
            found: Any = bind_compiled(equation, arrays, **changed)
            return [array.block_until_ready() for array in found]
        except Exception:  # what it raises is told from Python alone
            pass
    return bind(equation, arrays, **changed)


def _widened_params(equation: Equation, real: bool) -> dict[str, Any]:
    """Return the parameters that name a dtype or an accuracy, lifted."""
    changed: dict[str, Any] = {}
    for name, value in equation.params.items():
        if name in ("accuracy", "precision"):
            changed[name] = None
        elif name in _DTYPES and value is not None and is_inexact(value):
            changed[name] = np.dtype("float64") if real else widen_dtype(value)
    return changed


def _scatter(equation: Equation, arrays: list[Array], real: bool) -> list[Array]:
    """Scatter through the lax function: the primitive's update jaxpr is typed."""
    params, name = equation.params, equation.primitive.name
    if real and name == "scatter-sub":  # magnitudes add
        name = "scatter-add"
    function = getattr(lax, name.replace("-", "_"))
    kept = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return [function(*arrays, **{name: params[name] for name in kept})]


class _Wide(Interpreter[Any]):
    """Evaluates the function of a reduction in JAX, in float64."""

    staged = True

    def constant(self, array: NumPyArray) -> Any:
        return convert(array, widen_dtype(array.dtype))

    def equation(self, equation: Equation, inputs: list[Array]) -> list[Any]:
        return bind_lifted(equation, inputs)


def _reduce(equation: Equation, arrays: list[Array], real: bool) -> list[Any]:
    """Reduce with the evaluated function: the primitive's jaxpr is typed."""
    half, combine = len(arrays) // 2, _combining(equation.params["jaxpr"])
    outputs = lax.reduce(arrays[:half], arrays[half:], combine, equation.params["dimensions"])
    return list(outputs)


@functools.lru_cache(64)  # JAX compiles a reduction anew for each function object
def _combining(jaxpr: Any) -> Callable[[Any, Any], list[Any]]:
    return lambda left, right: _Wide()(jaxpr, [*left, *right])


_SPECIAL: dict[str, Callable[[Any, list[Any], bool], list[Any]]] = {
    "reduce": _reduce,
    **dict.fromkeys(_TYPED_SCATTERS, _scatter),
}


def _at(array: Array, dtype: DTypeLike) -> Any:
    return numeric.cast(np.asarray(array), dtype)


def _root(array: Array) -> Any:
    """Return what owns the memory that an array shows."""
    while type(array) is np.ndarray and array.base is not None:
        array = array.base
    return array


def _stacked(column: Sequence[Array]) -> Any:
    return (np if isinstance(column[0], np.ndarray) else jnp).stack(column)
