"""Evaluate a jaxpr on arrays: with JAX, which may be tracing, or at once.

A subclass of `Evaluator` says what one equation becomes; calls are inlined, what no output needs is
never evaluated. Where JAX traces, loops and branches are rebuilt around the evaluated bodies.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab.common.arrays import Array
from gradlab.tracing.dependence import carried, flow
from gradlab.tracing.interpreter import Interpreter, picked, platform_branch
from gradlab.tracing.jaxprs import (
    Atom,
    Equation,
    Loop,
    Variable,
    bind,
    bind_to_run,
    dtype_of,
    shape_of,
)
from gradlab.tracing.leaves import is_inexact


class Value(NamedTuple):
    """A value on its way through a program.

    `depends`: on the program's inputs. `rough`: does not, but was rounded on its way.
    """

    array: Array
    depends: bool
    rough: bool = False


class Evaluator(Interpreter[Value]):
    """Evaluates equations as they were traced; see the methods that subclasses replace."""

    staged = True
    """Whether loops and branches are rebuilt, for JAX to compile, and not run."""

    counts_iterations = False

    bind: Callable[[Equation, Sequence[Array]], list[Any]] = staticmethod(bind)
    """What evaluates one equation as it was traced."""

    def constant(self, array: Array) -> Value:
        """Bring a constant of the program in."""
        return Value(array, False)

    def equation(self, equation: Equation, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate one equation that is neither a call nor a loop nor a branch."""
        depends = any(value.depends for value in inputs)
        return [Value(y, depends) for y in self.bind(equation, [value.array for value in inputs])]

    def concrete(self, value: Value) -> Any:
        """Return the number by which a branch is chosen or a `while` goes on."""
        return np.asarray(value.array)

    def choose(
        self, which: Any, alternatives: list[list[Value]], atoms: Sequence[Atom], rows: int = 0
    ) -> list[Value]:
        """Return the values of the alternative whose number each draw, and each row, has."""
        return [
            values[0]._replace(
                array=picked(which, [value.array for value in values], len(atom.aval.shape), rows)
            )
            for values, atom in zip(zip(*alternatives), atoms)
        ]

    def row(self, value: Value, index: int, atom: Atom) -> Value:
        """Return what a turn of a `scan` reads of a column."""
        drawn = value.array.ndim > len(atom.aval.shape)
        return value._replace(array=value.array[:, index] if drawn else value.array[index, ...])

    def stack(self, rows: list[Value], variable: Variable) -> Value:
        """Return the rows of a `scan` as one value."""
        if not rows:
            return Value(np.zeros(shape_of(variable), dtype_of(variable)), False)
        arrays = [value.array for value in rows]
        drawn = max(array.ndim for array in arrays) == len(shape_of(variable))
        if drawn:
            arrays = list(np.broadcast_arrays(*arrays))
        return rows[0]._replace(array=np.stack(arrays, axis=int(drawn)))

    def fit(self, value: Value, depends: bool) -> Any:
        """Return the array of a value that joins others (a carry, a branch) which may depend."""
        return value.array

    def joining(self, equation: Equation, inputs: list[Value]) -> Callable[..., list[Value]]:
        """Return what widens a carry, a row or a branch's output where another one depends."""
        flags = _joined(equation, [value.depends for value in inputs])

        def join(inner: "Evaluator", values: Sequence[Value]) -> list[Value]:
            return [Value(inner.fit(v, d), d, not d) for v, d in zip(values, flags)]

        return join

    def steady(self) -> "Evaluator | None":
        """Return the evaluator whose values decide how often a `while` runs; None: this one.

        With noise in it, a loop that runs until it has converged would never end.
        """
        return None

    def scan(self, equation: Equation, inputs: list[Value]) -> list[Value]:
        """Run a `scan`, or rebuild it."""
        return _scan(self, equation, inputs) if self.staged else super().scan(equation, inputs)

    def while_loop(self, equation: Equation, inputs: list[Value]) -> list[Value]:
        """Run a `while`, or rebuild it."""
        if self.staged:
            return _while(self, equation, inputs)
        return super().while_loop(equation, inputs)

    def cond(self, equation: Equation, inputs: list[Value]) -> list[Value]:
        """Run the branch that is chosen, or rebuild the choice."""
        if self.staged and platform_branch(equation) is None:
            return _cond(self, equation, inputs)
        return super().cond(equation, inputs)


class Runner(Evaluator):
    """Evaluates as traced what is then compiled and run, and never differentiated."""

    bind = staticmethod(bind_to_run)


