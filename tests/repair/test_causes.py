"""A fix names what was wrong in the mathematics, whatever the edit that mends it."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.repair.causes import Compared, Values

# what the forward computes, what the backward returns; the right piece of it, and the wrong one
LAYERS = {
    "tanh": ("np.tanh(x @ w)", "t = np.tanh(x @ w); d = g * (1 - t**2); return d @ w.T, x.T @ d"),
    "mean": ("(x * x * w).mean()", "d = g * 2 * x * w / x.size; return d, (g * x * x) / x.size"),
    "mask": (
        "(x - w) * (w[:, :1] > 0)",
        "m = w[:, :1] > 0; d = g * m; return d, -d",
    ),
    "guard": (
        "np.log(np.maximum(x, 0.3)) * w",
        "m = np.maximum(x, 0.3); e = np.log(m); return g * w / m * (x > 0.3), g * e",
    ),
    "leaky": (
        "np.where(x > 0, x, 0.1 * x) * w",
        "d = np.where(x > 0, g, 0.1 * g) * w; return d, g * np.where(x > 0, x, 0.1 * x)",
    ),
    "tile": (
        "np.repeat(x, 2, axis=1) * np.tile(w, (1, 2))",
        "d = g * np.tile(w, (1, 2)); n = len(x); e = g * np.repeat(x, 2, axis=1); "
        "return d.reshape(n, -1, 2).sum(axis=2), e.reshape(n, 2, -1).sum(axis=1)",
    ),
    "scan": (
        "np.cumsum(x * w, axis=0)",
        "d = np.cumsum(g[::-1], axis=0)[::-1]; return d * w, d * x",
    ),
    "gate": (
        "x / (1 + np.exp(-w))",
        "s = 1 / (1 + np.exp(-w)); return g * s, g * x * s * (1 - s)",
    ),
    "steps": (
        "x * (w - np.roll(w, 1)) if x.size else x",
        "d = g * (w - np.roll(w, 1)) if x.size else g; e = g * x; return d, e - np.roll(e, -1)",
    ),
    "norm": (
        "x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-3) * w",
        "r = 1 / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-3); d = g * w; "
        "m = (d * x).mean(axis=1, keepdims=True); return r * d - r**3 * x * m, g * x * r",
    ),
}
MISTAKES = [
    ("tanh", "g * (1 - t**2)", "g", "GL221", "the derivative of the activation, `1 - t**2`, is"),
    ("tanh", "g * (1 - t**2)", "(1 - t**2)", "GL223", "the upstream `g` is missing"),
    ("tanh", "g * (1 - t**2)", "-g * (1 - t**2)", "GL101", "the sign of `"),
    ("tanh", "(1 - t**2)", "(1 - t)", "GL203", "the power of `"),
    ("tanh", "(1 - t**2)", "(t**2 - 1)", "GL101", "the sign of "),
    ("tanh", "x.T @ d", "x.T @ g", "GL311", "`g` is read instead of `d`"),
    ("mean", "2 * x * w / x.size", "2 * x * w", "GL103", "the division by `x.size` is missing"),
    ("mean", "d = g * 2 * x", "d = g * x", "GL102", "the factor `2` is missing"),
    ("mean", "x * w / x.size", "x * w / len(x)", "GL103", "`"),
    ("mean", "g * 2 * x * w /", "g * 2 * x /", "GL201", "the factor `w` is missing"),
    (
        "mean",
        "2 * x * w /",
        "2 * x * w * np.exp(x) /",
        "GL202",
        "the factor `np.exp(x)` should not",
    ),
    ("mask", "g * m", "g", "GL333", "the mask `m` is not applied"),
    ("mask", "g * m", "g * w", "GL311", "`w` is read instead of `m`"),
    ("guard", "m = np.maximum(x, 0.3)", "m = x", "GL332", "`maximum` should be applied to `x`"),
    ("guard", "(x > 0.3)", "(x > 0.1)", "GL332", "the bound should be `0.3`, not `0.1`"),
    ("leaky", "0.1 * g)", "0.1)", "GL223", "the upstream `g` is missing"),
    ("leaky", "np.where(x > 0, g", "np.where(x < 0, g", "GL332", "the condition should be `x > 0`"),
    ("tile", "g * np.tile(w, (1, 2))", "g * np.repeat(w, 2, axis=1)", "GL204", "`repeat` stands"),
    ("tile", "g * np.repeat(x, 2, axis=1)", "g * np.tile(x, (1, 2))", "GL204", "`tile` stands"),
    ("scan", "(g[::-1], axis=0)[::-1]", "(g, axis=0)", "GL322", "`np.cumsum(g, axis=0)` should"),
    ("scan", "axis=0", "axis=1", "GL302", "`axis` should be `0`"),
    ("gate", "s * (1 - s)", "s", "GL221", "the derivative of the activation, `1 - s`, is missing"),
    ("gate", "g * x * s", "g * s", "GL201", "the factor `x` is missing"),
    ("steps", "(w - np", "(w + np", "GL101", "the sign of `np.roll(w, 1)` is wrong"),
    ("steps", "d = g *", "d = x *", "GL311", "`x` is read instead of `g`"),
    ("norm", "1e-3", "1e-1", "GL213", "the constant should be 0.001, not 0.1"),
    ("norm", " - r**3 * x * m", "", "GL211", "the term `"),
    ("norm", "m = (d * x).mean", "m = (d * x).sum", "GL103", "this sum should be a mean"),
    ("norm", "keepdims=True) + 1e-3); d", "keepdims=True)); d", "GL213", "the constant `"),
]


def name(mistake: tuple[str, str, str, str, str]) -> str:
    return f"{mistake[0]} {mistake[2]}"


@pytest.mark.one_in(2)
@pytest.mark.parametrize("mistake", MISTAKES, ids=name)
def test_the_cause_is_the_mistake(mistake: tuple[str, str, str, str, str], tmp_path: Path) -> None:
    layer, right, wrong, code, said = mistake
    forward, body = LAYERS[layer]
    assert right in body
    lines = "\n    ".join(body.replace(right, wrong, 1).split("; "))
    text = f"import numpy as np\n\n\ndef forward(x, w):\n    return {forward}\n\n\n"
    module = load(tmp_path / "layer.py", f"{text}def backward(g, x, w):\n    {lines}\n")
    rng = np.random.default_rng(2)
    shapes = {"tanh": ((5, 3), (3, 4)), "tile": ((4, 3), (4, 3))}.get(layer, ((4, 3), (4, 3)))
    inputs = [rng.normal(size=shape) + 0.2 for shape in shapes]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert report.fixes, str(report)
    fix = report.fixes[0]
    assert (fix.kind, fix.explanation[: len(said)]) == (code, said), fix.explanation


def test_entries_that_a_statement_adds_are_mended(tmp_path: Path) -> None:
    """What a statement writes in place is not written while values are looked up."""
    text = (
        "import numpy as np\n\n\n"
        "def forward(table, ids):\n    return table[ids] * (ids != 0)[:, None]\n\n\n"
        "def backward(g, table, ids):\n"
        "    keep = ids != 0\n    d = np.zeros_like(table)\n    {}\n    return d, None\n"
    )
    inputs = np.random.default_rng(0).normal(size=(6, 3)), np.array([1, 0, 3, 3, 5, 0, 2])
    right = "np.add.at(d, ids, g * keep["
    for wrong, code in (
        ("np.add.at(d, ids, g)", "GL333"),
        ("d[ids] = g * keep[:, None]", "GL331"),
    ):
        module = load(tmp_path / "rows.py", text.format(wrong))
        report = gradlab.check(module.forward, *inputs, backward=module.backward, wrt=0)
        assert report.fixes and report.fixes[0].kind == code, str(report)
        assert report.fixes[0].after[0].strip().startswith(right)


def test_a_kernel_is_turned_on_both_axes(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\n\n"
        "def correlate(x, w):\n"
        "    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape)\n"
        "    return np.einsum('ijkl,kl->ij', windows, w)\n\n\n"
        "def forward(x, w):\n    return correlate(x, w)\n\n\n"
        "def backward(g, x, w):\n"
        "    k, m = w.shape\n"
        "    padded = np.pad(g, ((k - 1, k - 1), (m - 1, m - 1)))\n"
        "    return correlate(padded, w), correlate(x, g)\n"
    )
    module = load(tmp_path / "kernel.py", text)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6, 7)), rng.normal(size=(3, 2))
    fixes = gradlab.check(module.forward, *inputs, backward=module.backward).fixes
    assert fixes and fixes[0].kind == "GL322"
    assert "correlate(padded, w[::-1, ::-1])" in fixes[0].after[0]


WHOLE = {
    "a running sum along a later axis": (
        "def forward(x, w):\n    return np.cumsum(x * w, axis=1)\n\n\n"
        "def backward(g, x, w):\n"
        "    s = np.cumsum(g, axis=1)\n    return s * w, (s * x).sum(axis=0)\n",
        ((4, 5), (5,)),
        "GL322",
        "    s = np.cumsum(g[:, ::-1], axis=1)[:, ::-1]",
    ),
    "a name that one line reads twice": (
        "def forward(x, w, p, q):\n    return (q * x + (1 - q) * w) * p\n\n\n"
        "def backward(g, x, w, p, q):\n"
        "    dp = g * (p * x + (1 - p) * w)\n"
        "    return g * q * p, g * (1 - q) * p, dp, g * p * (x - w)\n",
        ((3, 4),) * 4,
        "GL311",
        "    dp = g * (q * x + (1 - q) * w)",
    ),
    "a triangle of a matrix": (
        "def forward(u, b):\n"
        "    return np.linalg.solve(np.where(np.arange(4)[:, None] <= np.arange(4), u, 0), b)\n\n\n"
        "def backward(g, u, b):\n"
        "    up = np.where(np.arange(4)[:, None] <= np.arange(4), u, 0)\n"
        "    x, db = np.linalg.solve(up, b), np.linalg.solve(up.T, g)\n"
        "    return -np.outer(db, x), db\n",
        ((4, 4), (4,)),
        "GL333",
        "    return -np.triu(np.outer(db, x)), db",
    ),
    "a mask of largest entries": (
        "def forward(x):\n    return x.max(axis=1)\n\n\n"
        "def backward(g, x):\n"
        "    y = x.max(axis=1)\n    return np.ones_like(x) * g[:, None]\n",
        ((4, 5),),
        "GL333",
        "    return (x == y[..., None]) * g[:, None]",
    ),
    "branches of a function that meet in a tie": (
        "def forward(x, y, q):\n"
        "    e = y - x\n    return np.maximum(q * e, (q - 1) * e).mean()\n\n\n"
        "def backward(g, x, y, q):\n"
        "    e = y - x\n    de = g * np.where(e > 0, q - 1, q) / e.size\n"
        "    return -de, de, (g * e).mean()\n",
        ((5, 2), (5, 2), ()),
        "GL332",
        "    de = g * np.where(e < 0, q - 1, q) / e.size",
    ),
    "a kernel under a change of axes that is not turned": (
        "def correlate(x, w):\n"
        "    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape)\n"
        "    return np.einsum('ijkl,kl->ij', windows, w)\n\n\n"
        "def forward(x, w):\n    return correlate(x, np.swapaxes(w, 0, 1))\n\n\n"
        "def backward(g, x, w):\n"
        "    k, m = w.shape\n"
        "    padded = np.pad(g, ((m - 1, m - 1), (k - 1, k - 1)))\n"
        "    turned = np.swapaxes(w, 0, 1)\n"
        "    return correlate(padded, turned), correlate(x, g).T\n",
        ((6, 7), (3, 2)),
        "GL322",
        "    turned = np.swapaxes(w, 0, 1)[::-1, ::-1]",
    ),
    "indices that are exchanged": (
        "def forward(x, w):\n"
        "    y = np.zeros((4, 4))\n"
        "    for i in range(2):\n        for j in range(3):\n"
        "            y = y + w[i, j] * x[i : i + 4, j : j + 4]\n"
        "    return y\n\n\n"
        "def backward(g, x, w):\n"
        "    dx, dw, v = np.zeros_like(x), np.zeros_like(w), w.T\n"
        "    for i in range(2):\n        for j in range(3):\n"
        "            dx[i : i + 4, j : j + 4] += v[j % 3, i % 2] * g\n"
        "            dw[i, j] = (g * x[j : j + 4, i : i + 4]).sum()\n"
        "    return dx, dw\n",
        ((6, 6), (2, 3)),
        "GL321",
        "            dw[i, j] = (g * x[i : i + 4, j : j + 4]).sum()",
    ),
    "axes in another order": (
        "def forward(x, w):\n"
        "    h = (x @ w).reshape(3, 2, 2).transpose(1, 0, 2)\n    return h @ h.transpose(0, 2, 1)"
        "\n\n\ndef backward(g, x, w):\n"
        "    h = (x @ w).reshape(3, 2, 2).transpose(1, 0, 2)\n"
        "    d = (g + g.transpose(0, 2, 1)) @ h\n    d = d.reshape(3, 4)\n"
        "    return d @ w.T, x.T @ d\n",
        ((3, 3), (3, 4)),
        "GL301",
        "    d = d.transpose(1, 0, 2).reshape(3, 4)",
    ),
    "a constant that keeps a sum from zero": (
        "def forward(p):\n    return (p**2 / (p.sum(axis=1, keepdims=True) + 2)).sum()\n\n\n"
        "def backward(g, p):\n"
        "    total = p.sum(axis=1, keepdims=True)\n"
        "    return g * (2 * p / total - (p**2).sum(axis=1, keepdims=True) / total**2)\n",
        ((3, 4),),
        "GL211",
        "    total = p.sum(axis=1, keepdims=True) + 2",
    ),
    "a value that nothing reads": (
        "def forward(z, t):\n"
        "    e = np.exp(z)\n    return e / e.sum(axis=1, keepdims=True) * t\n\n\n"
        "def backward(g, z, t):\n"
        "    e = np.exp(z)\n    p = e / e.sum(axis=1, keepdims=True)\n    d = g * t\n"
        "    delta = (d * p).sum(axis=1, keepdims=True)\n    return p * d, g * p\n",
        ((4, 5), (4, 5)),
        "GL211",
        "    return p * (d - delta), g * p",
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", WHOLE)
def test_what_people_forget_is_mended(case: str, tmp_path: Path) -> None:
    text, shapes, code, meant = WHOLE[case]
    module = load(tmp_path / "whole.py", f"import numpy as np\n\n\n{text}")
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=s) + (4 * np.eye(4) if s == (4, 4) else 0) for s in shapes]
    inputs[-1] = np.array(0.3) if not shapes[-1] else inputs[-1]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert report.fixes, str(report)
    assert (report.fixes[0].kind, report.fixes[0].after[0]) == (code, meant), report.fixes[0]


def test_a_fix_holds_for_other_settings_too(tmp_path: Path) -> None:
    """A literal that equals a static argument is no fix."""
    text = (
        "from functools import partial\nimport jax\n\n\n"
        "@partial(jax.custom_jvp, nondiff_argnums=(1,))\n"
        "def gain(x, n):\n    return x * (1 + x) ** n\n\n\n"
        "@gain.defjvp\n"
        "def gain_jvp(n, primals, tangents):\n"
        "    (x,), (t,) = primals, tangents\n    return gain(x, n), (1 + x) ** n * t\n\n\n"
        "def layer(x):\n    return gain(x, 3.0)\n"
    )
    module = load(tmp_path / "gain.py", text)
    report = gradlab.check(module.layer, np.random.default_rng(0).uniform(size=(3, 4)))
    assert report.status == "wrong"
    assert not any("3" in fix.after[0] for fix in report.fixes), report.fixes


def test_no_cause_is_told_that_holds_by_chance(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\n\n"
        "def top(x):\n    return x[np.argsort(-x)[:2]]\n\n\n"
        "def top_backward(g, x):\n    d = np.zeros_like(x)\n    d[:2] = g\n    return d\n\n\n"
        "def unit(x):\n    return x / np.sqrt((x * x).sum())\n\n\n"
        "def unit_backward(g, x):\n    return g / np.sqrt((x * x).sum())\n"
    )
    module = load(tmp_path / "chance.py", text)
    x = np.array([0.1, 3.0, 2.0, -1.0, 0.5])
    report = gradlab.check(module.top, x, backward=module.top_backward)
    assert report.status == "wrong"
    assert "GL321" not in [finding.code for finding in report.findings], str(report)
    report = gradlab.check(module.unit, x, backward=module.unit_backward)
    assert report.fixes or "is missing" in report.findings[0].text, str(report)


def test_no_fix_changes_the_value_that_a_jvp_returns(tmp_path: Path) -> None:
    text = (
        "import jax\nimport jax.numpy as jnp\n\n\n"
        "@jax.custom_jvp\ndef soft(x, b):\n    return jnp.log1p(jnp.exp(b * x)) / b\n\n\n"
        "@soft.defjvp\ndef soft_jvp(primals, tangents):\n"
        "    (x, b), (dx, db) = primals, tangents\n"
        "    s = jax.nn.sigmoid(b * x)\n    y = jnp.log1p(jnp.exp(b * x)) / b\n"
        "    return y, s * dx + (x * s + y) / b * db\n"
    )
    module = load(tmp_path / "soft.py", text)
    inputs = np.random.default_rng(0).normal(size=(4, 3)), np.array(1.7)
    fixes = gradlab.check(module.soft, *inputs).fixes
    assert fixes and fixes[0].kind == "GL101"
    for k, fix in enumerate(fixes):
        mended = text.replace("\n".join(fix.before), "\n".join(fix.after))
        assert gradlab.check(load(tmp_path / f"again{k}.py", mended).soft, *inputs).ok, fix


def test_a_bounded_place_that_is_shifted_is_told_as_that(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\n\n"
        "def forward(x, t, c):\n"
        "    low = np.where(c > 0, t[np.maximum(c - 1, 0)], 0.0)\n"
        "    return x * (t[np.minimum(c, len(t) - 1)] - low)\n\n\n"
        "def backward(g, x, t, c):\n    m, dt = len(t), np.zeros_like(t)\n"
        "    low = np.where(c > 0, t[np.maximum(c - 1, 0)], 0.0)\n"
        "    np.add.at(dt, np.minimum(c, m - 1), g * x)\n"
        "    np.add.at(dt, np.minimum(c, m - 1), -g * x * (c > 0))\n"
        "    return g * (t[np.minimum(c, m - 1)] - low), dt, None\n"
    )
    module = load(tmp_path / "steps.py", text)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=7), rng.normal(size=4), np.array([0, 1, 2, 3, 4, 1, 3])
    fix = gradlab.check(module.forward, *inputs, backward=module.backward).fixes[0]
    assert (fix.kind, fix.explanation[:24]) == ("GL321", "the index is off by `1`:"), fix
    assert fix.after == ("    np.add.at(dt, np.minimum(c - 1, m - 1), -g * x * (c > 0))",)


def test_a_line_is_shown_after_which_one_is_missing(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\n\n"
        "def forward(x, i, j):\n    return (x[i] - x[j]) ** 2\n\n\n"
        "def backward(g, x, i, j):\n    d = np.zeros_like(x)\n"
        "    for k in range(len(i)):\n        f = 2 * g[k] * (x[i[k]] - x[j[k]])\n"
        "        d[i[k]] += f\n    return d, None, None\n"
    )
    module = load(tmp_path / "springs.py", text)
    given = np.random.default_rng(0).normal(size=5), np.array([0, 1, 2]), np.array([1, 3, 4])
    report = gradlab.check(module.forward, *given, backward=module.backward)
    assert "is missing after `d[i[k]] += f`" in report.fixes[0].explanation
    assert "  12 |         d[i[k]] += f\n" in str(report), str(report)


def test_a_term_is_told_as_the_source_has_it(tmp_path: Path) -> None:
    """No name of an operation of the program, where no edit is found."""
    text = (
        "import numpy as np\n\n\n"
        "def forward(u, x):\n    lw = u - np.log(np.exp(u).sum())\n"
        "    h = np.tanh(x[:, None] + lw)\n    return h.sum(axis=1), (lw, h)\n\n\n"
        "def backward(g, kept):\n    lw, h = kept\n    d = g[:, None] * (1 - h * h)\n"
        "    return d.sum(axis=0), d.sum(axis=1)\n"
    )
    module = load(tmp_path / "mixture.py", text)
    given = np.random.default_rng(0).normal(size=4), np.random.default_rng(1).normal(size=6)
    options = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, *given, **options)
    told = "the term through `np.log(np.exp(u).sum())` in `u - np.log(np.exp(u).sum())` at"
    assert report.fixes or told in report.diagnosis, report.diagnosis


def test_two_weights_in_each_others_place_are_named(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\n\n"
        "def forward(x, t):\n    return (1 - t) * x[:-1] + t * x[1:]\n\n\n"
        "def backward(g, x, t):\n    none = np.zeros(1)\n"
        "    dx = np.append(t * g, none) + np.append(none, (1 - t) * g)\n"
        "    return dx, g * (x[1:] - x[:-1])\n"
    )
    module = load(tmp_path / "lerp.py", text)
    given = np.random.default_rng(0).normal(size=6), np.random.default_rng(1).normal(size=5)
    report = gradlab.check(module.forward, *given, backward=module.backward)
    assert report.fixes and report.fixes[0].explanation.startswith(
        "`t` and `1 - t` are in each other's place"
    ), report.diagnosis


def test_a_path_that_is_missing_is_told_by_its_last_name(tmp_path: Path) -> None:
    """Where it joins the others: a spread is what a ratio reads, not `x` in its first step."""
    text = (
        "import numpy as np\n\n\n"
        "def forward(x, w):\n    mid = (x * w).mean(axis=0)\n    off = x * w - mid\n"
        "    spread = np.sqrt((off**4).sum(axis=0) + 1)\n"
        "    return mid / spread, (x, w, spread)\n\n\n"
        "def backward(g, kept):\n    x, w, spread = kept\n    d = g / (len(x) * spread)\n"
        "    return d * w, d * x\n"
    )
    module = load(tmp_path / "ratio.py", text)
    given = [np.random.default_rng(k).normal(size=(5, 3)) for k in (0, 1)]
    options = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, *given, **options)
    told = "the term through `spread` in `mid / spread` at ratio.py:8 is missing"
    assert not report.fixes and told in report.diagnosis, report.diagnosis


def test_a_gradient_that_is_written_over_by_another_gets_its_name():
    @jax.custom_vjp
    def gated(x, z):
        return jnp.tanh(x) * jax.nn.silu(z)

    def backward(kept, g):
        x, z = kept
        s = jax.nn.sigmoid(z)
        dz = jnp.zeros_like(z)
        dx = g * z * s * (1 - jnp.tanh(x) ** 2)
        dx = g * jnp.tanh(x) * s * (1 + z * (1 - s))
        return dx, dz

    gated.defvjp(lambda x, z: (gated(x, z), (x, z)), backward)
    x, z = np.random.default_rng(0).normal(size=(2, 3, 4))
    report = gradlab.check(gated, x, z)
    assert report.status == "wrong"
    assert report.diagnosis.startswith("`dx` is overwritten by what `dz` should be: `dx = g * jnp")
    assert [fix.after for fix in report.fixes] == [
        ("        dz = g * jnp.tanh(x) * s * (1 + z * (1 - s))",)
    ]


def test_a_name_that_is_read_twice_in_another_s_place_is_told_once(tmp_path: Path) -> None:
    text = (
        "import jax\nimport jax.numpy as jnp\n\n\n"
        "def run(a, b):\n    start = jnp.zeros_like(b[0])\n"
        "    return jax.lax.scan(lambda h, ab: (ab[0] * h + ab[1],) * 2, start, (a, b))[1]\n\n\n"
        "f = jax.custom_vjp(run)\n\n\n"
        "def backward(kept, g):\n    a, h = kept\n    none = jnp.zeros_like(a[:1])\n"
        "    later = jnp.concatenate([a[1:], none])\n\n"
        "    def step(c, part):\n        d = part[0] + part[1] * c\n        return d, d\n\n"
        "    _, db = jax.lax.scan(step, jnp.zeros_like(a[0]), (g, a), reverse=True)\n"
        "    return db * jnp.concatenate([none, h[:-1]]), db\n\n\n"
        "f.defvjp(lambda a, b: (run(a, b), (a, run(a, b))), backward)\n"
    )
    module, rng = load(tmp_path / "layer.py", text), np.random.default_rng(0)
    report = gradlab.check(module.f, *rng.normal(size=(2, 5, 3)).astype(np.float32))
    assert report.fixes, str(report)
    fix = report.fixes[0]
    assert fix.kind == "GL311" and fix.explanation.startswith("`a` is read instead of `later`")


# what stands there, what should, and the sentence that a reader needs
SENTENCES = [
    ("return gelu(x)", "return x", "`gelu` should not be applied to `x`"),
    ("return x", "return gelu(x)", "`gelu` should be applied to `x`"),
    ("d = 0.5 * a", "d = a", "the factor `0.5` should not be there"),
    ("d = a / n", "d = a", "the division by `n` should not be there"),
    ("d = s / (c - 1)", "d = s / c", "the constant `-1` should not be there"),
    ("d = a + b + c", "d = a", "the terms `b` and `c` should not be there"),
    (
        "d = g / np.exp(s)",
        "d = g / np.exp(2.0 * s)",
        "the factor `2` is missing inside `np.exp(s)`",
    ),
    ("d = np.exp(3 * s)", "d = np.exp(s)", "the factor `3` should not be there inside"),
    (
        "d = np.exp(2 * s)",
        "d = np.exp(3 * s)",
        "the constant inside should be `3 * s`, not `2 * s`",
    ),
    ("d = 1 - e * v", "d = 1 - e * v / 2", "the division by `2` is missing in the term `e * v`"),
    ("d = 1 + x**2", "d = 1 + x**2 * 3", "the factor `3` is missing in the term `x**2`"),
    ("f = w.T", "f = w[..., ::-1, ::-1].T", "`w` should be flipped"),
    ("f = w[::-1]", "f = w", "`w` should not be flipped"),
    ("d = np.roll(s, -1)", "d = np.roll(s, 1)", "the shift should be `1`, not `-1`"),
    ("d = np.roll(s, 1, -1)", "d = np.roll(s, 1, 1)", "the axis should be `1`, not `-1`"),
    ("d = np.tile(s, 2)", "d = np.tile(s, 3)", "the argument of `tile` should be `3`, not `2`"),
    (
        "p = np.where(c < r, p, 0)",
        "p = np.where(c <= r, p, 0)",
        "the condition should be `c <= r`,",
    ),
    (
        "d = a if x > 0 else b",
        "d = a if x < 0 else b",
        "the condition should be `x < 0`, not `x > 0`",
    ),
    ("return s / k", "return s / k**2", "divide by `k**2`, not by `k`"),
    ("d = v / n", "d = v / n / n", "divide by `n**2`, not by `n`"),
    ("d = v**-0.5", "d = v**-1.5", "the power of `v` should be -1.5, not -0.5"),
    ("d = a", "d = a - b", "the term `-b` is missing"),
    ("d = a", "d = a - -b", "the term `b` is missing"),
    ("d = a", "d = a + b * -0.5", "the term `b * -0.5` is missing"),
    ("d = v * n", "d = v / n", "divide by `n`, do not multiply by `n`"),
    ("d = v / np.sqrt(n)", "d = v * n", "multiply by `n`, do not divide by `sqrt(n)`"),
    ("d[i] += g", "np.add.at(d, i, g)", "`+=` counts a repeated index only once"),
    ("d[i] = g", "np.add.at(d, i, g)", "`d[i]` is overwritten, not added up"),
    ("d = g", "d += g", "`d` is overwritten, not added up"),
    ("d = d - diag(d)", "d += d - diag(d)", "the factor `2` is missing in the term `d`"),
    ("d = g * (1 - z * z)", "d = g * (z - z * z)", "`1 - z**2` is the slope of tanh, but that of"),
    ("d = g * z * (1 - z)", "d = g * (1 - z**2)", "`z * (1 - z)` is the slope of a sigmoid, but"),
]


@pytest.mark.parametrize(("wrong", "right", "said"), SENTENCES)
def test_the_sentence_says_what_should_be_there(wrong: str, right: str, said: str) -> None:
    nothing = Values(lambda _: None, (), "g", set(), "")
    statements = [ast.parse(text).body[0] for text in (wrong, right)]
    for text, statement in zip((wrong, right), statements):
        for node in ast.walk(statement):
            node.written = ast.get_source_segment(text, node) or ""  # type: ignore[attr-defined]
    cause = Compared(nothing).cause(*statements)
    assert cause is not None and cause.said.startswith(said), cause
