"""What a fix must keep: gradients that nobody asked for, and numbers where values saturate."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from repair.patched import patched
from repair.test_mistakes import load

import gradlab

SHIFTED = (
    "import jax\nimport jax.numpy as jnp\n\nK = 1.7\n\n\n"
    "@jax.custom_vjp\ndef shifted(x, shift):\n    return jnp.tanh(K * (x + shift))\n\n\n"
    "def forward(x, shift):\n    y = shifted(x, shift)\n    return y, y\n\n\n"
    "def slope(y, g):\n    return K * (1 - y**2) * g\n\n\n"
    "def backward(y, g):\n    d = slope(y, g)\n    return d * K, {given}\n\n\n"
    "shifted.defvjp(forward, backward)\n\n\n"
    "def layer(x):\n    return shifted(x, jnp.linspace(-1, 1, len(x), dtype=x.dtype)) ** 2\n"
)
SCALED = (
    "import numpy as np\n\n\n"
    "def forward(x, w, k=1.5):\n    return np.sin(k * (x - w)), (x - w, k)\n\n\n"
    "def backward(g, kept):\n    d, k = kept\n    e = g * k * np.cos(k * d)\n    return k * e, -e\n"
)
FOCAL = (
    "import numpy as np\n\n\n"
    "def forward(x, gamma=3.0):\n"
    "    e = np.exp(x - x.max(axis=1, keepdims=True))\n"
    "    p = e / e.sum(axis=1, keepdims=True)\n    r = p[:, 0]\n"
    "    return -((1 - r) ** gamma) * np.log(r), (p, r, gamma)\n\n\n"
    "def backward(g, kept):\n    p, r, gamma = kept\n    one = np.zeros_like(p)\n"
    "    one[:, 0] = 1\n    dr = -((1 - r) ** gamma) / r\n    dr = dr * g\n"
    "    return (dr * r)[:, None] * (one - p)\n"
)

SHIFT = (
    "import numpy as np\n\n\n"
    "def forward(x, w, b):\n    z = x @ w + b[:, None]\n"
    "    e = np.exp(z - z.max(axis=1, keepdims=True))\n"
    "    p = e / e.sum(axis=1, keepdims=True)\n    return p, (x, w, e, p)\n\n\n"
    "def backward(g, kept):\n    x, w, p, y = kept\n"
    "    dz = p * (g - (g * y).sum(axis=1, keepdims=True))\n"
    "    return dz @ w.T, x.T @ dz, dz.sum(axis=1)\n"
)


def test_a_gradient_that_the_function_does_not_read_stays_right(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", SHIFTED.format(given="d"))
    x, u = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    report = gradlab.check(module.layer, x)
    assert report.status == "wrong" and report.fixes
    for fix in report.fixes:
        came = jax.vjp(patched(fix)["shifted"], x, u)[1](jnp.asarray(u))
        slope = 1.7 * u * (1 - np.tanh(1.7 * (x + u)) ** 2)
        np.testing.assert_allclose(came, [slope, slope], rtol=1e-4)


def test_what_the_function_does_not_read_and_was_wrong_hinders_no_fix(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", SHIFTED.format(given="0 * d"))
    report = gradlab.check(module.layer, np.linspace(-0.4, 0.5, 5, dtype=np.float32))
    assert report.fixes


def test_a_gradient_that_is_not_asked_for_stays_right(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", SCALED)
    x, w = np.random.default_rng(0).normal(size=(2, 4))
    keywords = {"backward": module.backward, "returns": "output+residuals", "wrt": 0}
    report = gradlab.check(module.forward, x, w, **keywords)
    assert report.status == "wrong"
    for fix in report.fixes:
        came, slope = patched(fix)["backward"](1.0, (x - w, 1.5)), 1.5 * np.cos(1.5 * (x - w))
        np.testing.assert_allclose(came, [slope, -slope])


def test_a_fix_gives_numbers_where_values_saturate(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", FOCAL)
    x = np.random.default_rng(0).normal(size=(4, 3))
    keywords = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, x, **keywords)
    assert report.status == "wrong"
    for fix in report.fixes:
        space = patched(fix)
        _, kept = space["forward"](np.array([[40.0, 0.0, -1.0], [0.0, 1.0, 2.0]]))
        with np.errstate(all="ignore"):
            assert np.isfinite(space["backward"](np.ones(2), kept)).all(), fix.diff


def test_what_rounding_leaves_of_a_gradient_of_zero_hinders_no_fix(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", SHIFT)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in ((4, 3), (3, 5), (4,))]
    keywords = {"backward": module.backward, "returns": "output+residuals"}
    report = gradlab.check(module.forward, *inputs, **keywords)
    assert report.status == "wrong" and report.fixes
