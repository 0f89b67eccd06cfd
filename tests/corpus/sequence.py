"""Attention and recurrences: masks, heads, second outputs, states carried on."""

import numpy as np
from corpus.model import FULL, operation


def _softmax(xp, s):
    e = xp.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


_MASK = np.tril(np.ones((4, 4), bool))


def _attention(xp, q, k, v):
    s = q @ k.T / 2
    return _softmax(xp, xp.where(_MASK, s, -1e4))


@operation(lambda d: (d.unit(4, 4), d.unit(4, 4), d.unit(4, 3)))
class causal_attention:
    def forward(xp, q, k, v):
        return _attention(xp, q, k, v) @ v

    def backward(xp, g, q, k, v):
        p = _attention(xp, q, k, v)
        dp = g @ v.T
        ds = _MASK * p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / 2
        return ds @ k, ds.T @ q, p.T @ g


@causal_attention.fault("meta-pytorch/MSLK#263", "condition")
def backward_unmasked(xp, g, q, k, v):
    p = _softmax(xp, q @ k.T / 2)
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / 2
    return ds @ k, ds.T @ q, p.T @ g


@causal_attention.fault("a scale forgotten", "factor")
def scale_forgotten(xp, g, q, k, v):
    p = _attention(xp, q, k, v)
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True))
    return ds @ k, ds.T @ q, p.T @ g


@causal_attention.fault("oneflow#6149", "swapped")
def queries_and_keys_swapped(xp, g, q, k, v):
    p = _attention(xp, q, k, v)
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / 2
    return ds.T @ q, ds @ k, p.T @ g


@causal_attention.fault("fast-MPN-COV#28", "not transposed")
def probabilities_not_transposed(xp, g, q, k, v):
    p = _attention(xp, q, k, v)
    dp = g @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / 2
    return ds @ k, ds.T @ q, p @ g


@causal_attention.fault("a softmax Jacobian taken for diagonal")
def softmax_diagonal(xp, g, q, k, v):
    p = _attention(xp, q, k, v)
    ds = p * (1 - p) * (g @ v.T) / 2
    return ds @ k, ds.T @ q, p.T @ g


@operation(lambda d: (d.unit(3, 4), d.unit(5, 4), d.unit(5, 2)), dtypes=FULL)
class attention_with_lse:
    """Two outputs: the mixture and the logsumexp of the scores."""

    def forward(xp, q, k, v):
        s = q @ k.T / 2
        m = s.max(axis=-1)
        return _softmax(xp, s) @ v, m + xp.log(xp.exp(s - m[:, None]).sum(axis=-1))

    def backward(xp, g, q, k, v):
        p = _softmax(xp, q @ k.T / 2)
        dp = g[0] @ v.T
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True) + g[1][:, None]) / 2
        return ds @ k, ds.T @ q, p.T @ g[0]


@attention_with_lse.fault("Dao-AILab/flash-attention#1817", "upstream ignored")
def lse_upstream_dropped(xp, g, q, k, v):
    p = _softmax(xp, q @ k.T / 2)
    dp = g[0] @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / 2
    return ds @ k, ds.T @ q, p.T @ g[0]


@attention_with_lse.fault("jax#3213", "sign")
def lse_upstream_negated(xp, g, q, k, v):
    p = _softmax(xp, q @ k.T / 2)
    dp = g[0] @ v.T
    ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True) - g[1][:, None]) / 2
    return ds @ k, ds.T @ q, p.T @ g[0]


