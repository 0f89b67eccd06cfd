"""Attention: each query takes a mean of the values, weighted by how well their keys match it.

The mathematics of all forms is in `_attending`; what differs is which keys a query sees, and who
shares keys. Batch and head axes come first: q (*batch, queries, width), k (*batch, keys, width),
v (*batch, keys, value width).

Source: Vaswani et al., "Attention is all you need" (arXiv:1706.03762, 2017), section 3.2.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from gradlab.errors import InputError
from gradlab.nodes._arrays import Array, as_inputs, as_upstream
from gradlab.nodes._attending import (
    attend,
    attend_back,
    causal,
    keyed_gradients,
    of_logsumexp,
    plainly,
    require_heads,
    scale_of,
    scores,
    window,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import BOOLEANS, REALS, Case, generic, special
from gradlab.nodes._functions import logsumexp
from gradlab.nodes._lazy import jnp
from gradlab.operators import BlockDiagonal, Zero

__all__ = [
    "Attention",
    "AttentionLogsumexp",
    "BiasedAttention",
    "CausalAttention",
    "MaskedAttention",
    "SlidingWindowAttention",
]


@dataclass(frozen=True)
class _Attention(Node):
    """Attention in which who sees whom follows from the positions."""

    scale: float | None = None

    ordered: ClassVar[bool] = False

    def _visible(self, queries: int, keys: int) -> Array | None:
        """Return which keys each query sees; None: all."""
        return None

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        q, k, v = as_inputs(self, inputs)
        require_heads(self, q, k, v)
        visible = self._visible(q.shape[-2], k.shape[-2])
        o, p = attend(scores(q, k, scale_of(self.scale, q), visible), v)
        return o, (q, k, v, o, p)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        q, k = residuals[:2]
        ordered = self.ordered and q.shape[-2] == k.shape[-2]
        return keyed_gradients(residuals, scale_of(self.scale, q), ordered)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        q, _, _, o, _ = residuals
        upstream = as_upstream(self, upstream, o)
        return attend_back(upstream, None, residuals, scale_of(self.scale, q))[:3]

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        visible = self._visible(q.shape[-2], k.shape[-2])
        return plainly(q, k, v, scale_of(self.scale, q), True if visible is None else visible)[0]


@dataclass(frozen=True)
class Attention(_Attention):
    """softmax(scale q k^T) v: every query sees every key.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width),
    o (*batch, queries, value width).

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).

    Local gradients: do_i/dq_i = scale sum_j p_ij (v_j - o_i) k_j^T, a block per query;
    do_i/dk_j = scale p_ij (v_j - o_i) q_i^T; do_i/dv_j = p_ij I. Batches and heads never mix.
    Backward: ds = p * (upstream v^T - upstream . o); dq = scale ds k, dk = scale ds^T q,
    dv = p^T upstream.
    """

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 2), (2, 4, 2), (2, 4, 3)),
            generic(cls(scale=1.0), (3, 4), (2, 4), (2, 5)),
            generic(cls(), (1, 2, 2, 1), (1, 2, 3, 1), (1, 2, 3, 2)),
            special(cls(1.0), "saturated", [[100.0, 0.0]], [[9.0, 1.0], [-9.0, 0.5]], (2, 2)),
            special(cls(), "ties", [[1.0]], [[2.0], [2.0]], (2, 2)),
            Case(cls(), ((1, 1), (1, 1), (1, 1)), "size-1 axes"),
            Case(cls(), ((0, 2, 3), (0, 2, 3), (0, 2, 3)), "zero size"),
        )


@dataclass(frozen=True)
class CausalAttention(_Attention):
    """softmax(scale q k^T) v in which query i sees the keys j <= i only.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width),
    o (*batch, queries, value width).

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).

    Local gradients: as of attention, with p_ij = 0 for j > i; in v it is lower-triangular in time.
    Backward: ds = p * (upstream v^T - upstream . o); dq = scale ds k, dk = scale ds^T q,
    dv = p^T upstream.
    """

    ordered = True

    def _visible(self, queries: int, keys: int) -> Array | None:
        return causal(queries, keys)

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        queries, keys = q.shape[-2], k.shape[-2]
        visible = jnp.tril(jnp.ones((queries, keys), bool))
        return plainly(q, k, v, scale_of(self.scale, q), visible)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 2), (2, 3, 2), (2, 3, 1)),
            generic(cls(scale=0.7), (4, 2), (4, 2), (4, 3)),
            generic(cls(), (1, 2, 3), (1, 4, 3), (1, 4, 2)),
            Case(cls(), ((1, 1),) * 3, "size-1 axes"),
        )


@dataclass(frozen=True)
class SlidingWindowAttention(_Attention):
    """Causal attention in which query i sees the last `window` keys: i - window < j <= i.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width),
    o (*batch, queries, value width).

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).
        window: how many keys a query sees, its own included.

    Local gradients: as of attention, with p_ij = 0 outside of the window: banded in time.
    Backward: ds = p * (upstream v^T - upstream . o); dq = scale ds k, dk = scale ds^T q,
    dv = p^T upstream.
    Source: Beltagy et al., "Longformer" (arXiv:2004.05150, 2020), section 3.1.
    """

    window: int = 2

    ordered = True

    def _visible(self, queries: int, keys: int) -> Array | None:
        if self.window < 1:
            raise InputError(f"{self!r}: window is {self.window}; expected at least 1")
        return window(queries, keys, self.window)

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        ones = jnp.ones((q.shape[-2], k.shape[-2]), bool)
        visible = jnp.tril(ones) & jnp.triu(ones, 1 - self.window)
        return plainly(q, k, v, scale_of(self.scale, q), visible)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 4, 2), (2, 4, 2), (2, 4, 1)),
            generic(cls(scale=0.7, window=3), (5, 2), (5, 2), (5, 3)),
            generic(cls(window=1), (1, 3, 3), (1, 3, 3), (1, 3, 2)),
            Case(cls(), ((1, 1),) * 3, "size-1 axes"),
        )


@dataclass(frozen=True)
class MaskedAttention(Node):
    """softmax(scale q k^T) v over the keys that the mask shows.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width),
    mask (booleans that broadcast to (*batch, queries, keys); True: visible).

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).

    Local gradients: as of attention, with p_ij = 0 where the mask hides; None for the mask.
    Backward: ds = p * (upstream v^T - upstream . o); dq = scale ds k, dk = scale ds^T q,
    dv = p^T upstream. A query that sees nothing has output 0 and hands no gradient on.
    """

    scale: float | None = None

    domains = (REALS, REALS, REALS, BOOLEANS)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        q, k, v, mask = as_inputs(self, inputs)
        require_heads(self, q, k, v)
        o, p = attend(scores(q, k, scale_of(self.scale, q), mask), v)
        return o, (q, k, v, o, p)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        return *keyed_gradients(residuals, scale_of(self.scale, residuals[0])), None

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        q, _, _, o, _ = residuals
        upstream = as_upstream(self, upstream, o)
        return *attend_back(upstream, None, residuals, scale_of(self.scale, q))[:3], None

    def reference(self, q: Array, k: Array, v: Array, mask: Array) -> Array:
        return plainly(q, k, v, scale_of(self.scale, q), mask)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        some = [[True, True, False], [False, True, True]]
        none = [[True, False], [False, False]]
        return (
            special(cls(), "generic", (2, 2, 3), (2, 3, 3), (2, 3, 2), some),
            special(cls(0.5), "generic", (3, 2), (2, 2), (2, 4), [[True, False]]),
            generic(cls(), (1, 2, 3, 2), (1, 2, 4, 2), (1, 2, 4, 3), (1, 1, 3, 4)),
            special(cls(), "a query that sees nothing", (2, 3), (2, 3), (2, 2), none),
        )


@dataclass(frozen=True)
class BiasedAttention(Node):
    """softmax(scale q k^T + bias) v: attention with a bias for each pair of positions.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width),
    bias (*batch, queries, keys).

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).

    Local gradients: in q, k, v as of attention; do_i/dbias_ij = p_ij (v_j - o_i), one block per
    query. Backward: dbias = ds = p * (upstream v^T - upstream . o); dq = scale ds k,
    dk = scale ds^T q, dv = p^T upstream.
    Source: Raffel et al., "Exploring the limits of transfer learning" (arXiv:1910.10683, 2019),
    section 2.1 (T5).
    """

    scale: float | None = None

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        q, k, v, bias = as_inputs(self, inputs)
        require_heads(self, q, k, v)
        s = scores(q, k, scale_of(self.scale, q))
        if bias.shape != s.shape:
            raise InputError(
                f"{self!r}: bias has shape {bias.shape}; expected {s.shape}, one entry for each "
                "query and key"
            )
        o, p = attend(s + bias, v)
        return o, (q, k, v, o, p)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        q, _, v, o, p = residuals
        deviation = v[..., None, :, :] - o[..., None, :]
        of_bias = BlockDiagonal((p[..., None] * deviation).swapaxes(-1, -2))
        return *keyed_gradients(residuals, scale_of(self.scale, q)), of_bias

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        q, _, _, o, _ = residuals
        upstream = as_upstream(self, upstream, o)
        return attend_back(upstream, None, residuals, scale_of(self.scale, q))

    def reference(self, q: Array, k: Array, v: Array, bias: Array) -> Array:
        return plainly(q, k, v, scale_of(self.scale, q), bias=bias)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 2), (2, 2, 2), (2, 2, 3), (2, 3, 2)),
            generic(cls(scale=1.0), (3, 4), (2, 4), (2, 5), (3, 2)),
            generic(cls(), (1, 2, 2, 3), (1, 2, 3, 3), (1, 2, 3, 2), (1, 2, 2, 3)),
            special(cls(), "a key out of reach", (2, 2), (2, 2), (2, 2), [[0.0, -1e9], [1.0, 0.0]]),
        )


@dataclass(frozen=True)
class AttentionLogsumexp(Node):
    """softmax(scale q k^T) v, and the logsumexp of each query's scores as a second output.

    With both, attentions over parts of the keys can be joined into one over all of them.

    Shapes: q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, value width);
    o (*batch, queries, value width), lse (*batch, queries).

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).

    Local gradients: of o as of attention; dlse_i/dq_i = scale sum_j p_ij k_j^T,
    dlse_i/dk_j = scale p_ij q_i^T, dlse/dv = 0.
    Backward, for upstreams u and w: ds = p * (u v^T - u . o + w); dq = scale ds k,
    dk = scale ds^T q, dv = p^T u.
    Source: Dao et al., "FlashAttention" (arXiv:2205.14135, 2022), section 3.1.
    """

    scale: float | None = None

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        q, k, v = as_inputs(self, inputs)
        require_heads(self, q, k, v)
        s = scores(q, k, scale_of(self.scale, q))
        o, p = attend(s, v)
        return (o, logsumexp(s, -1)[..., 0]), (q, k, v, o, p)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        q, k, v, _, p = residuals
        scale = scale_of(self.scale, q)
        none = Zero(q.shape[:-1], v.shape, v.dtype)
        return keyed_gradients(residuals, scale), (*of_logsumexp(q, k, p, scale), none)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        q, _, _, o, _ = residuals
        u = as_upstream(self, upstream[0], o)
        w = as_upstream(self, upstream[1], o[..., 0])
        return attend_back(u, w, residuals, scale_of(self.scale, q))[:3]

    def reference(self, q: Array, k: Array, v: Array) -> Any:
        return plainly(q, k, v, scale_of(self.scale, q))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3, 2), (2, 2, 2), (2, 2, 3)),
            generic(cls(scale=1.0), (3, 4), (2, 4), (2, 5)),
            generic(cls(), (1, 2, 2, 1), (1, 2, 3, 1), (1, 2, 3, 2)),
            special(cls(1.0), "saturated", [[100.0, 0.0]], [[9.0, 1.0], [-9.0, 0.5]], (2, 2)),
        )
