"""What is computed within a forward, and the right gradients there."""

import copy
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Tree
from gradlab.repair.world import theirs
from gradlab.tracing import JAX, Arithmetic, Lifter, NumPy, Program, Value, run_lifted, trace
from gradlab.tracing.interpreter import Interpreter
from gradlab.tracing.jaxprs import body
from gradlab.tracing.leaves import is_inexact

_OUTERMOST = 1  # the number of the call that evaluates a program as a whole
_Variable = tuple[int, int]  # the turn of a loop, and what tells variables apart
_NEAR = 1e-7
_AXES = 4  # of a value that is tried with its axes in other orders


@dataclass(frozen=True)
class Within:
    """What is computed within a forward: the values, and the right gradients there.

    `whole` has each value with its gradient, `parts` each with the share of one of its uses, `sums`
    the sums of some shares of a value: a loop adds the others elsewhere. `gradients` has all these.
    """

    values: list[Array]
    gradients: list[Array]
    whole: list[tuple[Array, Array]]
    parts: list[tuple[Array, Array]]
    sums: list[Array]


class Known:
    """Some arrays, and their norms, by which one of them is found."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self.arrays = arrays
        self.norms = np.array([np.linalg.norm(each) for each in arrays])

    def holds(self, value: Array, turns: bool = True, shaped: bool = False) -> bool:
        """Whether a value is one of these, or, if it `turns`, one with its axes in other orders.

        With `shaped` it may not be reshaped, but for axes of length 1: that may be a mistake.
        """
        return self.find(value, -1, turns, shaped) >= 0 or not value.any()

    def find(
        self, value: Array, default: int = -1, turns: bool = True, shaped: bool = False
    ) -> int:
        """Return the number of the array that a value is, or the default."""
        size, last = float(np.linalg.norm(value)), None if turns else 1
        for k in np.flatnonzero(np.abs(self.norms - size) <= _NEAR * size).tolist():
            same = not shaped or _lengths(self.arrays[k]) == _lengths(value)
            ways = itertools.islice(turned(self.arrays[k], value.shape), not same, last)
            if any(equal(way, value) for way in ways):
                return int(k)
        return default


def turned(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield an array reshaped, and with its axes in each other order that gives this shape."""
    if array.size == math.prod(shape):
        yield array.reshape(shape)
    if 2 <= array.ndim <= _AXES and sorted(array.shape) == sorted(shape):
        for order in itertools.islice(itertools.permutations(range(array.ndim)), 1, None):
            if tuple(array.shape[axis] for axis in order) == shape:
                yield array.transpose(order)


def _lengths(array: Array) -> list[int]:
    return [n for n in array.shape if n > 1]


def equal(one: Any, other: Any) -> bool:
    """Whether two arrays are the same up to rounding."""
    if one is None or other is None or np.shape(one) != np.shape(other):
        return one is other
    one, other = np.asarray(one), np.asarray(other)
    if jax.dtypes.float0 in (one.dtype, other.dtype):  # the tangent of a whole number
        return bool(one.dtype == other.dtype)
    size = np.abs(one)
    return bool((np.abs(one - other) <= _NEAR * (size + size.max(initial=0.0))).all())


def gradients_within(
    program: Program, inputs: Sequence[Tree], more: Sequence[Any], forward: bool
) -> Within:
    """Return each value of a program, and the gradients with respect to it and to each use of it.

    Args:
        program: the forward.
        inputs: its flat inputs.
        more: one upstream for each inexact output; one tangent for each inexact input.
        forward: whether tangents are wanted, in the place of gradients.
    """
    names = [f"array {k}" for k in range(len(inputs) + len(more))]
    wide = list(map(_value, inputs))

    def outputs(arrays: Sequence[Any], moves: Any) -> tuple[list[Any], list[Any]]:
        lifter = _Moved(JAX, moves, counter.alone)
        given = [Value(a, v.depends) for a, v in zip(arrays, wide)]
        results = [lifter.wide(v) for v in lifter(program.jaxpr, given)]
        return [r for r in results if is_inexact(r.dtype)], lifter.arrays

    def derived(*arrays: Any) -> Any:
        given, rest = list(arrays[: len(wide)]), list(arrays[len(wide) :])
        moving = [k for k, v in enumerate(wide) if v.depends]
        if not forward:
            return jax.vjp(lambda moves: outputs(given, moves)[0], zeros)[1](rest)[0]

        def values(*some: Any) -> list[Tree]:
            full = dict(enumerate(given)) | dict(zip(moving, some))
            return outputs(list(full.values()), None)[1]

        return jax.jvp(values, [given[k] for k in moving], rest)[1]

    with jax.enable_x64(True):
        counter = _Moved(NumPy(), None)
        theirs(counter, program.jaxpr, wide)
        kept = [k for k in range(len(counter.arrays)) if k not in counter.alone]
        zeros = [np.zeros(np.shape(counter.arrays[k])) for k in kept]
        traced = theirs(functools.partial(trace, names=names), derived, *inputs, *more)
        found = theirs(run_lifted, traced.jaxpr, [*inputs, *more])
    if len(found) != len(kept):  # a loop runs as often as its values say
        return Within(_distinct(counter.arrays), _distinct(found), [], [], [])
    at, numbers_ = dict(zip(kept, found)), {k: n for n, k in enumerate(kept)}
    at |= {use: at[made] for use, made in counter.alone.items()}
    parts = [(counter.arrays[k], at[k]) for uses in counter.uses.values() for k in uses]
    whole = [(counter.arrays[k], at[k]) for k in counter.made]
    inputs_ = (uses for ((turn, _), _), uses in counter.uses.items() if turn == _OUTERMOST)
    moved = ([uses[0]] if forward else uses for uses in inputs_)  # a call may read a part alone
    whole += [(counter.arrays[uses[0]], sum(at[k] for k in uses)) for uses in moved]
    added = []
    # a function that is called uses a value several times
    for uses in counter.uses.values() if not forward else ():
        for order in (uses, uses[::-1]) if len(uses) > 1 else ():
            sums = itertools.accumulate((at[k] for k in order), np.add)
            added += [(numbers_.get(uses[0], 0), each) for each in sums][1:]
    placed = sorted([*enumerate(found), *added], key=lambda pair: pair[0])
    gradients = _distinct([g for _, g in placed])
    return Within(_distinct(counter.arrays), gradients, whole, parts, [g for _, g in added])


