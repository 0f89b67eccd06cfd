"""One equation of a traced program as a node, with JAX's own gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, is_inexact
from gradlab.errors import InputError
from gradlab.nodes import Node
from gradlab.nodes._base import Kept, Outputs, Pulled
from gradlab.operators import Diagonal, Operator
from gradlab.primitives import lookup

Evaluate: TypeAlias = Callable[[Sequence[Array]], list[Array]]


@dataclass(frozen=True, eq=False)
class Equation(Node):
    """An equation that no hand-written node stands for: a primitive, a loop, a custom rule."""

    primitive: str
    evaluate: Evaluate = field(repr=False)
    several: bool = field(repr=False)

    def forward(self, *inputs: Array) -> tuple[Outputs, Kept]:
        outputs = self.evaluate(inputs)
        return tuple(outputs) if self.several else outputs[0], inputs

    def local_gradient(self, residuals: Kept) -> tuple[Pulled, ...]:
        inputs = residuals
        if len(inputs) == 1 and lookup(self.primitive).entrywise:
            ones = jnp.ones_like(self.forward(*inputs)[0])
            found = self.backward(ones, inputs)
            return tuple(None if d is None else Diagonal(np.asarray(d)) for d in found)
        outputs = self.evaluate(inputs)
        rows = tuple(
            tuple(
                JaxMap(self.evaluate, inputs, i, k) if is_inexact(x.dtype) else None
                for i, x in enumerate(inputs)
            )
            if is_inexact(y.dtype)
            else (None,) * len(inputs)
            for k, y in enumerate(outputs)
        )
        return rows if self.several else rows[0]

    def backward(self, upstream: Outputs, residuals: Kept) -> tuple[Pulled, ...]:
        inputs = residuals
        active = [i for i, x in enumerate(inputs) if is_inexact(x.dtype)]

        def outputs(*given: Array) -> list[Array]:
            merged = list(inputs)
            for i, x in zip(active, given):
                merged[i] = x
            return [y for y in self.evaluate(merged) if is_inexact(y.dtype)]

        if self.primitive == "while":
            raise InputError(
                "backward: JAX has no gradient for a `while` loop, whose number of turns is not "
                "known before it runs; use `jax.lax.scan`, or `fori_loop` with fixed bounds"
            )
        results, pull = jax.vjp(outputs, *(jnp.asarray(inputs[i]) for i in active))
        given = upstream if self.several else (upstream,)
        upstreams = [u for u in given if is_inexact(u.dtype)]
        gradients = iter(pull([u.astype(y.dtype) for u, y in zip(upstreams, results)]))
        return tuple(next(gradients) if i in active else None for i in range(len(inputs)))

    def reference(self, *inputs: Array) -> Outputs:
        return self.forward(*inputs)[0]


class JaxMap(Operator):
    """The derivative of one output of an equation in one input, as JAX applies it.

    It stores the inputs alone; its structure is not known here, so its pattern is full.
    """

    opaque = True  # what its pattern says is not worth a word
    transposed_name = "JaxMap"

    def __init__(
        self, evaluate: Evaluate, inputs: Sequence[Array], position: int, output: int
    ) -> None:
        self._made_of = (evaluate, tuple(inputs), position, output)
        # JAX makes the attributes of its configuration while it is imported; no type is declared
        self._x64 = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]  # made at run time
        x = np.asarray(inputs[position])
        y = jax.eval_shape(self._function, x)
        super().__init__(y.shape, x.shape, np.dtype(y.dtype), (x,))

    def _function(self, x: Array) -> Array:
        evaluate, inputs, position, output = self._made_of
        return evaluate([*inputs[:position], x, *inputs[position + 1 :]])[output]

    def _apply(self, x: Array) -> Array:
        at = self.arrays[0]
        with jax.enable_x64(self._x64):
            return np.asarray(jax.jvp(self._function, (at,), (jnp.asarray(x, at.dtype),))[1])

    def _apply_transposed(self, y: Array) -> Array:
        with jax.enable_x64(self._x64):
            _, pull = jax.vjp(self._function, self.arrays[0])
            return np.asarray(pull(jnp.asarray(y, self.dtype))[0])
