"""Programs that are run at once, lifted and in NumPy: nothing is compiled, callbacks are called."""

import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.interpreters import batching

from gradlab.common.arrays import Array, Tree
from gradlab.tracing.arithmetic import NumPy, convert, widen_dtype
from gradlab.tracing.evaluate import Value
from gradlab.tracing.interpreter import Interpreter, TooLong, picked
from gradlab.tracing.jaxprs import (
    Atom,
    Equation,
    Jaxpr,
    Variable,
    bind,
    contains,
    dtype_of,
    shape_of,
)
from gradlab.tracing.leaves import in_numpy, is_inexact, is_key
from gradlab.tracing.lift import Lifter
from gradlab.tracing.numeric import evaluate, is_native
from gradlab.tracing.program import ClosesOverTrace, Program, without_checks
from gradlab.tracing.walking import walk

_HOSTS = frozenset({"pure_callback", "io_callback", "ffi_call", "custom_vmap_call"})


def run_lifted(
    jaxpr: Jaxpr, arrays: Sequence[Array], turns: int | None = None, given: Sequence[Any] = ()
) -> list[Any]:
    """Evaluate a closed jaxpr lifted to float64, in NumPy, without compiling it.

    `given`: arrays that count as inputs where they are constants of the jaxpr.
    """
    evaluator = _Widened(given)
    evaluator.turns = turns
    with without_checks():
        values = evaluator(jaxpr, [_entering(array) for array in arrays])
        return [in_numpy(evaluator.wide(value)) for value in values]


def stage(program: Program, wrt: Sequence[int], arrays: Sequence[Array], turns: int) -> list[Any]:
    """Run the user's Python once on arrays, and return outputs and gradients, lifted.

    Nothing is compiled: what the Python computes with JAX is staged out, and run in NumPy. Python
    that looks at its arguments sees arrays, as it does without `jit`, and no tracers.
    """
    count = len(program.in_names)
    run = program.flat if program.live is None else program.live
    inexact = [is_inexact(aval.dtype) for aval in program.out_avals]

    def differentiated() -> list[Any]:
        supply = iter(given[count:])
        seeds = [
            next(supply) if flag else np.zeros(aval.shape, jax.dtypes.float0)
            for aval, flag in zip(program.out_avals, inexact)
        ]

        def part(*values: Tree) -> list[Any]:
            full = list(given[:count])
            for position, value in zip(wrt, values):
                full[position] = value
            return list(run(*full))

        outputs, backward = jax.vjp(part, *(given[i] for i in wrt))
        return [*outputs, *backward(seeds)]

    with jax.enable_x64(program.x64):
        given = [jax.device_put(array) for array in arrays]
        try:
            jaxpr = jax.make_jaxpr(differentiated)()
            if any(isinstance(constant, jax.core.Tracer) for constant in jaxpr.consts):
                raise jax.errors.UnexpectedTracerError("a constant is a traced value")
        except jax.errors.JAXTypeError:  # it reads values that are computed from its arguments
            try:
                return [in_numpy(result) for result in differentiated()]
            except jax.errors.UnexpectedTracerError as error:
                text = "a rule inside holds a value of another differentiation"
                raise ClosesOverTrace(text) from error
    return run_lifted(jaxpr, [], turns, given)


def batches_by_itself(program: Program) -> bool:
    """Whether vmap of a program runs rules that are not JAX's own."""
    table: Any = getattr(batching, "fancy_primitive_batchers", None)

    def own(equation: Equation) -> bool:
        if equation.primitive.name in _HOSTS:
            return True
        if table is None:  # this JAX keeps its batching rules elsewhere
            return True
        return _is_users(table.get(equation.primitive))

    return contains(program.jaxpr, own)


@functools.lru_cache(maxsize=1024)
def _is_users(function: Any) -> bool:
    """Whether a function, or one that it is wrapped around, is not JAX's own."""
    return any(not module.startswith("jax") for module in _modules(function))


def _modules(function: Any) -> Iterator[str]:
    """Yield where a function is defined, and the functions that it is wrapped around."""
    while hasattr(function, "func"):
        function = function.func
    if function is None:
        return
    yield str(getattr(function, "__module__", "jax"))
    for cell in getattr(function, "__closure__", None) or ():
        if inspect.isfunction(cell.cell_contents) or hasattr(cell.cell_contents, "func"):
            yield from _modules(cell.cell_contents)


class _Widened(Lifter):
    """Lifts in NumPy; constants that are the inputs of a staged call are inputs."""

    def __init__(self, given: Sequence[Any]) -> None:
        super().__init__(NumPy())
        self._given = [np.asarray(a) for a in given if is_inexact(a.dtype)]

    def constant(self, array: Array) -> Value:
        """Bring a constant of the program in."""
        if not is_inexact(dtype_of(array)):
            return Value(array, False)
        mine = np.asarray(array)
        same = (a.shape == mine.shape and a.dtype == mine.dtype for a in self._given)
        known = any(s and a.tobytes() == mine.tobytes() for s, a in zip(same, self._given))
        return _entering(mine) if known else Value(array, False)


def _entering(array: Array) -> Value:
    value = in_numpy(array)
    if is_key(value.dtype):
        return Value(value, False)
    return Value(convert(value, widen_dtype(value.dtype)), is_inexact(value.dtype))


_TURNS, _EQUATIONS, _ENTRIES = 2_000, 2_000, 1 << 18
_CALLS_OUT = ("pure_callback", "io_callback", "ffi_call", "pallas_call", "shard_map")


def run_stepwise(program: Program, arrays: Sequence[Array]) -> list[Any] | None:
    """Return the outputs, each equation rounded to its dtype; None where it is too large."""
    equations = [equation for equation, _ in walk(program)]
    if len(equations) > _EQUATIONS or sum(map(np.size, arrays)) > _ENTRIES:
        return None
    atoms = [*program.jaxpr.jaxpr.invars, *(v for e in equations for v in e.outvars)]
    keys = any(is_key(dtype_of(atom)) for atom in atoms)
    if keys or any(equation.primitive.name in _CALLS_OUT for equation in equations):
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
