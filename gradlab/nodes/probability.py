"""The softmax family: each row depends on itself alone, by a diagonal plus a rank-one matrix."""

from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, as_inputs, as_upstream, axes_of, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._functions import softmax
from gradlab.nodes._lazy import jax
from gradlab.operators import DiagonalPlusLowRank, Operator, Permutation

__all__ = ["Softmax", "on_axis"]


def on_axis(operator: Operator, axis: int) -> Operator:
    """Return an operator that acts on the last axis, moved to act on `axis`."""
    rank = len(operator.output_shape)
    if axis == rank - 1:
        return operator
    order = (*(i for i in range(rank) if i != axis), axis)
    shape = [0] * rank
    for place, size in zip(order, operator.output_shape):
        shape[place] = size
    move = Permutation(order, tuple(shape), operator.dtype)
    return move.T @ operator @ move


@dataclass(frozen=True)
class Softmax(Node):
    """exp(x) / sum(exp(x)) along an axis.

    Args:
        axis: the axis along which the outputs sum to 1.

    Local gradient: diag(p) - p p^T for each row by itself.
    Backward: dx = p * (upstream - sum(upstream * p)).
    """

    axis: int = -1

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        (axis,) = axes_of(self, self.axis, x.shape)
        p = softmax(x, axis)
        return p, (p, axis)

    def local_gradient(self, residuals: Any) -> tuple[Operator, ...]:
        p, axis = residuals
        rows = namespace(p).moveaxis(p, axis, -1)
        column = rows[..., None]
        return (on_axis(DiagonalPlusLowRank(rows, -column, column), axis),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        p, axis = residuals
        upstream = as_upstream(self, upstream, p)
        return (p * (upstream - (upstream * p).sum(axis=axis, keepdims=True)),)

    def reference(self, x: Array) -> Array:
        return jax.nn.softmax(x, axis=self.axis)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(axis=0), (5, 2)),
            generic(cls(axis=1), (2, 3, 4)),
            Case(cls(), ((4, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
            special(cls(), "saturated", [[0.0, 40.0, -40.0], [1e3, 1e3, -1e3]]),
            special(cls(), "ties", [[1.0, 1.0, 1.0]]),
            special(cls(), "masked by -inf", [[0.5, float("-inf"), 1.0]]),
        )
