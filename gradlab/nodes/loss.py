"""Losses: from predictions to one number."""

from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace, unbroadcast
from gradlab.nodes._base import Node
from gradlab.nodes._domain import REALS, Case, Domain, generic, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Dense

__all__ = ["L2Loss", "SoftmaxCrossEntropy"]


class L2Loss(Node):
    """The squared L2 norm, sum(x^2), over all entries.

    Local gradient: the row 2 x^T. Backward: dx = 2 x * upstream.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        return (x * x).sum(), x

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x = residuals
        return (Dense((2.0 * x).reshape(1, -1), (), x.shape),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x = residuals
        upstream = as_upstream(self, upstream, x.sum())
        return ((2.0 * upstream * x).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        return jnp.sum(jnp.square(x))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4)),
            generic(cls(), (5,)),
            generic(cls(), (2, 1, 3)),
            Case(cls(), ((),), "scalar"),
            Case(cls(), ((0, 3),), "zero size"),
            special(cls(), "zeros", [0.0, 0.0, 1.0]),
        )


class SoftmaxCrossEntropy(Node):
    """The mean over rows of -log softmax(x)[label].

    x has shape (rows, classes) and holds logits, labels has shape (rows,) and holds integers.

    Local gradient: one row, (p - onehot(label)) / rows; None for the labels.
    Backward: dx = upstream * (p - onehot(label)) / rows.
    """

    domains = (REALS, Domain(low=0, high=3, integer=True))

    def forward(self, x: Any, labels: Any) -> tuple[Array, Any]:
        x, labels = as_inputs(self, (x, labels))
        if len(x.shape) != 2 or labels.shape != x.shape[:1]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and labels "
                f"{shape_text(labels.shape)}; expected (rows, classes) and (rows,)"
            )
        xp = namespace(x)
        shifted = x - x.max(axis=1, keepdims=True)
        e = xp.exp(shifted)
        total = e.sum(axis=1, keepdims=True)
        picked = shifted[xp.arange(x.shape[0]), labels]
        loss = (xp.log(total[:, 0]) - picked).sum() / max(x.shape[0], 1)
        return loss, (e / total, labels, loss)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        p, _, _ = residuals
        (row, _) = self.backward(1.0, residuals)
        return Dense(row.reshape(1, -1), (), p.shape), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        p, labels, loss = residuals
        upstream = as_upstream(self, upstream, loss)
        onehot = labels[:, None] == namespace(p).arange(p.shape[1])[None, :]
        return unbroadcast((p - onehot.astype(p.dtype)) * (upstream / p.shape[0]), p), None

    def reference(self, x: Array, labels: Array) -> Array:
        log_p = jax.nn.log_softmax(x, axis=1)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            special(cls(), "generic", (4, 3), [0, 2, 1, 2]),
            special(cls(), "generic", (2, 5), [4, 0]),
            special(cls(), "generic", (1, 3), [1]),
            special(cls(), "saturated", [[0.0, 40.0, -40.0], [1e3, -1e3, 0.0]], [0, 1]),
            special(cls(), "one class", [[2.0], [3.0]], [0, 0]),
        )
