"""Losses of vectors that should lie near each other or far apart, (..., features)."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._functions import log_softmax
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._losses import Loss, ReducedLoss, require_equal_shapes

__all__ = ["CosineLoss", "InfoNceLoss", "TripletLoss"]


def _require_rows(node: Loss, x: tuple[Array, ...]) -> None:
    require_equal_shapes(node, x)
    if not x[0].shape:
        raise InputError(f"{node!r}: scalars came; expected (..., features)")


def _direction(x: Array) -> tuple[Array, Array]:
    """Return the unit vector and the length of each row; NaN for a row of zeros."""
    xp = namespace(x)
    top = xp.max(xp.abs(x), axis=-1, keepdims=True, initial=0.0)
    ratio = x / xp.where(top == 0, xp.ones_like(top), top)
    length = top * xp.sqrt((ratio * ratio).sum(axis=-1, keepdims=True))
    return x / length, length


@dataclass(frozen=True)
class CosineLoss(ReducedLoss):
    """1 - cos(x, y), for each pair of rows along the last axis.

    Args:
        reduction: "mean", "sum" or "none".

    Local gradients: with a = x / |x|, b = y / |y| and c = sum(a b), for each row (c a - b) / |x|
    and (c b - a) / |y|. Backward: each times upstream / n. A row of zeros has no direction: NaN.
    """

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        _require_rows(self, x)

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        (a, x_length), (b, y_length) = map(_direction, x)
        c = (a * b).sum(axis=-1, keepdims=True)
        return (1.0 - c)[..., 0], ((c * a - b) / x_length, (c * b - a) / y_length), None

    def reference(self, x: Array, y: Array) -> Array:
        lengths = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
        return self.reduced(1 - jnp.sum(x * y, axis=-1) / lengths)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3, 4)),
            generic(cls("sum"), (5,), (5,)),
            generic(cls("none"), (2, 2, 3), (2, 2, 3)),
            special(cls(), "large entries", [[3e9, -4e9, 0.0]], [[1e9, 1e9, 1e9]]),
        )


@dataclass(frozen=True)
class TripletLoss(ReducedLoss):
    """max(0, |anchor - positive| - |anchor - negative| + margin), row by row.

    Args:
        reduction: "mean", "sum" or "none".
        margin: by how much nearer the positive must be.

    Local gradients: where the loss is positive, with u and v the directions from positive and
    negative to the anchor, for each row u - v, -u and v; 0 elsewhere, the corner included.
    Backward: each times upstream / n. Where a distance is 0 there is no direction: NaN.
    Source: Schroff et al. 2015, "FaceNet", equation 3, with distances in place of their squares.
    """

    margin: float = 1.0

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        _require_rows(self, x)

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        anchor, positive, negative = x
        xp = namespace(*x)
        (u, near), (v, far) = _direction(anchor - positive), _direction(anchor - negative)
        loss = near - far + self.margin
        active, zero = loss > 0, xp.zeros_like(u)
        gradients = tuple(xp.where(active, g, zero) for g in (u - v, -u, v))
        return xp.maximum(loss, xp.zeros_like(loss))[..., 0], gradients, None

    def reference(self, anchor: Array, positive: Array, negative: Array) -> Array:
        near = jnp.linalg.norm(anchor - positive, axis=-1)
        far = jnp.linalg.norm(anchor - negative, axis=-1)
        return self.reduced(jax.nn.relu(near - far + self.margin))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), *[(3, 4)] * 3),
            generic(cls("sum", margin=0.5), *[(5,)] * 3),
            generic(cls("none"), *[(2, 2, 3)] * 3),
            special(cls(), "satisfied", [[0.0, 0.0]], [[0.5, 0.0]], [[0.0, 9.0]]),
        )


@dataclass(frozen=True)
class InfoNceLoss(Loss):
    """The mean cross-entropy of each query's own key among all keys: a contrastive loss.

    Queries and keys have shape (items, features); the logits are their dot products / temperature,
    and query i belongs to key i. Normalise the rows first for cosine similarities.

    Args:
        temperature: what the logits are divided by.

    Local gradients: one row each; with D = (softmax(logits) - I) / (items temperature), D @ keys
    and D^T @ queries. Backward: dqueries = upstream * D @ keys, dkeys = upstream * D^T @ queries.
    Source: van den Oord et al. 2018, "Contrastive predictive coding", equation 4.
    """

    temperature: float = 0.1

    def require_shapes(self, x: tuple[Array, ...]) -> None:
        require_equal_shapes(self, x)
        if len(x[0].shape) != 2:
            raise InputError(
                f"{self!r}: shape {shape_text(x[0].shape)} came; expected (items, features)"
            )

    def items(self, *x: Array) -> tuple[Array, tuple[Any, ...], Any]:
        queries, keys = x
        xp, n = namespace(*x), max(queries.shape[0], 1)
        log_p = log_softmax((queries @ keys.T) / self.temperature, -1)
        own = xp.eye(queries.shape[0], dtype=queries.dtype)
        d = (xp.exp(log_p) - own) / (n * self.temperature)
        loss = -xp.where(own == 0, xp.zeros_like(log_p), log_p).sum() / n
        return loss, (d @ keys, d.T @ queries), None

    def reference(self, queries: Array, keys: Array) -> Array:
        log_p = jax.nn.log_softmax(jnp.matmul(queries, keys.T) / self.temperature, axis=1)
        return -jnp.mean(jnp.diagonal(log_p))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3, 4)),
            generic(cls(temperature=1.0), (5, 2), (5, 2)),
            generic(cls(temperature=0.5), (2, 3), (2, 3)),
            generic(cls(), (1, 3), (1, 3)),
            special(cls(), "saturated", [[9.0, 0.0], [0.0, 9.0]], [[9.0, 1.0], [-1.0, 9.0]]),
        )