def _joined(equation: Equation, flags: Sequence[bool]) -> list[bool]:
    """Return which outputs of a loop or a `cond` may depend on flagged operands."""
    if equation.primitive.name == "cond":
        return [
            flags[0] or any(column)
            for column in zip(*(flow(b, flags[1:]) for b in equation.params["branches"]))
        ]
    loop = Loop.of(equation)
    state = carried(equation, flags)
    fixed, _, columns = loop.split(flags)
    if equation.primitive.name == "while":
        return state
    return [*state, *flow(loop.body, [*fixed, *state, *columns])[loop.carried :]]


def _scan(self: Evaluator, equation: Equation, inputs: list[Value]) -> list[Value]:
    loop = Loop.of(equation)
    fixed, start, columns = loop.split(inputs)
    ends = _joined(equation, [value.depends for value in inputs])
    carry, jaxpr, state = loop.carried, loop.body, ends[: loop.carried]

    def step(state_: Any, column: Any) -> Any:
        iteration, carried_ = state_
        inner = self.enter(iteration if self.counts_iterations else None)
        arguments = [
            *fixed,
            *(Value(a, d) for a, d in zip(carried_, state)),
            *(Value(a, v.depends, v.rough) for a, v in zip(column, columns)),
        ]
        outputs = inner(jaxpr, arguments)
        following = [inner.fit(v, d) for v, d in zip(outputs[:carry], state)]
        rows = [inner.fit(v, d) for v, d in zip(outputs[carry:], ends[carry:])]
        return (iteration + 1 if self.counts_iterations else iteration, following), rows

    (_, last), rows = jax.lax.scan(
        step,
        (np.int32(0) if self.counts_iterations else None, _fitted(self, start, state)),
        [value.array for value in columns],
        length=equation.params["length"],
        reverse=equation.params["reverse"],
    )
    return [Value(a, d, not d) for a, d in zip([*last, *rows], ends)]


def _while(self: Evaluator, equation: Equation, inputs: list[Value]) -> list[Value]:
    loop = Loop.of(equation)
    state = carried(equation, [value.depends for value in inputs])
    fixed, start, _ = loop.split(inputs)
    tested = inputs[: loop.tested]

    steady = self.steady()

    def going(arrays: Array) -> Any:
        """Return whether the loop goes on; one answer per row where vmap made it several."""
        values = [Value(a, d) for a, d in zip(arrays, state)]
        judge = steady or self.enter()
        return judge(loop.condition, [*tested, *values])[0].array

    def condition(carry: Any) -> Any:
        goes_on = jax.numpy.any(going(carry[-1]))
        return goes_on if self.turns is None else goes_on & (carry[0] < self.turns)

    def step(carry: Any) -> Any:
        turn, *carry = carry
        stepped = [turn if self.turns is None else turn + 1]
        alive = going(carry[-1])
        evaluators = [self] if steady is None else [self, steady]
        for evaluator, arrays in zip(evaluators, carry):
            inner = evaluator.enter()
            values = [Value(a, d) for a, d in zip(arrays, state)]
            outputs = inner(loop.body, [*fixed, *values])
            following = _fitted(inner, outputs, state)
            stepped.append([_where(alive, a, b) for a, b in zip(following, arrays)])
        return tuple(stepped)

    first_state = _fitted(self, start, state)
    turn = None if self.turns is None else jax.numpy.zeros_like(self.turns)
    last: Any = jax.lax.while_loop(
        condition, step, (turn, *(first_state,) * (1 if steady is None else 2))
    )
    found: list[Any] = list(last[1])
    if turn is not None:  # what was stopped has no value
        ended = ~jax.numpy.any(going(last[-1]))
        found = [jax.numpy.where(ended, a, np.nan) if is_inexact(a.dtype) else a for a in found]
    return [Value(a, d, not d) for a, d in zip(found, state)]


def _where(alive: Any, following: Any, before: Array) -> Any:
    """Return the next state of the rows that go on, and leave the others."""
    if not alive.ndim:
        return following
    rows = jax.lax.broadcast_in_dim(alive, following.shape, tuple(range(alive.ndim)))
    return jax.lax.select(rows, following, before)


def _cond(self: Evaluator, equation: Equation, inputs: list[Value]) -> list[Value]:
    branches = equation.params["branches"]
    index, operands = inputs[0], inputs[1:]
    ends = _joined(equation, [value.depends for value in inputs])

    def taken(branch: Any) -> Any:
        def run() -> list[Any]:
            inner = self.enter()
            return _fitted(inner, inner(branch, operands), ends)

        return run

    outputs = jax.lax.switch(index.array, [taken(branch) for branch in branches])
    return [Value(a, d, not d) for a, d in zip(outputs, ends)]


def _fitted(self: Evaluator, values: Sequence[Value], flags: Sequence[bool]) -> list[Any]:
    return [self.fit(value, depends) for value, depends in zip(values, flags)]
