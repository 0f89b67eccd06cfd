"""Right layers in NumPy, in the forms that people write; each is (how to check it, its inputs).

A case takes a generator and a dtype, and returns a function, its inputs and the options of `check`.
"""

# ruff: noqa: NPY002

import numpy as np

PAIR = {"returns": "output+residuals"}


def normal(rng, dtype, *shape):
    return rng.normal(size=shape).astype(dtype)


# Function pairs


def affine_forward(x, w, b):
    out = x.reshape(x.shape[0], -1).dot(w) + b
    return out, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    return dx, dw, dout.sum(axis=0)


def affine(rng, dtype):
    x, w, b = normal(rng, dtype, 4, 2, 3), normal(rng, dtype, 6, 5), normal(rng, dtype, 5)
    return affine_forward, (x, w, b), {"backward": affine_backward, **PAIR}


def relu(rng, dtype):
    def forward(x):
        return np.maximum(0, x), x

    def backward(dout, x):
        dx = np.array(dout, copy=True)
        dx[x <= 0] = 0
        return dx

    return forward, (normal(rng, dtype, 4, 5),), {"backward": backward, **PAIR}


def leaky_relu(rng, dtype):
    def forward(x):
        return np.where(x > 0, x, 0.01 * x)

    def backward(dout, x):
        dx = np.ones_like(x)
        dx[x < 0] = 0.01
        return dx * dout

    return forward, (normal(rng, dtype, 4, 5),), {"backward": backward}


def sigmoid(x):
    positive = x >= 0
    negative = x < 0
    z = np.zeros_like(x)
    z[positive] = np.exp(-x[positive])
    z[negative] = np.exp(x[negative])
    top = np.ones_like(x)
    top[negative] = z[negative]
    return top / (1 + z)


def stable_sigmoid(rng, dtype):
    def backward(dout, x):
        s = sigmoid(x)
        return dout * s * (1 - s)

    return sigmoid, (normal(rng, dtype, 3, 4),), {"backward": backward}


def softmax_rows(rng, dtype):
    def forward(x):
        e = np.exp(x - np.max(x, axis=1, keepdims=True))
        return e / np.sum(e, axis=1, keepdims=True)

    def backward(dout, x):
        s = forward(x)
        dx = np.empty_like(s)
        for i, (row, up) in enumerate(zip(s, dout)):
            row = row.reshape(-1, 1)
            jacobian = np.diagflat(row) - np.dot(row, row.T)
            dx[i] = np.dot(jacobian, up)
        return dx

    return forward, (normal(rng, dtype, 3, 4),), {"backward": backward}


def softmax_loss(rng, dtype):
    def loss(x, y):
        probs = np.exp(x - np.max(x, axis=1, keepdims=True))
        probs /= np.sum(probs, axis=1, keepdims=True)
        n = x.shape[0]
        value = -np.sum(np.log(probs[np.arange(n), y])) / n
        dx = probs.copy()
        dx[np.arange(n), y] -= 1
        dx /= n
        return value, dx

    y = rng.integers(0, 5, 4)
    return loss, (normal(rng, dtype, 4, 5), y), {"returns": "output+gradients"}


def svm_loss_loops(rng, dtype):
    def loss(w, x, y):
        dw = np.zeros(w.shape, w.dtype)
        dx = np.zeros(x.shape, x.dtype)
        total = w.dtype.type(0.0)
        for i in range(x.shape[0]):
            scores = x[i].dot(w)
            correct = scores[y[i]]
            for j in range(w.shape[1]):
                if j == y[i]:
                    continue
                margin = scores[j] - correct + 1
                if margin > 0:
                    total += margin
                    dw[:, j] += x[i]
                    dw[:, y[i]] -= x[i]
                    dx[i] += w[:, j] - w[:, y[i]]
        return total, (dw, dx)

    inputs = normal(rng, dtype, 4, 3), normal(rng, dtype, 5, 4), rng.integers(0, 3, 5)
    return loss, inputs, {"returns": "output+gradients"}


def batchnorm_forward(x, gamma, beta, param):
    eps = param.get("eps", 1e-5)
    mean = x.mean(axis=0)
    var = x.var(axis=0)
    param["mean"] = 0.9 * param.get("mean", np.zeros(x.shape[1])) + 0.1 * mean
    xhat = (x - mean) / np.sqrt(var + eps)
    return gamma * xhat + beta, (xhat, gamma, var, eps)


def batchnorm_backward(dout, cache):
    xhat, gamma, var, eps = cache
    n = dout.shape[0]
    dxhat = dout * gamma
    dx = (n * dxhat - dxhat.sum(0) - xhat * (dxhat * xhat).sum(0)) / (n * np.sqrt(var + eps))
    return dx, (dout * xhat).sum(0), dout.sum(0)


def batchnorm(rng, dtype):
    inputs = normal(rng, dtype, 6, 3), normal(rng, dtype, 3), normal(rng, dtype, 3), {"eps": 1e-5}
    return batchnorm_forward, inputs, {"backward": batchnorm_backward, **PAIR}


