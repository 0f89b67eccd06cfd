"""A training step of a two-layer transformer, written by hand in NumPy: the right one.

Mistakes are put into its text; each changes one line.
"""

import numpy as np


def layer_norm(x, gain, bias):
    mean = x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
    xhat = (x - mean) * rstd
    return xhat * gain + bias, (xhat, rstd, gain)


def layer_norm_backward(dout, cache):
    xhat, rstd, gain = cache
    dgain = (dout * xhat).sum(axis=(0, 1))
    dbias = dout.sum(axis=(0, 1))
    dxhat = dout * gain
    m1 = dxhat.mean(axis=-1, keepdims=True)
    m2 = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = rstd * (dxhat - m1 - xhat * m2)
    return dx, dgain, dbias


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def block(x, p):
    n, norm1 = layer_norm(x, p["g1"], p["b1"])
    q, k, v = n @ p["wq"], n @ p["wk"], n @ p["wv"]
    scale = 1 / np.sqrt(q.shape[-1])
    a = softmax(q @ k.transpose(0, 2, 1) * scale)
    o = a @ v
    y = x + o @ p["wo"]
    m, norm2 = layer_norm(y, p["g2"], p["b2"])
    z = m @ p["w1"] + p["c1"]
    h = np.tanh(z)
    out = y + h @ p["w2"] + p["c2"]
    return out, (norm1, n, q, k, v, scale, a, o, norm2, m, h)


def block_backward(dout, p, cache):
    norm1, n, q, k, v, scale, a, o, norm2, m, h = cache
    grads = {}
    grads["c2"] = dout.sum(axis=(0, 1))
    grads["w2"] = np.einsum("bth,btd->hd", h, dout)
    dh = dout @ p["w2"].T
    dz = dh * (1 - h**2)
    grads["c1"] = dz.sum(axis=(0, 1))
    grads["w1"] = np.einsum("btd,bth->dh", m, dz)
    dm = dz @ p["w1"].T
    dnorm2, grads["g2"], grads["b2"] = layer_norm_backward(dm, norm2)
    dy = dout + dnorm2
    grads["wo"] = np.einsum("btd,bte->de", o, dy)
    do = dy @ p["wo"].T
    da = do @ v.transpose(0, 2, 1)
    dv = a.transpose(0, 2, 1) @ do
    ds = a * (da - (da * a).sum(axis=-1, keepdims=True))
    dlogits = ds * scale
    dq = dlogits @ k
    dk = dlogits.transpose(0, 2, 1) @ q
    grads["wq"] = np.einsum("btd,bte->de", n, dq)
    grads["wk"] = np.einsum("btd,bte->de", n, dk)
    grads["wv"] = np.einsum("btd,bte->de", n, dv)
    dn = dq @ p["wq"].T + dk @ p["wk"].T + dv @ p["wv"].T
    dnorm1, grads["g1"], grads["b1"] = layer_norm_backward(dn, norm1)
    dx = dy + dnorm1
    return dx, grads


def train_step(x, target, first, second, head):
    x1, cache1 = block(x, first)
    x2, cache2 = block(x1, second)
    logits = x2 @ head
    probabilities = softmax(logits)
    count = x.shape[0] * x.shape[1]
    picked = np.sum(target * np.log(probabilities), axis=-1)
    loss = -np.sum(picked) / count
    dlogits = (probabilities - target) / count
    dhead = np.einsum("btd,btv->dv", x2, dlogits)
    dx2 = dlogits @ head.T
    dx1, dsecond = block_backward(dx2, second, cache2)
    dx, dfirst = block_backward(dx1, first, cache1)
    return loss, (dx, dfirst, dsecond, dhead)


def inputs(rng, batch=2, time=3, width=4, hidden=5, words=6):
    def parameters():
        square = {name: rng.normal(size=(width, width)) / 2 for name in ("wq", "wk", "wv", "wo")}
        gains = {name: 1 + 0.3 * rng.normal(size=width) for name in ("g1", "g2")}
        biases = {name: 0.3 * rng.normal(size=width) for name in ("b1", "b2", "c2")}
        more = {"w1": rng.normal(size=(width, hidden)) / 2, "w2": rng.normal(size=(hidden, width))}
        return {**square, **gains, **biases, **more, "c1": 0.3 * rng.normal(size=hidden)}

    target = np.eye(words, dtype=int)[rng.integers(0, words, size=(batch, time))]
    x = rng.normal(size=(batch, time, width))
    return x, target, parameters(), parameters(), rng.normal(size=(width, words))


MISTAKES = [
    ("dz = dh * (1 - h**2)", "dz = dh"),
    ("dz = dh * (1 - h**2)", "dz = dh * (1 - h)"),
    ('dh = dout @ p["w2"].T', 'dh = -dout @ p["w2"].T'),
    ('dm = dz @ p["w1"].T', 'dm = dh @ p["w1"].T'),
    ("dy = dout + dnorm2", "dy = dnorm2"),
    ('do = dy @ p["wo"].T', 'do = dy @ p["wo"]'),
    ("da = do @ v.transpose(0, 2, 1)", "da = do @ k.transpose(0, 2, 1)"),
    ("dv = a.transpose(0, 2, 1) @ do", "dv = a @ do"),
    ("ds = a * (da - (da * a).sum(axis=-1, keepdims=True))", "ds = a * (1 - a) * da"),
    (
        "ds = a * (da - (da * a).sum(axis=-1, keepdims=True))",
        "ds = a * (da - da.sum(axis=-1, keepdims=True))",
    ),
    ("dlogits = ds * scale", "dlogits = ds"),
    ("dk = dlogits.transpose(0, 2, 1) @ q", "dk = dlogits @ q"),
    (
        'grads["wk"] = np.einsum("btd,bte->de", n, dk)',
        'grads["wk"] = np.einsum("btd,bte->de", n, dq)',
    ),
    (
        'dn = dq @ p["wq"].T + dk @ p["wk"].T + dv @ p["wv"].T',
        'dn = dq @ p["wq"].T + dk @ p["wk"].T',
    ),
    ("dx = dy + dnorm1", "dx = dnorm1"),
    ("dx = rstd * (dxhat - m1 - xhat * m2)", "dx = rstd * (dxhat - xhat * m2)"),
    ("dxhat = dout * gain", "dxhat = dout"),
    ("dbias = dout.sum(axis=(0, 1))", "dbias = dout.mean(axis=(0, 1))"),
    ("dlogits = (probabilities - target) / count", "dlogits = probabilities - target"),
    (
        "dx1, dsecond = block_backward(dx2, second, cache2)",
        "dx1, dsecond = block_backward(dx2, first, cache2)",
    ),
]
