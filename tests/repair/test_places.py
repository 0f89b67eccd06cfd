"""Where several edits give equal code, a fix stands where the mistake is."""

from pathlib import Path

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.repair.places import at_its_definition
from gradlab.repair.source import Edit, edited, read

# the functions, the wrong line and what it should be, and the shapes of the inputs
CASES = {
    "a share is read, and not the other one": (
        "def forward(a, b, t):\n"
        "    h = 0.5 - 0.5 * np.cos(np.pi * t)\n    return a + (b - a) * h\n\n\n"
        "def backward(g, a, b, t):\n"
        "    h = 0.5 - 0.5 * np.cos(np.pi * t)\n    da = g * h\n"
        "    dt = g * (b - a) * 0.5 * np.pi * np.sin(np.pi * t)\n    return da, g - da, dt\n",
        "    da = g * h",
        "    da = g * (1 - h)",
        ((4, 3),) * 3,
    ),
    "two gradients are returned in each other's place": (
        "def parts(p, q):\n"
        "    u, v = np.exp(p), np.exp(q)\n    return u, v, u + v\n\n\n"
        "def forward(p, q):\n    return np.log(parts(p, q)[-1])\n\n\n"
        "def backward(g, p, q):\n"
        "    u, v, s = parts(p, q)\n    dp, dq = g * u / s, g * v / s\n    return dq, dp\n",
        "    return dq, dp",
        "    return dp, dq",
        ((4, 3),) * 2,
    ),
    "the mean of two is half of each": (
        "def forward(x, y):\n    m = 0.5 * (x + y)\n    return np.exp(m) * m**4\n\n\n"
        "def backward(g, x, y):\n"
        "    m = 0.5 * (x + y)\n    e = g * np.exp(m) * m**3\n    dm = e * (4 + m)\n"
        "    return dm, dm\n",
        "    return dm, dm",
        "    return dm * 0.5, dm * 0.5",
        ((4, 3),) * 2,
    ),
    "a difference has the wrong sign": (
        "def forward(a):\n    w, v = np.linalg.eigh(a @ a.T)\n    return v**4\n\n\n"
        "def backward(g, a):\n"
        "    w, v = np.linalg.eigh(a @ a.T)\n    dv = 4 * v**3 * g\n"
        "    apart = w[:, None] - w\n    np.fill_diagonal(apart, 1.0)\n"
        "    f = 1.0 / apart\n    np.fill_diagonal(f, 0.0)\n"
        "    inner = f * (v.T @ dv)\n    ds = v @ inner @ v.T\n    return (ds + ds.T) @ a\n",
        "    apart = w[:, None] - w",
        "    apart = w - w[:, None]",
        ((3, 5),),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fix_stands_where_the_mistake_is(case: str, tmp_path: Path) -> None:
    text, wrong, right, shapes = CASES[case]
    module = load(tmp_path / "layer.py", "import numpy as np\n\n\n" + text)
    rng = np.random.default_rng(4)
    inputs = [rng.normal(size=shape) for shape in shapes]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert report.fixes, str(report)
    assert (report.fixes[0].before, report.fixes[0].after) == ((wrong,), (right,)), str(report)


def test_what_a_name_should_be_is_said_where_it_is_made(tmp_path: Path) -> None:
    """A name that nothing reads after a fix would stay with its wrong value."""
    module = load(tmp_path / "rule.py", "def rule(g, n):\n    each = g / 3\n    return each * n\n")
    old = read(module.rule.__code__)
    assert old is not None
    at = old.segment.rindex(b"each")
    new = edited(old, Edit(at, at + 4, "each", "(g / len(n))", 0, 1))
    moved = at_its_definition(old, new)
    assert moved is not None
    assert moved.segment.decode().endswith("    each = g / len(n)\n    return each * n\n")
    assert at_its_definition(old, moved) is None


def test_an_index_may_lack_a_stride(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\nHOP = 2\n\n\n"
        "def forward(x, w):\n    y = np.zeros((len(x) - len(w)) // HOP + 1)\n"
        "    for j in range(len(y)):\n        y[j] = x[j * HOP : j * HOP + len(w)] @ w\n"
        "    return y\n\n\n"
        "def backward(g, x, w):\n    dx, dw = np.zeros_like(x), np.zeros_like(w)\n"
        "    for j in range(len(g)):\n        dx[j * HOP : j * HOP + len(w)] += g[j] * w\n"
        "        for k in range(len(w)):\n            dw[k] += g[j] * x[j + k]\n    return dx, dw\n"
    )
    module = load(tmp_path / "frames.py", text)
    inputs = [np.random.default_rng(1).normal(size=n) for n in (9, 3)]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert report.fixes, str(report)
    assert report.fixes[0].after == ("            dw[k] += g[j] * x[j * HOP + k]",)


def test_a_tangent_that_a_rule_is_given_is_not_the_gradient_of_its_name(tmp_path):
    text = (
        "import jax\nimport jax.numpy as jnp\n\n\n"
        "@jax.custom_jvp\ndef log_share(x):\n    return jnp.log(jnp.expm1(x))\n\n\n"
        "@log_share.defjvp\ndef _(primals, tangents):\n"
        "    (x,), (dx,) = primals, tangents\n"
        "    return log_share(x), -dx / jnp.expm1(x)\n"
    )
    module = load(tmp_path / "layers.py", text)
    report = gradlab.check(module.log_share, np.linspace(0.2, 2.0, 5, dtype=np.float32))
    assert report.fixes[0].after == ("    return log_share(x), -dx / jnp.expm1(-x)",)
