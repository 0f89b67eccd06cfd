"""Attention in tiles, as FlashAttention computes it, against plain attention.

The tiled form never holds the T x T weights: forward keeps a running maximum and sum, backward
recomputes each tile from the logsumexp (Dao et al. 2022, "FlashAttention", algorithm 1 and appendix
B.2). `reference=` says what it should equal, and `jacobian` proves that it cannot see the future.
"""

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4


def plain_attention(q, k, v):
    scores = q @ k.T / q.shape[-1] ** 0.5
    past = jnp.tril(jnp.ones(scores.shape, bool))
    return jax.nn.softmax(jnp.where(past, scores, -jnp.inf)) @ v


def tiles(q, k):
    """Yield (start of the keys, scores masked by causality) for each tile of keys."""
    rows = jnp.arange(q.shape[0])[:, None]
    for start in range(0, k.shape[0], TILE):
        columns = start + jnp.arange(TILE)[None, :]
        scores = q @ k[start : start + TILE].T / q.shape[-1] ** 0.5
        yield start, jnp.where(columns <= rows, scores, -jnp.inf)


def attend(q, k, v):
    greatest = jnp.full(q.shape[:1], -jnp.inf, q.dtype)
    total, out = jnp.zeros_like(greatest), jnp.zeros_like(q)
    for start, scores in tiles(q, k):
        new = jnp.maximum(greatest, scores.max(-1))
        keep, p = jnp.exp(greatest - new), jnp.exp(scores - new[:, None])
        total = total * keep + p.sum(-1)
        out = out * keep[:, None] + p @ v[start : start + TILE]
        greatest = new
    return out / total[:, None], greatest + jnp.log(total)


@jax.custom_vjp
def tiled_attention(q, k, v):
    return attend(q, k, v)[0]


def forward(q, k, v):
    out, logsumexp = attend(q, k, v)
    return out, (q, k, v, out, logsumexp)


def backward(residuals, upstream):
    q, k, v, out, logsumexp = residuals
    along = (upstream * out).sum(-1, keepdims=True)
    dq, dk, dv = jnp.zeros_like(q), [], []
    for start, scores in tiles(q, k):
        p = jnp.exp(scores - logsumexp[:, None])
        ds = p * (upstream @ v[start : start + TILE].T - along) / q.shape[-1] ** 0.5
        dq += ds @ k[start : start + TILE]
        dk.append(ds.T @ q)
        dv.append(p.T @ upstream)
    return dq, jnp.concatenate(dk), jnp.concatenate(dv)


tiled_attention.defvjp(forward, backward)

Q, K, V = np.random.default_rng(0).normal(size=(3, 12, 5))


def test_the_tiles_are_plain_attention(gradcheck):
    report = gradcheck(tiled_attention, Q, K, V, reference=plain_attention)
    assert report.grade == "proved"  # both are one formula


def test_no_position_sees_the_future(jacobian):
    jacobian(plain_attention, Q, K, V, wrt="v").assert_causal(0)
