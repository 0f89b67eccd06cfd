"""Attention with many heads: who shares keys, and the layer with its projections.

Source: Vaswani et al., "Attention is all you need" (arXiv:1706.03762, 2017), section 3.2.2.
"""

from dataclasses import dataclass
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._attending import (
    attend,
    attend_back,
    causal,
    keyed_gradients,
    plainly,
    scale_of,
    scores,
)
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.operators import (
    Operator,
    Permutation,
    Reshape,
    left_multiplication,
    right_multiplication,
)

__all__ = ["GroupedQueryAttention", "MultiHeadAttention"]


@dataclass(frozen=True)
class GroupedQueryAttention(Node):
    """Attention in which each head of keys and values serves a group of query heads.

    Query head h reads key head h // (heads / key heads): o[h] = softmax(scale q[h] k[g]^T) v[g].
    One key head is multi-query attention; as many as queries have is multi-head attention.

    Shapes: q (batch, heads, queries, width), k and v (batch, key heads, keys, width), o as q.

    Args:
        scale: the factor of the scores; None: 1 / sqrt(width).
        is_causal: whether query i sees the keys j <= i only.

    Local gradients: in q a block per query; in k and v the gradients of a head of attention, for
    all heads of the group. Backward: ds = p * (upstream v^T - upstream . o); dq = scale ds k;
    dk = scale ds^T q and dv = p^T upstream, both summed over the heads of the group.
    Source: Ainslie et al., "GQA" (arXiv:2305.13245, 2023), section 2.2.
    """

    scale: float | None = None
    is_causal: bool = False

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        q, k, v = as_inputs(self, inputs)
        if (
            not len(q.shape) == len(k.shape) == len(v.shape) == 4
            or k.shape[:3] != v.shape[:3]
            or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3])
            or k.shape[1] == 0
            or q.shape[1] % k.shape[1]
        ):
            raise InputError(
                f"{self!r}: q has shape {shape_text(q.shape)}, k {shape_text(k.shape)} and v "
                f"{shape_text(v.shape)}; expected (batch, heads, queries, width) and (batch, key "
                "heads, keys, width), with a number of heads that the key heads divide"
            )
        n, heads, queries, width = q.shape
        grouped = q.reshape(n, k.shape[1], heads // k.shape[1], queries, width)
        visible = causal(queries, k.shape[2]) if self.is_causal else None
        o, p = attend(scores(grouped, k, scale_of(self.scale, q), visible), v)
        return o.reshape(n, heads, queries, v.shape[3]), (grouped, k, v, o, p)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        q, o = residuals[0], residuals[3]
        of_q, of_k, of_v = keyed_gradients(residuals, scale_of(self.scale, q))
        merge = Reshape(o.shape, _merged(o), o.dtype)
        return merge @ of_q @ Reshape(_merged(q), q.shape, q.dtype), merge @ of_k, merge @ of_v

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        q, o = residuals[0], residuals[3]
        u = as_upstream(self, upstream, o.reshape(_merged(o))).reshape(o.shape)
        dq, dk, dv, _ = attend_back(u, None, residuals, scale_of(self.scale, q))
        return dq.reshape(_merged(q)), dk, dv

    def reference(self, q: Array, k: Array, v: Array) -> Array:
        k, v = (jnp.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
        visible = jnp.ones((q.shape[2], k.shape[2]), bool)
        visible = jnp.tril(visible) if self.is_causal else visible
        return plainly(q, k, v, scale_of(self.scale, q), visible)[0]

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (1, 4, 2, 2), (1, 2, 3, 2), (1, 2, 3, 1)),
            generic(cls(0.7, is_causal=True), (2, 3, 3, 1), (2, 1, 3, 1), (2, 1, 3, 2)),
            generic(cls(), (1, 2, 2, 3), (1, 2, 2, 3), (1, 2, 2, 2)),
            Case(cls(), ((1, 1, 1, 1),) * 3, "size-1 axes"),
        )


