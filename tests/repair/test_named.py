"""What a report says of a mistake: the line where it is, and what it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.repair.bench import Bench

INNER = """
import jax
import jax.numpy as jnp

def norm(x, g):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * g

def inner(u, w):
    return jax.nn.silu(u @ w)

@jax.custom_vjp
def block(x, g, w):
    return x + 0.5 * inner(norm(x, g), w)

def block_fwd(x, g, w):
    return block(x, g, w), (x, g, w)

def block_bwd(kept, upstream):
    x, g, w = kept
    u, pull_norm = jax.vjp(norm, x, g)
    _, pull_inner = jax.vjp(inner, u, w)
    du, dw = pull_inner(upstream)
    dx, dg = pull_norm(du)
    return upstream + dx, dg, dw

block.defvjp(block_fwd, block_bwd)
"""


def drawn(*shape: int) -> np.ndarray:
    """Random numbers, the same in each test."""
    return np.random.default_rng(sum(shape)).normal(size=shape)


def test_a_rule_that_calls_vjp_inside_is_mended(tmp_path: Path) -> None:
    module = load(tmp_path / "layer.py", INNER)
    report = gradlab.check(module.block, drawn(5, 4), drawn(4), drawn(4, 4))
    assert [fix.line for fix in report.fixes][:1] == [22], str(report)
    assert "the factor `0.5` is missing" in report.fixes[0].explanation


TRIPLET = """
import numpy as np

def forward(anchor, pos, neg, margin=1.0):
    dp = ((anchor - pos) ** 2).sum(axis=1)
    dn = ((anchor - neg) ** 2).sum(axis=1)
    return np.maximum(dp - dn + margin, 0).mean()

def backward(dout, anchor, pos, neg, margin=1.0):
    dp = ((anchor - pos) ** 2).sum(axis=1)
    dn = ((anchor - neg) ** 2).sum(axis=1)
    active = (dp - dn > 0)[:, None] * dout / anchor.shape[0]
    return 2 * active * (neg - pos), -2 * active * (anchor - pos), 2 * active * (anchor - neg)
"""
POOL = """
import numpy as np

