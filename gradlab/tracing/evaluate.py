"""Evaluate a jaxpr equation by equation: the one interpreter that stripping and lifting share.

A subclass of `Evaluator` says what one equation becomes; calls are inlined, loops and branches are
rebuilt around the evaluated bodies, and what no output needs is never evaluated.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab.tracing.dependence import call_jaxpr, carried, flow
from gradlab.tracing.jaxprs import Literal, bind, body, dtype_of, loop_parts

__all__ = ["Evaluator", "Value"]


class Value(NamedTuple):
    """A value on its way through a program.

    `depends`: on the program's inputs. `rough`: does not, but was rounded on its way.
    """

    array: Any
    depends: bool
    rough: bool = False


class Evaluator:
    """Evaluates equations as they were traced; see the methods that subclasses replace."""

    counts_iterations = False

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate one equation that is neither a call nor a loop nor a branch."""
        depends = any(value.depends for value in inputs)
        return [Value(out, depends) for out in bind(equation, [value.array for value in inputs])]

    def simplified(self, equations: list[Any], outvars: Sequence[Any]) -> list[Any]:
        """Return the equations to evaluate for a jaxpr's needed ones."""
        return equations

    def keeps(self, equation: Any) -> bool:
        """Whether an equation with inner jaxprs is evaluated as it is, not opened."""
        return False

    def constant(self, array: Any) -> Value:
        """Bring a constant of the program in."""
        return Value(array, False)

    def fit(self, value: Value, depends: bool) -> Any:
        """Return the array of a value that joins others (a carry, a branch) which may depend."""
        return value.array

    def enter(self, iteration: Any = None) -> "Evaluator":
        """Return the evaluator of a loop's body or a branch; `iteration` counts where it can."""
        return self

    def share(
        self, equation: Any, inputs: list[Value], evaluate: Callable[[], list[Value]]
    ) -> list[Value]:
        """Evaluate an equation, or return what an equal one gave."""
        return evaluate()

    def steady(self) -> "Evaluator | None":
        """Return the evaluator whose values decide how often a `while` runs; None: this one.

        With noise in it, a loop that runs until it has converged would never end.
        """
        return None

    def __call__(self, jaxpr: Any, arguments: Sequence[Value]) -> list[Value]:
        """Evaluate a jaxpr's outputs."""
        parts = body(jaxpr)
        env: dict[Any, Value] = dict(zip(parts.invars, arguments))
        env.update(zip(parts.constvars, map(self.constant, parts.constants)))

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return self.constant(np.asarray(atom.val, dtype_of(atom)))
            return env[atom]

        for equation in self.simplified(_needed(parts), parts.outvars):
            outputs = self._open(equation, [read(atom) for atom in equation.invars])
            env.update(zip(equation.outvars, outputs))
        return [read(atom) for atom in parts.outvars]

    def _open(self, equation: Any, inputs: list[Value]) -> list[Value]:
        kept = self.keeps(equation)
        inner = None if kept else call_jaxpr(equation)
        if inner is not None:
            return self(inner, inputs)

        def evaluate() -> list[Value]:
            opener = None if kept else _OPENERS.get(equation.primitive.name)
            return opener(self, equation, inputs) if opener else self.equation(equation, inputs)

        return self.share(equation, inputs, evaluate)


def _needed(parts: Any) -> list[Any]:
    """Return the equations that an output needs, or that have an effect."""
    wanted = {atom for atom in parts.outvars if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(parts.equations):
        if equation.effects or not wanted.isdisjoint(equation.outvars):
            kept.append(equation)
            wanted.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return kept[::-1]


def _scan(self: Evaluator, equation: Any, inputs: list[Value]) -> list[Value]:
    constants, carry = loop_parts(equation)
    jaxpr = equation.params["jaxpr"]
    flags = [value.depends for value in inputs]
    state = carried(equation, flags)
    inside = [*flags[:constants], *state, *flags[constants + carry :]]
    ends = flow(jaxpr, inside)
    fixed, start, columns = (
        inputs[:constants],
        inputs[constants : constants + carry],
        inputs[constants + carry :],
    )

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
    return [Value(a, d, not d) for a, d in zip([*last, *rows], [*state, *ends[carry:]])]


def _while(self: Evaluator, equation: Any, inputs: list[Value]) -> list[Value]:
    first, second = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    state = carried(equation, [value.depends for value in inputs])
    tested, fixed, start = inputs[:first], inputs[first : first + second], inputs[first + second :]

    steady = self.steady()

    def going(arrays: Any) -> Any:
        """Return whether the loop goes on; one answer per row where vmap made it several."""
        values = [Value(a, d) for a, d in zip(arrays, state)]
        judge = steady or self.enter()
        return judge(equation.params["cond_jaxpr"], [*tested, *values])[0].array

    def condition(carry: Any) -> Any:
        return jax.numpy.any(going(carry[-1]))

    def step(carry: Any) -> Any:
        stepped = []
        alive = going(carry[-1])
        evaluators = [self] if steady is None else [self, steady]
        for evaluator, arrays in zip(evaluators, carry):
            inner = evaluator.enter()
            values = [Value(a, d) for a, d in zip(arrays, state)]
            outputs = inner(equation.params["body_jaxpr"], [*fixed, *values])
            following = _fitted(inner, outputs, state)
            stepped.append([_where(alive, a, b) for a, b in zip(following, arrays)])
        return tuple(stepped)

    first_state = _fitted(self, start, state)
    last = jax.lax.while_loop(condition, step, (first_state,) * (1 if steady is None else 2))
    return [Value(a, d, not d) for a, d in zip(last[0], state)]


def _where(alive: Any, following: Any, before: Any) -> Any:
    """Return the next state of the rows that go on, and leave the others."""
    if not alive.ndim:
        return following
    rows = jax.lax.broadcast_in_dim(alive, following.shape, tuple(range(alive.ndim)))
    return jax.lax.select(rows, following, before)


def _cond(self: Evaluator, equation: Any, inputs: list[Value]) -> list[Value]:
    branches = equation.params["branches"]
    platforms = equation.params.get("branches_platforms")
    if platforms:  # the reference runs on the CPU, so its branch is known
        chosen = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
        return self(branches[chosen], inputs[1:])
    index, operands = inputs[0], inputs[1:]
    flags = [value.depends for value in operands]
    ends = [index.depends or any(column) for column in zip(*(flow(b, flags) for b in branches))]

    def taken(branch: Any) -> Any:
        def run() -> list[Any]:
            inner = self.enter()
            return _fitted(inner, inner(branch, operands), ends)

        return run

    outputs = jax.lax.switch(index.array, [taken(branch) for branch in branches])
    return [Value(a, d, not d) for a, d in zip(outputs, ends)]


def _linear_solve(self: Evaluator, equation: Any, inputs: list[Value]) -> list[Value]:
    """Inline the `solve` of a `custom_linear_solve`."""
    lengths, solve = equation.params["const_lengths"], equation.params["jaxprs"].solve
    before = lengths.matvec + lengths.vecmat
    constants = inputs[before : before + lengths.solve]
    return self(solve, [*constants, *inputs[sum(lengths) :]])


def _fitted(self: Evaluator, values: Sequence[Value], flags: Sequence[bool]) -> list[Any]:
    return [self.fit(value, depends) for value, depends in zip(values, flags)]


_OPENERS = {"scan": _scan, "while": _while, "cond": _cond, "custom_linear_solve": _linear_solve}
