"""Slips in a recurrent backward, each of which makes a line no gradient of anything."""

from pathlib import Path

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.checking.report import CheckReport

GRU = """import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(x, h, wx, wh, b):
    r = sigmoid(x @ wx[0] + h @ wh[0] + b[0])
    z = sigmoid(x @ wx[1] + h @ wh[1] + b[1])
    n = np.tanh(x @ wx[2] + (r * h) @ wh[2] + b[2])
    return (1 - z) * n + z * h, (h, r, z, n)


def forward(x, h0, wx, wh, b):
    h, hs = h0, []
    for t in range(len(x)):
        h, _ = step(x[t], h, wx, wh, b)
        hs.append(h)
    return np.stack(hs)


def backward(upstream, x, h0, wx, wh, b):
    h, cache = h0, []
    for t in range(len(x)):
        h, kept = step(x[t], h, wx, wh, b)
        cache.append(kept)
    dx, dwx, dwh, db = (np.zeros_like(each) for each in (x, wx, wh, b))
    dh_next = np.zeros_like(h0)
    for t in reversed(range(len(x))):
        h, r, z, n = cache[t]
        dh = upstream[t] + dh_next
        dz = dh * (h - n)
        dn = dh * (1 - z)
        da_n = dn * (1 - n**2)
        da_z = dz * z * (1 - z)
        drh = da_n @ wh[2].T
        da_r = drh * h * r * (1 - r)
        dx[t] = da_r @ wx[0].T + da_z @ wx[1].T + da_n @ wx[2].T
        dwx[0] += x[t].T @ da_r
        dwx[1] += x[t].T @ da_z
        dwx[2] += x[t].T @ da_n
        dwh[0] += h.T @ da_r
        dwh[1] += h.T @ da_z
        dwh[2] += (r * h).T @ da_n
        db[0] += da_r.sum(0)
        db[1] += da_z.sum(0)
        db[2] += da_n.sum(0)
        dh_next = dh * z + drh * r + da_r @ wh[0].T + da_z @ wh[1].T
    return dx, dh_next, dwx, dwh, db
"""
SLIPS = {
    "a term of what is carried": ("dh * z + drh", "drh"),
    "a product of what is carried": (" + da_z @ wh[1].T", ""),
    "a factor": ("drh * h * r", "drh * r"),
    "what is carried": ("upstream[t] + dh_next", "upstream[t]"),
    "another value of the forward": ("h.T @ da_z", "n.T @ da_z"),
    "a derivative": ("dn * (1 - n**2)", "dn"),
    "a transposed matrix": ("da_n @ wh[2].T\n", "da_n @ wh[2]\n"),
    "an order": ("dh * (h - n)", "dh * (n - h)"),
}


def checked(path: Path, *slips: str) -> tuple[CheckReport, list[int]]:
    """Return the report of the backward with these slips, and the lines where they are."""
    text = GRU
    for slip in slips:
        right, wrong = SLIPS[slip]
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    lines = zip(GRU.splitlines(), text.splitlines())
    module, rng = load(path / "gru.py", text), np.random.default_rng(0)
    shapes = [(4, 2, 3), (2, 5), (3, 3, 5), (3, 5, 5), (3, 5)]
    inputs = [0.5 * rng.normal(size=shape) for shape in shapes]
    report = gradlab.check(module.forward, *inputs, backward=module.backward)
    return report, [k for k, (one, two) in enumerate(lines, 1) if one != two]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_recurrent_backward_is_mended_where_it_is(slip: str, tmp_path: Path) -> None:
    report, lines = checked(tmp_path, slip)
    assert report.fixes and report.fixes[0].edits == 1, str(report)
    assert [report.fixes[0].line] == lines, report.fixes[0]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("a derivative", "another value of the forward"),
        ("a transposed matrix", "a factor"),
    ],
)
def test_two_slips_in_a_recurrent_backward_are_mended_one_after_the_other(
    one: str, two: str, tmp_path: Path
) -> None:
    report, lines = checked(tmp_path, one, two)
    assert report.fixes and report.fixes[0].edits == 2, str(report)
    assert report.fixes[0].line == lines[0], report.fixes[0]
