"""Attention: each query takes a mean of the values, weighted by how well their keys match it.

    s = scale q k^T,    p = softmax(s) over the keys that are visible,    o = p v

With u the upstream of o and w that of the logsumexp of s:

    dv = p^T u,    ds = p * (u v^T - (u . o) + w),    dq = scale ds k,    dk = scale ds^T q

All forms share this. What differs is which keys a query sees, and who shares keys. Batch and head
axes come first. k and v have the batch axes of q, or lack the last one, whose heads share them.

Source: Vaswani et al., "Attention is all you need" (arXiv:1706.03762, 2017), section 3.2; the
backward as in Dao et al., "FlashAttention" (arXiv:2205.14135, 2022), appendix B.
"""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from gradlab import operators as ops
from gradlab.common.arrays import Array, Shape, Tree, einsum, namespace
from gradlab.nodes._base import Applied, Gradients, Namespace, Node, Outputs, Pulled
from gradlab.nodes._domain import BOOLEANS, REALS
from gradlab.nodes._lazy import jax, jnp
from gradlab.nodes._stable import logsumexp, over_rows, softmax
from gradlab.operators import Operator

_QKV = "q (*batch, queries, width), k (*batch, keys, width), v (*batch, keys, values)"
_SATURATED: tuple[Tree, ...] = ([[100.0, 0.0]], [[9.0, 1.0], [-9.0, 0.5]], (2, 2))


def _scale_of(scale: float | None, q: Array) -> float:
    """Return the factor of the scores: 1 / sqrt(width) unless one is given."""
    return 1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale


def _window(queries: int, keys: int, size: int) -> Array:
    """Return which keys each query sees: itself and the `size - 1` before it."""
    behind = np.arange(queries)[:, None] - np.arange(keys)
    return (behind >= 0) & (behind < size)


def _seen(is_causal: bool, queries: int, keys: int) -> Array | None:
    """Return which keys each query sees, those not after it or all: (queries, keys) or None."""
    return _window(queries, keys, keys) if is_causal else None


def _with_heads(q: Array, k: Array) -> Array:
    """Return k with the axis of heads that it lacks."""
    return k if len(k.shape) == len(q.shape) else k[..., None, :, :]


def _scores(q: Array, k: Array, scale: float, visible: Array | None = None) -> Array:
    """Return scale q k^T, -inf where a key is not visible."""
    xp = namespace(q)
    s = ((scale * q) @ _with_heads(q, k).mT).astype(q.dtype)
    if visible is None:
        return s
    visible = xp.broadcast_to(xp.asarray(visible), s.shape)
    return xp.where(visible, s, xp.asarray(-math.inf, dtype=s.dtype))


def _attend(s: Array, v: Array) -> tuple[Array, Array]:
    """Return the output p v, and p; where nothing is visible both are 0."""
    p = softmax(s, -1)
    return (p @ _with_heads(p, v)).astype(v.dtype), p


