"""A node as a JAX function: its hand-written gradient, used by JAX's own transformations."""

from typing import Protocol

import jax

from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import InputError
from gradlab.nodes._base import Kept, Outputs, Pulled
from gradlab.operators import Operator


class Differentiable(Protocol):
    """What is asked of a node here."""

    def name(self) -> str: ...
    def forward(self, *inputs: Array) -> tuple[Outputs, Kept]: ...
    def local_gradient(self, residuals: Kept) -> tuple[Pulled, ...]: ...
    def backward(self, upstream: Outputs, residuals: Kept) -> tuple[Pulled, ...]: ...


def as_jax(node: Differentiable, mode: str) -> Function:
    """Return a `jax.custom_vjp` of `backward` or a `jax.custom_jvp` of `local_gradient`."""
    if mode == "vjp":
        return _with_vjp(node)
    if mode == "jvp":
        return _with_jvp(node)
    raise InputError(f"as_jax: mode is {mode!r}; expected 'vjp' (backward) or 'jvp' (pushforward)")


def _named(node: Differentiable) -> Function:
    def apply(*inputs: Array) -> Outputs:
        return node.forward(*inputs)[0]

    apply.__name__ = node.name()
    return apply


def _with_vjp(node: Differentiable) -> Function:
    apply = jax.custom_vjp(_named(node))

    def forward(*inputs: Array) -> tuple[Outputs, _Residuals]:
        output, residuals = node.forward(*inputs)
        return output, _Residuals(residuals)

    def backward(residuals: _Residuals, upstream: Outputs) -> tuple[Pulled, ...]:
        return tuple(node.backward(upstream, residuals.value))

    apply.defvjp(forward, backward)
    return apply


def _with_jvp(node: Differentiable) -> Function:
    apply = jax.custom_jvp(_named(node))

    @apply.defjvp
    def pushforward(
        inputs: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Outputs, Outputs]:
        output, residuals = node.forward(*inputs)
        local = node.local_gradient(residuals)

        def pushed(row: tuple[Operator | None, ...]) -> Array:
            return sum(op.apply(t) for op, t in zip(row, tangents) if op is not None)

        several = isinstance(output, tuple)
        return output, tuple(map(pushed, local)) if several else pushed(local)

    return apply


@jax.tree_util.register_pytree_node_class
class _Residuals:
    """Residuals in which only the arrays are leaves: an axis or a shape stays a Python value."""

    def __init__(self, value: Kept) -> None:
        self.value = value

    def tree_flatten(self) -> tuple[list[Array], Tree]:
        leaves, tree = jax.tree.flatten(self.value)
        arrays = [x for x in leaves if hasattr(x, "dtype")]
        static = tuple(None if hasattr(x, "dtype") else x for x in leaves)
        return arrays, (tree, static)

    @classmethod
    def tree_unflatten(cls, structure: Tree, arrays: Tree) -> "_Residuals":
        tree, static = structure
        rest = iter(arrays)
        leaves = [next(rest) if x is None else x for x in static]
        return cls(jax.tree.unflatten(tree, leaves))
