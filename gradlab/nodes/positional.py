"""Positions made known to attention: by rotating queries and keys, or by a bias of the scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.nodes._matrices import einsum
from gradlab.operators import Broadcast, Contraction, Diagonal, Identity, Reshape

__all__ = ["AlibiBias", "RotaryEmbedding"]


@dataclass(frozen=True)
class RotaryEmbedding(Node):
    """Each pair of channels, rotated by an angle that grows with the position (RoPE).

    Pair f of position t turns by a = (t + offset) base^(-2 f / width):
    (y1, y2) = (x1 cos a - x2 sin a, x1 sin a + x2 cos a). The product of a rotated query and a
    rotated key then depends on the distance between their positions alone.

    Shapes: x (*batch, length, width), y the same; width is even.

    Args:
        base: how much slower the last pair turns than the first.
        offset: the position of the first row.
        interleaved: whether pair f is channels 2 f and 2 f + 1 (RoFormer); else it is channels
            f and f + width / 2 (GPT-NeoX).

    Local gradient: block-diagonal, a rotation by a for each pair, the same for each batch.
    Backward: dx = the upstream, each pair rotated by -a.
    Source: Su et al., "RoFormer" (arXiv:2104.09864, 2021), section 3.2.2.
    """

    base: float = 10000.0
    offset: int = 0
    interleaved: bool = True

    def _rotations(self, x: Array) -> Array:
        """Return the matrices, (length, pairs, 2, 2)."""
        length, pairs = x.shape[-2], x.shape[-1] // 2
        rates = self.base ** (-np.arange(pairs) / max(pairs, 1))
        angles = (self.offset + np.arange(length))[:, None] * rates
        cos, sin = np.cos(angles), np.sin(angles)
        rotations = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        return namespace(x).asarray(rotations, dtype=x.dtype)

    def _letters(self) -> tuple[str, str]:
        """Return how the axes of pairs lie in x and y, with b and a for the two of a pair."""
        return ("ntfb", "ntfa") if self.interleaved else ("ntbf", "ntaf")

    def _paired(self, x: Array) -> tuple[int, ...]:
        pairs = x.shape[-1] // 2
        inner = (pairs, 2) if self.interleaved else (2, pairs)
        return (int(np.prod(x.shape[:-2])), x.shape[-2], *inner)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        if len(x.shape) < 2 or x.shape[-1] % 2:
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}; expected (*batch, length, width) "
                "with an even width"
            )
        rotations = self._rotations(x)
        return self._rotated(x, rotations), (x, rotations)

    def _rotated(self, x: Array, rotations: Array) -> Array:
        before, after = self._letters()
        pairs = x.reshape(self._paired(x))
        return einsum(f"tfab,{before}->{after}", rotations, pairs).reshape(x.shape)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, rotations = residuals
        before, after = self._letters()
        paired = self._paired(x)
        turn = Contraction(f"tfab,{before}->{after}", rotations, input_shape=paired)
        return (Reshape(paired, x.shape, x.dtype) @ turn @ Reshape(x.shape, paired, x.dtype),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, rotations = residuals
        return (self._rotated(as_upstream(self, upstream, x), rotations.swapaxes(-1, -2)),)

    def reference(self, x: Array) -> Array:
        length, width = x.shape[-2:]
        positions = jnp.arange(self.offset, self.offset + length, dtype=x.dtype)
        rates = jnp.asarray(self.base, x.dtype) ** (-jnp.arange(0, width, 2, dtype=x.dtype) / width)
        angles = jnp.broadcast_to(jnp.outer(positions, rates), (*x.shape[:-1], width // 2))
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        if self.interleaved:
            one, other = x[..., 0::2], x[..., 1::2]
        else:
            one, other = jnp.split(x, 2, axis=-1)
        turned = (one * cos - other * sin, one * sin + other * cos)
        if self.interleaved:
            return jnp.stack(turned, axis=-1).reshape(x.shape)
        return jnp.concatenate(turned, axis=-1)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 4)),
            generic(cls(base=100.0, offset=5), (2, 1, 3, 6)),
            generic(cls(interleaved=False), (4, 6)),
            Case(cls(), ((1, 2),), "size-1 axes"),
            Case(cls(), ((0, 3, 4),), "zero size"),
        )


class AlibiBias(Node):
    """scores[..., h, i, j] - slopes[h] |i - j|: the further away, the less attention (ALiBi).

    Shapes: scores (*batch, heads, queries, keys), slopes (heads,), y as scores.

    Local gradients: in the scores the identity; dy[h, i, j]/dslopes[h] = -|i - j|.
    Backward: dscores = upstream; dslopes[h] = -sum over all i, j of |i - j| upstream[..., h, i, j].
    Source: Press et al., "Train short, test long" (arXiv:2108.12409, 2021), section 3.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        scores, slopes = as_inputs(self, inputs)
        if len(scores.shape) < 3 or slopes.shape != scores.shape[-3:-2]:
            raise InputError(
                f"{self!r}: scores have shape {shape_text(scores.shape)} and slopes "
                f"{shape_text(slopes.shape)}; expected (*batch, heads, queries, keys) and (heads,)"
            )
        xp, (queries, keys) = namespace(scores), scores.shape[-2:]
        away = np.abs(np.arange(queries)[:, None] - np.arange(keys))
        distance = xp.broadcast_to(xp.asarray(away, dtype=scores.dtype), scores.shape)
        steep = xp.broadcast_to(slopes[:, None, None], scores.shape)
        return scores - steep * distance, (scores, slopes, distance)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        scores, slopes, distance = residuals
        heads = scores.ndim - 3
        others = tuple(i for i in range(scores.ndim) if i != heads)
        return (
            Identity(scores.shape, scores.dtype),
            Diagonal(-distance) @ Broadcast(slopes.shape, scores.shape, scores.dtype, axes=others),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        scores, slopes, distance = residuals
        upstream = as_upstream(self, upstream, scores)
        others = tuple(i for i in range(scores.ndim) if i != scores.ndim - 3)
        return upstream, -(upstream * distance).sum(axis=others).astype(slopes.dtype)

    def reference(self, scores: Array, slopes: Array) -> Array:
        i, j = jnp.indices(scores.shape[-2:])
        return scores - jnp.broadcast_to(slopes[:, None, None] * jnp.abs(i - j)[None], scores.shape)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 3, 3), (2,)),
            generic(cls(), (3, 2, 4), (3,)),
            generic(cls(), (1, 2, 1, 3, 2), (1,)),
            Case(cls(), ((1, 1, 1), (1,)), "size-1 axes"),
        )