def _merged(x: Array) -> tuple[int, ...]:
    """Return the shape with the axes of key heads and their queries' heads in one."""
    return (x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


@dataclass(frozen=True)
class MultiHeadAttention(Node):
    """Self-attention with its projections: concat_h(softmax(scale q_h k_h^T) v_h) wo.

    q = x wq, k = x wk and v = x wv, each split into heads along its last axis.

    Shapes: x (batch, length, width), wq and wk (width, heads * head width), wv (width, heads *
    value width), wo (heads * value width, output width), y (batch, length, output width).

    Args:
        heads: the number of heads.
        is_causal: whether position i sees the positions j <= i only.

    Local gradients: products of those of attention, and of the projections on both sides.
    Backward: do = upstream wo^T, dwo = o^T upstream; dq, dk, dv as of attention; dwq = x^T dq and
    so on; dx = dq wq^T + dk wk^T + dv wv^T.
    """

    heads: int = 2
    is_causal: bool = False

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        x, *weights = as_inputs(self, inputs)
        wq, wk, wv, wo = weights
        if (
            len(x.shape) != 3
            or any(len(w.shape) != 2 for w in weights)
            or not x.shape[2] == wq.shape[0] == wk.shape[0] == wv.shape[0]
            or wq.shape != wk.shape
            or wv.shape[1] != wo.shape[0]
            or wq.shape[1] % self.heads
            or wv.shape[1] % self.heads
        ):
            shapes = ", ".join(shape_text(w.shape) for w in weights)
            raise InputError(
                f"{self!r}: x has shape {shape_text(x.shape)}, wq, wk, wv and wo {shapes}; "
                f"expected (batch, length, width), its three projections to {self.heads} heads of "
                "equal width (the same for wq and wk), and wo from all heads' values to the output"
            )
        q, k, v = (self._split(x @ w) for w in (wq, wk, wv))
        visible = causal(x.shape[1], x.shape[1]) if self.is_causal else None
        o, p = attend(scores(q, k, scale_of(None, q), visible), v)
        merged = self._merge(o)
        y = (merged @ wo).astype(x.dtype)
        return y, (x, weights, (q, k, v, o, p), merged, y)

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
        return Permutation((0, 2, 1, 3), apart, x.dtype) @ Reshape(
            (n, length, heads * width), apart, x.dtype
        )

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, weights, kept, merged, _ = residuals
        wo = weights[3]
        join = right_multiplication(wo, merged.shape) @ self._splitting(kept[3]).T
        inner = keyed_gradients(kept, scale_of(None, kept[0]), self.is_causal)
        paths = [join @ of @ self._splitting(part) for of, part in zip(inner, kept[:3])]
        of_q, of_k, of_v = (
            path @ right_multiplication(w, x.shape) for path, w in zip(paths, weights)
        )
        of_weights = (path @ left_multiplication(x, w.shape) for path, w in zip(paths, weights))
        return of_q + of_k + of_v, *of_weights, left_multiplication(merged, wo.shape)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Any, ...]:
        x, weights, kept, merged, y = residuals
        u = as_upstream(self, upstream, y)
        u_heads = self._split(u @ weights[3].T)
        grads = attend_back(u_heads, None, kept, scale_of(None, kept[0]))[:3]
        through = [self._merge(g) for g in grads]
        dx = sum(g @ w.T for g, w in zip(through, weights))
        return (
            dx.astype(x.dtype),
            *(_over_rows(x, g).astype(w.dtype) for g, w in zip(through, weights)),
            _over_rows(merged, u).astype(weights[3].dtype),
        )

    def reference(self, x: Array, wq: Array, wk: Array, wv: Array, wo: Array) -> Array:
        q, k, v = (
            jnp.einsum("nte,ehd->nhtd", x, w.reshape(w.shape[0], self.heads, -1))
            for w in (wq, wk, wv)
        )
        visible = jnp.ones((x.shape[1], x.shape[1]), bool)
        visible = jnp.tril(visible) if self.is_causal else visible
        o = plainly(q, k, v, scale_of(None, q), visible)[0]
        return jnp.einsum("nhtd,hdo->nto", o, wo.reshape(self.heads, -1, wo.shape[1]))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 2, 3), (3, 4), (3, 4), (3, 2), (2, 2)),
            generic(cls(is_causal=True), (1, 3, 2), (2, 2), (2, 2), (2, 4), (4, 3)),
            generic(cls(heads=1), (1, 2, 2), (2, 3), (2, 3), (2, 2), (2, 3)),
            Case(cls(heads=1), ((1, 1, 1), *((1, 1),) * 4), "size-1 axes"),
        )


def _over_rows(a: Array, b: Array) -> Array:
    """Return a^T b over all rows of the batch."""
    xp = namespace(a)
    return xp.reshape(a, (-1, a.shape[-1])).T @ xp.reshape(b, (-1, b.shape[-1]))