def layernorm(rng, dtype):
    def forward(x, gamma, beta):
        mu = x.mean(axis=-1, keepdims=True)
        std = np.sqrt(((x - mu) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
        xhat = (x - mu) / std
        return xhat * gamma + beta, (xhat, std, gamma)

    def backward(dout, cache):
        xhat, std, gamma = cache
        axes = tuple(range(dout.ndim - 1))
        d = dout * gamma
        dx = d - d.mean(-1, keepdims=True) - xhat * (d * xhat).mean(-1, keepdims=True)
        return dx / std, (dout * xhat).sum(axes), dout.sum(axes)

    inputs = normal(rng, dtype, 2, 3, 4), normal(rng, dtype, 4), normal(rng, dtype, 4)
    return forward, inputs, {"backward": backward, **PAIR}


def dropout(rng, dtype):
    def forward(x, param):
        np.random.seed(param["seed"])
        mask = (np.random.rand(*x.shape) < param["p"]) / param["p"]
        return (x * mask).astype(x.dtype), mask

    def backward(dout, mask):
        return (dout * mask).astype(dout.dtype)

    return (
        forward,
        (normal(rng, dtype, 4, 5), {"p": 0.7, "seed": 3}),
        {"backward": backward, **PAIR},
    )


def conv_forward(x, w, b, param):
    stride, pad = param["stride"], param["pad"]
    n, _, h, wd = x.shape
    f, _, hh, ww = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    ho, wo = 1 + (h + 2 * pad - hh) // stride, 1 + (wd + 2 * pad - ww) // stride
    out = np.zeros((n, f, ho, wo), x.dtype)
    for i in range(n):
        for k in range(f):
            for r in range(ho):
                for c in range(wo):
                    window = padded[
                        i, :, r * stride : r * stride + hh, c * stride : c * stride + ww
                    ]
                    out[i, k, r, c] = np.sum(window * w[k]) + b[k]
    return out, (x, w, b, param)


def conv_backward(dout, cache):
    x, w, b, param = cache
    stride, pad = param["stride"], param["pad"]
    hh, ww = w.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    dpadded, dw, db = np.zeros_like(padded), np.zeros_like(w), np.zeros_like(b)
    for i in range(dout.shape[0]):
        for k in range(dout.shape[1]):
            for r in range(dout.shape[2]):
                for c in range(dout.shape[3]):
                    rows, columns = (
                        slice(r * stride, r * stride + hh),
                        slice(c * stride, c * stride + ww),
                    )
                    dw[k] += dout[i, k, r, c] * padded[i, :, rows, columns]
                    dpadded[i, :, rows, columns] += dout[i, k, r, c] * w[k]
                    db[k] += dout[i, k, r, c]
    return dpadded[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw, db


def conv_loops(rng, dtype):
    x, w, b = normal(rng, dtype, 1, 2, 4, 3), normal(rng, dtype, 2, 2, 3, 3), normal(rng, dtype, 2)
    options = {"backward": conv_backward, **PAIR}
    return conv_forward, (x, w, b, {"stride": 1, "pad": 1}), options


def im2col_indices(shape, hh, ww):
    _, c, h, w = shape
    ho, wo = h - hh + 1, w - ww + 1
    i0 = np.tile(np.repeat(np.arange(hh), ww), c)
    i1 = np.repeat(np.arange(ho), wo)
    j0 = np.tile(np.arange(ww), hh * c)
    j1 = np.tile(np.arange(wo), ho)
    k = np.repeat(np.arange(c), hh * ww).reshape(-1, 1)
    return k, i0.reshape(-1, 1) + i1, j0.reshape(-1, 1) + j1


def conv_im2col(rng, dtype):
    def forward(x, w, b):
        k, i, j = im2col_indices(x.shape, *w.shape[2:])
        cols = x[:, k, i, j].transpose(1, 2, 0).reshape(w[0].size, -1)
        out = w.reshape(w.shape[0], -1) @ cols + b.reshape(-1, 1)
        ho, wo = x.shape[2] - w.shape[2] + 1, x.shape[3] - w.shape[3] + 1
        return out.reshape(w.shape[0], ho, wo, -1).transpose(3, 0, 1, 2), (x, w, cols)

    def backward(dout, cache):
        x, w, cols = cache
        flat = dout.transpose(1, 2, 3, 0).reshape(w.shape[0], -1)
        dw = flat.dot(cols.T).reshape(w.shape)
        dcols = w.reshape(w.shape[0], -1).T.dot(flat)
        k, i, j = im2col_indices(x.shape, *w.shape[2:])
        dx = np.zeros_like(x)
        reshaped = dcols.reshape(x.shape[1] * w.shape[2] * w.shape[3], -1, x.shape[0])
        np.add.at(dx, (slice(None), k, i, j), reshaped.transpose(2, 0, 1))
        return dx, dw, dout.sum(axis=(0, 2, 3))

    inputs = normal(rng, dtype, 2, 2, 4, 4), normal(rng, dtype, 3, 2, 2, 2), normal(rng, dtype, 3)
    return forward, inputs, {"backward": backward, **PAIR}


def conv_windows(rng, dtype):
    def forward(x, w):
        windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
        return np.einsum("nchwij,fcij->nfhw", windows, w), (x, w, windows)

    def backward(dout, cache):
        _, w, windows = cache
        dw = np.einsum("nfhw,nchwij->fcij", dout, windows)
        hh, ww = w.shape[2:]
        padded = np.pad(dout, ((0, 0), (0, 0), (hh - 1, hh - 1), (ww - 1, ww - 1)))
        around = np.lib.stride_tricks.sliding_window_view(padded, (hh, ww), axis=(2, 3))
        return np.einsum("nfhwij,fcij->nchw", around, w[:, :, ::-1, ::-1]), dw

    inputs = normal(rng, dtype, 2, 2, 4, 4), normal(rng, dtype, 3, 2, 2, 2)
    return forward, inputs, {"backward": backward, **PAIR}


def max_pool_loops(rng, dtype):
    def forward(x):
        n, c, h, w = x.shape
        out = np.zeros((n, c, h // 2, w // 2), x.dtype)
        for i in range(h // 2):
            for j in range(w // 2):
                window = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                out[:, :, i, j] = window.max(axis=(2, 3))
        return out

    def backward(dout, x):
        dx = np.zeros_like(x)
        for n in range(x.shape[0]):
            for c in range(x.shape[1]):
                for i in range(dout.shape[2]):
                    for j in range(dout.shape[3]):
                        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                        r, s = np.unravel_index(np.argmax(window), window.shape)
                        dx[n, c, 2 * i + r, 2 * j + s] += dout[n, c, i, j]
        return dx

    return forward, (normal(rng, dtype, 1, 2, 4, 4),), {"backward": backward}


def max_pool_masks(rng, dtype):
    def forward(x):
        n, c, h, w = x.shape
        split = x.reshape(n, c, h // 2, 2, w // 2, 2)
        return split.max(axis=3).max(axis=4)

    def backward(dout, x):
        out = forward(x)
        mask = x == np.repeat(np.repeat(out, 2, axis=2), 2, axis=3)
        return mask * np.repeat(np.repeat(dout, 2, axis=2), 2, axis=3)

    return forward, (normal(rng, dtype, 1, 2, 4, 4),), {"backward": backward}


def average_pool(rng, dtype):
    def forward(x):
        return x.reshape(x.shape[0], -1, 2).mean(-1)

    def backward(dout, x):
        return (np.repeat(dout, 2, axis=1) / 2).astype(x.dtype)

    return forward, (normal(rng, dtype, 3, 6),), {"backward": backward}


def embedding(rng, dtype):
    def forward(w, index):
        return w[index], (w.shape, index)

    def backward(dout, cache):
        shape, index = cache
        dw = np.zeros(shape, dout.dtype)
        np.add.at(dw, index, dout)
        return dw

    inputs = normal(rng, dtype, 6, 3), rng.integers(0, 6, (2, 4))
    return forward, inputs, {"backward": backward, **PAIR}


def lstm_step(x, h, c, wx, wh, b):
    a = x.dot(wx) + h.dot(wh) + b
    n = h.shape[1]
    i, f, o = sigmoid(a[:, :n]), sigmoid(a[:, n : 2 * n]), sigmoid(a[:, 2 * n : 3 * n])
    g = np.tanh(a[:, 3 * n :])
    new = f * c + i * g
    out = o * np.tanh(new)
    return out, new, (x, h, c, wx, wh, i, f, o, g, new)


def lstm_step_back(dh, dc, cache):
    x, h, c, wx, wh, i, f, o, g, new = cache
    t = np.tanh(new)
    dc = dc + dh * o * (1 - t**2)
    di, df, do, dg = dc * g, dc * c, dh * t, dc * i
    da = np.hstack((i * (1 - i) * di, f * (1 - f) * df, o * (1 - o) * do, (1 - g**2) * dg))
    return da.dot(wx.T), da.dot(wh.T), dc * f, x.T.dot(da), h.T.dot(da), da.sum(axis=0)


def lstm_forward(x, h0, wx, wh, b):
    n, t, _ = x.shape
    h, c = h0, np.zeros_like(h0)
    out = np.zeros((n, t, h0.shape[1]), x.dtype)
    caches = []
    for k in range(t):
        h, c, cache = lstm_step(x[:, k, :], h, c, wx, wh, b)
        out[:, k, :] = h
        caches.append(cache)
    return out, caches


def lstm_backward(dout, caches):
    x, h, _, wx, wh = caches[0][:5]
    n, t, _ = dout.shape
    dx = np.zeros((n, t, x.shape[1]), dout.dtype)
    dwx, dwh, db = np.zeros_like(wx), np.zeros_like(wh), np.zeros(wh.shape[1], wh.dtype)
    dh, dc = np.zeros_like(h), np.zeros_like(h)
    for k in reversed(range(t)):
        dx[:, k, :], dh, dc, a, b, c = lstm_step_back(dout[:, k, :] + dh, dc, caches[k])
        dwx += a
        dwh += b
        db += c
    return dx, dh, dwx, dwh, db


def lstm(rng, dtype, steps=3):
    inputs = [normal(rng, dtype, *s) for s in ((2, steps, 3), (2, 2), (3, 8), (2, 8), (8,))]
    return lstm_forward, tuple(inputs), {"backward": lstm_backward, **PAIR}


def rnn(rng, dtype):
    def forward(x, h, wx, wh, b):
        hs = [h]
        for t in range(x.shape[1]):
            hs.append(np.tanh(x[:, t] @ wx + hs[-1] @ wh + b))
        return np.stack(hs[1:], axis=1), (x, hs, wx, wh)

    def backward(dout, cache):
        x, hs, wx, wh = cache
        dx, dwx, dwh = np.zeros_like(x), np.zeros_like(wx), np.zeros_like(wh)
        db, dh = np.zeros(wh.shape[1], wh.dtype), np.zeros_like(hs[0])
        for t in range(x.shape[1])[::-1]:
            da = (dout[:, t] + dh) * (1 - hs[t + 1] ** 2)
            dx[:, t], dh = da @ wx.T, da @ wh.T
            dwx, dwh, db = dwx + x[:, t].T @ da, dwh + hs[t].T @ da, db + da.sum(0)
        return dx, dh, dwx, dwh, db

    inputs = [normal(rng, dtype, *s) for s in ((2, 3, 3), (2, 4), (3, 4), (4, 4), (4,))]
    return forward, tuple(inputs), {"backward": backward, **PAIR}


def gru_step(rng, dtype):
    def forward(x, h, w, u):
        z = 1 / (1 + np.exp(-(x @ w[0] + h @ u[0])))
        r = 1 / (1 + np.exp(-(x @ w[1] + h @ u[1])))
        n = np.tanh(x @ w[2] + (r * h) @ u[2])
        return (1 - z) * n + z * h, (x, h, w, u, z, r, n)

    def backward(dy, cache):
        x, h, w, u, z, r, n = cache
        dn, dz, dh = dy * (1 - z), dy * (h - n), dy * z
        an = dn * (1 - n * n)
        drh = an @ u[2].T
        az, ar = dz * z * (1 - z), drh * h * r * (1 - r)
        dh = dh + drh * r + az @ u[0].T + ar @ u[1].T
        dx = an @ w[2].T + az @ w[0].T + ar @ w[1].T
        dw = np.stack([x.T @ az, x.T @ ar, x.T @ an])
        du = np.stack([h.T @ az, h.T @ ar, (r * h).T @ an])
        return dx, dh, dw, du

    inputs = [normal(rng, dtype, *s) for s in ((2, 3), (2, 4), (3, 3, 4), (3, 4, 4))]
    return forward, tuple(inputs), {"backward": backward, **PAIR}


def attention(rng, dtype):
    def forward(q, k, v):
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]).astype(q.dtype)
        scores = np.where(np.tril(np.ones(scores.shape[1:])) == 0, -1e9, scores).astype(q.dtype)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        return p @ v, (q, k, v, p)

    def backward(dout, cache):
        q, k, v, p = cache
        dv, dp = p.transpose(0, 2, 1) @ dout, dout @ v.transpose(0, 2, 1)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1]).astype(q.dtype)
        return ds @ k, ds.transpose(0, 2, 1) @ q, dv

    inputs = [normal(rng, dtype, 2, 3, 4) for _ in range(3)]
    return forward, tuple(inputs), {"backward": backward, **PAIR}


def gelu(rng, dtype):
    def forward(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def backward(dout, x):
        c = np.sqrt(2 / np.pi)
        t = np.tanh(c * (x + 0.044715 * x**3))
        d = 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2)
        return (dout * d).astype(x.dtype)

    return forward, (normal(rng, dtype, 3, 4),), {"backward": backward}


def elu_masks(rng, dtype):
    def forward(x):
        out = x.copy()
        out[x < 0] = np.exp(x[x < 0]) - 1
        return out

    def backward(dout, x):
        dx = dout.copy()
        dx[x < 0] *= np.exp(x[x < 0])
        return dx

    return forward, (normal(rng, dtype, 3, 4),), {"backward": backward}


def huber(rng, dtype):
    def loss(x, y):
        r = x - y
        small = np.abs(r) <= 1
        value = np.where(small, 0.5 * r**2, np.abs(r) - 0.5).mean()
        d = np.where(small, r, np.sign(r)) / r.dtype.type(r.size)
        return value, (d, -d)

    return (
        loss,
        (normal(rng, dtype, 3, 4), normal(rng, dtype, 3, 4)),
        {"returns": "output+gradients"},
    )


def mse_dict(rng, dtype):
    def loss(params, x, y):
        r = x @ params["w"] + params["b"] - y
        n = r.dtype.type(r.size)
        return (r**2).sum() / n, {"w": 2 * x.T @ r / n, "b": 2 * r.sum(0) / n}

    params = {"w": normal(rng, dtype, 3, 2), "b": normal(rng, dtype, 2)}
    inputs = params, normal(rng, dtype, 4, 3), normal(rng, dtype, 4, 2)
    return loss, inputs, {"returns": "output+gradients", "wrt": "params"}


def sort_rows(rng, dtype):
    def forward(x):
        return np.sort(x, axis=1)

    def backward(dout, x):
        dx = np.zeros_like(x)
        np.put_along_axis(dx, np.argsort(x, axis=1), dout, axis=1)
        return dx

    return forward, (normal(rng, dtype, 3, 4),), {"backward": backward}


def cumulative(rng, dtype):
    def forward(x):
        return np.cumsum(x, axis=1)

    def backward(dout, x):
        return np.flip(np.cumsum(np.flip(dout, 1), axis=1), 1)

    return forward, (normal(rng, dtype, 3, 4),), {"backward": backward}


def inverse(rng, dtype):
    def forward(a):
        return np.linalg.inv(a)

    def backward(dout, a):
        y = np.linalg.inv(a)
        return -y.T @ dout @ y.T

    a = (4 * np.eye(3) + rng.normal(size=(3, 3))).astype(dtype)
    return forward, (a,), {"backward": backward}


def fourier(rng, dtype):
    def forward(x):
        return np.abs(np.fft.fft(x)) ** 2

    def backward(dout, x):
        return 2 * np.real(np.fft.ifft(dout * np.fft.fft(x)) * x.size).astype(x.dtype)

    return forward, (normal(rng, dtype, 6),), {"backward": backward}


def in_place_scaling(rng, dtype):
    def forward(x, s):
        y = x.copy()
        for i in range(y.shape[0]):
            y[i] *= s[i]
            y[i, ::2] += 1
        return y

    def backward(dout, x, s):
        dx = dout.copy()
        dx *= s[:, None]
        return dx, np.einsum("ij,ij->i", dout, x)

    return forward, (normal(rng, dtype, 3, 4), normal(rng, dtype, 3)), {"backward": backward}


def spatial_groupnorm(rng, dtype):
    def forward(x, gamma, groups):
        n, c, h, w = x.shape
        g = x.reshape(n * groups, -1).T
        mean, var = g.mean(0), g.var(0)
        xhat = ((g - mean) / np.sqrt(var + 1e-5)).T.reshape(n, c, h, w)
        return gamma * xhat, (xhat, gamma, var, groups)

    def backward(dout, cache):
        xhat, gamma, var, groups = cache
        n, c, h, w = dout.shape
        dgamma = (dout * xhat).sum(axis=(0, 2, 3), keepdims=True)
        d = (dout * gamma).reshape(n * groups, -1).T
        flat = xhat.reshape(n * groups, -1).T
        m = flat.shape[0]
        dx = (m * d - d.sum(0) - flat * (d * flat).sum(0)) / (m * np.sqrt(var + 1e-5))
        return dx.T.reshape(n, c, h, w), dgamma, None

    inputs = normal(rng, dtype, 2, 4, 2, 2), normal(rng, dtype, 1, 4, 1, 1), 2
    return forward, inputs, {"backward": backward, **PAIR}


def closure(rng, dtype):
    def forward(x, w):
        t = np.tanh(x @ w)

        def back(d):
            d = d * (1 - t * t)
            return d @ w.T, x.T @ d

        return t, back

    inputs = normal(rng, dtype, 3, 4), normal(rng, dtype, 4, 2)
    return forward, inputs, {"backward": lambda d, back: back(d), **PAIR}


def causal_softmax(rng, dtype):
    def forward(s):
        s = s.copy()
        s[..., np.triu(np.ones(s.shape[-2:], dtype=bool), k=1)] = -np.inf
        s -= s.max(axis=-1, keepdims=True)
        p = np.exp(s)
        p /= p.sum(axis=-1, keepdims=True)
        return p, p

    def backward(d, p):
        return p * (d - np.sum(d * p, axis=-1, keepdims=True))

    return forward, (normal(rng, dtype, 2, 3, 3),), {"backward": backward, **PAIR}


def alignments(rng, dtype):
    def loss(logs):
        steps, states = logs.shape
        ahead = np.full((steps, states), -np.inf, dtype=logs.dtype)
        ahead[0, 0] = logs[0, 0]
        for t in range(1, steps):
            for s in range(states):
                stay = ahead[t - 1, s]
                ahead[t, s] = logs[t, s] + (np.logaddexp(stay, ahead[t - 1, s - 1]) if s else stay)
        after = np.full((steps, states), -np.inf, dtype=logs.dtype)
        after[-1, -1] = 0
        for t in range(steps - 2, -1, -1):
            for s in range(states - 1, -1, -1):
                stay, move = after[t + 1, s] + logs[t + 1, s], -np.inf
                if s < states - 1:
                    move = after[t + 1, s + 1] + logs[t + 1, s + 1]
                after[t, s] = np.logaddexp(stay, move)
        return -ahead[-1, -1], -np.exp(ahead + after - ahead[-1, -1])

    return loss, (normal(rng, dtype, 4, 3),), {"returns": "output+gradients"}


def deep_model(rng, dtype):
    def cost(parameters, X, Y):
        A, caches, L = X, [], len(parameters) // 2
        for k in range(1, L + 1):
            Z = parameters[f"W{k}"].dot(A) + parameters[f"b{k}"]
            caches.append((A, Z))
            A = np.tanh(Z) if k < L else 1 / (1 + np.exp(-Z))
        value = -np.mean(Y * np.log(A) + (1 - Y) * np.log(1 - A))
        grads, dZ = {}, (A - Y) / Y.dtype.type(Y.size)
        for k in range(L, 0, -1):
            before, _ = caches[k - 1]
            grads[f"dW{k}"], grads[f"db{k}"] = dZ.dot(before.T), dZ.sum(axis=1, keepdims=True)
            if k > 1:
                dZ = parameters[f"W{k}"].T.dot(dZ) * (1 - np.power(np.tanh(caches[k - 2][1]), 2))
        return value, grads

    shapes = {"W1": (4, 3), "b1": (4, 1), "W2": (1, 4), "b2": (1, 1)}
    parameters = {name: normal(rng, dtype, *shape) for name, shape in shapes.items()}
    labels = rng.integers(0, 2, (1, 5)).astype(dtype)
    return cost, (parameters, normal(rng, dtype, 3, 5), labels), {"returns": "output+gradients"}


def double_zeros(rng, dtype):
    def forward(x, w):
        windows = np.zeros((2, 3, 2))
        for k in range(2):
            windows[:, :, k] = x[:, k : k + 3]
        return windows.reshape(6, 2) @ w, (windows, w, x.shape)

    def backward(d, cache):
        windows, w, shape = cache
        dx, dw = np.zeros(shape), windows.reshape(6, 2).T @ d
        for k in range(2):
            dx[:, k : k + 3] += (d @ w.T).reshape(windows.shape)[:, :, k]
        return dx, dw

    inputs = normal(rng, dtype, 2, 4), normal(rng, dtype, 2, 3)
    return forward, inputs, {"backward": backward, **PAIR}


PAIRS = [
    affine, relu, leaky_relu, stable_sigmoid, softmax_rows, softmax_loss, svm_loss_loops, batchnorm,
    layernorm, dropout, conv_loops, conv_im2col, conv_windows, max_pool_loops, max_pool_masks,
    average_pool, embedding, lstm, rnn, gru_step, attention, gelu, elu_masks, huber, mse_dict,
    sort_rows, cumulative, inverse, fourier, in_place_scaling, spatial_groupnorm,
    closure, causal_softmax, alignments, deep_model, double_zeros,
]  # fmt: skip


# Objects, whose parameters and gradients stand in many forms


class Affine:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dout):
        self.dw = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.w.T


class Adding:
    def __init__(self, w, b):
        self.params = {"W": w, "b": b}
        self.grads = {"W": np.zeros_like(w), "b": np.zeros_like(b)}

    def forward(self, x):
        self.cache = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, grad_output):
        x = self.cache
        self.grads["W"] += x.T @ grad_output
        self.grads["b"] += grad_output.sum(axis=0)
        return grad_output @ self.params["W"].T


class Listed:
    def __init__(self, w, b):
        self.params, self.grads = [w, b], [np.zeros_like(w), np.zeros_like(b)]
        self.x = None

    def forward(self, x):
        w, b = self.params
        self.x = x
        return np.dot(x, w) + b

    def backward(self, dout):
        w, _ = self.params
        self.grads[0][...] = np.dot(self.x.T, dout)
        self.grads[1][...] = np.sum(dout, axis=0)
        return np.dot(dout, w.T)


class Tensor:
    def __init__(self, data):
        self.data, self.grad = data, None


class Tensors:
    def __init__(self, w, b):
        self.weight, self.bias = Tensor(w), Tensor(b)

    def __call__(self, x):
        self.inputs = x
        return x @ self.weight.data + self.bias.data

    def backward(self, gradient):
        self.weight.grad = self.inputs.T @ gradient
        self.bias.grad = gradient.sum(0)
        return gradient @ self.weight.data.T


class Returning:
    def __init__(self, w, b):
        self.W, self.b = w, b

    def fprop(self, x):
        self.x = x
        return x @ self.W + self.b

    def bprop(self, dout):
        return dout @ self.W.T, self.x.T @ dout, dout.sum(axis=0)


class Relu:
    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dout = dout.copy()
        dout[self.mask] = 0
        return dout


class Tanh:
    def forward(self, x):
        self.out = np.tanh(x)
        return self.out

    def backward(self, dout):
        return dout * (1.0 - self.out**2)


class Sequential:
    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class BatchNorm:
    def __init__(self, gamma, beta):
        self.gamma, self.beta = gamma, beta
        self.running_mean, self.running_var = np.zeros_like(gamma), np.ones_like(gamma)
        self.training = True

    def forward(self, x):
        if self.training:
            mu, var = x.mean(axis=0), x.var(axis=0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mu
            self.running_var *= 0.9
            self.running_var += 0.1 * var
        else:
            mu, var = self.running_mean, self.running_var
        self.std = np.sqrt(var + 1e-5)
        self.xhat = (x - mu) / self.std
        return self.gamma * self.xhat + self.beta

    def backward(self, dout):
        n = dout.shape[0]
        self.dgamma, self.dbeta = (dout * self.xhat).sum(0), dout.sum(0)
        d = dout * self.gamma
        return (n * d - d.sum(0) - self.xhat * (d * self.xhat).sum(0)) / (n * self.std)


class Dropout:
    def __init__(self, p, seed):
        self.p, self.rng = p, np.random.default_rng(seed)

    def forward(self, x):
        self.mask = self.rng.random(x.shape) >= self.p
        return x * self.mask / x.dtype.type(1 - self.p)

    def backward(self, dout):
        return dout * self.mask / dout.dtype.type(1 - self.p)


class LegacyDropout:
    def forward(self, x):
        self.mask = (np.random.rand(*x.shape) > 0.5).astype(x.dtype) * 2
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Convolution:
    def __init__(self, w, b):
        self.w, self.b = w, b
        self.dw, self.db = np.zeros_like(w), np.zeros_like(b)

    def forward(self, x):
        self.x = x
        n, _, h, wd = x.shape
        f, _, k, _ = self.w.shape
        out = np.zeros((n, f, h - k + 1, wd - k + 1), dtype=x.dtype)
        for i in range(out.shape[2]):
            for j in range(out.shape[3]):
                patch = x[:, :, i : i + k, j : j + k]
                out[:, :, i, j] = np.tensordot(patch, self.w, axes=([1, 2, 3], [1, 2, 3]))
        return out + self.b[None, :, None, None]

    def backward(self, dout):
        k = self.w.shape[2]
        dx = np.zeros_like(self.x)
        self.dw = np.zeros_like(self.w)
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                patch = self.x[:, :, i : i + k, j : j + k]
                self.dw += np.tensordot(dout[:, :, i, j], patch, axes=([0], [0]))
                dx[:, :, i : i + k, j : j + k] += np.tensordot(dout[:, :, i, j], self.w, axes=1)
        self.db = dout.sum(axis=(0, 2, 3))
        return dx


class Embedding:
    def __init__(self, w):
        self.W = w
        self.dW = np.zeros_like(w)

    def forward(self, index):
        self.index = index
        return self.W[index]

    def backward(self, dout):
        self.dW.fill(0)
        np.add.at(self.dW, self.index, dout)


class CrossEntropy:
    def forward(self, logits, labels):
        self.p = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.p /= self.p.sum(axis=1, keepdims=True)
        self.labels = labels
        return -np.log(self.p[np.arange(len(labels)), labels]).mean()

    def backward(self):
        d = self.p.copy()
        d[np.arange(len(self.labels)), self.labels] -= 1
        return d / d.dtype.type(len(self.labels))


class TwoLayerNet:
    def __init__(self, rng, dtype, reg=0.1):
        self.reg = dtype(reg)
        self.params = {
            "W1": normal(rng, dtype, 4, 5),
            "b1": normal(rng, dtype, 5),
            "W2": normal(rng, dtype, 5, 3),
            "b2": normal(rng, dtype, 3),
        }

    def loss(self, X, y=None):
        p = self.params
        hidden, cache1 = affine_forward(X, p["W1"], p["b1"])
        relu_out = np.maximum(0, hidden)
        scores, cache2 = affine_forward(relu_out, p["W2"], p["b2"])
        if y is None:
            return scores
        grads = {}
        shifted = scores - scores.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        n = X.shape[0]
        loss = -logs[np.arange(n), y].sum() / n
        loss += self.reg * (np.sum(p["W1"] ** 2) + np.sum(p["W2"] ** 2)) / 2
        dscores = np.exp(logs)
        dscores[np.arange(n), y] -= 1
        dscores /= n
        dhidden, grads["W2"], grads["b2"] = affine_backward(dscores, cache2)
        dhidden = dhidden * (hidden > 0)
        _, grads["W1"], grads["b1"] = affine_backward(dhidden, cache1)
        grads["W1"] += self.reg * p["W1"]
        grads["W2"] += self.reg * p["W2"]
        return loss, grads


class Cell:
    """One step of a recurrent layer, with lists of parameters and gradients."""

    def __init__(self, wx, wh, b):
        self.params, self.grads = [wx, wh, b], [np.zeros_like(p) for p in (wx, wh, b)]

    def forward(self, x, h):
        wx, wh, b = self.params
        after = np.tanh(np.dot(h, wh) + np.dot(x, wx) + b)
        self.cache = x, h, after
        return after

    def backward(self, dh):
        wx, wh, _ = self.params
        x, h, after = self.cache
        da = dh * (1 - after**2)
        for grad, new in zip(self.grads, (np.dot(x.T, da), np.dot(h.T, da), da.sum(axis=0))):
            grad[...] = new
        return np.dot(da, wx.T), np.dot(da, wh.T)


class Unrolled:
    """Layers that the forward makes, which share their parameters with the whole."""

    def __init__(self, wx, wh, b):
        self.params, self.grads = [wx, wh, b], [np.zeros_like(p) for p in (wx, wh, b)]
        self.layers = self.h = None

    def forward(self, xs):
        n, t, _ = xs.shape
        self.layers, out = [], np.empty((n, t, self.params[1].shape[0]), dtype=xs.dtype)
        self.h = np.zeros((n, out.shape[2]), dtype=xs.dtype)
        for k in range(t):
            layer = Cell(*self.params)
            self.h = layer.forward(xs[:, k, :], self.h)
            out[:, k, :] = self.h
            self.layers.append(layer)
        return out

    def backward(self, dout):
        dxs, dh, grads = [], 0, [0, 0, 0]
        for k in reversed(range(dout.shape[1])):
            dx, dh = self.layers[k].backward(dout[:, k, :] + dh)
            dxs.insert(0, dx)
            grads = [a + b for a, b in zip(grads, self.layers[k].grads)]
        for grad, new in zip(self.grads, grads):
            grad[...] = new
        return np.stack(dxs, axis=1)


class Gates:
    """Two outputs, so two upstreams, and gradients that are returned."""

    def __init__(self, w):
        self.w = w

    def forward(self, x, c):
        a = x @ self.w
        f, g = 1 / (1 + np.exp(-a[:, :2])), np.tanh(a[:, 2:])
        self.cache = x, c, f, g
        return f * c, g + c

    def backward(self, dh, dc):
        x, c, f, g = self.cache
        da = np.hstack((dh * c * f * (1 - f), dc * (1 - g**2)))
        return da @ self.w.T, dh * f + dc, x.T @ da


class Masked:
    """A loss that leaves labels of -1 out; its backward writes into its cache."""

    def forward(self, x, labels):
        keep = labels != -1
        p = np.exp(x - x.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        logs = np.log(p[np.arange(len(x)), labels])
        logs *= keep
        self.cache = labels, p, keep
        return -logs.sum() / keep.sum()

    def backward(self, dout=1):
        labels, dx, keep = self.cache
        dx[np.arange(len(dx)), labels] -= 1
        dx *= dout
        dx /= keep.sum()
        dx *= keep[:, np.newaxis]
        return dx


class Regression:
    """A model whose loss stores its gradients."""

    def __init__(self, w):
        self.w, self.dw, self.b, self.db = w, None, 0.1, None

    def loss(self, X, y):
        p = 1 / (1 + np.exp(-(X.dot(self.w) + self.b)))
        self.dw, self.db = X.T.dot(p - y) / len(y), (p - y).mean()
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()


def unrolled(rng, dtype):
    weights = [normal(rng, dtype, *shape) for shape in ((3, 4), (4, 4), (4,))]
    return Unrolled(*weights), (normal(rng, dtype, 2, 3, 3),), {}


def two_outputs(rng, dtype):
    inputs = normal(rng, dtype, 3, 3), normal(rng, dtype, 3, 2)
    return Gates(normal(rng, dtype, 3, 4)), inputs, {"parameters": "w"}


def masked_loss(rng, dtype):
    labels = rng.integers(0, 3, 4)
    labels[1] = -1
    return Masked(), (normal(rng, dtype, 4, 3), labels), {}


def stored_by_a_loss(rng, dtype):
    return Regression(normal(rng, dtype, 3)), (normal(rng, dtype, 6, 3), rng.integers(0, 2, 6)), {}


def _wb(rng, dtype, n=3, m=2):
    return normal(rng, dtype, n, m), normal(rng, dtype, m)


def attribute_pairs(rng, dtype):
    return Affine(*_wb(rng, dtype)), (normal(rng, dtype, 4, 3),), {}


def adding(rng, dtype):
    return Adding(*_wb(rng, dtype)), (normal(rng, dtype, 4, 3),), {}


def listed(rng, dtype):
    return Listed(*_wb(rng, dtype)), (normal(rng, dtype, 4, 3),), {}


def tensors(rng, dtype):
    return Tensors(*_wb(rng, dtype)), (normal(rng, dtype, 4, 3),), {}


def bound_methods(rng, dtype):
    layer = Returning(*_wb(rng, dtype))
    options = {"backward": layer.bprop, "parameters": ("W", "b")}
    return layer.fprop, (normal(rng, dtype, 4, 3),), options


def relu_object(rng, dtype):
    return Relu(), (normal(rng, dtype, 4, 3),), {}


def sequential(rng, dtype):
    net = Sequential(Affine(*_wb(rng, dtype)), Tanh(), Adding(*_wb(rng, dtype, 2, 3)), Relu())
    return net, (normal(rng, dtype, 4, 3),), {}


def batchnorm_object(rng, dtype):
    return BatchNorm(normal(rng, dtype, 3), normal(rng, dtype, 3)), (normal(rng, dtype, 6, 3),), {}


def dropout_object(rng, dtype):
    return Dropout(0.4, 1), (normal(rng, dtype, 4, 3),), {}


def legacy_dropout(rng, dtype):
    return LegacyDropout(), (normal(rng, dtype, 4, 3),), {}


def convolution_object(rng, dtype):
    layer = Convolution(normal(rng, dtype, 2, 2, 2, 2), normal(rng, dtype, 2))
    return layer, (normal(rng, dtype, 2, 2, 4, 4),), {}


def embedding_object(rng, dtype):
    return Embedding(normal(rng, dtype, 5, 3)), (rng.integers(0, 5, (2, 3)),), {}


def cross_entropy(rng, dtype):
    return CrossEntropy(), (normal(rng, dtype, 4, 3), rng.integers(0, 3, 4)), {}


def two_layer_net(rng, dtype):
    return TwoLayerNet(rng, dtype), (normal(rng, dtype, 3, 4), rng.integers(0, 3, 3)), {}


OBJECTS = [
    attribute_pairs, adding, listed, tensors, bound_methods, relu_object, sequential,
    batchnorm_object, dropout_object, legacy_dropout, convolution_object, embedding_object,
    cross_entropy, two_layer_net, unrolled, two_outputs, masked_loss, stored_by_a_loss,
]  # fmt: skip
