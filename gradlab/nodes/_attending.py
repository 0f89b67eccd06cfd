"""Scaled dot-product attention: the forward, the backward and the local gradients of all its forms.

    s = scale q k^T,    p = softmax(s) over the keys that are visible,    o = p v

k and v have the batch axes of q, or lack the last one, whose heads then share them. With u the
upstream of o and w that of the logsumexp of s:

    dv = p^T u,    ds = p * (u v^T - (u . o) + w),    dq = scale ds k,    dk = scale ds^T q

Source: Vaswani et al., "Attention is all you need" (arXiv:1706.03762, 2017), section 3.2; the
backward as in Dao et al., "FlashAttention" (arXiv:2205.14135, 2022), appendix B.
"""

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, namespace
from gradlab.nodes._functions import softmax
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import BlockDiagonal, Contraction, LowerTriangular, Operator

if TYPE_CHECKING:
    from gradlab.nodes._base import Node

__all__ = [
    "Kept",
    "attend",
    "attend_back",
    "causal",
    "keyed_gradients",
    "of_logsumexp",
    "plainly",
    "require_heads",
    "scale_of",
    "scores",
    "window",
]

Kept: TypeAlias = tuple[Array, Array, Array, Array, Array]  # q, k, v, o, p

_BATCH = "ABCDFGHIJK"


def require_heads(node: "Node", q: Array, k: Array, v: Array) -> None:
    """Check that queries, keys and values belong together.

    Raises:
        InputError: their widths, lengths or batch axes do not fit.
    """
    if (
        not len(q.shape) == len(k.shape) == len(v.shape) >= 2
        or q.shape[-1] != k.shape[-1]
        or k.shape[:-1] != v.shape[:-1]
        or q.shape[:-2] != k.shape[:-2]
    ):
        raise InputError(
            f"{node!r}: q has shape {shape_text(q.shape)}, k {shape_text(k.shape)} and v "
            f"{shape_text(v.shape)}; expected (*batch, queries, width), (*batch, keys, width) and "
            "(*batch, keys, value width)"
        )


def scale_of(scale: float | None, q: Array) -> float:
    """Return the factor of the scores: 1 / sqrt(width) unless one is given."""
    return 1.0 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale


def causal(queries: int, keys: int) -> Array:
    """Return which keys each query sees if none lies after it: (queries, keys)."""
    return window(queries, keys, keys)


def window(queries: int, keys: int, size: int) -> Array:
    """Return which keys each query sees: itself and the `size - 1` before it."""
    behind = np.arange(queries)[:, None] - np.arange(keys)
    return (behind >= 0) & (behind < size)


def _like(q: Array, k: Array) -> Array:
    """Return k with the axis of heads that it lacks."""
    return k if len(k.shape) == len(q.shape) else k[..., None, :, :]


def _turned(a: Array) -> Array:
    return a.swapaxes(-1, -2)


def scores(q: Array, k: Array, scale: float, visible: Array | None = None) -> Array:
    """Return scale q k^T, -inf where a key is not visible."""
    xp = namespace(q)
    s = ((scale * q) @ _turned(_like(q, k))).astype(q.dtype)
    if visible is None:
        return s
    visible = xp.broadcast_to(xp.asarray(visible), s.shape)
    return xp.where(visible, s, xp.asarray(-math.inf, dtype=s.dtype))


def attend(s: Array, v: Array) -> tuple[Array, Array]:
    """Return the output p v, and p; where nothing is visible both are 0."""
    p = softmax(s, -1)
    return (p @ _like(p, v)).astype(v.dtype), p


def attend_back(u: Array, w: Array | None, kept: Kept, scale: float) -> tuple[Array, ...]:
    """Return the gradients of q, k, v and of the scores for the upstreams u of o and w of lse."""
    q, k, v, o, p = kept
    delta = (u * o).sum(axis=-1, keepdims=True)
    if w is not None:
        delta = delta - w[..., None]
    ds = p * (u @ _turned(_like(q, v)) - delta)
    dk = scale * (_turned(ds) @ q)
    dv = _turned(p) @ u
    if len(k.shape) < len(q.shape):
        dk, dv = dk.sum(axis=-3), dv.sum(axis=-3)
    dq = scale * (ds @ _like(q, k))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), ds.astype(q.dtype)


def keyed_gradients(
    kept: Kept, scale: float, ordered: bool = False
) -> tuple[Operator, Operator, Operator]:
    """Return do/dq, do/dk and do/dv.

    do_i/dq_i = scale sum_j p_ij (v_j - o_i) k_j^T, one block per query; do_i/dk_j = scale p_ij
    (v_j - o_i) q_i^T; do_i/dv_j = p_ij, in every channel. Nothing else is nonzero.

    Args:
        kept: q, k, v, o and p.
        scale: the factor of the scores.
        ordered: whether no query sees a later key, and there are as many of either.
    """
    q, k, v, o, p = kept
    xp = namespace(q)
    b = _BATCH[: len(q.shape) - 2]
    c = b[: len(k.shape) - 2]
    mean = p @ _like(q, k)
    blocks = xp.einsum(f"{b}ij,{c}je,{c}jd->{b}ied", p, v, k) - o[..., None] * mean[..., None, :]
    each = Contraction(f"{b}ij,{c}je,{b}id,{c}jd->{b}ie", scale * p, v, q, input_shape=k.shape)
    mean_of = Contraction(f"{b}ij,{b}ie,{b}id,{c}jd->{b}ie", scale * p, o, q, input_shape=k.shape)
    if ordered:
        entries = xp.broadcast_to(p[..., None, :, :], (*p.shape[:-2], v.shape[-1], *p.shape[-2:]))
        of_v: Operator = LowerTriangular(entries, v.shape, axis=-2)
    else:
        of_v = Contraction(f"{b}ij,{c}je->{b}ie", p, input_shape=v.shape)
    return BlockDiagonal(scale * blocks), each - mean_of, of_v


def of_logsumexp(q: Array, k: Array, p: Array, scale: float) -> tuple[Operator, Operator]:
    """Return the gradients of the logsumexp of the scores: its derivative in s_ij is p_ij."""
    b = _BATCH[: len(q.shape) - 2]
    mean = (scale * (p @ k)).astype(q.dtype)
    return (
        Contraction(f"{b}id,{b}id->{b}i", mean, input_shape=q.shape),
        Contraction(f"{b}ij,{b}id,{b}jd->{b}i", scale * p, q, input_shape=k.shape),
    )


def plainly(
    q: Array, k: Array, v: Array, scale: float, visible: Any = True, bias: Any = 0.0
) -> tuple[Array, Array]:
    """Return the output and the logsumexp as a reader of the paper would write them for JAX."""
    s = scale * jnp.einsum("...id,...jd->...ij", q, k) + bias
    visible = jnp.broadcast_to(jnp.asarray(visible), s.shape)
    kept = jnp.where(visible, s, jnp.finfo(s.dtype).min)
    p = jnp.where(visible, jax.nn.softmax(kept, axis=-1), 0.0)
    lse = jax.nn.logsumexp(jnp.where(visible, s, -jnp.inf), axis=-1)
    return jnp.einsum("...ij,...je->...ie", p, v), lse
