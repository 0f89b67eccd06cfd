"""Slips of usual kinds: one edit mends each, and that is the line which was meant."""

from pathlib import Path

import numpy as np
import pytest
from repair.test_mistakes import assert_mended, load

import gradlab

NUMPY = {
    "tie that is summed": (
        "def forward(a, b):\n    d = b[:, None] - a\n"
        "    return np.maximum(0.3 * d, -0.7 * d), d\n\n\n"
        "def backward(g, d):\n    t = g * np.where(d < 0, 0.3, -0.7)\n"
        "    return -t, t.sum(axis=1)\n",
        [(4, 3), (4,)],
        "    t = g * np.where(d > 0, 0.3, -0.7)",
    ),
    "line of the forward by another name": (
        "def near(n):\n    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < 2\n\n\n"
        "def soft(a):\n    e = np.exp(a - a.max(axis=1, keepdims=True))\n"
        "    return e / e.sum(axis=1, keepdims=True)\n\n\n"
        "def forward(q, v):\n    s = q @ q.T\n    s = np.where(near(len(q)), s, -np.inf)\n"
        "    return soft(s) @ v, (q, v)\n\n\n"
        "def backward(g, kept):\n    q, v = kept\n    raw = q @ q.T\n    p = soft(raw)\n"
        "    dp = g @ v.T\n    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))\n"
        "    return (ds + ds.T) @ q, p.T @ g\n",
        [(5, 3), (5, 2)],
        "    p = soft(np.where(near(len(q)), raw, -np.inf))",
    ),
    "weights of two scatters": (
        "def forward(t, x):\n    i = np.clip(np.floor(x).astype(int) + 2, 0, 3)\n"
        "    a = x - np.floor(x)\n"
        "    return t[i] * (1 - a) * a + t[i + 1] * a**2 * (2 - a), (t, i, a)\n\n\n"
        "def backward(g, kept):\n    t, i, a = kept\n    d = np.zeros_like(t)\n"
        "    np.add.at(d, i, g * a**2 * (2 - a))\n    np.add.at(d, i + 1, g * (1 - a) * a)\n"
        "    return d, g * (t[i] * (1 - 2 * a) + t[i + 1] * a * (4 - 3 * a))\n",
        [(5,), (6,)],
        "    np.add.at(d, i, g * (1 - a) * a)",
    ),
    "crop along two axes": (
        "P = 1\n\n\ndef smooth(y):\n    return y[1:, 1:] * y[:-1, :-1]\n\n\n"
        "def inner(d, n, m, p):\n    return d[:n, :m]\n\n\n"
        "def forward(x):\n    y = np.pad(x, P)\n    return smooth(y), (x, y)\n\n\n"
        "def backward(g, kept):\n    x, y = kept\n    d = np.zeros_like(y)\n"
        "    d[1:, 1:] += g * y[:-1, :-1]\n    d[:-1, :-1] += g * y[1:, 1:]\n"
        "    return inner(d, *x.shape, P)\n",
        [(4, 3)],
        "    return d[p:p + n, p:p + m]",
    ),
    "line of the forward": (
        "def near(n):\n    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) < 2\n\n\n"
        "def soft(a):\n    e = np.exp(a - a.max(axis=1, keepdims=True))\n"
        "    return e / e.sum(axis=1, keepdims=True)\n\n\n"
        "def forward(q, v):\n    s = q @ q.T\n    s = np.where(near(len(q)), s, -np.inf)\n"
        "    return soft(s) @ v, (q, v)\n\n\n"
        "def backward(g, kept):\n    q, v = kept\n    s = q @ q.T\n    p = soft(s)\n"
        "    dp = g @ v.T\n    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))\n"
        "    return (ds + ds.T) @ q, p.T @ g\n",
        [(5, 3), (5, 2)],
        "    p = soft(np.where(near(len(q)), s, -np.inf))",
    ),
    "local of the forward": (
        "def soft(a):\n    e = np.exp(a - a.max(axis=1, keepdims=True))\n"
        "    return e / e.sum(axis=1, keepdims=True)\n\n\n"
        "def forward(s, v):\n    past = np.tril(np.ones(s.shape, bool))\n"
        "    return soft(np.where(past, s, -np.inf)) @ v, (s, v)\n\n\n"
        "def backward(g, kept):\n    s, v = kept\n    p = soft(s)\n    dp = g @ v.T\n"
        "    return p * (dp - (dp * p).sum(axis=1, keepdims=True)), p.T @ g\n",
        [(4, 4), (4, 2)],
        "    p = soft(np.where(np.tril(np.ones(s.shape, bool)), s, -np.inf))",
    ),
    "reaction": (
        "def forward(x, m):\n    e = 0.0\n    for i in range(len(x)):\n"
        "        for j in range(i):\n            d = x[i] - x[j]\n"
        "            e = e + m[i] * m[j] * np.exp(-d @ d)\n    return e, (x, m)\n\n\n"
        "def backward(g, kept):\n    x, m = kept\n"
        "    dx, dm = np.zeros_like(x), np.zeros_like(m)\n    for i in range(len(x)):\n"
        "        for j in range(i):\n            d = x[i] - x[j]\n"
        "            k = g * np.exp(-d @ d)\n            dx[i] -= 2 * k * m[i] * m[j] * d\n"
        "            dm[i] += k * m[j]\n            dm[j] += k * m[i]\n    return dx, dm\n",
        [(4, 2), (4,)],
        "            dx[j] += 2 * k * m[i] * m[j] * d",
    ),
    "factor that is carried": (
        "def forward(x, f):\n    c, cs = 0.0 * x[0], []\n    for t in range(len(x)):\n"
        "        c = f[t] * c + x[t] ** 2\n        cs.append(c)\n"
        "    return np.stack(cs), (x, f, np.stack(cs))\n\n\n"
        "def backward(g, kept):\n    x, f, cs = kept\n"
        "    dx, df, dc = np.zeros_like(x), np.zeros_like(f), 0.0 * x[0]\n"
        "    for t in range(len(x) - 1, -1, -1):\n        dc = dc + g[t]\n"
        "        dx[t] = 2 * dc * x[t]\n        if t > 0:\n            df[t] = dc * cs[t - 1]\n"
        "    return dx, df\n",
        [(4, 2), (4, 2)],
        "        dc = dc * f[t]",
    ),
    "eps outside the root": (
        "E = 1e-2\n\n\n"
        "def forward(x, a):\n"
        "    r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + E)\n"
        "    return x * r * np.tanh(a), (x, a)\n\n\n"
        "def backward(g, kept):\n    x, a = kept\n"
        "    s = (x * x).mean(axis=-1, keepdims=True)\n    r = 1 / (np.sqrt(s) + E)\n"
        "    n, t = x * r, np.tanh(a)\n    dn = g * t\n"
        "    dx = r * (dn - n * (dn * n).mean(axis=-1, keepdims=True))\n"
        "    return dx, g * n * (1 - t**2)\n",
        [(4, 5), (4, 5)],
        "    r = 1 / np.sqrt(s + E)",
    ),
    "reaction of a neighbour": (
        "def forward(x, rest=1.2):\n    e = 0.0\n    for i in range(len(x) - 1):\n"
        "        e = e + 0.5 * (x[i + 1] - x[i] - rest) ** 2\n    return e, (x, rest)\n\n\n"
        "def backward(g, kept):\n    x, rest = kept\n    dx = np.zeros_like(x)\n"
        "    for i in range(len(x) - 1):\n        f = g * (x[i + 1] - x[i] - rest)\n"
        "        dx[i + 1] += f\n    return dx\n",
        [(6,)],
        "        dx[i] -= f",
    ),
    "one less than a length": (
        "def forward(x):\n    return x.var(axis=0, ddof=1), x\n\n\n"
        "def backward(g, x):\n    return 2 * g * (x - x.mean(axis=0)) / len(x)\n",
        [(5, 3)],
        "    return 2 * g * (x - x.mean(axis=0)) / (len(x) - 1)",
    ),
    "normaliser": (
        "def forward(a, b):\n    w = a - np.log(np.exp(a).sum())\n"
        "    return np.sin(b + w), (w, b)\n\n\n"
        "def backward(g, kept):\n    w, b = kept\n    d = g * np.cos(b + w)\n"
        "    return d.sum(axis=0), d\n",
        [(3,), (4, 3)],
        "    return d.sum(axis=0) - d.sum() * np.exp(w), d",
    ),
}
JAX = {
    "two functions": (
        "@jax.custom_vjp\ndef f(t, a):\n    return a * jnp.sin(t) / t\n\n\n"
        "def fwd(t, a):\n    return f(t, a), (t, a)\n\n\n"
        "def bwd(kept, g):\n    t, a = kept\n"
        "    return g * a * (t * jnp.sin(t) - jnp.cos(t)) / t**2, g * jnp.sin(t) / t\n\n\n"
        "f.defvjp(fwd, bwd)\n",
        [(5,), (5,)],
        "    return g * a * (t * jnp.cos(t) - jnp.sin(t)) / t**2, g * jnp.sin(t) / t",
    ),
    "function that the module imports": (
        "from jax.scipy.special import digamma, gammaln\n\n\n"
        "@jax.custom_vjp\ndef f(k, r):\n    return k * jnp.log(r) - r - gammaln(k + 1)\n\n\n"
        "def fwd(k, r):\n    return f(k, r), (k, r)\n\n\n"
        "def bwd(kept, g):\n    k, r = kept\n"
        "    dk = g * (jnp.log(r) - gammaln(k + 1))\n    return dk, g * (k / r - 1)\n\n\n"
        "f.defvjp(fwd, bwd)\n",
        [(5,), (5,)],
        "    dk = g * (jnp.log(r) - digamma(k + 1))",
    ),
    "constant that gets no gradient": (
        "T = jnp.array([0.7, 1.9, 1.1])\n\n\n"
        "@jax.custom_vjp\ndef inner(x, t):\n    return x**2 / t\n\n\n"
        "def fwd(x, t):\n    return inner(x, t), (x, t)\n\n\n"
        "def bwd(kept, g):\n    x, t = kept\n    return g * 2 * x, None\n\n\n"
        "inner.defvjp(fwd, bwd)\n\n\ndef f(x):\n    return inner(x, T)\n",
        [(3,)],
        "    return g * 2 * x / t, None",
    ),
    "knots in order": (
        "E = jnp.array([0.0, 0.4, 1.0, 1.3])\n\n\n"
        "@jax.custom_vjp\ndef inner(x, h, e):\n"
        "    i = jnp.clip(jnp.searchsorted(e, x) - 1, 0, len(e) - 2)\n"
        "    return h[i] * (x - e[i]) / (e[i + 1] - e[i])\n\n\n"
        "def fwd(x, h, e):\n"
        "    i = jnp.clip(jnp.searchsorted(e, x) - 1, 0, len(e) - 2)\n"
        "    width = e[i + 1] - e[i]\n"
        "    return h[i] * (x - e[i]) / width, (i, h, (x - e[i]) / width, width)\n\n\n"
        "def bwd(kept, g):\n    i, h, f, width = kept\n"
        "    return g * h[i], jnp.zeros_like(h).at[i].add(g * f), None\n\n\n"
        "inner.defvjp(fwd, bwd)\n\n\ndef f(x, h):\n    return inner(x, h, E)\n",
        [(6,), (3,)],
        "    return g * h[i] / width, jnp.zeros_like(h).at[i].add(g * f), None",
    ),
    "end of a range": (
        "@jax.custom_vjp\ndef inner(x, lo, hi):\n    return jnp.clip(x, lo, hi)\n\n\n"
        "def fwd(x, lo, hi):\n    return inner(x, lo, hi), (x, lo, hi)\n\n\n"
        "def bwd(kept, g):\n    x, lo, hi = kept\n    inside = (x >= lo) & (x >= hi)\n"
        "    return jnp.where(inside, g, 0.0), None, None\n\n\n"
        "inner.defvjp(fwd, bwd)\n\n\ndef f(x):\n    return inner(x, 0.6, 1.1)\n",
        [(8,)],
        "    inside = (x >= lo) & (x <= hi)",
    ),
    "twice one end": (
        "@jax.custom_jvp\ndef f(a, x):\n    return x @ a @ x\n\n\n"
        "@f.defjvp\ndef jvp(given, moved):\n    (a, x), (da, dx) = given, moved\n"
        "    return f(a, x), x @ da @ x + 2 * dx @ a @ x\n",
        [(3, 3), (3,)],
        "    return f(a, x), x @ da @ x + dx @ a @ x + x @ a @ dx",
    ),
    "twice one half": (
        "@jax.custom_jvp\ndef f(a, b):\n"
        "    return jnp.linalg.solve(a @ a.T + jnp.eye(len(a), dtype=a.dtype), b)\n\n\n"
        "@f.defjvp\ndef jvp(given, moved):\n    (a, b), (da, db) = given, moved\n"
        "    m = a @ a.T + jnp.eye(len(a), dtype=a.dtype)\n    x = jnp.linalg.solve(m, b)\n"
        "    dm = 2 * da @ a.T\n    return x, jnp.linalg.solve(m, db - dm @ x)\n",
        [(3, 4), (3, 2)],
        "    dm = da @ a.T + a @ da.T",
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("slip", [*NUMPY, *JAX])
def test_a_slip_of_a_usual_kind_is_mended(slip: str, tmp_path: Path) -> None:
    assert_mended(tmp_path / "layer.py", *(NUMPY | JAX)[slip], jax=slip in JAX)


def test_an_entry_of_a_dict_is_read_in_the_place_of_a_name(tmp_path: Path) -> None:
    text = (
        "def forward(x, p):\n    d = x[:-1] - x[1:]\n    r = np.sqrt((d**2).sum(axis=1))\n"
        '    return (p["k"] * (r - p["r0"]) ** 2).sum(), (x, p, d, r)\n\n\n'
        "def backward(g, kept):\n    x, p, d, r = kept\n"
        '    f = (2 * g * p["k"] * (r - p["r0"]) / p["r0"])[:, None] * d\n'
        "    dx = np.zeros_like(x)\n    dx[:-1] += f\n    dx[1:] -= f\n"
        '    return dx, {"k": g * (r - p["r0"]) ** 2, "r0": -2 * g * p["k"] * (r - p["r0"])}\n'
    )
    module = load(tmp_path / "layer.py", f"import numpy as np\n\n\n{text}")
    rng = np.random.default_rng(0)
    given = rng.normal(size=(5, 2)), {"k": 1 + rng.random(4), "r0": 0.5 + rng.random(4)}
    options = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, *given, **options)
    meant = '    f = (2 * g * p["k"] * (r - p["r0"]) / r)[:, None] * d'
    assert [fix.after for fix in report.fixes] == [(meant,)]


def test_two_edits_that_each_mend_a_gradient_are_found_together(tmp_path: Path) -> None:
    """One of them is a product, so that no second edit is left to be searched from the other."""
    text = (
        "def sig(a):\n    return 1 / (1 + np.exp(-a))\n\n\n"
        "def forward(x, h, u, v):\n    r = sig(x @ v + h @ u[0])\n"
        "    return np.tanh(x @ v + (r * h) @ u[1]) * h, (x, h, u, v, r)\n\n\n"
        "def backward(g, kept):\n    x, h, u, v, r = kept\n"
        "    c = np.tanh(x @ v + (r * h) @ u[1])\n    dc = g * h * (1 - c**2)\n"
        "    drh = dc @ u[1].T\n    dr = drh * h * r * (1 - r)\n"
        "    dh = g * c + dr @ u[0].T\n    dx = dr @ v.T + dc @ v.T\n"
        "    du = np.stack([h.T @ dr, h.T @ dc])\n"
        "    return dx, dh, du, x.T @ dr + x.T @ dc\n"
    )
    module = load(tmp_path / "layer.py", f"import numpy as np\n\n\n{text}")
    rng = np.random.default_rng(0)
    given = [rng.normal(size=s) for s in ((4, 2), (4, 3), (2, 3, 3), (2, 3))]
    options = {"backward": module.backward, "returns": "output+residuals"}
    fix = gradlab.check(module.forward, *given, **options).fixes[0]
    assert fix.edits == 2 and "    dh = g * c + dr @ u[0].T + r * drh" in fix.after, fix
