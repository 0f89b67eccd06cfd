"""One edit mends one kind of slip, in a function of a few lines."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab.repair.standin import numpy_module

SLIPS = {
    "transposed argument": (
        "def forward(a, b):\n    return np.linalg.solve(a, b)\n\n\n"
        "def backward(upstream, a, b):\n"
        "    y = np.linalg.solve(a, b)\n"
        "    db = np.linalg.solve(a, upstream)\n"
        "    return -np.outer(db, y), db\n",
        ((3, 3), (3,)),
        "    db = np.linalg.solve(a.T, upstream)",
    ),
    "count of a power": (
        "def forward(x):\n    return np.tanh(x + 0.044715 * x**3)\n\n\n"
        "def backward(upstream, x):\n"
        "    t = np.tanh(x + 0.044715 * x**3)\n"
        "    return upstream * (1 - t**2) * (1 + 0.044715 * x**2)\n",
        ((4, 3),),
        "    return upstream * (1 - t**2) * (1 + 0.044715 * x**2 * 3)",
    ),
    "sign of a term": (
        "def forward(a, x):\n    return x[0] * np.cos(a) - x[1] * np.sin(a)\n\n\n"
        "def backward(upstream, a, x):\n"
        "    c, s = np.cos(a), np.sin(a)\n"
        "    da = upstream * (x[0] * s - x[1] * c)\n"
        "    return da, np.stack([upstream * c, -upstream * s])\n",
        ((4,), (2, 4)),
        "    da = upstream * (-x[0] * s - x[1] * c)",
    ),
    "factor in a loop": (
        "def forward(x, w):\n"
        "    return np.array([x[i : i + 3] @ w for i in range(len(x) - 2)])\n\n\n"
        "def backward(upstream, x, w):\n"
        "    dx, dw = np.zeros_like(x), np.zeros_like(w)\n"
        "    for i in range(len(upstream)):\n"
        "        dx[i : i + 3] += upstream[i] * w\n"
        "        dw += x[i : i + 3]\n"
        "    return dx, dw\n",
        ((8,), (3,)),
        "        dw += x[i : i + 3] * upstream[i]",
    ),
    "value in a comparison": (
        "def forward(x):\n    return x.max(axis=1)\n\n\n"
        "def backward(upstream, x):\n"
        "    top = x.max(axis=1, keepdims=True)\n"
        "    mask = x >= 0\n"
        "    return mask * upstream[:, None]\n",
        ((3, 4),),
        "    mask = x >= top",
    ),
    "constant of a logarithm": (
        "def forward(x):\n    return np.log2(1 + np.exp(x))\n\n\n"
        "def backward(upstream, x):\n"
        "    return upstream / (1 + np.exp(-x))\n",
        ((4, 3),),
        "    return upstream / (1 + np.exp(-x)) / np.log(2)",
    ),
    "term in a factor": (
        "def forward(x, w):\n    return (np.tanh(x) * x) @ w + np.sin(x) @ w\n\n\n"
        "def backward(upstream, x, w):\n"
        "    t, d = np.tanh(x), upstream @ w.T\n"
        "    dw = (t * x + np.sin(x)).T @ upstream\n"
        "    return d * (1 - t**2) * x + d * np.cos(x), dw\n",
        ((5, 3), (3, 3)),
        "    return d * (1 - t**2) * x + d * (np.cos(x) + t), dw",
    ),
    "helper that nothing calls": (
        "def sigmoid(z):\n    return 1 / (1 + np.exp(-z))\n\n\n"
        "def forward(x):\n    return np.tanh(np.log1p(np.exp(x)))\n\n\n"
        "def backward(upstream, x):\n"
        "    t = np.tanh(np.log1p(np.exp(x)))\n"
        "    return upstream * (1 - t**2)\n",
        ((4, 3),),
        "    return upstream * (1 - t**2) * sigmoid(x)",
    ),
    "length that another one equals": (
        "def forward(x):\n"
        "    b, d = x.shape\n"
        "    half = d // 2\n"
        "    return np.sin(x[:, :half]) * half\n\n\n"
        "def backward(upstream, x):\n"
        "    b, d = x.shape\n"
        "    half = d // 2\n"
        "    dx = np.zeros_like(x)\n"
        "    dx[:, :half] = upstream * np.cos(x[:, :half]) * d\n"
        "    return dx\n",
        ((2, 4),),
        "    dx[:, :half] = upstream * np.cos(x[:, :half]) * half",
    ),
    "factor too many": (
        "def forward(x):\n    return np.log1p(np.exp(x))\n\n\n"
        "def backward(upstream, x):\n"
        "    p = 1 / (1 + np.exp(-x))\n"
        "    return upstream * (1 - p) * p\n",
        ((4, 3),),
        "    return upstream * p",
    ),
    "power of a named length": (
        "K = 2\n\n\n"
        "def forward(x):\n    return x.reshape(len(x) // K**2, K**2).mean(axis=1)\n\n\n"
        "def backward(upstream, x):\n"
        "    return np.repeat(upstream, K**2) / K\n",
        ((8,),),
        "    return np.repeat(upstream, K**2) / K**2",
    ),
    "named factor": (
        "K = 2.0\n\n\n"
        "def forward(x):\n    return np.sin(x) ** K\n\n\n"
        "def backward(upstream, x):\n"
        "    d = np.cos(x) * np.sin(x) ** (K - 1)\n"
        "    return upstream * d\n",
        ((5,),),
        "    return upstream * d * K",
    ),
    "factor of a name that two lines read": (
        "def forward(x, w):\n"
        "    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * w\n\n\n"
        "def backward(upstream, x, w):\n"
        "    r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)\n"
        "    dot = (upstream * x).mean(axis=-1, keepdims=True)\n"
        "    dx = r * upstream - x * r**3 * dot\n"
        "    return dx, (upstream * x * r).sum(axis=0)\n",
        ((3, 6), (6,)),
        "    dot = (upstream * w * x).mean(axis=-1, keepdims=True)",
    ),
    "term that is no quotient": (
        "def scale(x):\n    return 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)\n\n\n"
        "def forward(x, w):\n    return x + x * scale(x) * w\n\n\n"
        "def backward(upstream, x, w):\n"
        "    r, dy = scale(x), upstream * w\n"
        "    dot = (dy * x).mean(axis=-1, keepdims=True)\n"
        "    dx = r * dy - r**3 * x * dot\n"
        "    return dx, (upstream * x * r).sum(axis=0)\n",
        ((8, 6), (6,)),
        "    dx = r * dy - r**3 * x * dot + upstream",
    ),
    "axis with a sign": (
        "def mean(x, axis):\n    return x.mean(axis)\n\n\n"
        "def forward(x):\n    return x - mean(x, 0)\n\n\n"
        "def backward(upstream, x):\n    return upstream - mean(upstream, -1)\n",
        ((4, 4),),
        "    return upstream - mean(upstream, 0)",
    ),
    "axes that the function writes elsewhere": (
        "def forward(x):\n    return x - x.mean(axis=(2, 3), keepdims=True)\n\n\n"
        "def backward(upstream, x):\n"
        "    count = np.ones_like(x).sum(axis=(2, 3), keepdims=True)\n"
        "    total = upstream.sum(axis=(1, 2), keepdims=True)\n"
        "    return upstream - total / count\n",
        ((2, 3, 4, 4),),
        "    total = upstream.sum(axis=(2, 3), keepdims=True)",
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("slip", SLIPS)
def test_a_fix_is_the_line_that_was_meant(slip: str, tmp_path: Path) -> None:
    text, shapes, meant = SLIPS[slip]
    path = tmp_path / f"{slip.replace(' ', '_')}.py"
    path.write_text(f"import numpy as np\n\n\n{text}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=s) + (3 * np.eye(3) if s == (3, 3) else 0) for s in shapes]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    assert report.status == "wrong"
    assert any(f"+{meant}" in fix.diff.splitlines() for fix in report.fixes), report.fixes
    assert not any("/ 4" in fix.diff or "/ 0.5" in fix.diff for fix in report.fixes), report.fixes


def test_no_candidate_makes_an_array_that_no_search_needs() -> None:
    """In `np.arange(len(z))` the search may try each number of the file, 1e9 too."""
    made = numpy_module(np)
    for make in (lambda: made.arange(1e9), lambda: made.zeros((1 << 14, 1 << 14))):
        with pytest.raises(MemoryError):
            make()
    assert made.arange(1 << 30, (1 << 30) + 2).size == 2
    assert made.full((2, 3), 1e9).shape == (2, 3)