@operation(lambda d: (d.unit(6, 3), d.unit(2, 3)), dtypes=FULL)
class grouped_scores:
    """Six query heads share two key heads: head h reads key head h // 3."""

    def forward(xp, q, k):
        return (q * k[np.arange(6) // 3]).sum(axis=1)

    def backward(xp, g, q, k):
        dk = (g[:, None] * q).reshape(2, 3, 3).sum(axis=1)
        return g[:, None] * k[np.arange(6) // 3], dk


@grouped_scores.fault("native-sparse-attention-triton#27")
def heads_by_share_count(xp, g, q, k):
    dk = (g[:, None] * q).reshape(3, 2, 3).sum(axis=0)
    return g[:, None] * k[np.arange(6) % 2], dk


@operation(lambda d: (d.unit(2, 3), d.unit(2, 3), d.unit(2, 3), d.unit(2, 3)), dtypes=FULL)
class memory_cell:
    """c' = s(f) c + s(i) tanh(z); h = tanh(c'). Outputs h and c'."""

    def forward(xp, f, i, z, c):
        new = c / (1 + xp.exp(-f)) + xp.tanh(z) / (1 + xp.exp(-i))
        return xp.tanh(new), new

    def backward(xp, g, f, i, z, c):
        return _cell_backward(xp, g[0], g[1], f, i, z, c)


def _cell_backward(xp, dh, dc, f, i, z, c):
    sf, si = 1 / (1 + xp.exp(-f)), 1 / (1 + xp.exp(-i))
    t = xp.tanh(z)
    h = xp.tanh(c * sf + t * si)
    d = dh * (1 - h * h) + dc
    return d * c * sf * (1 - sf), d * t * si * (1 - si), d * si * (1 - t * t), d * sf


@memory_cell.fault("deeplearning4j#8838", "upstream ignored")
def last_cell_ignored(xp, g, f, i, z, c):
    return _cell_backward(xp, g[0], 0 * g[1], f, i, z, c)


@memory_cell.fault("chainer 1e128aa0ee", "upstream ignored")
def hidden_ignored(xp, g, f, i, z, c):
    return _cell_backward(xp, 0 * g[0], g[1], f, i, z, c)


@memory_cell.fault("apache/mxnet#18203")
def cell_counted_twice(xp, g, f, i, z, c):
    return _cell_backward(xp, g[0] + g[1], g[1], f, i, z, c)


@memory_cell.fault("oneflow#6149", "swapped")
def gates_swapped(xp, g, f, i, z, c):
    df, di, dz, dc = _cell_backward(xp, g[0], g[1], f, i, z, c)
    return di, df, dz, dc


@operation(lambda d: (d.unit(4, 3), d.unit(3, 3) / 2, (d.unit(4, 3) > -0.3) * 1.0), dtypes=FULL)
class masked_recurrence:
    """h_t = m_t * tanh(h_{t-1} W + x_t) over four steps; the mask changes from step to step."""

    def forward(xp, x, w, m):
        return _states(xp, x, w, m)[-1]

    def backward(xp, g, x, w, m):
        return _through_time(xp, g, x, w, m, range(4))


def _states(xp, x, w, m):
    h = [0 * x[0]]
    for t in range(4):
        h.append(m[t] * xp.tanh(h[-1] @ w + x[t]))
    return h


def _through_time(xp, g, x, w, m, mask_of):
    h = _states(xp, x, w, m)
    dx, dm, dw = [None] * 4, [None] * 4, 0 * w
    for t in reversed(range(4)):
        a = xp.tanh(h[t] @ w + x[t])
        dm[t] = g * a
        dx[t] = g * m[mask_of[t]] * (1 - a * a)
        dw = dw + h[t][:, None] * dx[t][None, :]
        g = dx[t] @ w.T
    return xp.stack(dx), dw, xp.stack(dm)


@masked_recurrence.fault("lmnt-com/haste#43", "condition")
def first_mask_for_all_steps(xp, g, x, w, m):
    return _through_time(xp, g, x, w, m, [0, 0, 0, 0])


@masked_recurrence.fault("truncated after one step", "term|condition")
def truncated(xp, g, x, w, m):
    dx, dw, dm = _through_time(xp, g, x, w, m, range(4))
    keep = xp.asarray((np.arange(4) == 3)[:, None] * 1.0, x.dtype)
    return dx * keep, dw, dm


@masked_recurrence.fault("jax#753", "detached")
def inputs_zero(xp, g, x, w, m):
    dx, dw, dm = _through_time(xp, g, x, w, m, range(4))
    return 0 * dx, dw, dm


@masked_recurrence.fault("fast-MPN-COV#28", "transposed")
def recurrent_weights_transposed(xp, g, x, w, m):
    dx, dw, dm = _through_time(xp, g, x, w, m, range(4))
    return dx, dw.T, dm