def forward(x, k=2):
    out = np.zeros((x.shape[0] // k, x.shape[1] // k))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = x[i * k:(i + 1) * k, j * k:(j + 1) * k].max()
    return out

def backward(dout, x, k=2):
    dx = np.zeros_like(x)
    for i in range(dout.shape[0]):
        for j in range(dout.shape[1]):
            w = x[i * k:(i + 1) * k, j * k:(j + 1) * k]
            dx[i:i + k, j:j + k] += (w == w.max()) * dout[i, j]
    return dx
"""
RIDGE = """
import numpy as np

def forward(x, y):
    a = x.T @ x + np.eye(x.shape[1])
    return np.linalg.solve(a, x.T @ y)

def backward(dw, x, y):
    a = x.T @ x + np.eye(x.shape[1])
    w = np.linalg.solve(a, x.T @ y)
    db = a @ dw
    da = -np.outer(db, w)
    return x @ (da + da.T) + np.outer(y, db), x @ db
"""
BAG = """
import numpy as np

def forward(table, tokens, lengths):
    mask = np.arange(tokens.shape[1])[None, :] < lengths[:, None]
    return (table[tokens] * mask[:, :, None]).sum(axis=1) / lengths[:, None]

def backward(dout, table, tokens, lengths):
    mask = np.arange(tokens.shape[1])[None, :] < lengths[:, None]
    de = dout[:, None, :] * mask[:, :, None] / lengths[:, None, None]
    dtable = np.zeros_like(table)
    dtable[tokens] += de
    return dtable
"""
GATES = """
import numpy as np

def forward(x, i, g, s, f):
    h = np.tanh(f * s + i * g)
    return x * h

def backward(dout, x, i, g, s, f):
    h = np.tanh(f * s + i * g)
    dc = dout * x * (1 - h**2)
    di = dc * i
    df = dc * s
    dg = dc * g
    return dout * h, di, dg, dc * f, df
"""
SOLVE = """
import numpy as np

def forward(a, b):
    return np.linalg.solve(a, b)

def backward(dx, a, b):
    x = np.linalg.solve(a, b)
    db = np.linalg.solve(a.T, dx)
    da = np.outer(x, db)
    return da, db
"""
MEAN = """
import numpy as np

def forward(x, w):
    d = x - w
    return (d * d).mean()

def backward(dout, x, w):
    d = x - w
    dx = dout * 2 * d
    return dx, -2 * dout * d / d.size
"""
TOKENS = np.array([[0, 1, 1, 5], [2, 2, 0, 3], [4, 5, 1, 0]])
NAMED = {
    "a term in a condition": (TRIPLET, [(8, 3)] * 3, (), 11, "`margin` is missing in the cond"),
    "two slices of one index": (POOL, [(4, 6)], (), 15, "the index should be `i * k:"),
    "a product for a solution": (RIDGE, [(7, 3), (7,)], (), 10, "`np.linalg.solve(a, dw)` should"),
    "entries that repeat": (
        BAG,
        [(6, 4)],
        (TOKENS, np.array([3, 4, 2])),
        11,
        "repeated index only once",
    ),
    "two names in two lines": (GATES, [(3, 4)] * 5, (), 10, "`i` and `g` are in each other's"),
    "order and sign": (SOLVE, [(4, 4), (4,)], (), 9, "`x` and `db` are in each other's"),
    "where it is made": (MEAN, [(3, 4)] * 2, (), 9, "the division by `x.size` is missing"),
}


@pytest.mark.parametrize("case", NAMED)
def test_the_line_and_the_cause_are_named(case: str, tmp_path: Path) -> None:
    text, shapes, more, line, said = NAMED[case]
    module = load(tmp_path / "layer.py", text.lstrip("\n"))
    inputs = [drawn(*shape) + k for k, shape in enumerate(shapes)]
    report = gradlab.check(
        module.forward, *inputs, *more, backward=module.backward, wrt=tuple(range(len(shapes)))
    )
    assert report.fixes, str(report)
    assert report.fixes[0].line == line, str(report)
    assert said in report.fixes[0].explanation, str(report)


CELL = """
import numpy as np

def sigmoid(a):
    return 1 / (1 + np.exp(-a))

class GRUCell:
    def __init__(self, n, m, rng):
        self.Wz, self.Uz = rng.normal(size=(n, m)) / 2, rng.normal(size=(m, m)) / 2
        self.Wr, self.Ur = rng.normal(size=(n, m)) / 2, rng.normal(size=(m, m)) / 2
        self.Wn, self.Un = rng.normal(size=(n, m)) / 2, rng.normal(size=(m, m)) / 2

    def forward(self, x, h):
        z = sigmoid(x @ self.Wz + h @ self.Uz)
        r = sigmoid(x @ self.Wr + h @ self.Ur)
        n = np.tanh(x @ self.Wn + (r * h) @ self.Un)
        self.cache = x, h, z, r, n
        return (1 - z) * n + z * h

    def backward(self, dout):
        x, h, z, r, n = self.cache
        dz = dout * (h - n)
        dn = dout * (1 - z)
        dh = dout * z
        dan = dn * (1 - n * n)
        drh = dan @ self.Un.T
        dr = drh * n
        dh += drh * r
        daz = dz * z
        dar = dr * r * (1 - r)
        dh += daz @ self.Uz.T + dar @ self.Ur.T
        dx = daz @ self.Wz.T + dar @ self.Wr.T + dan @ self.Wn.T
        self.dWz, self.dUz = x.T @ daz, h.T @ daz
        self.dWr, self.dUr = x.T @ dar, h.T @ dar
        self.dWn, self.dUn = x.T @ dan, (r * h).T @ dan
        return dx, dh
"""


def test_values_that_are_tried_stay_as_they_are(tmp_path: Path) -> None:
    """A backward that adds in place wrote into the right gradients, and nothing was mended."""
    module = load(tmp_path / "cell.py", CELL.lstrip("\n"))
    cell = module.GRUCell(3, 5, np.random.default_rng(1))
    report = gradlab.check(cell, drawn(4, 3), drawn(4, 5))
    assert report.fixes, str(report)
    assert "`n` is read instead of `h`" in report.fixes[0].explanation
    assert "`1 - z`, is missing" in report.fixes[0].explanation


def test_of_a_backward_of_one_line_the_cause_is_told_and_not_its_line(tmp_path: Path) -> None:
    text = (
        "import numpy as np\n\n\ndef forward(a, b):\n    return np.sin(a) * b**a, (a, b)\n\n\n"
        "def backward(g, kept):\n    a, b = kept\n"
        "    return g * np.sin(a) * a * b ** (a - 1), g * np.sin(a) * a * b ** (a - 1)\n"
    )
    module, rng = load(tmp_path / "power.py", text), np.random.default_rng(0)
    inputs = [1 + rng.random(4) for _ in range(2)]
    report = gradlab.check(
        module.forward, *inputs, backward=module.backward, returns="output+residuals"
    )
    assert report.status == "wrong"
    assert "first wrong line" not in report.diagnosis


def test_what_other_functions_run_later_is_not_counted(tmp_path: Path, monkeypatch) -> None:
    """A search for a fix ended with an IndexError: a helper's statements were counted, too."""
    text = (
        "import numpy as np\n\n\ndef forward(x):\n    return np.sin(x), x\n\n\n"
        "def backward(g, x):\n    slope = np.sin(x)\n    return g * slope\n"
    )
    watched, counted = Bench.watched, []

    def and_another(bench: Bench, k: int) -> dict[int, dict[str, Any]]:
        found = watched(bench, k)
        for copy in bench.world.copies[bench.code]:
            copy.__globals__["__keep__"](99, {})  # as a function does that is watched later
        counted.append(99 in bench.visits or 99 in found)
        return found

    monkeypatch.setattr(Bench, "watched", and_another)
    module = load(tmp_path / "sine.py", text)
    inputs, options = drawn(4), {"backward": module.backward, "returns": "output+residuals"}
    assert gradlab.check(module.forward, inputs, **options).fixes
    assert counted and not any(counted)
