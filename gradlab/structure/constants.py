"""Equations whose operands are all written into the program, evaluated before it runs.

What XLA will compute is known where nothing is rounded: integers, booleans, floats that are moved,
compared or chosen, sums and products of small multiples of 1/16. Loops and branches are run where
that holds of all that they do. Of other floats `between` finds bounds.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.primitives import lookup, names
from gradlab.primitives.known import Known
from gradlab.primitives.rounding import Exact
from gradlab.structure.between import between
from gradlab.tracing.interpreter import TooLong
from gradlab.tracing.jaxprs import dtype_of
from gradlab.tracing.leaves import is_key
from gradlab.tracing.running import AtOnce

_BYTES = 1 << 26
"""How large an operand or result may be: index arrays of ten million entries in int32."""

_TURNS = 1 << 11
"""How many turns of loops are run before the program is."""


class _NotExact(Exception):
    """An equation rounds, or what it makes is too large."""


def evaluated(equation: Any, known: Sequence[Known | None]) -> tuple[Known | None, ...] | None:
    """Return what is known of an equation's results from the values of its operands.

    Args:
        equation: of a jaxpr.
        known: its operands. What a sort only carries along may be missing.
    """
    values = [_value(atom, each) for atom, each in zip(equation.invars, known, strict=True)]
    name, kept = equation.primitive.name, [value is not None for value in values]
    if name == "sort" and all(kept[: equation.params["num_keys"]]):
        missing = [np.zeros(atom.aval.shape, atom.aval.dtype) for atom in equation.invars]
        values = [m if value is None else value for m, value in zip(missing, values)]
    walk = _Exactly()
    try:
        given = [value for value in values if value is not None]
        if len(given) < len(values):
            raise _NotExact
        run = getattr(walk, _LOOPS[name]) if name in _LOOPS else walk.equation
        found = [np.asarray(array) for array in run(equation, given)]
    except (_NotExact, TooLong):
        bounds = [None if each is None else each.between for each in known]
        return between(equation, [b if v is None else v for v, b in zip(values, bounds)])
    return tuple(
        Known(array=array) if name != "sort" or kept[k] else None for k, array in enumerate(found)
    )


def _value(atom: Any, known: Known | None) -> Array | None:
    value = None if known is None else known.value()
    return value if value is None or value.dtype.kind == "O" else value.astype(dtype_of(atom))


_LOOPS = {"scan": "scan", "while": "while_loop", "cond": "cond"}


class _Exactly(AtOnce):
    """Computes in NumPy what NumPy and XLA cannot compute differently."""

    turns = _TURNS

    def equation(self, equation: Any, inputs: list[Array]) -> list[Array]:
        """Evaluate one equation, or refuse."""
        if _is_same(equation):
            return inputs
        if not _is_exact(equation, inputs):
            raise _NotExact
        if _repeats(equation):
            shape = equation.outvars[0].aval.shape
            return [np.broadcast_to(inputs[0].reshape((1,) * len(shape)), shape)]
        if any(_bytes(variable) > _BYTES for variable in equation.outvars):
            raise _NotExact
        inputs = [a[()] if a.dtype == object else a for a in inputs]
        with np.errstate(all="ignore"), jax.enable_x64(True), jax.ensure_compile_time_eval():
            return [_boxed(array) for array in self._numpy.bind(equation, inputs)]


def _is_same(equation: Any) -> bool:
    """Whether each result is its operand, as it is."""
    record = lookup(equation.primitive.name)
    return record.is_identity and len(equation.invars) == len(equation.outvars)


def _is_exact(equation: Any, inputs: Sequence[Array]) -> bool:
    name = equation.primitive.name
    if lookup(name).placed:
        return False
    dtypes = [*(value.dtype for value in inputs), *map(dtype_of, equation.outvars)]
    if all(getattr(dtype, "kind", "O") in "biuO" for dtype in dtypes):  # a key has no kind
        return name in names() and not _is_other_draw(equation)
    exact = isinstance(lookup(name).rounds, Exact) or name == "convert_element_type"
    added = name == "mul" or lookup(name).extremes == "sum"
    exact = exact or (added and _is_fixed(name, inputs, dtypes[-1]))
    return exact and bool(inputs) and not any(map(_is_tiny, inputs))


def _is_other_draw(equation: Any) -> bool:
    """Whether bits are drawn that the user's session, in which JAX has no 64 bits, never draws."""
    wide: bool = jax.config.jax_enable_x64  # type: ignore[attr-defined]  # it has no types
    return equation.params.get("bit_width", 0) > 32 and not wide


def _is_fixed(name: str, inputs: Sequence[Array], dtype: Any) -> bool:
    """Whether all are multiples of 1/16, and so small that no sum or product of them is rounded."""
    if any(array.dtype.kind != "f" for array in inputs):
        return False
    scaled = [16 * abs(array.astype(np.float64)) for array in inputs]
    if any((array != np.rint(array)).any() for array in scaled):
        return False
    sizes = [array.sum() if len(scaled) == 1 else array.max(initial=0) for array in scaled]
    limits: Any = jnp.finfo(dtype)  # type: ignore[no-untyped-call]  # it has no types
    return bool((math.prod(sizes) if name == "mul" else sum(sizes)) < 2.0**limits.nmant)


def _boxed(array: Any) -> Array:
    """Return random keys as the one entry of an array of objects, all else as it is."""
    if not is_key(array.dtype):
        return np.asarray(array)
    boxed = np.empty((), object)
    boxed[()] = array
    return boxed


def _is_tiny(array: Array) -> bool:
    """Whether some number is so small that XLA may take it for zero."""
    if array.dtype.kind in "biu" or not array.size:
        return False
    if not any(array.strides):
        array = array.ravel()[:1]
    smallest: float = float(jnp.finfo(array.dtype).tiny)  # type: ignore[no-untyped-call]  # it has no types
    size = np.abs(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))
    return bool(((size > 0) & (size < smallest)).any())


def _repeats(equation: Any) -> bool:
    """Whether an equation only repeats one number, which takes no memory."""
    return bool(equation.primitive.name == "broadcast_in_dim" and equation.invars[0].aval.size == 1)


def _bytes(variable: Any) -> int:
    size: int = variable.aval.size
    return size * int(getattr(dtype_of(variable), "itemsize", 16))
