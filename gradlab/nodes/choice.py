"""Entries chosen by a mask or by bounds: the Jacobian is a diagonal of zeros and ones."""

from dataclasses import dataclass
from typing import Any

from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._base import Elementwise
from gradlab.nodes._domain import BOOLEANS, REALS, Case, Domain, special
from gradlab.nodes._lazy import jnp
from gradlab.nodes.rectified import inside

__all__ = ["Clip", "MaskedFill", "Where"]


class Where(Elementwise):
    """x where the mask is true, y elsewhere.

    Local gradients: diag(mask) and diag(not mask); None for the mask.
    Backward: dx = upstream where the mask is true, dy = upstream where it is false.
    """

    domains = (BOOLEANS, REALS)

    def value(self, mask: Array, x: Array, y: Array) -> Array:
        return namespace(x, y).where(mask, x, y)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        mask = x[0]
        return None, mask.astype(y.dtype), (~mask).astype(y.dtype)

    def reference(self, mask: Array, x: Array, y: Array) -> Array:
        return jnp.where(mask, x, y)


@dataclass(frozen=True)
class MaskedFill(Elementwise):
    """x, with `fill` where the mask is true.

    Args:
        fill: the number to write; -inf before a softmax.

    Local gradient: diag(not mask); None for the mask.
    Backward: dx = upstream where the mask is false, 0 where it is true.
    """

    fill: float = 0.0
    domains = (REALS, BOOLEANS)

    def value(self, x: Array, mask: Array) -> Array:
        xp = namespace(x)
        return xp.where(mask, xp.asarray(self.fill, dtype=x.dtype), x)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        return (~x[1]).astype(y.dtype), None

    def reference(self, x: Array, mask: Array) -> Array:
        return jnp.where(mask, self.fill, x)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        infinite = special(cls(float("-inf")), "filled with -inf", [1.0, 2.0], [True, False])
        return (*super().cases(), infinite)


@dataclass(frozen=True)
class Clip(Elementwise):
    """x, held between two bounds.

    Args:
        low: the lower bound; -inf for none.
        high: the upper bound; inf for none.

    Local gradient: diag(low < x < high), with 1/2 at both bounds, as in JAX.
    Backward: dx = upstream where low < x < high, 0 outside.
    """

    low: float = -1.0
    high: float = 1.0
    domains = (Domain(kinks=(-1.0, 1.0)),)

    def value(self, x: Array) -> Array:
        return namespace(x).clip(x, self.low, self.high)

    def derivatives(self, x: tuple[Array, ...], y: Array) -> tuple[Any, ...]:
        xp = namespace(y)
        half = 0.5 * xp.ones_like(y)
        edge = xp.where((x[0] == self.low) | (x[0] == self.high), half, xp.zeros_like(y))
        return (inside(x[0], self.low, self.high) + edge,)

    def reference(self, x: Array) -> Array:
        return jnp.clip(x, self.low, self.high)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            *super().cases(),
            special(cls(), "both bounds", [-2.0, -1.0, 0.5, 1.0, 3.0]),
            special(cls(low=float("-inf"), high=0.0), "one bound", [-2.0, 0.0, 0.5]),
        )
