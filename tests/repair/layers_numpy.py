"""Layers as people write them in NumPy: right ones. Mistakes are put into their text."""

import numpy as np


def rms_norm(x, gamma):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return x * r * gamma, (x, gamma, r)


def rms_norm_backward(dout, cache):
    x, gamma, r = cache
    dy = dout * gamma
    dot = np.mean(dy * x, axis=-1, keepdims=True)
    dx = r * dy - r**3 * x * dot
    dgamma = np.sum(dout * x * r, axis=0)
    return dx, dgamma


def layer_norm(x, gamma, beta):
    mu = x.mean(axis=1, keepdims=True)
    var = x.var(axis=1, keepdims=True)
    std = np.sqrt(var + 1e-5)
    xhat = (x - mu) / std
    return gamma * xhat + beta, (xhat, std, gamma)


def layer_norm_backward(dout, cache):
    xhat, std, gamma = cache
    n = xhat.shape[1]
    dbeta = dout.sum(axis=0)
    dgamma = (dout * xhat).sum(axis=0)
    dxhat = dout * gamma
    mean_d = dxhat.sum(axis=1, keepdims=True) / n
    mean_dx = (dxhat * xhat).sum(axis=1, keepdims=True) / n
    dx = (dxhat - mean_d - xhat * mean_dx) / std
    return dx, dgamma, dbeta


def batch_norm(x, gamma, beta):
    mean = x.mean(axis=0)
    var = x.var(axis=0)
    ivar = 1.0 / np.sqrt(var + 1e-5)
    xmu = x - mean
    xhat = xmu * ivar
    return gamma * xhat + beta, (xhat, xmu, ivar, gamma)


def batch_norm_backward(dout, cache):
    xhat, xmu, ivar, gamma = cache
    m = dout.shape[0]
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    dvar = np.sum(dxhat * xmu, axis=0) * -0.5 * ivar**3
    dmean = -np.sum(dxhat * ivar, axis=0)
    dx = dxhat * ivar + dvar * 2 * xmu / m + dmean / m
    return dx, dgamma, dbeta


def softmax_cross_entropy(logits, y):
    z = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    n = logits.shape[0]
    loss = -np.log(p[np.arange(n), y]).sum() / n
    return loss, (p, y)


def softmax_cross_entropy_backward(dout, cache):
    p, y = cache
    n = p.shape[0]
    d = p.copy()
    d[np.arange(n), y] -= 1
    d /= n
    return (dout * d,)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    s = e / e.sum(axis=-1, keepdims=True)
    return s, s


def softmax_backward(dout, s):
    dot = (dout * s).sum(axis=-1, keepdims=True)
    return (s * (dout - dot),)


def attention(q, k, v):
    scale = 1 / np.sqrt(q.shape[1])
    scores = q @ k.T * scale
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    a = e / e.sum(axis=1, keepdims=True)
    return a @ v, (q, k, v, a, scale)


def attention_backward(dout, cache):
    q, k, v, a, scale = cache
    dv = a.T @ dout
    da = dout @ v.T
    ds = a * (da - (da * a).sum(axis=1, keepdims=True))
    dq = ds @ k * scale
    dk = ds.T @ q * scale
    return dq, dk, dv


def affine_relu(x, w, b):
    z = x @ w + b
    return np.maximum(z, 0), (x, w, z)


def affine_relu_backward(dout, cache):
    x, w, z = cache
    dz = dout * (z > 0)
    dx = dz @ w.T
    dw = x.T @ dz
    db = dz.sum(axis=0)
    return dx, dw, db


def mlp(x, w1, b1, w2, b2):
    z1 = x @ w1 + b1
    h = np.tanh(z1)
    out = h @ w2 + b2
    return out, (x, w1, w2, h)


def mlp_backward(dout, cache):
    x, w1, w2, h = cache
    dw2 = h.T @ dout
    db2 = dout.sum(axis=0)
    dh = dout @ w2.T
    dz1 = dh * (1 - h**2)
    dw1 = x.T @ dz1
    db1 = dz1.sum(axis=0)
    dx = dz1 @ w1.T
    return dx, dw1, db1, dw2, db2


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_step(x, h, c, wx, wh, b):
    n = h.shape[1]
    a = x @ wx + h @ wh + b
    i, f, o = sigmoid(a[:, :n]), sigmoid(a[:, n : 2 * n]), sigmoid(a[:, 2 * n : 3 * n])
    g = np.tanh(a[:, 3 * n :])
    c_next = f * c + i * g
    t = np.tanh(c_next)
    return o * t, (x, h, c, wx, wh, i, f, o, g, t)


def lstm_step_backward(dh, cache):
    x, h, c, wx, wh, i, f, o, g, t = cache
    dc_next = dh * o * (1 - t**2)
    do = dh * t
    di = dc_next * g
    df = dc_next * c
    dg = dc_next * i
    dai = di * i * (1 - i)
    daf = df * f * (1 - f)
    dao = do * o * (1 - o)
    dag = dg * (1 - g**2)
    da = np.hstack([dai, daf, dao, dag])
    dx = da @ wx.T
    dprev = da @ wh.T
    dc = dc_next * f
    dwx = x.T @ da
    dwh = h.T @ da
    db = da.sum(axis=0)
    return dx, dprev, dc, dwx, dwh, db


def rnn(x, h0, wx, wh, b):
    h, hs = h0, []
    for t in range(x.shape[0]):
        h = np.tanh(x[t] @ wx + h @ wh + b)
        hs.append(h)
    return np.stack(hs), (x, h0, wx, wh, np.stack(hs))


