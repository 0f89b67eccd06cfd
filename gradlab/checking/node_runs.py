"""A node's case made concrete, run by hand on any namespace and by JAX's own differentiation.

Either way the result is a dict from quantity to array, so that the two are held together by key:

    ("forward", "output")                the output
    ("local gradient", "d output / d x") the Jacobian as a matrix
    ("backward", "gradient of x")        the gradient for the run's upstream
    ("transpose", "gradient of x")       the same, as local_gradient.T @ upstream
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.common.arrays import Array, DTypeLike, Tree
from gradlab.formatting import shape_text
from gradlab.nodes import Node
from gradlab.nodes._base import Case

Quantities = dict[tuple[str, str], Array]


@dataclass(frozen=True)
class ByHand:
    """What a node's own methods return: local gradients as one row of operators per output."""

    output: tuple[Array, ...]
    gradients: tuple[Array, ...]
    operators: tuple[tuple[Any, ...], ...]  # an operator, or None where there is no gradient


@dataclass(frozen=True)
class Run:
    """One case of a node: its inputs, one upstream per output, and how to speak of it."""

    node: Node
    inputs: tuple[Array, ...]
    upstream: tuple[Array, ...]
    text: str

    @property
    def wrt(self) -> tuple[int, ...]:
        """The positions of the differentiable inputs."""
        return tuple(i for i in range(len(self.inputs)) if self.node.domain(i).differentiable)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        n = len(self.upstream)
        return ("output",) if n == 1 else tuple(f"output[{o}]" for o in range(n))

    def by_hand(self, inputs: tuple[Array, ...], upstream: tuple[Array, ...]) -> ByHand:
        """Run the node's own forward, backward and local gradient."""
        output, residuals = self.node.forward(*inputs)
        several = isinstance(output, tuple)
        gradients = self.node.backward(tuple(upstream) if several else upstream[0], residuals)
        local = self.node.local_gradient(residuals)
        return ByHand(
            output if several else (output,), tuple(gradients), local if several else (local,)
        )

    def quantities(self, hand: ByHand, upstream: tuple[Array, ...]) -> Quantities:
        """Return what the node says, as arrays."""
        found: Quantities = {}
        for name, y, row in zip(self.outputs, hand.output, hand.operators):
            found["forward", name] = y
            for i in self.wrt:
                found["local gradient", self._derivative(name, i)] = row[i].to_dense()
        for i in self.wrt:
            found["backward", self._gradient(i)] = hand.gradients[i]
            pulled = [row[i].T @ u for row, u in zip(hand.operators, upstream)]
            found["transpose", self._gradient(i)] = sum(pulled[1:], start=pulled[0])
        return found

    def reference(self, inputs: tuple[Array, ...]) -> Callable[..., tuple[Array, ...]]:
        """Return the reference as a function of the differentiable inputs alone."""

        def outputs(*chosen: Array) -> tuple[Array, ...]:
            every = list(inputs)
            for i, x in zip(self.wrt, chosen):
                every[i] = x
            y = self.node.reference(*every)
            return y if isinstance(y, tuple) else (y,)

        return outputs

    def by_jax(self, inputs: tuple[Array, ...], upstream: tuple[Array, ...]) -> Quantities:
        """Return what JAX says of the node's reference: its value, `jax.jacfwd` and `jax.grad`."""
        import jax
        import jax.numpy as jnp

        outputs = self.reference(inputs)

        def weighted(*chosen: Array) -> Array:
            return sum(jnp.sum(u * y) for u, y in zip(upstream, outputs(*chosen)))

        chosen = [inputs[i] for i in self.wrt]
        argnums = tuple(range(len(chosen)))
        found: Quantities = {}
        y = outputs(*chosen)
        for name, yo in zip(self.outputs, y):
            found["forward", name] = yo
            for i, x in zip(self.wrt, chosen):
                found["local gradient", self._derivative(name, i)] = jnp.zeros((yo.size, x.size))
        # `jacfwd` does not take an axis of size 0: where there are no entries, zeros stay. (Batches
        # of VJPs are compiled wrongly by some versions of jaxlib, batches of JVPs are not.)
        rows = [o for o, yo in enumerate(y) if yo.size]
        columns = tuple(k for k, x in enumerate(chosen) if x.size)
        blocks: Tree = []
        if rows and columns:
            blocks = jax.jacfwd(lambda *x: [outputs(*x)[o] for o in rows], columns)(*chosen)
        for o, row in zip(rows, blocks):
            for k, block in zip(columns, row):
                key = "local gradient", self._derivative(self.outputs[o], self.wrt[k])
                found[key] = block.reshape(y[o].size, chosen[k].size)
        for i, gradient in zip(self.wrt, jax.grad(weighted, argnums)(*chosen)):
            found["backward", self._gradient(i)] = gradient
            found["transpose", self._gradient(i)] = gradient
        return found

    def _derivative(self, output: str, i: int) -> str:
        return f"d {output} / d {self.node.input_name(i)}"

    def _gradient(self, i: int) -> str:
        return f"gradient of {self.node.input_name(i)}"

    def entry(self, quantity: tuple[str, str], index: tuple[int, ...]) -> tuple[int, ...]:
        """Return an index as a person counts: a matrix entry as output entry, then input entry."""
        shapes = {
            ("local gradient", self._derivative(name, i)): (u.shape, self.inputs[i].shape)
            for name, u in zip(self.outputs, self.upstream)
            for i in self.wrt
        }
        if quantity not in shapes:
            return index
        pairs = zip(index, shapes[quantity])
        return tuple(int(k) for n, shape in pairs for k in np.unravel_index(n, shape))


def prepare(case: Case, seed: int, dtype: DTypeLike) -> Run:
    """Return a case with inputs drawn and an upstream for each output, signed and generic."""
    node, inputs = case.node, case.draw(seed, dtype)
    rng = np.random.default_rng([seed, 1])
    output, _ = node.forward(*inputs)
    upstream = tuple(
        np.asarray(rng.standard_normal(np.shape(y)), np.asarray(y).dtype)
        for y in (output if isinstance(output, tuple) else (output,))
    )
    shapes = ", ".join(f"{node.input_name(i)} {shape_text(x.shape)}" for i, x in enumerate(inputs))
    return Run(node, inputs, upstream, f"{case.note}: {node!r} at {shapes} ({dtype})")
