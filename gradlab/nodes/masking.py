"""Noise drawn outside: the mask that drops entries is an input, so that nodes keep no state."""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, keeping, namespace
from gradlab.nodes._base import Elementwise, Node
from gradlab.nodes._domain import BOOLEANS, REALS, Case, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.operators import Diagonal

__all__ = ["DropPath", "Dropout"]


def _scale(node: Any) -> float:
    """Return what keeps the mean where it was: 1 / (1 - rate); 0 where nothing is kept."""
    if not 0 <= node.rate <= 1:
        raise InputError(f"{node!r}: rate {node.rate} is no probability")
    return 1.0 / (1.0 - node.rate) if node.rate < 1 else 0.0


@dataclass(frozen=True)
class Dropout(Elementwise):
    """x / (1 - rate) where the mask is true, 0 elsewhere: inverted dropout.

    Args:
        rate: the probability with which the mask was drawn false.

    Local gradient: diag(mask / (1 - rate)); None for the mask.
    Backward: dx = upstream * mask / (1 - rate), with the same mask.
    Source: Srivastava et al. 2014, "Dropout".
    """

    rate: float = 0.5
    domains = (REALS, BOOLEANS)

    def value(self, x: Array, mask: Array) -> Array:
        return namespace(x).where(mask, x * _scale(self), namespace(x).zeros_like(x))

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return _scale(self) * x[1].astype(y.dtype), None

    def reference(self, x: Array, mask: Array) -> Array:
        return jnp.where(mask, x / (1 - self.rate), 0)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            *super().cases(),
            generic(cls(0.1), (3, 4), (3, 4)),
            special(cls(), "all dropped", (3,), [False, False, False]),
        )


@dataclass(frozen=True)
class DropPath(Node):
    """x / (1 - rate) for the items that the mask keeps, 0 for the others: stochastic depth.

    x has shape (items, ...), the mask (items,).

    Args:
        rate: the probability with which the mask was drawn false.

    Local gradient: diag(mask / (1 - rate)), the same for all of an item; None for the mask.
    Backward: dx = upstream * mask / (1 - rate).
    Source: Huang et al. 2016, "Deep networks with stochastic depth".
    """

    rate: float = 0.5
    domains = (REALS, BOOLEANS)

    def forward(self, x: Any, mask: Any) -> tuple[Array, Any]:
        x, mask = as_inputs(self, (x, mask))
        if not x.shape or mask.shape != x.shape[:1]:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)} and the mask "
                f"{shape_text(mask.shape)}; expected (items, ...) and (items,)"
            )
        weights = keeping(_scale(self) * mask.astype(x.dtype), (x,))
        weights = weights.reshape((-1,) + (1,) * (x.ndim - 1))
        y = x * weights
        return y, (weights, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        weights, y = residuals
        return Diagonal(namespace(y).broadcast_to(weights, y.shape)), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        weights, y = residuals
        return (as_upstream(self, upstream, y) * weights).astype(y.dtype), None

    def reference(self, x: Array, mask: Array) -> Array:
        kept = jnp.broadcast_to(jnp.expand_dims(mask, tuple(range(1, x.ndim))), x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (5, 2), (5,)),
            generic(cls(0.25), (4,), (4,)),
            generic(cls(), (3, 2, 2), (3,)),
            Case(cls(), ((0, 3), (0,)), "zero size"),
        )
