"""Kinds of mistakes: each is mended, and its cause is named."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.repair import rules_met
from gradlab.repair.problem import Problem

# forward and backward, the shapes, what is right in the place of what is written: code, sentence
PAIRS = {
    "a complement within a loop, and an index": (
        "def forward(x, a):\n"
        "    s = np.zeros_like(x)\n    s[0] = x[0]\n"
        "    for t in range(1, len(x)):\n        s[t] = a * x[t] + (1 - a) * s[t - 1]\n"
        "    return s\n\n\n"
        "def backward(g, x, a):\n"
        "    s, d, da, run = forward(x, a), np.zeros_like(x), 0.0, g[-1]\n"
        "    for t in range(len(x) - 1, 0, -1):\n"
        "        d[t] = a * run\n"
        "        da += np.sum(run * (x[t] - s[t]))\n"
        "        run = g[t - 1] + a * run\n"
        "    d[0] = run\n    return d, da\n",
        ((5, 2), ()),
        "GL321: the index should be `t - 1`, not `t`; `a` stands where `1 - a` should",
    ),
    "indices in each other's place": (
        "I, J = np.array([0, 0, 1, 2, 2]), np.array([1, 2, 0, 0, 2])\n\n\n"
        "def forward(v, m):\n"
        "    y = np.zeros((3, m.shape[1]))\n    np.add.at(y, I, v[:, None] * m[J])\n    return y\n"
        "\n\ndef backward(g, v, m):\n"
        "    d = np.zeros_like(m)\n    np.add.at(d, I, v[:, None] * g[J])\n"
        "    return (g[J] * m[I]).sum(1), d\n",
        ((5,), (4, 2)),
        "GL313: `I` and `J` are in each other's place; `J` and `I` are in each other's place",
    ),
    "places that are known and not used": (
        "def forward(x):\n"
        "    idx = np.argsort(-x, axis=1)[:, :2]\n"
        "    return np.take_along_axis(x, idx, axis=1).mean(axis=1)\n\n\n"
        "def backward(g, x):\n"
        "    idx = np.argsort(-x, axis=1)[:, :2]\n    d = np.zeros_like(x)\n"
        "    d[:, :2] = (g / 2)[:, None]\n    return d\n",
        ((4, 5),),
        "GL321: the index should be `np.arange(len(idx))[:, None], idx`, not `:, :2`",
    ),
    "a mask of a maximum in the middle": (
        "def forward(x, w):\n    return (x * w).max(axis=1)\n\n\n"
        "def backward(g, x, w):\n"
        "    z = x * w\n    y = z.max(axis=1)\n"
        "    d = np.broadcast_to(g[:, None], z.shape)\n    return d * w, (d * x).sum(axis=0)\n",
        ((4, 2, 3), (2, 3)),
        "GL333: the mask `z == y[:, None]` is not applied",
    ),
    "the other term of a symmetric form": (
        "def forward(f, c):\n    return f @ c @ f.T\n\n\n"
        "def backward(g, f, c):\n    return g @ f @ c.T, f.T @ g @ f\n",
        ((3, 3), (3, 3)),
        "GL211: the term `g.T @ f @ c` is missing",
    ),
    "a conjugate": (
        "def forward(x, h):\n"
        "    return np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(h), n=x.shape[-1])\n\n\n"
        "def backward(g, x, h):\n"
        "    n, a = x.shape[-1], np.fft.rfft(g)\n"
        "    d = np.fft.irfft(a * np.fft.rfft(h), n=n)\n"
        "    return d, np.fft.irfft(a * np.conj(np.fft.rfft(x)), n=n).sum(axis=0)\n",
        ((2, 6), (6,)),
        "GL406: `conj` should be applied to `np.fft.rfft(h)`",
    ),
    "what is cut off at the wrong end": (
        "def forward(x, w):\n"
        "    p = len(w) // 2\n    y = np.pad(x, ((0, 0), (p, p)))\n"
        "    return sum(w[j] * y[:, j : j + x.shape[1]] for j in range(len(w)))\n\n\n"
        "def backward(g, x, w):\n"
        "    p, n = len(w) // 2, g.shape[1]\n    y = np.pad(x, ((0, 0), (p, p)))\n"
        "    d, dw = np.zeros_like(y), np.zeros_like(w)\n"
        "    for j in range(len(w)):\n"
        "        d[:, j : j + n] += w[j] * g\n        dw[j] = (y[:, j : j + n] * g).sum()\n"
        "    return d[:, 2 * p :], dw\n",
        ((2, 5), (3,)),
        "GL321: the slice should be `p:",
    ),
    "the size in the place of a mask's sum": (
        "def forward(x, w):\n    return (x**2 * w).sum() / w.sum()\n\n\n"
        "def backward(g, x, w):\n"
        "    y = forward(x, w)\n    return 2 * g * x * w / w.size, g * (x**2 - y) / w.sum()\n",
        ((4, 3), (4, 3)),
        "GL204: `w.size` stands where `w.sum()` should",
    ),
    "two functions in each other's place": (
        "def forward(x, w):\n    return np.where(x > 0, x, w * np.expm1(x))\n\n\n"
        "def backward(g, x, w):\n"
        "    d = np.where(x > 0, 1.0, w * np.expm1(x))\n"
        "    e = np.where(x > 0, 0.0, np.exp(x))\n    return g * d, (g * e).sum()\n",
        ((4, 3), ()),
        "GL204: `expm1` stands where `exp` should; the term `-1` is missing",
    ),
    "a projection on few columns": (
        "def forward(x, v, s):\n"
        "    n = np.sqrt((v * v).sum(axis=0))\n    return x @ (s * v / n)\n\n\n"
        "def backward(g, x, v, s):\n"
        "    n = np.sqrt((v * v).sum(axis=0))\n    w = s * v / n\n    dw = x.T @ g\n"
        "    ds = (dw * v).sum(axis=0) / n\n    dv = s / n * dw\n    return g @ w.T, dv, ds\n",
        ((4, 3), (3, 2), (2,)),
        "GL211: the term `-w * ds / n` is missing",
    ),
    "the slope of a sigmoid for that of tanh": (
        "def forward(x, w):\n    return np.tanh(x) * w\n\n\n"
        "def backward(g, x, w):\n"
        "    t = np.tanh(x)\n    return g * w * t * (1 - t), g * t\n",
        ((4, 3), (4, 3)),
        "GL221: `t * (1 - t)` is the slope of a sigmoid, but that of tanh is `1 - t**2`",
    ),
    "a term of what two gradients read": (
        "def forward(x, h, w):\n"
        "    k = 1 / (1 + np.exp(-w))\n    return k * x + (1 - k) * h\n\n\n"
        "def backward(g, x, h, w):\n"
        "    k = 1 / (1 + np.exp(-w))\n    dk = g * x\n"
        "    return g * k, g * (1 - k), dk * k * (1 - k)\n",
        ((4, 3), (4, 3), (4, 3)),
        "GL211: the term `-h` is missing",
    ),
    "branches, and a mask": (
        "def forward(x, a):\n    return np.where(x > 0.5, x, a * x)\n\n\n"
        "def backward(g, x, a):\n"
        "    return np.where(x > 0.5, a * g, g), (g * x).sum(axis=0)\n",
        ((5, 3), (3,)),
        "GL333: the mask `x < 0.5` is not applied; "
        "the condition should be `x < 0.5`, not `x > 0.5`",
    ),
    "a count over two axes": (
        "def forward(x):\n    return x / np.sqrt((x * x).mean(axis=(1, 2), keepdims=True))\n\n\n"
        "def backward(g, x):\n"
        "    r = np.sqrt((x * x).mean(axis=(1, 2), keepdims=True))\n"
        "    b, k, c = x.shape\n    y = x / r\n    m = c\n"
        "    return (m * g - y * (g * y).sum(axis=(1, 2), keepdims=True)) / (m * r)\n",
        ((2, 3, 4),),
        "GL103: `m = c` should be `m = k * c`",
    ),
    "two neighbours' weights": (
        "def forward(s, p):\n"
        "    i = np.floor(p).astype(int)\n    t = p - i\n"
        "    return (1 - t) * s[i] + t * s[i + 1]\n\n\n"
        "def backward(g, s, p):\n"
        "    i = np.floor(p).astype(int)\n    t = p - i\n    d = np.zeros_like(s)\n"
        "    np.add.at(d, i, t * g)\n    np.add.at(d, i + 1, (1 - t) * g)\n"
        "    return d, g * (s[i + 1] - s[i])\n",
        ((6,), (5,)),
        "GL204: `t` stands where `1 - t` should; `1 - t` stands where `t` should",
    ),
}


def made(tmp_path: Path, text: str, head: str = "import numpy as np") -> ModuleType:
    return load(tmp_path / "layer.py", f"{head}\n\n\n{text}")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", PAIRS)
def test_a_kind_of_mistake_is_mended_and_named(case: str, tmp_path: Path) -> None:
    text, shapes, said = PAIRS[case]
    module = made(tmp_path, text)
    rng = np.random.default_rng(4)
    inputs = [np.abs(rng.normal(size=shape)) / 2 + 0.2 for shape in shapes]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert report.fixes, str(report)
    fix = report.fixes[0]
    code, sentences = said.split(": ", 1)
    assert fix.kind == code, fix.explanation
    assert all(each in fix.explanation for each in sentences.split("; ")), fix.explanation


def test_an_array_that_is_changed_after_it_is_kept(tmp_path: Path) -> None:
    text = (
        "def forward(x, w):\n"
        "    s = np.sqrt(x.var(axis=0) + 1e-4)\n    h = (x - x.mean(axis=0)) / s\n"
        "    kept = (h, s, w)\n    y = h\n    y *= w\n    return y, kept\n\n\n"
        "def backward(g, kept):\n"
        "    h, s, w = kept\n    d = g * w\n"
        "    return (d - d.mean(0) - h * (d * h).mean(0)) / s, (g * h).sum(axis=0)\n"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(0)
    inputs = rng.normal(size=(5, 3)), rng.normal(size=3)
    keywords = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, *inputs, **keywords)
    fix = report.fixes[0]
    assert (fix.kind, fix.after) == ("GL323", ("    y = y * w",))
    assert fix.explanation.startswith("`y` is changed in place")


def test_a_kernel_s_index_is_mended_where_the_output_is_not_square(tmp_path: Path) -> None:
    """What is right for square arrays alone is no fix beside what is right for all."""
    text = (
        "def forward(x, w):\n"
        "    k, m = w.shape\n    h, v = x.shape[0] - k + 1, x.shape[1] - m + 1\n"
        "    return sum(w[i, j] * x[i : i + h, j : j + v] for i in range(k) for j in range(m))\n"
        "\n\ndef backward(g, x, w):\n"
        "    h, v = g.shape\n    d, dw = np.zeros_like(x), np.zeros_like(w)\n"
        "    for i in range(w.shape[0]):\n        for j in range(w.shape[1]):\n"
        "            d[i : i + h, j : j + v] += w[j, i] * g\n"
        "            dw[i, j] = (g * x[i : i + h, j : j + v]).sum()\n    return d, dw\n"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(0)
    report = gradlab.check(
        module.forward, rng.normal(size=(4, 4)), rng.normal(size=(2, 2)), backward=module.backward
    )
    assert [fix.after for fix in report.fixes] == [
        ("            d[i : i + h, j : j + v] += w[i, j] * g",)
    ]


def test_where_one_of_two_mistakes_is_mended_that_is_said(tmp_path: Path) -> None:
    text = (
        "def forward(x, w, v):\n"
        "    a = x @ v\n    return x @ w + 0.5 * (a**2 - x**2 @ v**2).sum(axis=1)\n\n\n"
        "def backward(g, x, w, v):\n"
        "    a = x @ v\n    gx = g[:, None] * (w + a @ v.T - x * v.sum(1))\n"
        "    return gx, x.T @ g, x.T @ (g[:, None] * a)\n"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(0)
    inputs = rng.normal(size=(3, 4)), rng.normal(size=4), rng.normal(size=(4, 2))
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert not report.fixes
    first = report.findings[0]
    assert first.code == "GL203" and first.line == "layer.py:11"
    assert first.text.startswith("the power of `v` should be 2, not 1: `")
    assert first.text.endswith("That mends x, but v stays wrong")


def test_each_of_two_mistakes_has_its_line(tmp_path: Path) -> None:
    text = (
        "def forward(x, w, b):\n    return np.tanh(x @ w + b)\n\n\n"
        "def backward(g, x, w, b):\n"
        "    t = forward(x, w, b)\n    d = g * (1 - t**2)\n"
        "    return d @ w.T, x.T @ g, d.mean(axis=0)\n"
    )
    text = text.replace("    return d @", "    db = d.mean(axis=0)\n    return d @")
    text = text.replace("d.mean(axis=0)\n", "d.mean(axis=0)\n", 1).replace(
        ", d.mean(axis=0)", ", db"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(0)
    inputs = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    said = str(gradlab.check(module.forward, *inputs, backward=module.backward)).splitlines()
    assert "are WRONG: 2 edits mend them" in " ".join(said[:2])
    marks = [line for line in said if "^" in line]
    assert [line.split("^ ")[1] for line in marks] == [
        "this mean should be a sum",
        "`g` is read instead of `d`",
    ]


JAX = "import jax\nimport jax.numpy as jnp"


def test_a_rule_is_right_where_autodiff_is_not_at_a_tie(tmp_path: Path) -> None:
    text = (
        "@jax.custom_jvp\ndef layer(a, b):\n"
        "    return jnp.maximum(a, b) + jnp.log1p(jnp.exp(-jnp.abs(a - b)))\n\n\n"
        "@layer.defjvp\ndef rule(primals, tangents):\n"
        "    (a, b), (da, db) = primals, tangents\n    s = jax.nn.sigmoid(a - b)\n"
        "    return layer(a, b), (1 - s) * da + s * db\n"
    )
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(0)
    report = gradlab.check(module.layer, *rng.normal(size=(2, 4)).astype(np.float32))
    assert report.fixes, str(report)


def test_a_function_of_places_is_tried_within_its_range(tmp_path: Path) -> None:
    """Points far from the given ones are no places of the array."""
    text = (
        "def corners(m, p):\n"
        "    k = jnp.floor(p)\n    i, j = k.astype(int).T\n    y, x = (p - k).T\n"
        "    return i, j, y, x, m[i, j], m[i, j + 1], m[i + 1, j], m[i + 1, j + 1]\n\n\n"
        "@jax.custom_vjp\ndef layer(m, p):\n"
        "    i, j, y, x, a, b, c, d = corners(m, p)\n"
        "    return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)\n\n\n"
        "def backward(kept, g):\n"
        "    m, p = kept\n    i, j, y, x, a, b, c, d = corners(m, p)\n"
        "    dm = jnp.zeros_like(m).at[i, j].add(g * (1 - y) * (1 - x))\n"
        "    dm = dm.at[i, j + 1].add(g * (1 - y) * x).at[i + 1, j].add(g * y * (1 - x))\n"
        "    dm = dm.at[i + 1, j + 1].add(g * y * x)\n"
        "    dy = g * ((1 - x) * (c - a) + x * (d - b))\n"
        "    dx = g * ((1 - x) * (b - a) + x * (d - c))\n"
        "    return dm, jnp.stack([dy, dx], axis=1)\n\n\n"
        "layer.defvjp(lambda m, p: (layer(m, p), (m, p)), backward)\n"
    )
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(0)
    inputs = rng.normal(size=(4, 5)), rng.uniform(0.1, 2.9, (6, 2))
    report = gradlab.check(module.layer, *(x.astype(np.float32) for x in inputs))
    assert report.fixes, str(report)
    assert report.fixes[0].explanation.startswith("`x` is read instead of `y`")


def test_a_term_in_a_scan_of_two_values_is_mended(tmp_path: Path) -> None:
    text = (
        "from jax.scipy.special import logsumexp\n\n\n"
        "def alphas(init, trans, emit):\n"
        "    def step(a, e):\n"
        "        a = logsumexp(a[:, None] + trans, axis=0) + e\n        return a, a\n\n"
        "    a0 = init + emit[0]\n    rest = jax.lax.scan(step, a0, emit[1:])[1]\n"
        "    return jnp.concatenate([a0[None], rest])\n\n\n"
        "@jax.custom_vjp\ndef layer(init, trans, emit):\n"
        "    return logsumexp(alphas(init, trans, emit)[-1])\n\n\n"
        "def forward(init, trans, emit):\n"
        "    a = alphas(init, trans, emit)\n    return logsumexp(a[-1]), (trans, emit, a)\n\n\n"
        "def backward(kept, g):\n"
        "    trans, emit, a = kept\n    z = logsumexp(a[-1])\n\n"
        "    def back(beta, item):\n"
        "        before, e = item\n        m = trans + beta[None, :]\n"
        "        pair = jnp.exp(before[:, None] + m - z)\n"
        "        return logsumexp(m, axis=1), (pair, beta)\n\n"
        "    some = (a[:-1], emit[1:])\n"
        "    first, (pairs, betas) = jax.lax.scan(back, jnp.zeros(3), some, reverse=True)\n"
        "    d = jnp.exp(a + jnp.concatenate([first[None], betas]) - z)\n"
        "    return g * d[0], g * pairs.sum(0), g * d\n\n\n"
        "layer.defvjp(forward, backward)\n"
    )
    text = text.replace("jnp.zeros(3)", "jnp.zeros_like(a[0])")
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(0)
    shapes = (3,), (3, 3), (4, 3)
    report = gradlab.check(module.layer, *(rng.normal(size=s).astype(np.float32) for s in shapes))
    assert report.fixes, str(report)
    assert report.fixes[0].explanation.startswith("the term `e` is missing")


def test_what_the_functions_beside_it_read_has_its_name(tmp_path: Path) -> None:
    text = (
        "def make(scale):\n"
        "    @jax.custom_vjp\n    def scaled(x, w):\n        return scale * jnp.tanh(x * w)\n\n"
        "    def forward(x, w):\n        t = jnp.tanh(x * w)\n"
        "        return scale * t, (x, w, t)\n\n"
        "    def backward(kept, g):\n        x, w, t = kept\n        d = g * (1 - t**2)\n"
        "        return d * w, d * x\n\n"
        "    scaled.defvjp(forward, backward)\n    return scaled\n\n\nlayer = make(1.7)\n"
    )
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(0)
    report = gradlab.check(module.layer, *rng.normal(size=(2, 3, 4)).astype(np.float32))
    assert report.fixes, str(report)
    assert report.fixes[0].explanation.startswith("the factor `scale` is missing")


def test_a_factor_of_a_scan_s_carry_is_mended(tmp_path: Path) -> None:
    text = (
        "@jax.custom_vjp\ndef layer(x, f, i):\n"
        "    def step(c, item):\n"
        "        v, a, b = item\n        c = a * c + b * jnp.tanh(v)\n        return c, c\n\n"
        "    return jax.lax.scan(step, jnp.zeros_like(x[0]), (x, f, i))[1]\n\n\n"
        "def forward(x, f, i):\n    y = layer(x, f, i)\n    return y, (x, f, i, y)\n\n\n"
        "def backward(kept, g):\n"
        "    x, f, i, y = kept\n    before = jnp.concatenate([jnp.zeros_like(y[:1]), y[:-1]])\n\n"
        "    def step(dc, item):\n"
        "        u, v, a, b, c = item\n        t = jnp.tanh(v)\n        dc = dc + u\n"
        "        dv = dc * b * (1 - t**2)\n        return dc, (dv, dc * c, dc * t)\n\n"
        "    some = (g, x, f, i, before)\n"
        "    return jax.lax.scan(step, jnp.zeros_like(x[0]), some, reverse=True)[1]\n\n\n"
        "layer.defvjp(forward, backward)\n"
    )
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(0)
    report = gradlab.check(module.layer, *rng.uniform(0.2, 0.9, (3, 4, 2)).astype(np.float32))
    assert report.fixes, str(report)
    assert report.fixes[0].after == ("        return dc * a, (dv, dc * c, dc * t)",)


def test_another_local_of_the_forward_is_kept(tmp_path: Path) -> None:
    text = (
        "def forward(x, w):\n"
        "    z = x * w\n    s = 1 / (1 + np.exp(-z))\n    y = z * s\n"
        "    return y, (x, w, s, y)\n\n\n"
        "def backward(g, kept):\n"
        "    x, w, s, z = kept\n    d = g * s * (1 + z * (1 - s))\n    return d * w, d * x\n"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(0)
    keywords = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, *rng.normal(size=(2, 4, 3)), **keywords)
    assert report.fixes, str(report)
    assert report.fixes[0].explanation.startswith("`y` is read instead of `z`")


def test_a_setting_that_a_place_equals_by_chance_has_its_name(tmp_path: Path) -> None:
    text = (
        "def forward(x, w, step):\n"
        "    n = (len(x) - 2) // step + 1\n"
        "    return np.stack([x[k * step : k * step + 2] @ w for k in range(n)])\n\n\n"
        "def backward(g, x, w, step):\n"
        "    d, dw = np.zeros_like(x), np.zeros_like(w)\n"
        "    for k in range(len(g)):\n        at = k\n"
        "        d[at : at + 2] += g[k] * w\n        dw += g[k] * x[at : at + 2]\n"
        "    return d, dw, None\n"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(0)
    inputs = rng.normal(size=6), rng.normal(size=2), 2
    report = gradlab.check(module.forward, *inputs, backward=module.backward, wrt=(0, 1))
    assert report.fixes, str(report)
    assert report.fixes[0].after[0].strip() in ("at = k * step", "at = step * k")


def test_of_edits_that_do_the_same_the_cheapest_is_gone_on_from(tmp_path: Path) -> None:
    """A division by what is a factor does what leaving it out does, until it is 0."""
    text = (
        "@jax.custom_vjp\ndef render(s, c, d):\n    return kept(s, c, d)[0]\n\n\n"
        "def kept(s, c, d):\n    t = s * d\n"
        "    b = jnp.concatenate([jnp.zeros_like(t[:1]), jnp.cumsum(t)[:-1]])\n"
        "    T = jnp.exp(-b)\n    w = T * (1 - jnp.exp(-t))\n"
        "    return w @ c, (s, c, d, T, w)\n\n\n"
        "def backward(res, g):\n    s, c, d, T, w = res\n    v = c @ g\n    part = w * v\n"
        "    behind = jnp.cumsum(part[::-1])[::-1]\n"
        "    dt = v * T * jnp.exp(-s * d) - behind\n    ds = dt\n"
        "    return ds, w[:, None] * g[None, :], dt * s\n\n\n"
        "render.defvjp(kept, backward)\n"
    )
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(1)
    inputs = rng.uniform(0.1, 2, 6), rng.normal(size=(6, 3)), rng.uniform(0.1, 0.5, 6)
    report = gradlab.check(module.render, *(x.astype(np.float32) for x in inputs))
    assert report.fixes and report.fixes[0].edits == 2, str(report)


@pytest.mark.parametrize("whole", ["jax.vmap(layer)(x)", "jnp.stack([layer(x[0]), layer(x[1])])"])
def test_a_rule_is_mended_at_the_inputs_where_it_is_wrong(whole: str, tmp_path: Path) -> None:
    text = (
        "LIMIT = 0.6\n\n\n@jax.custom_vjp\ndef layer(r):\n"
        "    large = LIMIT * (jnp.abs(r) - 0.5 * LIMIT)\n"
        "    return jnp.where(jnp.abs(r) <= LIMIT, 0.5 * r**2, large)\n\n\n"
        "def backward(r, g):\n"
        "    return (g * jnp.where(r**2 <= LIMIT, r, LIMIT * jnp.sign(r)),)\n\n\n"
        "layer.defvjp(lambda r: (layer(r), r), backward)\n\n\n"
        f"def whole(x):\n    return {whole}\n"
    )
    module = made(tmp_path, text, JAX)
    x = np.float32([[0.1, -0.2, 0.3], [0.3, -0.7, 1.4]])  # only -0.7 lies in between
    report = gradlab.check(module.whole, x)
    assert report.fixes and "r**2 <= LIMIT**2" in report.fixes[0].diff, str(report)


def test_a_rule_of_covariances_is_mended_at_other_covariances(tmp_path: Path) -> None:
    """Random matrices have no Cholesky factor, so that no edit could be verified."""
    text = (
        "@jax.custom_jvp\ndef layer(x, cov):\n    L = jnp.linalg.cholesky(cov)\n"
        "    z = jax.scipy.linalg.solve_triangular(L, x, lower=True)\n"
        "    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(L)))\n\n\n"
        "@layer.defjvp\ndef rule(primals, tangents):\n"
        "    (x, cov), (dx, dcov) = primals, tangents\n    even = 0.5 * (dcov + dcov.T)\n"
        "    P = jnp.linalg.inv(0.5 * (cov + cov.T))\n    a = P @ x\n"
        "    moved = 2 * a @ dx - a @ even @ a\n"
        "    return layer(x, cov), -0.5 * (moved - jnp.trace(P @ even))\n"
    )
    module, rng = made(tmp_path, text, JAX), np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    inputs = rng.normal(size=3), root @ root.T + 1.5 * np.eye(3)
    report = gradlab.check(module.layer, *(x.astype(np.float32) for x in inputs))
    assert report.fixes and report.fixes[0].kind == "GL101", str(report)
    assert "not tried at other sizes" not in str(report)


def test_a_second_edit_is_sought_before_every_product_is_fitted(tmp_path: Path) -> None:
    text = (
        "class Gated:\n    def __init__(self, v, w):\n        self.V, self.W = v, w\n\n"
        "    def forward(self, x):\n        self.x, self.s = x, x.mean(axis=(2, 3))\n"
        "        self.z = self.s @ self.V\n        self.a = np.maximum(self.z, 0)\n"
        "        self.gate = 1 / (1 + np.exp(-(self.a @ self.W)))\n"
        "        return x * self.gate[:, :, None, None]\n\n"
        "    def backward(self, g):\n        n, c, h, w = self.x.shape\n"
        "        dgate = (g * self.x).sum(axis=(2, 3))\n"
        "        dy = dgate * self.gate * (1 - self.gate)\n        self.dW = self.a.T @ dy\n"
        "        dz = dy @ self.W.T\n        self.dV = self.s.T @ dz\n        ds = dz @ self.V.T\n"
        "        dx = g * self.gate[:, :, None, None]\n"
        "        dx = dx + ds[:, :, None, None]\n        return dx\n"
    )
    module, rng = made(tmp_path, text), np.random.default_rng(7)
    layer = module.Gated(rng.normal(size=(4, 3)), rng.normal(size=(3, 4)))
    report = gradlab.check(layer, rng.normal(size=(3, 4, 2, 3)))
    assert report.fixes and report.fixes[0].edits == 2, str(report)
    diff = report.fixes[0].diff
    assert "* (self.z > 0)" in diff and "/ (h * w)" in diff, diff


def test_a_wrong_rule_beside_a_loop_that_may_never_end_is_mended(tmp_path: Path) -> None:
    text = (
        "def root(a):\n    x = a.copy()\n    while True:\n        new = 0.5 * (x + a / x)\n"
        "        if np.max(np.abs(new - x)) < 1e-14:\n            break\n        x = new\n"
        "    return x\n\n\ndef backward(g, a):\n    return g / root(a)\n"
    )
    module = made(tmp_path, text)
    report = gradlab.check(module.root, np.array([2.0, 3.0, 5.0]), backward=module.backward)
    assert report.fixes and report.fixes[0].kind == "GL102", str(report)


def test_some_candidates_are_tried_however_long_a_backward_takes(tmp_path: Path) -> None:
    text = (
        "@jax.custom_vjp\ndef layer(x):\n    return jnp.sin(x)\n\n\n"
        "layer.defvjp(lambda x: (layer(x), x), lambda x, g: (g,))\n"
    )
    module = made(tmp_path, text, JAX)
    (rule,) = rules_met(module.layer, (np.ones(3, np.float32),), ("x",))
    assert Problem(rule, 0).allowed(10**12, numpy=True)[0] > 0
