"""A program as it runs without a compiler: equation by equation, at the dtypes of its trace.

A compiler may change what a program computes: XLA makes x of (x + 1e7) - 1e7. Half precision is
computed in float32 and rounded after each equation, as devices do.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array
from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.interpreter import Interpreter, TooLong, picked
from gradlab.tracing.jaxprs import Atom, Equation, Variable, bind, dtype_of, shape_of
from gradlab.tracing.leaves import is_inexact, is_key
from gradlab.tracing.numeric import evaluate, is_native
from gradlab.tracing.program import Program
from gradlab.tracing.walking import walk

_TURNS, _EQUATIONS, _ENTRIES = 2_000, 2_000, 1 << 18
_HOSTS = ("pure_callback", "io_callback", "ffi_call", "pallas_call", "shard_map")


def run_stepwise(program: Program, arrays: Sequence[Array]) -> list[Any] | None:
    """Return a program's outputs, each equation rounded to its dtype; None where it is too large.

    Example:
        >>> from gradlab.tracing import trace
        >>> x = np.array([0.25], np.float32)
        >>> magic = np.float32(3 * 2**22)
        >>> float(run_stepwise(trace(lambda x: (x + magic) - magic, x), [x])[0][0])
        0.0
    """
    equations = [equation for equation, _ in walk(program)]
    if len(equations) > _EQUATIONS or sum(map(np.size, arrays)) > _ENTRIES:
        return None
    atoms = [*program.jaxpr.jaxpr.invars, *(v for e in equations for v in e.outvars)]
    keys = any(is_key(dtype_of(atom)) for atom in atoms)
    if keys or any(equation.primitive.name in _HOSTS for equation in equations):
        return None
    try:
        with jax.enable_x64(program.x64), np.errstate(all="ignore"):
            return _Stepwise()(program.jaxpr, list(map(np.asarray, arrays)))
    except TooLong:
        return None


class AtOnce(Interpreter[Any]):
    """Evaluates equations in NumPy at the dtypes of their trace."""

    def __init__(self) -> None:
        self._numpy = NumPy()

    def constant(self, array: Array) -> Any:
        """Bring a constant of the program in."""
        return array

    def equation(self, equation: Equation, inputs: list[Any]) -> list[Any]:
        """Evaluate one equation."""
        return self._numpy.bind(equation, inputs)

    def concrete(self, value: Array) -> Any:
        """Return the number by which a branch is chosen or a `while` goes on."""
        return np.asarray(value)

    def choose(
        self, which: Any, alternatives: list[list[Any]], atoms: Sequence[Atom], rows: int = 0
    ) -> list[Any]:
        """Return the values of the alternative whose number each row has."""
        pairs = zip(zip(*alternatives), atoms)
        return [picked(which, values, len(shape_of(atom)), rows) for values, atom in pairs]

    def row(self, value: Array, index: int, atom: Atom) -> Array:
        """Return what a turn of a `scan` reads of a column."""
        return value[index]

    def stack(self, rows: list[Array], variable: Variable) -> Any:
        """Return the rows of a `scan` as one value."""
        return np.stack(rows) if rows else np.zeros(shape_of(variable), dtype_of(variable))

    def hold(self, values: Iterable[Array]) -> None:
        """Note that values are kept."""
        self._numpy.hold(values)

    def release(self, values: Iterable[Array]) -> None:
        """Note that values are no longer kept."""
        self._numpy.release(values)


class _Stepwise(AtOnce):
    turns = _TURNS

    def equation(self, equation: Equation, inputs: list[Any]) -> list[Any]:
        results = evaluate(equation, [_native(array) for array in inputs])
        if results is None:
            results = bind(equation, inputs)
        return [np.asarray(r, dtype_of(v)) for r, v in zip(results, equation.outvars)]


def _native(array: Array) -> Any:
    narrow = is_inexact(array.dtype) and not is_native(array.dtype)
    return array.astype(np.float32) if narrow else array
