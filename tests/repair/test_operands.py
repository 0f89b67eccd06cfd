"""One operand in another's place, a second end left out, a place beside: one edit mends each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repair.test_mistakes import assert_mended, load

import gradlab
from gradlab.repair.edits import Material
from gradlab.repair.solving import Fitter
from gradlab.repair.source import ATOM
from gradlab.repair.standin import numbers, numpy_module

NUMPY = {
    "all pixels": (
        "def forward(x):\n    m = x.mean(axis=(1, 2))\n"
        "    return x * m[:, None, None], (x, m)\n\n\n"
        "def backward(g, kept):\n    x, m = kept\n    _, h, w = x.shape\n"
        "    dm = (g * x).sum(axis=(1, 2))\n    dx = g * m[:, None, None]\n"
        "    dx += dm[:, None, None]\n    return dx\n",
        [(2, 3, 2)],
        "    dx += dm[:, None, None] / (h * w)",
    ),
    "all pixels, where other lengths are as long": (
        "def forward(x):\n    m = x.mean(axis=(1, 2))\n"
        "    return x * m[:, None, None], (x, m)\n\n\n"
        "def backward(g, kept):\n    x, m = kept\n    n, h, w = x.shape\n"
        "    dm = (g * x).sum(axis=(1, 2))\n    dx = g * m[:, None, None]\n"
        "    dx += dm[:, None, None]\n    return dx\n",
        [(3, 2, 3)],
        "    dx += dm[:, None, None] / (h * w)",
    ),
    "sum that stands elsewhere": (
        "def forward(q, z, s):\n    z, s = np.repeat(z, 2, axis=0), np.repeat(s, 2, axis=0)\n"
        "    return np.sin((q - z) * s), (q, z, s)\n\n\n"
        "def backward(g, kept):\n    q, z, s = kept\n    d = g * np.cos((q - z) * s)\n"
        "    dz = -(d * s).reshape(-1, 2, g.shape[1]).sum(axis=1)\n"
        "    ds = (d * q).reshape(-1, 2, g.shape[1]).sum(axis=1)\n    return d * s, dz, ds\n",
        [(4, 3), (2, 3), (2, 3)],
        "    ds = (d * (q - z)).reshape(-1, 2, g.shape[1]).sum(axis=1)",
    ),
    "two slices of what was padded": (
        "def forward(x):\n    k = 1\n    p = np.pad(x, k)\n    h, w = x.shape\n"
        "    y = np.zeros_like(x)\n    for i in range(2 * k + 1):\n"
        "        for j in range(2 * k + 1):\n"
        "            y += (1 + i + 2 * j) * p[i : i + h, j : j + w]\n    return y, (x, k)\n\n\n"
        "def backward(g, kept):\n    x, k = kept\n    h, w = x.shape\n"
        "    d = np.zeros((h + 2 * k, w + 2 * k))\n    for i in range(2 * k + 1):\n"
        "        for j in range(2 * k + 1):\n"
        "            d[i : i + h, j : j + w] += (1 + i + 2 * j) * g\n    return d[:h, :w]\n",
        [(3, 4)],
        "    return d[k:k + h, k:k + w]",
    ),
    "part within an exponential": (
        "def forward(a, b):\n    s = np.sin(a)\n"
        "    return np.exp(np.cumsum(s[1:] + b[1:])), (a, s, b)\n\n\n"
        "def backward(g, kept):\n    a, s, b = kept\n    t = s[1:]\n    y = np.exp(np.cumsum(t))\n"
        "    d = np.cumsum((g * y)[::-1])[::-1]\n    da, db = np.zeros_like(a), np.zeros_like(b)\n"
        "    da[1:], db[1:] = d * np.cos(a[1:]), d\n    return da, db\n",
        [(5,), (5,)],
        "    t = s[1:] + b[1:]",
    ),
    "slice that has a name": (
        "def forward(x, w):\n    n = len(x) - 2 * (len(w) - 1)\n    y = np.zeros(n)\n"
        "    for k in range(len(w)):\n        y += w[k] * np.sin(x[2 * k : 2 * k + n])\n"
        "    return y, (x, w)\n\n\n"
        "def backward(g, kept):\n    x, w = kept\n    n = len(g)\n"
        "    dx, dw = np.zeros_like(x), np.zeros_like(w)\n    for k in range(len(w)):\n"
        "        start = 2 * k\n        rows = slice(start, start + n)\n"
        "        dw[k] = (g * np.sin(x[k : k + n])).sum()\n"
        "        dx[rows] += g * w[k] * np.cos(x[rows])\n    return dx, dw\n",
        [(8,), (3,)],
        "        dw[k] = (g * np.sin(x[rows])).sum()",
    ),
    "both directions": (
        "A = 0.7\n\n\ndef swept(x, a):\n    h, y = 0, np.zeros_like(x)\n"
        "    for t in range(len(x)):\n        h = np.tanh(a * h + x[t])\n        y[t] = h\n"
        "    return y\n\n\n"
        "def pulled(g, y, a):\n    c, dx = 0, np.zeros_like(g)\n"
        "    for t in reversed(range(len(g))):\n        c = (g[t] + c) * (1 - y[t] ** 2)\n"
        "        dx[t] = c\n        c = c * a\n    return dx\n\n\n"
        "def forward(x):\n    return swept(x, A) + swept(x[::-1], -A)[::-1], x\n\n\n"
        "def backward(g, x):\n    dx = pulled(g, swept(x, A), A)\n"
        "    dx += pulled(g[::-1], swept(x[::-1], -A), -A)\n    return dx\n",
        [(4, 2)],
        "    dx += pulled(g[::-1], swept(x[::-1], -A), -A)[::-1]",
    ),
    "sum of a product": (
        "def forward(x, w):\n    r = np.sqrt((x * x).sum(axis=1))\n"
        "    u = x / r[:, None]\n    return u @ w, (w, u, r)\n\n\n"
        "def backward(g, kept):\n    w, u, r = kept\n    du = g @ w.T\n"
        "    row = np.sum(g, axis=1)\n"
        "    return (du - u * row[:, None]) / r[:, None], u.T @ g\n",
        [(4, 3), (3, 2)],
        "    row = np.sum(du * u, axis=1)",
    ),
    "product with a matrix": (
        "def forward(m, x, t):\n    return 0.5 * (m @ x) @ (m @ x) + 0.5 * t @ t, (m, x, t)\n\n\n"
        "def backward(g, kept):\n    m, x, t = kept\n    dx = g * (m.T @ t)\n"
        "    return g * np.outer(m @ x, x), dx, g * t\n",
        [(5, 3), (3,), (5,)],
        "    dx = g * (m.T @ (m @ x))",
    ),
    "one less than a count": (
        "def forward(x):\n    n = len(x)\n    d = x - x.mean(axis=0)\n"
        "    s = np.sqrt((d**2).sum(axis=0) / (n - 1))\n    return x.mean(axis=0) / s, (x, d, s)\n"
        "\n\ndef backward(g, kept):\n    x, d, s = kept\n    n, mean = len(x), x.mean(axis=0)\n"
        "    one = g / (n * s)\n    return np.broadcast_to(one, x.shape)\n",
        [(6, 2)],
        "    one = g / (n * s) - g * d * mean / (n - 1) / s**3",
    ),
    "second end of a bond": (
        "I, J = np.array([0, 1, 3, 2, 0]), np.array([1, 2, 0, 3, 2])\n\n\n"
        "def forward(x):\n    return np.sin(x[I] - x[J]), (x, x[I] - x[J])\n\n\n"
        "def backward(g, kept):\n    x, d = kept\n    out, f = np.zeros_like(x), g * np.cos(d)\n"
        "    np.add.at(out, I, f)\n    return out\n",
        [(4, 2)],
        "    np.subtract.at(out, J, f)",
    ),
    "axes before a reshape": (
        "def forward(a, b):\n    out = []\n    for x in (a, b):\n        n, c = x.shape\n"
        "        h = x.reshape(n, 2, c // 2).transpose(1, 0, 2)\n        out.append(h * h[::-1])\n"
        "    return np.stack(out), (a, b)\n\n\n"
        "def backward(g, kept):\n    n, c = kept[0].shape\n"
        "    hs = [x.reshape(n, 2, c // 2).transpose(1, 0, 2) for x in kept]\n"
        "    back = [2 * u[::-1] * h[::-1] for u, h in zip(0.5 * (g + g[:, ::-1]), hs)]\n"
        "    return [d.reshape(n, -1) for d in back]\n",
        [(4, 6), (4, 6)],
        "    return [d.transpose(1, 0, 2).reshape(n, -1) for d in back]",
    ),
    "state before": (
        "def forward(x, a):\n    hs = [np.zeros(x.shape[1])]\n    for row in x:\n"
        "        hs.append(np.tanh(a * hs[-1] + row))\n"
        "    return np.stack(hs[1:]), (x, a, hs)\n\n\n"
        "def backward(g, kept):\n    x, a, hs = kept\n    dx, da = np.zeros_like(x), 0 * a\n"
        "    back = 0 * a\n    for t in range(len(x) - 1, -1, -1):\n        h = hs[t + 1]\n"
        "        back = (back + g[t]) * (1 - h**2)\n        da += back * h\n"
        "        dx[t] = back\n        back = back * a\n    return dx, da\n",
        [(5, 3), (3,)],
        "        da += back * hs[t]",
    ),
    "what a loop carries": (
        "def forward(w, m, a):\n    v = np.zeros_like(w)\n    tape = []\n    for _ in range(3):\n"
        "        tape.append((w, v))\n        v = m * v - 0.1 * (a @ w)\n        w = w + v\n"
        "    return w, (m, a, tape)\n\n\n"
        "def backward(g, kept):\n    m, a, tape = kept\n    dv, da, dm = 0 * g, 0 * a, 0.0\n"
        "    for w, v in reversed(tape):\n        dv = dv + g\n        dm += dv @ v\n"
        "        da -= 0.1 * np.outer(dv, w)\n        g = g - 0.1 * (a.T @ dv)\n"
        "    return g, np.asarray(dm), da\n",
        [(3,), (), (3, 3)],
        "        dv = dv * m + g",
    ),
    "upstream changed in place": (
        "def forward(x, w, b):\n    z = x @ w + b\n    return z * np.tanh(b), (x, w, b, z)\n\n\n"
        "def backward(g, kept):\n    x, w, b, z = kept\n    dz = g\n    dz *= np.tanh(b)\n"
        "    db = (g * z).sum(axis=0) / np.cosh(b) ** 2 + dz.sum(axis=0)\n"
        "    return dz @ w.T, x.T @ dz, db\n",
        [(4, 3), (3, 2), (2,)],
        "    dz = dz * np.tanh(b)",
    ),
    "value that is never read": (
        "def forward(a, x):\n    s = 0.5 * (a + a.T) + 9 * np.eye(len(a))\n"
        "    d = s.sum(axis=1)\n    return (s / d[:, None]) @ x, (s, d, x)\n\n\n"
        "def backward(g, kept):\n    s, d, x = kept\n    dp = g @ x.T\n"
        "    ds = dp / d[:, None]\n    dd = -(dp * s).sum(axis=1) / d**2\n"
        "    return 0.5 * (ds + ds.T), (s / d[:, None]).T @ g\n",
        [(4, 4), (4, 2)],
        "    return 0.5 * (ds + dd + (ds + dd).T), (s / d[:, None]).T @ g",
    ),
    "length of a list in a loop": (
        "BAGS = [[0, 2, 2], [1], [3, 0]]\n\n\n"
        "def forward(t, s):\n    y = np.stack([t[b].mean(axis=0) for b in BAGS])\n"
        "    return y * s, (t, y, s)\n\n\n"
        "def backward(g, kept):\n    t, y, s = kept\n    d = np.zeros_like(t)\n"
        "    for k, b in enumerate(BAGS):\n        for i in b:\n"
        "            d[i] += g[k] * s / len(BAGS)\n    return d, (g * y).sum(axis=0)\n",
        [(4, 3), (3,)],
        "            d[i] += g[k] * s / len(b)",
    ),
    "place of a scatter": (
        "def forward(c, t):\n    i = np.clip(np.floor(t).astype(int) + 2, 0, 3)\n"
        "    f = t - np.floor(t)\n    return (1 - f) * c[i] + f**2 * c[i + 1], (c, i, f)\n\n\n"
        "def backward(g, kept):\n    c, i, f = kept\n    d = np.zeros_like(c)\n"
        "    np.add.at(d, i, g * (1 - f))\n    np.add.at(d, i, g * f**2)\n"
        "    return d, g * (2 * f * c[i + 1] - c[i])\n",
        [(5,), (7,)],
        "    np.add.at(d, i + 1, g * f**2)",
    ),
    "other end of an array": (
        "def forward(x, s):\n    p = np.pad(x, 1, mode='edge')\n    d = p[2:] - 3 * p[:-2]\n"
        "    return d * s, (d, s)\n\n\n"
        "def backward(g, kept):\n    d, s = kept\n    dp = np.zeros(len(d) + 2)\n"
        "    dp[2:] += g * s\n    dp[:-2] -= 3 * g * s\n    dx = dp[1:-1].copy()\n"
        "    dx[0] += dp[0]\n    return dx, (g * d).sum()\n",
        [(7,), ()],
        "    dx[-1] += dp[-1]",
    ),
    "taken away at places that stand twice": (
        "def forward(z, c):\n    i = ((z[:, None] - c) ** 2).sum(axis=2).argmin(axis=1)\n"
        "    e = z - c[i]\n    return 0.5 * (e**2).sum(axis=1), (i, e, c)\n\n\n"
        "def backward(g, kept):\n    i, e, c = kept\n    dc = np.zeros_like(c)\n"
        "    dc[i] -= g[:, None] * e\n    return g[:, None] * e, dc\n",
        [(7, 2), (3, 2)],
        "    np.subtract.at(dc, i, g[:, None] * e)",
    ),
    "sum of each row": (
        "def forward(s):\n    n, k = s.shape\n    y = np.arange(n) % k\n"
        "    m = np.maximum(0, s - s[np.arange(n), y][:, None] + 1)\n"
        "    m[np.arange(n), y] = 0\n    return m.sum() / n, (s, y, m)\n\n\n"
        "def backward(g, kept):\n    s, y, m = kept\n    n = len(s)\n"
        "    d = (m > 0).astype(float)\n    d[np.arange(n), y] = -1\n    return g * d / n\n",
        [(5, 3)],
        "    d[np.arange(n), y] = -d.sum(axis=-1)",
    ),
    "other end with the other sign": (
        "def forward(p, w):\n    d = np.diff(p, axis=0)\n    l = np.sqrt((d**2).sum(axis=1))\n"
        "    return (w * l).sum(), (d, l, w)\n\n\n"
        "def backward(g, kept):\n    d, l, w = kept\n    u = g * (w / l)[:, None] * d\n"
        "    dp = np.zeros((len(d) + 1, d.shape[1]))\n    dp[1:] += u\n    return dp, g * l\n",
        [(5, 2), (4,)],
        "    dp[:-1] -= u",
    ),
    "symmetric part": (
        "def forward(m, h):\n    s = 0.5 * (m + m.T)\n    return np.tanh(s @ h), (s, h)\n\n\n"
        "def backward(g, kept):\n    s, h = kept\n    a = g * (1 - np.tanh(s @ h) ** 2)\n"
        "    ds = np.outer(a, h)\n    return ds, s.T @ a\n",
        [(3, 3), (3,)],
        "    return 0.5 * (ds + ds.T), s.T @ a",
    ),
    "division outside of a matrix product": (
        "A = np.array([[0.0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0]])\n\n\n"
        "def forward(x, w):\n    deg = 1 + A.sum(axis=1, keepdims=True)\n"
        "    return np.sin(A @ x / deg) * w, (x, w, deg)\n\n\n"
        "def backward(g, kept):\n    x, w, deg = kept\n    m = A @ x / deg\n"
        "    dm = g * w * np.cos(m)\n    return A.T @ dm / deg, (g * np.sin(m)).sum(axis=0)\n",
        [(4, 3), (3,)],
        "    return A.T @ (dm / deg), (g * np.sin(m)).sum(axis=0)",
    ),
    "number in a function": (
        "def forward(x, w):\n    return w * x / np.sqrt((x * x).mean(axis=0) + 3e-2), (x, w)\n\n\n"
        "def backward(g, kept):\n    x, w = kept\n    s = np.sqrt((x * x).mean(axis=0))\n"
        "    d, n = g * w, len(x)\n"
        "    return d / s - x * (d * x).sum(axis=0) / (n * s**3), (g * x / s).sum(axis=0)\n",
        [(6, 2), (2,)],
        "    s = np.sqrt((x * x).mean(axis=0) + 3e-2)",
    ),
    "factor outside of a sum": (
        "def around(v):\n    p = np.pad(v, ((0, 0), (1, 1)))\n"
        "    return p[:, :-2] + p[:, 1:-1] + p[:, 2:]\n\n\n"
        "def forward(v, k):\n    c = 1 + k**2\n    return around(np.sin(v)) / c, (v, k, c)\n\n\n"
        "def backward(g, kept):\n    v, k, c = kept\n"
        "    dc = -(g * around(np.sin(v)) / c**2).sum(axis=0)\n"
        "    return np.cos(v) * (around(g) / c), 2 * k * dc\n",
        [(3, 5), (5,)],
        "    return np.cos(v) * around(g / c), 2 * k * dc",
    ),
}
JAX = {
    "exponential that overflows": (
        "@jax.custom_jvp\ndef f(a, b):\n    m = jnp.max(a, axis=1, keepdims=True)\n"
        "    return m[:, 0] + jnp.log(jnp.sum(b * jnp.exp(a - m), axis=1))\n\n\n"
        "@f.defjvp\ndef jvp(given, moved):\n    (a, b), (da, db) = given, moved\n"
        "    y = f(a, b)\n    e = jnp.exp(a - y[:, None])\n"
        "    return y, jnp.sum(b * e * da, axis=1) + jnp.sum(db, axis=1) * jnp.exp(-y)\n",
        [(4, 3), (4, 3)],
        "    return y, jnp.sum(b * e * da, axis=1) + (db * e).sum(axis=-1)",
    ),
    "root of a symmetric matrix": (
        "@jax.custom_vjp\ndef root(a):\n    w, v = jnp.linalg.eigh(a)\n"
        "    return (v * jnp.sqrt(w)) @ v.T\n\n\n"
        "def fwd(a):\n    w, v = jnp.linalg.eigh(a)\n"
        "    return (v * jnp.sqrt(w)) @ v.T, (w, v)\n\n\n"
        "def bwd(kept, g):\n    w, v = kept\n    r = jnp.sqrt(w)\n"
        "    return (v @ (v.T @ g @ v / (w[:, None] + w[None, :])) @ v.T,)\n\n\n"
        "root.defvjp(fwd, bwd)\n\n\n"
        "def f(x, y):\n    return y @ root(x.T @ x + 0.5 * jnp.eye(3, dtype=x.dtype))\n",
        [(5, 3), (2, 3)],
        "    return (v @ (v.T @ g @ v / (r[:, None] + r[None, :])) @ v.T,)",
    ),
    "tangent of a symmetric matrix": (
        "@jax.custom_jvp\ndef logdet(a):\n    w = jnp.linalg.eigvalsh(a)\n"
        "    return jnp.log(w).sum()\n\n\n"
        "@logdet.defjvp\ndef jvp(given, moved):\n    (a,), (da,) = given, moved\n"
        "    w, v = jnp.linalg.eigh(a)\n    turned = v.T @ da @ v\n"
        "    return jnp.log(w).sum(), (jnp.diag(turned) / jnp.sqrt(w)).sum()\n\n\n"
        "def f(x):\n    return logdet(x.T @ x + 0.5 * jnp.eye(3, dtype=x.dtype))\n",
        [(5, 3)],
        "    return jnp.log(w).sum(), (jnp.diag(turned) / w).sum()",
    ),
    "general matrix that is symmetric here": (
        "@jax.custom_vjp\ndef solve(a, b):\n    return jnp.linalg.solve(a, b)\n\n\n"
        "def fwd(a, b):\n    x = solve(a, b)\n    return x, (a, x)\n\n\n"
        "def bwd(kept, g):\n    a, x = kept\n    w = jnp.linalg.solve(a.T, g)\n"
        "    return -jnp.outer(x, w), w + x\n\n\nsolve.defvjp(fwd, bwd)\n\n\n"
        "def f(x, b):\n    return solve(x @ x.T + jnp.eye(len(x), dtype=x.dtype), b)\n",
        [(3, 4), (3,)],
        "    return -jnp.outer(w, x), w",
    ),
    "row of the next step": (
        "@jax.custom_vjp\ndef f(a, u, h):\n    def step(h, row):\n"
        "        h = row[0] * jnp.sin(h) + row[1]\n        return h, h\n\n"
        "    return jax.lax.scan(step, h, (a, u))[1]\n\n\n"
        "def fwd(a, u, h):\n    hs = f(a, u, h)\n    return hs, (a, hs, h)\n\n\n"
        "def bwd(kept, g):\n    a, hs, h = kept\n    ahead = a\n\n"
        "    def step(lam, row):\n        lam = row[0] + row[1] * jnp.cos(row[2]) * lam\n"
        "        return lam, lam\n\n"
        "    rows = (g, ahead, hs)\n"
        "    lam = jax.lax.scan(step, jnp.zeros_like(h), rows, reverse=True)[1]\n"
        "    before = jnp.concatenate([h[None], hs[:-1]])\n"
        "    return lam * jnp.sin(before), lam, a[0] * jnp.cos(h) * lam[0]\n\n\n"
        "f.defvjp(fwd, bwd)\n",
        [(5, 3), (5, 3), (3,)],
        "    ahead = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])",
    ),
    "state before each step": (
        "@jax.custom_vjp\ndef f(a, u, h):\n    def step(h, row):\n"
        "        h = row[0] * h + row[1]\n        return h, h\n\n"
        "    return jax.lax.scan(step, h, (a, u))[1]\n\n\n"
        "def fwd(a, u, h):\n    hs = f(a, u, h)\n    return hs, (a, hs, h)\n\n\n"
        "def bwd(kept, g):\n    a, hs, h = kept\n\n"
        "    def step(lam, row):\n        lam = row[0] + lam\n"
        "        return row[1] * lam, lam\n\n"
        "    lam = jax.lax.scan(step, jnp.zeros_like(h), (g, a), reverse=True)[1]\n"
        "    return lam * hs, lam, a[0] * lam[0]\n\n\nf.defvjp(fwd, bwd)\n",
        [(5, 3), (5, 3), (3,)],
        "    return lam * jnp.concatenate([h[None], hs[:-1]]), lam, a[0] * lam[0]",
    ),
    "function that nobody calls": (
        "from jax.scipy.special import digamma, polygamma\n\n\n"
        "@jax.custom_vjp\ndef f(k, r):\n    return (k - r) * digamma(k)\n\n\n"
        "def fwd(k, r):\n    return f(k, r), (k, r)\n\n\n"
        "def bwd(kept, g):\n    k, r = kept\n"
        "    dk = g * (digamma(k) + (k - r) * digamma(k))\n    return dk, -g * digamma(k)\n\n\n"
        "f.defvjp(fwd, bwd)\n",
        [(5,), (5,)],
        "    dk = g * (digamma(k) + (k - r) * polygamma(1, k))",
    ),
    "one rule of several": (
        "def root(a, b, t):\n    return jnp.sqrt(a * a + b * t)\n\n\n"
        "@jax.custom_jvp\ndef f(a, b, t):\n    return jnp.sin(root(a, b, t))\n\n\n"
        "def da(m, y, a, b, t):\n    r = root(a, b, t)\n    return jnp.cos(r) * a / r * m\n\n\n"
        "def db(m, y, a, b, t):\n    r = root(a, b, t)\n    return jnp.cos(r) / (2 * r) * m\n\n\n"
        "def dt(m, y, a, b, t):\n    r = root(a, b, t)\n"
        "    return jnp.cos(r) * b / (2 * r) * m\n\n\nf.defjvps(da, db, dt)\n",
        [(4,), (4,), (4,)],
        "    return jnp.cos(r) * t / (2 * r) * m",
    ),
    "second end of a bond in JAX": (
        "I, J = jnp.array([0, 1, 3, 2, 0]), jnp.array([1, 2, 0, 3, 2])\n\n\n"
        "@jax.custom_vjp\ndef f(x):\n    return jnp.sin(x[I] - x[J])\n\n\n"
        "def fwd(x):\n    return f(x), (x, x[I] - x[J])\n\n\n"
        "def bwd(kept, g):\n    x, d = kept\n    p = g * jnp.cos(d)\n"
        "    return (jnp.zeros_like(x).at[I].add(p),)\n\n\nf.defvjp(fwd, bwd)\n",
        [(4, 2)],
        "    return (jnp.zeros_like(x).at[I].add(p).at[J].add(-p),)",
    ),
    "static arguments": (
        "from functools import partial\n\n\n"
        "@partial(jax.custom_vjp, nondiff_argnums=(1, 2))\ndef bent(x, up, down):\n"
        "    return jnp.where(x > 0, up * x**2, down * x)\n\n\n"
        "def fwd(x, up, down):\n    return bent(x, up, down), x\n\n\n"
        "def bwd(down, up, x, g):\n    slope = jnp.where(x > 0, 2 * up * x, down)\n"
        "    rest = 0 * (up + down)\n    return (g * slope + rest,)\n\n\n"
        "bent.defvjp(fwd, bwd)\n\n\ndef f(x):\n    return bent(x - 0.8, 0.4, 1.7)\n",
        [(6,)],
        "def bwd(up, down, x, g):",
    ),
    "value that is none": (
        "@jax.custom_jvp\ndef f(a, b):\n    m = jnp.max(a, axis=1, keepdims=True)\n"
        "    return m[:, 0] + jnp.log(jnp.sum(b * jnp.exp(a - m), axis=1))\n\n\n"
        "@f.defjvp\ndef jvp(given, moved):\n    (a, b), (da, db) = given, moved\n"
        "    y = f(a, b)\n    e = jnp.exp(a - y[:, None])\n"
        "    return y, jnp.sum(b * e * da, axis=1) + jnp.sum(b * db, axis=1)\n",
        [(4, 3), (4, 3)],
        "    return y, jnp.sum(b * e * da, axis=1) + jnp.sum(e * db, axis=1)",
    ),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("slip", [*NUMPY, *JAX])
def test_the_operand_that_was_meant_is_found(slip: str, tmp_path: Path) -> None:
    assert_mended(tmp_path / "layer.py", *(NUMPY | JAX)[slip], jax=slip in JAX)


def test_of_two_slips_in_a_scan_the_second_is_found_where_no_right_gradient_needs_it(
    tmp_path: Path,
) -> None:
    text = (
        "@jax.custom_vjp\ndef f(x, b, a):\n    return fwd(x, b, a)[0]\n\n\n"
        "def fwd(x, b, a):\n    def step(s, r):\n        y = b[0] * r + s[0]\n"
        "        return (b[1] * r - a[0] * y + s[1], b[2] * r - a[1] * y), y\n\n"
        "    z = jnp.zeros((), x.dtype)\n    _, y = jax.lax.scan(step, (z, z), x)\n"
        "    return y, (x, b, a, y)\n\n\n"
        "def bwd(kept, dy):\n    x, b, a, y = kept\n\n    def back(lam, row):\n"
        "        l1, l2 = lam\n        g, xt, yt = row\n"
        "        gy = g - a[0] * l1 - a[0] * l2\n"
        "        db = jnp.stack([gy * xt, l1 * xt, l2 * xt])\n"
        "        da = jnp.stack([-l1 * xt, -l2 * yt])\n"
        "        return (gy, l1), (gy * b[0] + l1 * b[1] + l2 * b[2], db, da)\n\n"
        "    z = jnp.zeros((), x.dtype)\n"
        "    _, (dx, db, da) = jax.lax.scan(back, (z, z), (dy, x, y), reverse=True)\n"
        "    return dx, db.sum(axis=0), da.sum(axis=0)\n\n\nf.defvjp(fwd, bwd)\n"
    )
    head = "import jax\nimport jax.numpy as jnp\n\n\n"
    module = load(tmp_path / "layer.py", head + text)
    rng = np.random.default_rng(0)
    given = [np.asarray(rng.normal(size=n), np.float32) for n in (7, 3, 2)]
    fix = gradlab.check(module.f, *given).fixes[0]
    assert "        gy = g - a[0] * l1 - a[1] * l2" in fix.after
    assert "        da = jnp.stack([-l1 * yt, -l2 * yt])" in fix.after


def test_after_one_slip_in_a_loop_the_other_is_sought_where_no_right_gradient_needs_it(
    tmp_path: Path,
) -> None:
    text = (
        "def sig(a):\n    return 1 / (1 + np.exp(-a))\n\n\n"
        "def forward(x, w, p):\n    c, tape = np.zeros(x.shape[1]), []\n    for row in x:\n"
        "        i = sig(row * w + p * c)\n        new = (1 - i) * c + i * np.tanh(row)\n"
        "        tape.append((row, c, i, new))\n        c = new\n"
        "    return c, (w, p, tape, x.shape)\n\n\n"
        "def backward(g, kept):\n    w, p, tape, shape = kept\n"
        "    dx, dw, dp = np.zeros(shape), np.zeros_like(w), np.zeros_like(p)\n"
        "    for t in range(len(tape) - 1, -1, -1):\n        row, c, i, new = tape[t]\n"
        "        z = np.tanh(row)\n        da = g * (z - c) * i * (1 - i)\n"
        "        dw += da * row\n        dp += da * new\n"
        "        dx[t] = da * w + g * i * (1 - z**2)\n        g = g * (1 - i)\n"
        "    return dx, dw, dp\n"
    )
    module = load(tmp_path / "layer.py", f"import numpy as np\n\n\n{text}")
    rng = np.random.default_rng(0)
    given = [rng.normal(size=s) for s in ((4, 3), (3,), (3,))]
    options = {"backward": module.backward, "returns": "output+residuals"}
    fix = gradlab.check(module.forward, *given, **options).fixes[0]
    assert "        dp += da * c" in fix.after
    assert {"        g = g * (1 - i) + da * p", "        g = g * (1 - i) + p * da"} & {*fix.after}


def test_a_fitted_product_has_the_sign_of_its_numbers() -> None:
    row = np.array([0.3, -1.2, 0.7, 2.0])
    pool = [Material("row", ATOM, (row,)), Material("c", ATOM, (np.float64(-2.123),))]
    found = Fitter(pool).products(2.123 * row, 3, lambda _: None)
    assert found
    assert all(np.allclose(eval(t, {"row": row, "c": -2.123}), 2.123 * row) for t in found)


def test_one_less_than_another_length_is_no_fix(tmp_path: Path) -> None:
    """Inputs of 4x3 that grow by one in all lengths do not tell `len(q) - 1` from `q.shape[1]`."""
    text = (
        "def soft(s):\n    e = np.exp(s - s.max(axis=1, keepdims=True))\n"
        "    return e / e.sum(axis=1, keepdims=True)\n\n\n"
        "def forward(q, k, v):\n    p = soft(q @ k.T / np.sqrt(q.shape[1]))\n"
        "    return p @ v, (q, k, v, p)\n\n\n"
        "def backward(g, kept):\n    q, k, v, p = kept\n    dp = g @ v.T\n"
        "    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True)) / np.sqrt(len(q))\n"
        "    return ds @ k, ds.T @ q, p.T @ g\n"
    )
    module = load(tmp_path / "layer.py", f"import numpy as np\n\n\n{text}")
    rng = np.random.default_rng(0)
    given = [rng.normal(size=s) for s in ((4, 3), (5, 3), (5, 2))]
    options = {"backward": module.backward, "returns": "output+residuals"}
    fixes = gradlab.check(module.forward, *given, **options).fixes
    assert fixes and all("len(q) - 1" not in line for fix in fixes for line in fix.after)


@pytest.mark.parametrize("index", [(..., 0), (slice(None), 0)])
def test_values_that_do_not_fit_are_refused_where_numpy_crashes(index: Any) -> None:
    """In NumPy 2.4, `np.add.at` ends the process there."""
    array, values = np.zeros((2, 3)), np.ones((2, 3, 1))
    with pytest.raises(ValueError, match="dimensions"):
        numpy_module(np).add.at(array, index, values)
    with pytest.raises(ValueError, match="dimensions"):
        numbers(array).at[index].add(values)
    numpy_module(np).add.at(array, index, np.ones(2))
    assert array[:, 0].tolist() == [1, 1]
    assert numpy_module(np).add(array, 1).sum() == array.sum() + array.size
