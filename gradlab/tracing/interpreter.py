"""The one walk over the equations of a jaxpr; a subclass, the algebra, says what arithmetic is.

Calls, custom rules (their primal), `remat`, `scan`, `while`, `cond` and linear solves are written
here, once: a loop is run, turn after turn, and a branch is chosen by its concrete index. Values may
be anything: arrays, arrays of many draws, residues of a prime field.

An algebra must say how a constant enters (`constant`), what one leaf equation does (`equation`),
which number decides (`concrete`), and how rows are taken and put together (`row`, `stack`).
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np

from gradlab.common.arrays import Array, NumPyArray
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.identity import fingerprint
from gradlab.tracing.jaxprs import (
    Atom,
    Body,
    Equation,
    Jaxpr,
    Literal,
    Loop,
    Variable,
    at_line,
    body,
    dtype_of,
    needed,
    once,
)
from gradlab.tracing.leaves import in_numpy

V = TypeVar("V")
Simplify = Callable[[list[Any], Sequence[Any]], list[Any]]


class TooLong(Exception):
    """A loop runs longer than the walk may."""


class Interpreter(Generic[V]):
    """Evaluates jaxprs in an algebra of values `V`; call it with a jaxpr and its inputs."""

    turns: Any = None
    """How many turns the loops may have together; then `TooLong`. None: no end.

    Where JAX rebuilds loops, each may have so many; one that is stopped there gives NaN.
    """

    staged = False
    """Whether JAX computes. Otherwise constants come in as arrays of NumPy."""

    # what an algebra gives

    def constant(self, array: NumPyArray) -> V:
        """Bring a constant or a literal of the program in, at the dtype of the trace."""
        raise NotImplementedError

    def equation(self, equation: Equation, inputs: list[V]) -> list[V]:
        """Evaluate one equation that is neither a call nor a loop nor a branch."""
        raise NotImplementedError

    def concrete(self, value: V) -> NumPyArray:
        """Return the number by which a branch is chosen or a `while` goes on.

        Several numbers, one for each draw, are allowed where `choose` is given.
        """
        raise NotImplementedError

    def row(self, value: V, index: int, atom: Atom) -> V:
        """Return `value[index]`, what a turn of a `scan` reads; `atom` has the column's shape."""
        raise NotImplementedError

    def stack(self, rows: list[V], variable: Variable) -> V:
        """Return the rows of a `scan` as one value; `variable` has its shape and dtype."""
        raise NotImplementedError

    # what an algebra may change

    def choose(
        self, which: NumPyArray, alternatives: list[list[V]], atoms: Sequence[Atom], rows: int = 0
    ) -> list[V]:
        """Return the values of the alternative whose number each draw, and each row, has.

        `atoms` have the shapes of the values; `rows` axes of `which` are the program's own.
        """
        raise NotImplementedError

    def goes_on(self, value: V, rows: int) -> NumPyArray:
        """Return whether a `while` goes on, for each row where `vmap` made it several."""
        return self.concrete(value)

    simplified: Simplify = staticmethod(lambda equations, outvars: equations)
    """From the needed equations of a jaxpr, and its outputs, the equations to evaluate."""

    def keeps(self, equation: Equation) -> bool:
        """Whether a call, a loop or a branch goes to `equation` as it is, unopened."""
        return False

    def step(self, step: "Step", inputs: list[V]) -> list[V]:
        """Evaluate an equation that is no call; the place to return what an equal one gave."""
        if step.opens and not self.keeps(step.equation):
            return list(getattr(self, step.opens)(step.equation, inputs))
        return self.equation(step.equation, inputs)

    def enter(self, turn: Any = None) -> Self:
        """Return the interpreter of a loop's body or a branch; `turn` counts those of a `scan`."""
        return self

    def joining(
        self, equation: Equation, inputs: list[V]
    ) -> Callable[[Self, Sequence[V]], list[V]]:
        """Return what makes the outputs of all turns, or of all branches, alike."""
        return lambda inner, values: list(values)

    def hold(self, values: Iterable[V]) -> None:
        """Note that values are kept: none of them may be written into."""

    def release(self, values: Iterable[V]) -> None:
        """Note that values are no longer kept, once for every time that they were held."""

    # the walk

    def __call__(self, jaxpr: Jaxpr, arguments: Sequence[V]) -> list[V]:
        """Evaluate a jaxpr's outputs; a value is dropped when nothing reads it any more."""
        parts, steps, unread = _plan(jaxpr, self.simplified)
        env: dict[Any, V] = dict(zip(parts.invars, arguments))
        constants = parts.constants if self.staged else map(in_numpy, parts.constants)
        env.update(zip(parts.constvars, map(self.constant, constants)))
        del arguments
        self.hold(env.values())
        self.release([env.pop(variable) for variable in unread])

        def read(atom: Atom) -> V:
            if isinstance(atom, Literal):
                return self.constant(np.asarray(atom.val, dtype_of(atom)))
            return env[atom]

        for step in steps:
            inputs = [read(atom) for atom in step.equation.invars]
            self.release([env.pop(variable) for variable in step.last])
            outputs = self._open(step, inputs)
            self.hold(outputs)
            env.update(zip(step.equation.outvars, outputs))
            if step.unread:
                self.release([env.pop(variable) for variable in step.unread])
        results = [read(atom) for atom in parts.outvars]
        self.release(env.values())
        return results

    def _open(self, step: "Step", inputs: list[V]) -> list[V]:
        if step.inner is not None and not self.keeps(step.equation):
            with at_line(step.equation):
                return self(step.inner, inputs)
        return self.step(step, inputs)

    def scan(self, equation: Equation, inputs: list[V]) -> list[V]:
        """Run a `scan`, turn after turn."""
        loop = Loop.of(equation)
        fixed, carry, columns = loop.split(inputs)
        join = self.joining(equation, inputs)
        self.hold([*fixed, *columns])
        carry, rows = join(self, carry), []
        length, atoms = equation.params["length"], loop.split(equation.invars)[2]
        for turn in range(length):
            self._count()
            place = length - 1 - turn if equation.params["reverse"] else turn
            inner = self.enter(turn)
            row = [self.row(value, place, atom) for value, atom in zip(columns, atoms)]
            results = join(inner, inner(loop.body, [*fixed, *carry, *row]))
            carry = results[: loop.carried]
            rows.append(results[loop.carried :])
            self.hold(rows[-1])
        ordered = rows[::-1] if equation.params["reverse"] else rows
        variables = equation.outvars[loop.carried :]
        stacked = [self.stack([r[i] for r in ordered], v) for i, v in enumerate(variables)]
        for row in rows:
            self.release(row)
        self.release([*fixed, *columns])
        return [*carry, *stacked]

    def while_loop(self, equation: Equation, inputs: list[V]) -> list[V]:
        """Run a `while` for as long as its condition holds."""
        loop = Loop.of(equation)
        fixed, carry, _ = loop.split(inputs)
        tested = inputs[: loop.tested]
        join = self.joining(equation, inputs)
        rows = loop.condition.out_avals[0].ndim
        self.hold([*fixed, *tested])
        carry = join(self, carry)
        while True:
            self.hold(carry)
            goes_on = self.goes_on(self.enter()(loop.condition, [*tested, *carry])[0], rows)
            if goes_on.all():
                self.release(carry)
            elif not goes_on.any():
                break
            self._count()
            inner = self.enter()
            following = join(inner, inner(loop.body, [*fixed, *carry]))
            if not goes_on.all():
                self.release(carry)
                both = [carry, following]
                following = self.choose(goes_on.astype(int), both, equation.outvars, rows)
            carry = following
        self.release([*fixed, *tested])
        return carry

    def cond(self, equation: Equation, inputs: list[V]) -> list[V]:
        """Run the branch that is chosen; the one for the CPU where the platform chooses."""
        chosen = platform_branch(equation)
        if chosen is not None:
            return self(equation.params["branches"][chosen], inputs[1:])
        branches = equation.params["branches"]
        taken, which = np.unique(
            np.clip(self.concrete(inputs[0]), 0, len(branches) - 1), return_inverse=True
        )
        join, found = self.joining(equation, inputs), []
        self.hold(inputs)
        for index in taken:
            inner = self.enter()
            found.append(join(inner, inner(branches[index], inputs[1:])))
            self.hold(found[-1])
        self.release(inputs)
        for values in found:
            self.release(values)
        return found[0] if len(found) == 1 else self.choose(which, found, equation.outvars)

    def linear_solve(self, equation: Equation, inputs: list[V]) -> list[V]:
        """Run the `solve` of a `custom_linear_solve`."""
        lengths, solve = equation.params["const_lengths"], equation.params["jaxprs"].solve
        before = lengths.matvec + lengths.vecmat
        constants = inputs[before : before + lengths.solve]
        return self(solve, [*constants, *inputs[sum(lengths) :]])

    def _count(self) -> None:
        if self.turns is not None:
            self.turns -= 1
            if self.turns < 0:
                raise TooLong


