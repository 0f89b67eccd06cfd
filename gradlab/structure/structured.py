"""The Jacobian as a structured operator: the linearised program, read as a sum of terms.

A softmax is a diagonal plus rank one in each row, and a layer norm a diagonal plus rank two, from
their programs alone. A program that terms cannot say is one operator that runs it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, DTypeLike
from gradlab.operators import Dense, Operator
from gradlab.patterns import Pattern
from gradlab.structure.evaluate import Derivative
from gradlab.structure.linear import Known, Opaque, Reader, Value
from gradlab.structure.terms import Arrays
from gradlab.tracing.linearise import Linearised


class Program(Operator):
    """A map of which only the program is known: a JVP, and its transpose; it holds no array.

    Args:
        derivative: of the function.
        values: its point.
        block: the numbers of output and input.
        pattern: which entries may be nonzero.
    """

    def __init__(
        self,
        derivative: Derivative,
        values: Sequence[Array],
        block: tuple[int, int],
        pattern: Pattern,
    ) -> None:
        given, made = derivative.modes["jvp"]
        out, source = made[block[0]], given[block[1]]
        super().__init__(out.shape, source.shape, out.dtype)
        self._derivative, self._values, self._block = derivative, values, block
        self._pattern = pattern

    @property
    def pattern(self) -> Pattern:
        """What is proved of the function's Jacobian."""
        return self._pattern

    def _run(self, mode: str, x: Array) -> Any:
        at, places = self._derivative, self._block[::-1] if mode == "jvp" else self._block
        sides = at.modes[mode]
        sizes = [[math.prod(a.shape) for a in side] for side in sides]
        first, start = (sum(side[:place]) for side, place in zip(sizes, places, strict=True))
        aval = sides[1][places[1]]
        with jax.enable_x64(at.program.x64):
            flat = jnp.ravel(jnp.asarray(x))
            seed = jnp.pad(flat, (first, sum(sizes[0]) - first - flat.size))
            made = at.along(mode, self._values, seed)
            return made[start : start + math.prod(aval.shape)].reshape(aval.shape)

    def _apply(self, x: Array) -> Any:
        return self._run("jvp", x)

    def _apply_transposed(self, y: Array) -> Any:
        return self._run("vjp", y)


class Structured(Operator):
    """An operator that was read from a program, and prints as a formula.

    Args:
        operator: what was read.
        formula: of it, such as `diag(d) + u v' for each i`.
    """

    def __init__(self, operator: Operator, formula: str) -> None:
        super().__init__(
            operator.output_shape, operator.input_shape, operator.dtype, operator.arrays
        )
        self.operator, self.formula = operator, formula

    def _apply(self, x: Array) -> Any:
        with _precision(self.dtype):
            return self.operator.apply(x)

    def _dense(self) -> Any:
        with _precision(self.dtype):
            return self.operator.to_dense(self.dense_bytes)

    @property
    def T(self) -> Operator:
        """The transpose."""
        return Structured(self.operator.T, f"({self.formula})'")

    @property
    def pattern(self) -> Any:
        """Which output entries may depend on which input entries."""
        return self.operator.pattern

    @property
    def stored_bytes(self) -> int:
        """The bytes of the arrays that it holds, each counted once."""
        arrays = {id(a): math.prod(a.shape) * a.dtype.itemsize for a in _arrays(self.operator)}
        return sum(arrays.values())

    def __str__(self) -> str:
        return self.formula


def _precision(dtype: DTypeLike) -> Any:
    """Allow float64 where an operator has it, whatever the caller's setting."""
    config: Any = jax.config
    return jax.enable_x64(config.jax_enable_x64 or np.dtype(dtype) in (np.float64, np.complex128))


def _arrays(operator: Operator) -> list[Any]:
    parts = getattr(operator, "terms", getattr(operator, "factors", ()))
    inner = getattr(operator, "operator", None)
    nested = [*parts, *([inner] if inner is not None else [])]
    return [a for part in nested for a in _arrays(part)] if nested else list(operator.arrays)


def operators_of(
    derivative: Derivative,
    linear: Linearised,
    values: Sequence[Array],
    patterns: Mapping[tuple[int, int], Pattern],
) -> dict[tuple[int, int], Structured]:
    """Return the operator of each block, by the numbers of output and input, at a point.

    A block whose program holds a loop, or a primitive that terms cannot say, is one `Program`.

    Args:
        derivative: of the function.
        linear: the program of its derivative.
        values: the flat traced inputs.
        patterns: which entries of each block may be nonzero.
    """
    given, made = derivative.modes["jvp"]
    seeds = given if linear.mode == "jvp" else made
    arrays = Arrays()
    reader = Reader(arrays)
    known: list[Value] = [reader.known(value) for value in values]
    start: list[Value] = [{n: [reader.identity(aval.shape)]} for n, aval in enumerate(seeds)]
    found: list[Value] | None = None
    why = ""
    try:
        found = reader.run(linear.jaxpr, [*known, *start])
    except Opaque as error:
        why = str(error)
    blocks = {}
    for o, out in enumerate(made):
        for i, source in enumerate(given):
            if found is None:
                program = Program(derivative, values, (o, i), patterns[o, i])
                blocks[o, i] = Structured(program, f"JVP of the program ({why} has no terms)")
                continue
            result, seed = (found[o], i) if linear.mode == "jvp" else (found[i], o)
            terms = [] if isinstance(result, Known) else result.get(seed, [])
            if linear.mode == "vjp":
                terms = [replace(t, out=t.into, into=t.out) for t in terms]
            read = Structured(*arrays.operator(terms, out, source))
            if read.stored_bytes > read.dense_bytes:
                dense = read.to_dense(read.dense_bytes)
                read = Structured(Dense(dense, out.shape, source.shape), "W")
            blocks[o, i] = read
    return blocks
