"""Attention a block of keys at a time: no matrix of all scores is ever held.

Source: Dao et al., "FlashAttention" (arXiv:2205.14135, 2022), section 3.1; the running softmax:
Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv:1805.02867, 2018).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._attending import (
    causal,
    keyed_gradients,
    of_logsumexp,
    plainly,
    require_heads,
    scale_of,
    scores,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic, special
from gradlab.nodes._lazy import jnp
from gradlab.operators import Zero

__all__ = ["FlashAttention"]


@dataclass(frozen=True)
class FlashAttention(Node):
    """softmax(scale q k^T) v and the logsumexp of the scores, a block of keys at a time.

    Over the blocks run the greatest score m so far, the sum of exp(s - m), and that sum weighted
    by v; where m grows, both sums shrink by exp(old m - new m). Backward has the logsumexp and so
    recomputes p = exp(s - lse) block by block: memory grows with the length, not its square.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width);
    o (*batch, queries, value width), lse (*batch, queries).

    Args:
        block: how many keys are taken at a time.
        scale: the factor of the scores; None: 1 / sqrt(width).
        is_causal: whether query i sees the keys j <= i only.

    Local gradients: of o as of attention, of lse dlse_i/dq_i = scale sum_j p_ij k_j^T and
    dlse_i/dk_j = scale p_ij q_i^T.
    Backward, for upstreams u and w, in each block: ds = p * (u v^T - u . o + w); dk = scale ds^T q,
    dv = p^T u; dq = scale ds k, added over the blocks.
    """

    block: int = 64
    scale: float | None = None
    is_causal: bool = False

    def _blocks(self, q: Array, k: Array, v: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Yield each block's scores, keys and values."""
        queries, keys = q.shape[-2], k.shape[-2]
        visible = causal(queries, keys) if self.is_causal else None
        for start in range(0, keys, self.block):
            part = slice(start, start + self.block)
            seen = None if visible is None else visible[:, part]
            kb, vb = k[..., part, :], v[..., part, :]
            yield scores(q, kb, scale_of(self.scale, q), seen), kb, vb

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        q, k, v = as_inputs(self, inputs)
        require_heads(self, q, k, v)
        if self.block < 1 or k.shape[-2] == 0:
            raise InputError(f"{self!r}: needs at least one key, and blocks of at least one key")
        xp = namespace(q)
        top = xp.full((*q.shape[:-1], 1), -math.inf, dtype=q.dtype)
        total = xp.zeros_like(top)
        o = xp.zeros((*q.shape[:-1], v.shape[-1]), dtype=v.dtype)
        for s, _, vb in self._blocks(q, k, v):
            higher = xp.maximum(top, xp.max(s, axis=-1, keepdims=True))
            e, shrink = xp.exp(s - higher), xp.exp(top - higher)
            total = shrink * total + e.sum(axis=-1, keepdims=True)
            o = shrink * o + e @ vb
            top = higher
        o, lse = (o / total).astype(v.dtype), (top + xp.log(total))[..., 0]
        return (o, lse), (q, k, v, o, lse)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        q, k, v, o, lse = residuals
        xp, scale = namespace(q), scale_of(self.scale, q)
        s = xp.concat([s for s, _, _ in self._blocks(q, k, v)], axis=-1)
        p = xp.exp(s - lse[..., None])
        ordered = self.is_causal and q.shape[-2] == k.shape[-2]
        none = Zero(lse.shape, v.shape, v.dtype)
        return (
            keyed_gradients((q, k, v, o, p), scale, ordered),
            (*of_logsumexp(q, k, p, scale), none),
        )

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        q, k, v, o, lse = residuals
        u, w = as_upstream(self, upstream[0], o), as_upstream(self, upstream[1], lse)
        xp, scale = namespace(q), scale_of(self.scale, q)
        delta = (u * o).sum(axis=-1, keepdims=True) - w[..., None]
        dq, dk, dv = xp.zeros_like(q), [], []
        for s, kb, vb in self._blocks(q, k, v):
            p = xp.exp(s - lse[..., None])
            ds = scale * p * (u @ vb.swapaxes(-1, -2) - delta)
            dq = dq + ds @ kb
            dk.append(ds.swapaxes(-1, -2) @ q)
            dv.append(p.swapaxes(-1, -2) @ u)
        return tuple(
            g.astype(x.dtype)
            for g, x in ((dq, q), (xp.concat(dk, axis=-2), k), (xp.concat(dv, axis=-2), v))
        )

    def reference(self, q: Array, k: Array, v: Array) -> Any:
        visible = jnp.ones((q.shape[-2], k.shape[-2]), bool)
        visible = jnp.tril(visible) if self.is_causal else visible
        return plainly(q, k, v, scale_of(self.scale, q), visible)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(block=2), (2, 2, 2), (2, 3, 2), (2, 3, 1)),
            generic(cls(block=2, is_causal=True), (4, 2), (4, 2), (4, 3)),
            generic(cls(scale=1.0), (1, 3, 2), (1, 2, 2), (1, 2, 2)),
            special(cls(1, 1.0), "saturated", [[100.0, 0.0]], [[9.0, 1.0], [-9.0, 0.5]], (2, 2)),
            Case(cls(), ((1, 1),) * 3, "size-1 axes"),
        )
