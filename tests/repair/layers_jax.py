"""Layers with rules as people write them in JAX: right ones. Mistakes are put into their text."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@jax.custom_vjp
def rms_norm(x, weight):
    return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * weight


def rms_norm_fwd(x, weight):
    r = lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return x * r * weight, (x, weight, r)


def rms_norm_bwd(res, g):
    x, weight, r = res
    u = g * weight
    dot = jnp.mean(u * x, axis=-1, keepdims=True)
    dx = r * u - r**3 * x * dot
    dweight = jnp.sum(g * x * r, axis=tuple(range(g.ndim - 1)))
    return dx, dweight


rms_norm.defvjp(rms_norm_fwd, rms_norm_bwd)


@jax.custom_vjp
def layer_norm(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    var = jnp.var(x, -1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


def layer_norm_fwd(x, scale, bias):
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-5)
    y = (x - mean) * rstd
    return y * scale + bias, (y, rstd, scale)


def layer_norm_bwd(res, g):
    y, rstd, scale = res
    dy = g * scale
    m1 = jnp.mean(dy, axis=-1, keepdims=True)
    m2 = jnp.mean(dy * y, axis=-1, keepdims=True)
    dx = rstd * (dy - m1 - y * m2)
    return dx, jnp.sum(g * y, axis=0), jnp.sum(g, axis=0)


layer_norm.defvjp(layer_norm_fwd, layer_norm_bwd)


@jax.custom_vjp
def softmax_xent(logits, labels):
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def softmax_xent_fwd(logits, labels):
    return softmax_xent(logits, labels), (logits, labels)


def softmax_xent_bwd(res, g):
    logits, labels = res
    n = logits.shape[0]
    p = jax.nn.softmax(logits, axis=-1)
    total = labels.sum(axis=-1, keepdims=True)
    dlogits = g * (p * total - labels) / n
    dlabels = -g * jax.nn.log_softmax(logits) / n
    return dlogits, dlabels


softmax_xent.defvjp(softmax_xent_fwd, softmax_xent_bwd)


@jax.custom_vjp
def attention(q, k, v):
    s = jnp.einsum("bqd,bkd->bqk", q, k) / jnp.sqrt(q.shape[-1])
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(s, axis=-1), v)


def attention_fwd(q, k, v):
    s = jnp.einsum("bqd,bkd->bqk", q, k) / jnp.sqrt(q.shape[-1])
    p = jax.nn.softmax(s, axis=-1)
    o = jnp.einsum("bqk,bkd->bqd", p, v)
    return o, (q, k, v, p, o)


def attention_bwd(res, g):
    q, k, v, p, o = res
    scale = 1 / jnp.sqrt(q.shape[-1])
    dv = jnp.einsum("bqk,bqd->bkd", p, g)
    dp = jnp.einsum("bqd,bkd->bqk", g, v)
    delta = jnp.sum(g * o, axis=-1, keepdims=True)
    ds = p * (dp - delta) * scale
    dq = jnp.einsum("bqk,bkd->bqd", ds, k)
    dk = jnp.einsum("bqk,bqd->bkd", ds, q)
    return dq, dk, dv


attention.defvjp(attention_fwd, attention_bwd)


@jax.custom_vjp
def gelu(x):
    return 0.5 * x * (1 + jnp.tanh(0.79788456 * (x + 0.044715 * x**3)))


def gelu_fwd(x):
    return gelu(x), x


def gelu_bwd(x, g):
    t = jnp.tanh(0.79788456 * (x + 0.044715 * x**3))
    dt = (1 - t * t) * 0.79788456 * (1 + 3 * 0.044715 * x**2)
    return (g * (0.5 * (1 + t) + 0.5 * x * dt),)


gelu.defvjp(gelu_fwd, gelu_bwd)


@jax.custom_jvp
def softplus(x):
    return jnp.log1p(jnp.exp(x))


@softplus.defjvp
def softplus_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return softplus(x), t * jax.nn.sigmoid(x)


@jax.custom_vjp
def swiglu(x, w, v):
    return jax.nn.silu(x @ w) * (x @ v)


def swiglu_fwd(x, w, v):
    return swiglu(x, w, v), (x, w, v)


def swiglu_bwd(res, g):
    x, w, v = res
    a, b = x @ w, x @ v
    s = jax.nn.sigmoid(a)
    da = g * b * s * (1 + a * (1 - s))
    db = g * a * s
    return da @ w.T + db @ v.T, x.T @ da, x.T @ db


swiglu.defvjp(swiglu_fwd, swiglu_bwd)


@jax.custom_vjp
def dense(x, w, b):
    return jnp.maximum(jnp.dot(x, w) + b, 0)


def dense_fwd(x, w, b):
    y = dense(x, w, b)
    return y, (x, w, y)


def dense_bwd(res, g):
    x, w, y = res
    d = jnp.where(y > 0, g, 0.0)
    return jnp.dot(d, w.T), jnp.dot(x.T, d), d.sum(0)


dense.defvjp(dense_fwd, dense_bwd)


def _step(h, x, w, u):
    return jnp.tanh(x @ w + h @ u)


@jax.custom_vjp
def rnn(xs, h0, w, u):
    def step(h, x):
        h = _step(h, x, w, u)
        return h, h

    return lax.scan(step, h0, xs)[1]


def rnn_fwd(xs, h0, w, u):
    hs = rnn(xs, h0, w, u)
    return hs, (xs, h0, w, u, hs)


def rnn_bwd(res, g):
    xs, h0, w, u, hs = res
    before = jnp.concatenate([h0[None], hs[:-1]])

    def step(carry, each):
        dh, dw, du = carry
        x, prev, h, up = each
        dz = (dh + up) * (1 - h**2)
        return (dz @ u.T, dw + jnp.outer(x, dz), du + jnp.outer(prev, dz)), dz @ w.T

    start = (jnp.zeros_like(h0), jnp.zeros_like(w), jnp.zeros_like(u))
    (dh, dw, du), dxs = lax.scan(step, start, (xs, before, hs, g), reverse=True)
    return dxs, dh, dw, du


rnn.defvjp(rnn_fwd, rnn_bwd)


@jax.custom_vjp
def logsumexp(x):
    return jax.nn.logsumexp(x, axis=-1)


def logsumexp_fwd(x):
    y = logsumexp(x)
    return y, (x, y)


def logsumexp_bwd(res, g):
    x, y = res
    return (g[..., None] * jnp.exp(x - y[..., None]),)


logsumexp.defvjp(logsumexp_fwd, logsumexp_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def huber(pred, target, delta):
    r = pred - target
    small = jnp.abs(r) <= delta
    return jnp.mean(jnp.where(small, 0.5 * r**2, delta * (jnp.abs(r) - 0.5 * delta)))


def huber_fwd(pred, target, delta):
    return huber(pred, target, delta), pred - target


def huber_bwd(delta, r, g):
    d = jnp.where(jnp.abs(r) <= delta, r, delta * jnp.sign(r))
    d = g * d / r.size
    return d, -d


huber.defvjp(huber_fwd, huber_bwd)


@jax.custom_vjp
def embed(table, ids):
    return table[ids] * jnp.sqrt(table.shape[1])


def embed_fwd(table, ids):
    return embed(table, ids), (table, ids)


def embed_bwd(res, g):
    table, ids = res
    return jnp.zeros_like(table).at[ids].add(g * jnp.sqrt(table.shape[1])), None


embed.defvjp(embed_fwd, embed_bwd)


@jax.custom_vjp
def group_norm(x, gamma):
    n, c = x.shape
    z = x.reshape(n, 2, c // 2)
    z = (z - z.mean(2, keepdims=True)) * lax.rsqrt(z.var(2, keepdims=True) + 1e-5)
    return z.reshape(n, c) * gamma


def group_norm_fwd(x, gamma):
    n, c = x.shape
    z = x.reshape(n, 2, c // 2)
    rstd = lax.rsqrt(z.var(2, keepdims=True) + 1e-5)
    xhat = (z - z.mean(2, keepdims=True)) * rstd
    return xhat.reshape(n, c) * gamma, (xhat, rstd, gamma)


def group_norm_bwd(res, g):
    xhat, rstd, gamma = res
    n, c = g.shape
    dgamma = (g * xhat.reshape(n, c)).sum(0)
    d = (g * gamma).reshape(xhat.shape)
    d = d - d.mean(2, keepdims=True) - xhat * (d * xhat).mean(2, keepdims=True)
    return (rstd * d).reshape(n, c), dgamma


group_norm.defvjp(group_norm_fwd, group_norm_bwd)


@jax.custom_vjp
def cosine(a, b):
    return jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))


def cosine_fwd(a, b):
    return cosine(a, b), (a, b)


def cosine_bwd(res, g):
    a, b = res
    na = jnp.sqrt(jnp.sum(a**2, -1, keepdims=True))
    nb = jnp.sqrt(jnp.sum(b**2, -1, keepdims=True))
    c = jnp.sum(a * b, -1, keepdims=True) / (na * nb)
    g = g[:, None]
    return g * (b / nb - c * a / na) / na, g * (a / na - c * b / nb) / nb


cosine.defvjp(cosine_fwd, cosine_bwd)


@jax.custom_vjp
def rotary(x, angle):
    a, b = jnp.split(x, 2, axis=-1)
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def rotary_fwd(x, angle):
    return rotary(x, angle), (x, angle)


def rotary_bwd(res, g):
    x, angle = res
    a, b = jnp.split(x, 2, axis=-1)
    ga, gb = jnp.split(g, 2, axis=-1)
    c, s = jnp.cos(angle), jnp.sin(angle)
    dx = jnp.concatenate([ga * c + gb * s, gb * c - ga * s], axis=-1)
    dangle = ga * (-a * s - b * c) + gb * (a * c - b * s)
    return dx, dangle


rotary.defvjp(rotary_fwd, rotary_bwd)


@jax.custom_vjp
def kl(mu, logvar):
    return -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))


def kl_fwd(mu, logvar):
    return kl(mu, logvar), (mu, logvar)


def kl_bwd(res, g):
    mu, logvar = res
    return g * mu, 0.5 * g * (jnp.exp(logvar) - 1)


kl.defvjp(kl_fwd, kl_bwd)


def inputs(d):
    """The inputs of every layer."""
    f = d.normal
    return {
        "rms_norm": (f(size=(4, 6)), f(size=6)),
        "layer_norm": (f(size=(4, 6)), f(size=6), f(size=6)),
        "softmax_xent": (f(size=(4, 3)), d.uniform(size=(4, 3))),
        "attention": (f(size=(2, 3, 5)), f(size=(2, 4, 5)), f(size=(2, 4, 5))),
        "gelu": (f(size=(3, 4)),),
        "softplus": (f(size=(3, 4)),),
        "swiglu": (f(size=(4, 3)), f(size=(3, 5)), f(size=(3, 5))),
        "dense": (f(size=(4, 3)), f(size=(3, 5)), f(size=5)),
        "rnn": (f(size=(4, 3)), f(size=5), f(size=(3, 5)), f(size=(5, 5))),
        "logsumexp": (f(size=(3, 5)),),
        "huber": (f(size=(3, 4)), f(size=(3, 4)), 1.0),
        "embed": (f(size=(6, 3)), np.array([[1, 4, 1], [0, 2, 1]])),
        "group_norm": (f(size=(3, 8)), f(size=8)),
        "cosine": (f(size=(3, 5)), f(size=(3, 5))),
        "rotary": (f(size=(3, 8)), f(size=(3, 4))),
        "kl": (f(size=(3, 4)), f(size=(3, 4))),
    }