def _attention_backward(
    u: Array, w: Array | None, scale: float, q: Array, k: Array, v: Array, o: Array, p: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the gradients of q, k, v and of the scores for the upstreams u of o and w of lse."""
    delta = (u * o).sum(axis=-1, keepdims=True)
    if w is not None:
        delta = delta - w[..., None]
    ds = p * (u @ _with_heads(q, v).mT - delta)
    dk = scale * (ds.mT @ q)
    dv = p.mT @ u
    if len(k.shape) < len(q.shape):
        dk, dv = dk.sum(axis=-3), dv.sum(axis=-3)
    return scale * (ds @ _with_heads(q, k)), dk, dv, ds


def _attention_operators(
    ordered: bool, scale: float, q: Array, k: Array, v: Array, o: Array, p: Array
) -> tuple[Operator, Operator, Operator]:
    """Return do/dq, do/dk and do/dv.

    do_i/dq_i = scale sum_j p_ij (v_j - o_i) k_j^T, one block per query; do_i/dk_j = scale p_ij
    (v_j - o_i) q_i^T; do_i/dv_j = p_ij, in every channel. Nothing else is nonzero. `ordered` says
    that no query sees a later key, and that there are as many queries as keys.
    """
    xp = namespace(q)
    b = "ABCDFGHIJK"[: len(q.shape) - 2]
    c = b[: len(k.shape) - 2]
    mean = p @ _with_heads(q, k)
    blocks = einsum(f"{b}ij,{c}je,{c}jd->{b}ied", p, v, k) - o[..., None] * mean[..., None, :]
    each = ops.Contraction(f"{b}ij,{c}je,{b}id,{c}jd->{b}ie", scale * p, v, q, input_shape=k.shape)
    mean_of = ops.Contraction(
        f"{b}ij,{b}ie,{b}id,{c}jd->{b}ie", scale * p, o, q, input_shape=k.shape
    )
    if ordered:
        entries = xp.broadcast_to(p[..., None, :, :], (*p.shape[:-2], v.shape[-1], *p.shape[-2:]))
        of_v: Operator = ops.LowerTriangular(entries, v.shape, axis=-2)
    else:
        of_v = ops.Contraction(f"{b}ij,{c}je->{b}ie", p, input_shape=v.shape)
    return ops.BlockDiagonal(scale * blocks), each - mean_of, of_v


def _logsumexp_operators(
    scale: float, q: Array, k: Array, v: Array, p: Array
) -> tuple[Operator, Operator, Operator]:
    """Return the gradients of the logsumexp of the scores: its derivative in s_ij is p_ij."""
    b = "ABCDFGHIJK"[: len(q.shape) - 2]
    mean = (scale * (p @ k)).astype(q.dtype)
    return (
        ops.Contraction(f"{b}id,{b}id->{b}i", mean, input_shape=q.shape),
        ops.Contraction(f"{b}ij,{b}id,{b}jd->{b}i", scale * p, q, input_shape=k.shape),
        ops.Zero(q.shape[:-1], v.shape, v.dtype),
    )


def _plain_attention(
    q: Array,
    k: Array,
    v: Array,
    scale: float,
    visible: Array = True,
    bias: Array = 0.0,
    causal: bool = False,
) -> tuple[Array, Array]:
    """Return the output and the logsumexp as a reader of the paper would write them for JAX."""
    s = scale * jnp.einsum("...id,...jd->...ij", q, k) + bias
    if causal:
        visible = jnp.tril(jnp.ones(s.shape[-2:], bool))
    visible = jnp.broadcast_to(jnp.asarray(visible), s.shape)
    kept = jnp.where(visible, s, jnp.finfo(s.dtype).min)
    p = jnp.where(visible, jax.nn.softmax(kept, axis=-1), 0.0)
    lse = jax.nn.logsumexp(jnp.where(visible, s, -jnp.inf), axis=-1)
    return jnp.einsum("...ij,...je->...ie", p, v), lse


class _Attention(Node):
    """Attention in one of its forms.

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).
        is_causal: whether query i sees the keys j <= i only.
    """

    _kind = (
        "Local gradients, with p the softmax, 0 for keys that are not seen: do_i/dq_i = scale "
        "sum_j p_ij (v_j - o_i) k_j^T, do_i/dk_j = scale p_ij (v_j - o_i) q_i^T, do_i/dv_j = p_ij "
        "I; batches and heads never mix. Backward: ds = p * (upstream v^T - upstream . o); dq = "
        "scale ds k, dk = scale ds^T q, dv = p^T upstream."
    )

    scale: float | None = None
    shapes = f"{_QKV} -> (*batch, queries, values)"
    ordered: ClassVar[bool] = False

    def visible(self, queries: int, keys: int) -> Array | None:
        """Return which keys each query sees; None: all."""
        return None

    def scores(self, q: Array, k: Array, *given: Array) -> Array:
        """Return the scores; `given` are the inputs beside q, k and v."""
        visible = self.visible(q.shape[-2], k.shape[-2])
        return _scores(q, k, _scale_of(self.scale, q), visible)

    def apply(self, xp: Namespace, q: Array, k: Array, v: Array, *given: Array) -> Applied:
        o, p = _attend(self.scores(q, k, *given), v)
        return o, (q, k, v, o, p)

    def gradients(self, xp: Namespace, q: Array, k: Array, *vop: Array) -> Gradients:
        """Return do/dq, do/dk and do/dv."""
        ordered = self.ordered and q.shape[-2] == k.shape[-2]
        return _attention_operators(ordered, _scale_of(self.scale, q), q, k, *vop)

    def pull(self, xp: Namespace, u: Array, q: Array, *kvop: Array) -> Pulled:
        return _attention_backward(u, None, _scale_of(self.scale, q), q, *kvop)[:3]

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        visible = self.visible(q.shape[-2], k.shape[-2])
        visible = True if visible is None else visible
        return _plain_attention(q, k, v, _scale_of(self.scale, q), visible)[0]


class Attention(_Attention):
    """softmax(scale q k^T) v: every query sees every key."""

    drawn = (
        "2x3x2 2x4x2 2x4x3; 3x4 2x4 2x5 scale=1.0; 1x2x2x1 1x2x3x1 1x2x3x2; "
        "size-1 axes: 1x1 1x1 1x1; zero size: 0x2x3 0x2x3 0x2x3"
    )
    points = {"saturated": ({"scale": 1.0}, *_SATURATED), "ties": ([[1.0]], [[2.0], [2.0]], (2, 2))}


class CausalAttention(_Attention):
    """softmax(scale q k^T) v in which query i sees the keys j <= i only."""

    ordered = True
    drawn = "2x3x2 2x3x2 2x3x1; 4x2 4x2 4x3 scale=0.7; 1x2x3 1x4x3 1x4x2; size-1 axes: 1x1 1x1 1x1"

    def visible(self, queries: int, keys: int) -> Array | None:
        return _seen(True, queries, keys)

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        return _plain_attention(q, k, v, _scale_of(self.scale, q), causal=True)[0]


class SlidingWindowAttention(_Attention):
    """Causal attention in which query i sees the last `window` keys: i - window < j <= i.

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).
        window: how many keys a query sees, its own included.

    Source: Beltagy et al., "Longformer" (arXiv:2004.05150, 2020), section 3.1.
    """

    window: int = 2
    ordered = True
    drawn = (
        "2x4x2 2x4x2 2x4x1; 5x2 5x2 5x3 scale=0.7 window=3; 1x3x3 1x3x3 1x3x2 window=1; "
        "size-1 axes: 1x1 1x1 1x1"
    )

    def visible(self, queries: int, keys: int) -> Array | None:
        self.require(self.window > 0, "expected a window of at least 1")
        return _window(queries, keys, self.window)

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        ones = jnp.ones((q.shape[-2], k.shape[-2]), bool)
        visible = jnp.tril(ones) & jnp.triu(ones, 1 - self.window)
        return _plain_attention(q, k, v, _scale_of(self.scale, q), visible)[0]


class MaskedAttention(_Attention):
    """softmax(scale q k^T) v over the keys that the mask shows.

    The mask holds booleans that broadcast to (*batch, queries, keys); True: visible. A query that
    sees nothing has output 0 and hands no gradient on.
    """

    domains = (REALS, REALS, REALS, BOOLEANS)
    shapes = f"{_QKV}, mask (*any) -> (*batch, queries, values)"
    drawn = (
        "2x2x3 2x3x3 2x3x2 [[True,True,False],[False,True,True]]; "
        "3x2 2x2 2x4 [[True,False]] scale=0.5; 1x2x3x2 1x2x4x2 1x2x4x3 1x1x3x4; "
        "a query that sees nothing: 2x3 2x3 2x2 [[True,False],[False,False]]"
    )

    def scores(self, q: Array, k: Array, *given: Array) -> Array:
        return _scores(q, k, _scale_of(self.scale, q), *given)

    def gradients(self, xp: Namespace, q: Array, k: Array, *vop: Array) -> Gradients:
        return *super().gradients(xp, q, k, *vop), None

    def pull(self, xp: Namespace, u: Array, q: Array, *kvop: Array) -> Pulled:
        return *super().pull(xp, u, q, *kvop), None

    def reference(self, q: Array, k: Array, v: Array, mask: Array) -> Array:
        return _plain_attention(q, k, v, _scale_of(self.scale, q), mask)[0]


class BiasedAttention(_Attention):
    """softmax(scale q k^T + bias) v: attention with a bias for each pair of positions.

    In the bias do_i/dbias_ij = p_ij (v_j - o_i), and the backward is ds.
    Source: Raffel et al., "Exploring the limits of transfer learning" (arXiv:1910.10683, 2019),
    section 2.1 (T5).
    """

    shapes = f"{_QKV}, bias (*batch, queries, keys) -> (*batch, queries, values)"
    drawn = "2x3x2 2x2x2 2x2x3 2x3x2; 3x4 2x4 2x5 3x2 scale=1.0; 1x2x2x3 1x2x3x3 1x2x3x2 1x2x2x3"
    points = {"a key out of reach": ((2, 2), (2, 2), (2, 2), [[0.0, -1e9], [1.0, 0.0]])}

    def scores(self, q: Array, k: Array, *given: Array) -> Array:
        return super().scores(q, k) + given[0]

    def gradients(self, xp: Namespace, q: Array, k: Array, *vop: Array) -> Gradients:
        v, o, p = vop
        deviation = v[..., None, :, :] - o[..., None, :]
        of_bias = ops.BlockDiagonal((p[..., None] * deviation).swapaxes(-1, -2))
        return *super().gradients(xp, q, k, *vop), of_bias

    def pull(self, xp: Namespace, u: Array, q: Array, *kvop: Array) -> Pulled:
        return _attention_backward(u, None, _scale_of(self.scale, q), q, *kvop)

    def reference(self, q: Array, k: Array, v: Array, bias: Array) -> Array:
        return _plain_attention(q, k, v, _scale_of(self.scale, q), bias=bias)[0]


class AttentionLogsumexp(_Attention):
    """softmax(scale q k^T) v, and the logsumexp of each query's scores as a second output.

    With both, attentions over parts of the keys can be joined into one over all of them.

    dlse_i/dq_i = scale sum_j p_ij k_j^T, dlse_i/dk_j = scale p_ij q_i^T, dlse/dv = 0. Backward, for
    upstreams u and w: ds = p * (u v^T - u . o + w).
    Source: Dao et al., "FlashAttention" (arXiv:2205.14135, 2022), section 3.1.
    """

    shapes = f"{_QKV} -> (*batch, queries, values), (*batch, queries)"
    drawn = "2x3x2 2x2x2 2x2x3; 3x4 2x4 2x5 scale=1.0; 1x2x2x1 1x2x3x1 1x2x3x2"
    points = {"saturated": ({"scale": 1.0}, *_SATURATED)}

    def apply(self, xp: Namespace, q: Array, k: Array, v: Array) -> Applied:
        s = _scores(q, k, _scale_of(self.scale, q))
        o, p = _attend(s, v)
        return (o, logsumexp(s, -1)[..., 0]), (q, k, v, o, p)

    def gradients(self, xp: Namespace, q: Array, k: Array, v: Array, *op: Array) -> Gradients:
        scale, (o, p) = _scale_of(self.scale, q), op
        of_output = _attention_operators(False, scale, q, k, v, o, p)
        return of_output, _logsumexp_operators(scale, q, k, v, p)

    def pull(self, xp: Namespace, upstream: tuple[Array, Array], q: Array, *kvop: Array) -> Pulled:
        return _attention_backward(*upstream, _scale_of(self.scale, q), q, *kvop)[:3]

    def reference(self, q: Array, k: Array, v: Array) -> Outputs:
        return _plain_attention(q, k, v, _scale_of(self.scale, q))


class FlashAttention(Node):
    """softmax(scale q k^T) v and the logsumexp of the scores, a block of keys at a time.

    Over the blocks run the greatest score m so far, the sum of exp(s - m), and that sum weighted
    by v; where m grows, both sums shrink by exp(old m - new m). Backward has the logsumexp and so
    recomputes p = exp(s - lse) block by block: memory grows with the length, not its square.

    Args:
        block: how many keys are taken at a time.
        scale: the factor of the scores; None: 1 / sqrt(width).
        is_causal: whether query i sees the keys j <= i only.

    Gradients as in `AttentionLogsumexp`, block by block; dq is added over the blocks.
    Source: Dao et al., "FlashAttention" (arXiv:2205.14135, 2022), section 3.1; the running softmax:
    Milakov and Gimelshein, "Online normalizer calculation for softmax" (arXiv:1805.02867, 2018).
    """

    _kind = _Attention._kind
    block: int = 64
    scale: float | None = None
    is_causal: bool = False
    shapes = f"{_QKV} -> (*batch, queries, values), (*batch, queries)"
    drawn = (
        "2x2x2 2x3x2 2x3x1 block=2; 4x2 4x2 4x3 block=2 is_causal=True; "
        "1x3x2 1x2x2 1x2x2 scale=1.0; size-1 axes: 1x1 1x1 1x1"
    )
    points = {"saturated": ({"block": 1, "scale": 1.0}, *_SATURATED)}

    def _blocks(self, q: Array, k: Array, v: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Yield each block's scores, keys and values."""
        queries, keys = q.shape[-2], k.shape[-2]
        visible = _seen(self.is_causal, queries, keys)
        for start in range(0, keys, self.block):
            part = slice(start, start + self.block)
            seen = None if visible is None else visible[:, part]
            kb, vb = k[..., part, :], v[..., part, :]
            yield _scores(q, kb, _scale_of(self.scale, q), seen), kb, vb

    def apply(self, xp: Namespace, q: Array, k: Array, v: Array) -> Applied:
        self.require(self.block > 0 < k.shape[-2], "needs keys, and blocks of at least one key")
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

    def gradients(self, xp: Namespace, q: Array, k: Array, v: Array, *rest: Array) -> Gradients:
        scale, (o, lse) = _scale_of(self.scale, q), rest
        s = xp.concat([s for s, _, _ in self._blocks(q, k, v)], axis=-1)
        p = xp.exp(s - lse[..., None])
        ordered = self.is_causal and q.shape[-2] == k.shape[-2]
        of_output = _attention_operators(ordered, scale, q, k, v, o, p)
        return of_output, _logsumexp_operators(scale, q, k, v, p)

    def pull(
        self, xp: Namespace, upstream: tuple[Array, Array], q: Array, k: Array, *rest: Array
    ) -> Pulled:
        (u, w), (v, o, lse), scale = upstream, rest, _scale_of(self.scale, q)
        delta = (u * o).sum(axis=-1, keepdims=True) - w[..., None]
        dq, dk, dv = xp.zeros_like(q), [], []
        for s, kb, vb in self._blocks(q, k, v):
            p = xp.exp(s - lse[..., None])
            ds = scale * p * (u @ vb.mT - delta)
            dq = dq + ds @ kb
            dk.append(ds.mT @ q)
            dv.append(p.mT @ u)
        return dq, xp.concat(dk, axis=-2), xp.concat(dv, axis=-2)

    def reference(self, q: Array, k: Array, v: Array) -> Outputs:
        return _plain_attention(q, k, v, _scale_of(self.scale, q), causal=self.is_causal)