def _distinct(arrays: Sequence[Array]) -> list[Array]:
    kept: dict[tuple[tuple[int, ...], float], list[Array]] = {}
    for each in arrays:
        size = float(np.linalg.norm(each))
        near = kept.setdefault((each.shape, float(f"{size:.5g}")), [])
        if size and not any(equal(each, other) for other in near):
            near.append(each)
    return [each for near in kept.values() for each in near]


def _value(array: Any) -> Value:
    return Value(np.asarray(array), is_inexact(np.asarray(array).dtype))


class _Moved(Lifter):
    """Lifts, and adds a move to every value and to every use of it.

    Args:
        arithmetic: in which it lifts.
        moves: what is added; None where values are only noted.
        without: the numbers of the moves that are none.
    """

    def __init__(
        self,
        arithmetic: Arithmetic,
        moves: Sequence[Any] | None,
        without: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(arithmetic)
        self._moves, self._without = moves, without or {}
        self._numbers, self._turns, self._turn = itertools.count(), itertools.count(_OUTERMOST), 0
        self._in_a_loop = False
        self.arrays: list[Any] = []
        self.made: list[int] = []  # the moves of what equations make
        self._makers: dict[_Variable, int] = {}
        self._held: list[Any] = []  # no other variable gets the number of one that is gone
        self.uses: dict[tuple[_Variable, tuple[int, ...]], list[int]] = {}  # the moves of each

    @property
    def alone(self) -> dict[int, int]:
        """The moves of values that one equation reads, with those of the values themselves."""
        once = ((uses[0], key[0]) for key, uses in self.uses.items() if len(uses) == 1)
        return {use: self._makers[made] for use, made in once if made in self._makers}

    def enter(self, turn: Any = None) -> Self:
        inner = copy.copy(self)
        inner._in_a_loop = True
        return inner

    def scan(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Run a `scan` turn after turn, in JAX too: each turn has gradients of its own."""
        return Interpreter.scan(self, equation, inputs)

    def stack(self, rows: list[Value], variable: Any) -> Value:
        """Return the rows of a `scan` as one value."""
        if not (rows and self.staged):
            return super().stack(rows, variable)
        return rows[0]._replace(array=jax.numpy.stack([row.array for row in rows]))

    def __call__(self, jaxpr: Any, arguments: Sequence[Value]) -> list[Value]:
        """Evaluate a jaxpr, whose variables have other values at each call and in each turn.

        What a loop gives to a turn, and takes from it, is moved too.
        """
        inner = copy.copy(self)
        inner._turn, inner._in_a_loop = next(self._turns), False
        if not self._in_a_loop:
            return Lifter.__call__(inner, jaxpr, arguments)
        self._held.append(jaxpr)
        parts = body(jaxpr)
        given = [inner._made(v, x) for v, x in zip(parts.invars, arguments)]
        made = Lifter.__call__(inner, jaxpr, given)
        return [inner._used(v, x) for v, x in zip(parts.outvars, made)]

    def _made(self, variable: Any, value: Value) -> Value:
        if not (value.depends and is_inexact(value.array.dtype)):
            return value
        array = self._plus(value.array, self.made)
        self._makers[self._turn, id(variable)] = self.made[-1]
        return Value(array, True)

    def _used(self, variable: Any, value: Value) -> Value:
        if not (value.depends and is_inexact(value.array.dtype)):
            return value
        uses = self.uses.setdefault(((self._turn, id(variable)), np.shape(value.array)), [])
        return Value(self._plus(value.array, uses), True)

    def before(self, equation: Any, arrays: list[Any]) -> list[Any]:
        self._held.append(equation)
        return [
            self._plus(array, self.uses.setdefault(((self._turn, id(atom)), np.shape(array)), []))
            if is_inexact(array.dtype)
            else array
            for atom, array in zip(equation.invars, arrays)
        ]

    def after(self, equation: Any, inputs: Any, arrays: list[Any], outputs: list[Any]) -> list[Any]:
        moved = []
        for variable, array in zip(equation.outvars, outputs):
            if is_inexact(array.dtype):
                array = self._plus(array, self.made)
                self._makers[self._turn, id(variable)] = self.made[-1]
            moved.append(array)
        return moved

    def _plus(self, array: Any, moves: list[int]) -> Any:
        """Return an array with its move, whose number is noted."""
        moves.append(number := next(self._numbers))
        if number in self._without:
            return array
        self.arrays.append(array)
        return array if self._moves is None else array + self._moves[len(self.arrays) - 1]