def picked(which: NumPyArray, arrays: Sequence[Array], rank: int, rows: int) -> Any:
    """Return, entry by entry, the array whose number `which` has.

    `which` has `rows` axes after those of draws: the first of the arrays' `rank` axes.
    """
    spread = which.reshape(*which.shape, *(1,) * (rank - rows))
    *every, spread = np.broadcast_arrays(*arrays, spread)
    return np.take_along_axis(np.stack(every), spread[None], 0)[0]


def platform_branch(equation: Equation) -> int | None:
    """Return the branch of a `cond` that the CPU takes where the platform chooses, else None."""
    platforms = equation.params.get("branches_platforms")
    if not platforms:
        return None
    return next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)


@dataclass(frozen=True, eq=False)
class Step:
    """One equation: how it is opened, whose last use it is, and which outputs nobody reads."""

    equation: Equation
    opens: str
    inner: Any
    last: tuple[Any, ...]
    unread: tuple[Any, ...]

    @functools.cached_property
    def key(self) -> Hashable | None:
        """What equal equations share; None where a parameter cannot be compared."""
        try:
            return fingerprint(self.equation)
        except TypeError:
            return None


_OPENERS = {
    "scan": "scan",
    "while": "while_loop",
    "cond": "cond",
    "custom_linear_solve": "linear_solve",
}


def _plan(jaxpr: Jaxpr, simplify: Simplify) -> tuple[Body, list[Step], tuple[Any, ...]]:
    """Return a jaxpr's parts, its steps, and the inputs that nobody reads."""
    return body(jaxpr), *_steps(jaxpr, simplify)


@once
def _steps(jaxpr: Jaxpr, simplify: Simplify) -> tuple[list[Step], tuple[Any, ...]]:
    parts = body(jaxpr)
    equations = simplify(needed(parts.equations, parts.outvars), parts.outvars)
    read = {atom for atom in parts.outvars if not isinstance(atom, Literal)}
    steps = []
    for equation in reversed(equations):
        unread = tuple(v for v in dict.fromkeys(equation.outvars) if v not in read)
        atoms = dict.fromkeys(a for a in equation.invars if not isinstance(a, Literal))
        last = tuple(atom for atom in atoms if atom not in read)
        read.update(atoms)
        inner = call_jaxpr(equation)
        opens = _OPENERS.get(equation.primitive.name, "")
        steps.append(Step(equation, opens, inner, last, unread))
    entrance = dict.fromkeys((*parts.invars, *parts.constvars))
    return steps[::-1], tuple(v for v in entrance if v not in read)