def _merged(x: Array) -> Shape:
    """Return the shape with the axes of key heads and their queries' heads in one."""
    return (x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


class GroupedQueryAttention(_Attention):
    """Attention in which each head of keys and values serves a group of query heads.

    Query head h reads key head h // (heads / key heads): o[h] = softmax(scale q[h] k[g]^T) v[g].
    One key head is multi-query attention; as many as queries have is multi-head attention.

    Args:
    In k and v the gradients are summed over the heads of the group.
    Source: Ainslie et al., "GQA" (arXiv:2305.13245, 2023), section 2.2.
    """

    scale: float | None = None
    is_causal: bool = False
    shapes = (
        "q (batch, heads, queries, width), k (batch, shared, keys, width), "
        "v (batch, shared, keys, values) -> (batch, heads, queries, values)"
    )
    drawn = (
        "1x4x2x2 1x2x3x2 1x2x3x1; 2x3x3x1 2x1x3x1 2x1x3x2 scale=0.7 is_causal=True; "
        "1x2x2x3 1x2x2x3 1x2x2x2; size-1 axes: 1x1x1x1 1x1x1x1 1x1x1x1"
    )

    def apply(self, xp: Namespace, q: Array, k: Array, v: Array) -> Applied:
        n, heads, queries, width = q.shape
        fits = k.shape[1] > 0 and heads % k.shape[1] == 0
        self.require(fits, "expected heads that k's divide", q=q.shape, k=k.shape)
        q = q.reshape(n, k.shape[1], heads // k.shape[1], queries, width)
        visible = _seen(self.is_causal, queries, k.shape[2])
        o, p = _attend(_scores(q, k, _scale_of(self.scale, q), visible), v)
        return o.reshape(n, heads, queries, v.shape[3]), (q, k, v, o, p)

    def gradients(self, xp: Namespace, q: Array, k: Array, v: Array, *op: Array) -> Gradients:
        o = op[0]
        of_q, of_k, of_v = _attention_operators(False, _scale_of(self.scale, q), q, k, v, *op)
        merge = ops.Reshape(o.shape, _merged(o), o.dtype)
        return merge @ of_q @ ops.Reshape(_merged(q), q.shape, q.dtype), merge @ of_k, merge @ of_v

    def pull(
        self, xp: Namespace, upstream: Array, q: Array, k: Array, v: Array, *op: Array
    ) -> Pulled:
        u = upstream.reshape(op[0].shape)
        dq, dk, dv, _ = _attention_backward(u, None, _scale_of(self.scale, q), q, k, v, *op)
        return dq.reshape(_merged(q)), dk, dv

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
        return _plain_attention(q, k, v, _scale_of(self.scale, q), causal=self.is_causal)[0]


class MultiHeadAttention(Node):
    """Self-attention with its projections: concat_h(softmax(scale q_h k_h^T) v_h) wo.

    q = x wq, k = x wk and v = x wv, each split into heads along its last axis.

    Args:
        heads: the number of heads.
        is_causal: whether position i sees the positions j <= i only.

    Local gradients: products of those of attention, and of the projections on both sides.
    Backward: do = upstream wo^T, dwo = o^T upstream; dq, dk, dv as of attention; dwq = x^T dq and
    so on; dx = dq wq^T + dk wk^T + dv wv^T.
    Source: Vaswani et al., "Attention is all you need" (arXiv:1706.03762, 2017), section 3.2.2.
    """

    heads: int = 2
    is_causal: bool = False
    shapes = (
        "x (batch, length, width), wq (width, keys), wk (width, keys), wv (width, values), "
        "wo (values, outputs) -> (batch, length, outputs)"
    )
    drawn = (
        "2x2x3 3x4 3x4 3x2 2x2; 1x3x2 2x2 2x2 2x4 4x3 is_causal=True; "
        "1x2x2 2x3 2x3 2x2 2x3 heads=1; size-1 axes: 1x1x1 1x1 1x1 1x1 1x1 heads=1"
    )

    def apply(self, xp: Namespace, x: Array, *weights: Array) -> Applied:
        wq, wk, wv, wo = weights
        fits = wq.shape[1] % self.heads == wv.shape[1] % self.heads == 0
        self.require(fits, "columns must divide into equal heads", wq=wq.shape, wv=wv.shape)
        q, k, v = (self._split(x @ w) for w in (wq, wk, wv))
        visible = _seen(self.is_causal, x.shape[1], x.shape[1])
        o, p = _attend(_scores(q, k, _scale_of(None, q), visible), v)
        merged = self._merge(o)
        return merged @ wo, (x, weights, merged, q, k, v, o, p)

    def _split(self, x: Array) -> Array:
        n, length, width = x.shape
        return x.reshape(n, length, self.heads, width // self.heads).swapaxes(1, 2)

    def _merge(self, x: Array) -> Array:
        n, heads, length, width = x.shape
        return x.swapaxes(1, 2).reshape(n, length, heads * width)

    def _splitting(self, x: Array) -> Operator:
        """Return `_split` as an operator, for the array x that it has made."""
        n, heads, length, width = x.shape
        apart = (n, length, heads, width)
        flat = ops.Reshape((n, length, heads * width), apart, x.dtype)
        return ops.Permutation((0, 2, 1, 3), apart, x.dtype) @ flat

    def gradients(
        self, xp: Namespace, x: Array, weights: tuple[Array, ...], merged: Array, *qkvop: Array
    ) -> Gradients:
        q, _, _, o, _ = qkvop
        join = ops.right_multiplication(weights[3], merged.shape) @ self._splitting(o).T
        inner = _attention_operators(self.is_causal, _scale_of(None, q), *qkvop)
        paths = [join @ of @ self._splitting(part) for of, part in zip(inner, qkvop)]
        of_q, of_k, of_v = (
            path @ ops.right_multiplication(w, x.shape) for path, w in zip(paths, weights)
        )
        of_weights = (path @ ops.left_multiplication(x, w.shape) for path, w in zip(paths, weights))
        return of_q + of_k + of_v, *of_weights, ops.left_multiplication(merged, weights[3].shape)

    def pull(
        self,
        xp: Namespace,
        u: Array,
        x: Array,
        weights: tuple[Array, ...],
        merged: Array,
        *qkvop: Array,
    ) -> Pulled:
        u_heads, scale = self._split(u @ weights[3].T), _scale_of(None, qkvop[0])
        found = _attention_backward(u_heads, None, scale, *qkvop)[:3]
        through = [self._merge(g) for g in found]
        dx = sum(g @ w.T for g, w in zip(through, weights))
        return dx, *(over_rows(x, g) for g in through), over_rows(merged, u)

    def reference(self, x: Array, wq: Array, wk: Array, wv: Array, wo: Array) -> Array:
        q, k, v = (
            jnp.einsum("nte,ehd->nhtd", x, w.reshape(w.shape[0], self.heads, -1))
            for w in (wq, wk, wv)
        )
        o = _plain_attention(q, k, v, _scale_of(None, q), causal=self.is_causal)[0]
        return jnp.einsum("nhtd,hdo->nto", o, wo.reshape(self.heads, -1, wo.shape[1]))