def rnn_backward(dout, cache):
    x, h0, wx, wh, hs = cache
    dx = np.zeros_like(x)
    dwx = np.zeros_like(wx)
    dwh = np.zeros_like(wh)
    db = np.zeros(wh.shape[0])
    dh = np.zeros_like(h0)
    for t in reversed(range(x.shape[0])):
        h = hs[t]
        prev = hs[t - 1] if t > 0 else h0
        dz = (dout[t] + dh) * (1 - h**2)
        dx[t] = dz @ wx.T
        dwx += x[t].T @ dz
        dwh += prev.T @ dz
        db += dz.sum(axis=0)
        dh = dz @ wh.T
    return dx, dh, dwx, dwh, db


def conv1d(x, w, b):
    k = w.shape[2]
    length = x.shape[2] - k + 1
    out = np.zeros((x.shape[0], w.shape[0], length))
    for j in range(length):
        out[:, :, j] = np.tensordot(x[:, :, j : j + k], w, axes=([1, 2], [1, 2])) + b
    return out, (x, w)


def conv1d_backward(dout, cache):
    x, w = cache
    k = w.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    db = dout.sum(axis=(0, 2))
    for j in range(dout.shape[2]):
        piece = x[:, :, j : j + k]
        dw += np.tensordot(dout[:, :, j], piece, axes=([0], [0]))
        dx[:, :, j : j + k] += np.tensordot(dout[:, :, j], w, axes=([1], [0]))
    return dx, dw, db


def gelu(x):
    inner = 0.7978845608 * (x + 0.044715 * x**3)
    t = np.tanh(inner)
    return 0.5 * x * (1 + t), (x, t)


def gelu_backward(dout, cache):
    x, t = cache
    dinner = 0.7978845608 * (1 + 3 * 0.044715 * x**2)
    return (dout * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * dinner),)


def silu(x):
    s = sigmoid(x)
    return x * s, (x, s)


def silu_backward(dout, cache):
    x, s = cache
    return (dout * (s + x * s * (1 - s)),)


def embedding(table, tokens):
    return table[tokens], (table.shape, tokens)


def embedding_backward(dout, cache):
    shape, tokens = cache
    dtable = np.zeros(shape)
    np.add.at(dtable, tokens, dout)
    return (dtable,)


def mse(pred, target):
    diff = pred - target
    return (diff**2).mean(), diff


def mse_backward(dout, diff):
    n = diff.size
    dpred = dout * 2 * diff / n
    return dpred, -dpred


def ridge(x, w, y):
    r = x @ w - y
    loss = 0.5 * np.sum(r**2) / len(y) + 0.1 * np.sum(w**2)
    return loss, (x, w, r)


def ridge_backward(dout, cache):
    x, w, r = cache
    n = len(r)
    dx = dout * np.outer(r, w) / n
    dw = dout * (x.T @ r / n + 0.2 * w)
    return dx, dw, -dout * r / n


def hinge(scores, y):
    n = scores.shape[0]
    correct = scores[np.arange(n), y][:, None]
    margins = np.maximum(0, scores - correct + 1.0)
    margins[np.arange(n), y] = 0
    return margins.sum() / n, (margins, y)


def hinge_backward(dout, cache):
    margins, y = cache
    n = margins.shape[0]
    d = (margins > 0).astype(float)
    count = d.sum(axis=1)
    d[np.arange(n), y] -= count
    return (dout * d / n,)


def max_pool(x):
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
    out = blocks.max(axis=(3, 5))
    return out, (x, out)


def max_pool_backward(dout, cache):
    x, out = cache
    wide = out.repeat(2, axis=2).repeat(2, axis=3)
    mask = x == wide
    return (dout.repeat(2, axis=2).repeat(2, axis=3) * mask,)


def normalise(x):
    n = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return x / n, (x, n)


def normalise_backward(dout, cache):
    x, n = cache
    y = x / n
    return ((dout - y * (dout * y).sum(axis=1, keepdims=True)) / n,)


def inputs(d):
    """The inputs of every layer, and the names of those that have a gradient."""
    f = d.normal
    return {
        "rms_norm": (f(size=(4, 6)), f(size=6)),
        "layer_norm": (f(size=(4, 6)), f(size=6), f(size=6)),
        "batch_norm": (f(size=(5, 3)), f(size=3), f(size=3)),
        "softmax_cross_entropy": (f(size=(4, 3)), d.integers(0, 3, 4)),
        "softmax": (f(size=(3, 5)),),
        "attention": (f(size=(4, 3)), f(size=(5, 3)), f(size=(5, 2))),
        "affine_relu": (f(size=(4, 3)), f(size=(3, 5)), f(size=5)),
        "mlp": (f(size=(4, 3)), f(size=(3, 5)), f(size=5), f(size=(5, 2)), f(size=2)),
        "lstm_step": (
            *(f(size=(3, 5)), f(size=(3, 2)), f(size=(3, 2))),
            *(f(size=(5, 8)), f(size=(2, 8)), f(size=8)),
        ),
        "rnn": (f(size=(4, 2, 3)), f(size=(2, 5)), f(size=(3, 5)), f(size=(5, 5)), f(size=5)),
        "conv1d": (f(size=(2, 3, 7)), f(size=(4, 3, 3)), f(size=4)),
        "gelu": (f(size=(3, 4)),),
        "silu": (f(size=(3, 4)),),
        "embedding": (f(size=(6, 3)), np.array([[1, 4, 1], [0, 2, 1]])),
        "mse": (f(size=(4, 3)), f(size=(4, 3))),
        "ridge": (f(size=(5, 3)), f(size=3), f(size=5)),
        "hinge": (f(size=(4, 3)), d.integers(0, 3, 4)),
        "max_pool": (f(size=(2, 2, 4, 6)),),
        "normalise": (f(size=(3, 4)),),
    }
