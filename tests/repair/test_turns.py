"""Mistakes in loops and in helpers that are called several times."""

from pathlib import Path

import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.checking.report import CheckReport

GRU = """import numpy as np


def sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def step(x, h, wx, wh):
    n = h.shape[1]
    zx, zh = x @ wx, h @ wh
    r = sigmoid(zx[:, :n] + zh[:, :n])
    z = sigmoid(zx[:, n : 2 * n] + zh[:, n : 2 * n])
    c = np.tanh(zx[:, 2 * n :] + r * zh[:, 2 * n :])
    return (1 - z) * c + z * h, (x, h, r, z, c, zh[:, 2 * n :])


def step_backward(dh, cache, wx, wh):
    x, h, r, z, c, hc = cache
    dc = dh * (1 - z)
    dz = dh * (h - c)
    dac = dc * (1 - c * c)
    dr = dac * hc
    dar = dr * r * (1 - r)
    daz = dz * z * (1 - z)
    dax = np.concatenate([dar, daz, dac], axis=1)
    dah = np.concatenate([dar, daz, dac * r], axis=1)
    dx = dax @ wx.T
    dprev = dah @ wh.T + dh * z
    return dx, dprev, x.T @ dax, h.T @ dah


def forward(xs, h, wx, wh):
    caches = []
    for x in xs:
        h, cache = step(x, h, wx, wh)
        caches.append(cache)
    return h, (caches, wx, wh)


def backward(dh, cache):
    caches, wx, wh = cache
    dxs = [None] * len(caches)
    dwx, dwh = np.zeros_like(wx), np.zeros_like(wh)
    for t in reversed(range(len(caches))):
        dxs[t], dh, gx, gh = step_backward(dh, caches[t], wx, wh)
        dwx += gx
        dwh += gh
    return np.stack(dxs), dh, dwx, dwh
"""


def checked(path: Path, text: str, *shapes: tuple[int, ...]) -> CheckReport:
    module, rng = load(path, text), np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in shapes]
    return gradlab.check(
        module.forward, *inputs, backward=module.backward, returns="output+residuals"
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "slips",
    [
        [("daz, dac * r]", "daz, dac]")],
        [("dc * (1 - c * c)", "dc * c * (1 - c)"), (" + dh * z\n", "\n")],
    ],
)
def test_slips_in_a_step_of_a_loop_are_mended(slips: list[tuple[str, str]], tmp_path: Path) -> None:
    """Of two slips on one path, neither alone makes a gradient right."""
    text = GRU
    for right, wrong in slips:
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    report = checked(tmp_path / "gru.py", text, (4, 3, 2), (3, 4), (2, 12), (4, 12))
    assert report.fixes and report.fixes[0].edits == len(slips), str(report)
    lines = [GRU[: GRU.index(right)].count("\n") + 1 for right, _ in slips]
    wrong_lines = text.splitlines()
    assert report.fixes[0].before == tuple(wrong_lines[line - 1] for line in lines)


UPDATED = """import numpy as np


def forward(theta, omega, torque, dt=0.1, drag=0.3):
    trace = []
    for u in torque:
        trace.append(theta)
        omega = omega + dt * (u - drag * omega - np.sin(theta))
        theta = theta + dt * omega
    return theta**2 + omega**2, (trace, theta, omega, dt, drag)


def backward(dout, cache):
    trace, theta, omega, dt, drag = cache
    dtheta, domega = 2 * theta * dout, 2 * omega * dout
    dtorque = np.zeros(len(trace))
    for i in range(len(trace) - 1, -1, -1):
        domega = domega + dt * dtheta
        daccel = dt * domega
        dtorque[i] = daccel.sum()
        dtheta = dtheta - daccel * np.cos(trace[i])
        domega = domega - drag * daccel
    return dtheta, domega, dtorque
"""


def test_a_line_that_a_missing_update_makes_wrong_is_not_accused(tmp_path: Path) -> None:
    text = UPDATED.replace("        domega = domega - drag * daccel\n", "")
    report = checked(tmp_path / "update.py", text, (3,), (3,), (6,))
    assert report.status == "wrong"
    assert not any("is the first wrong line" in f.text for f in report.findings), str(report)


HANDED = """import numpy as np

KEEP = 0.7


def affine_backward(d, x, w):
    return d @ w.T, x.T @ d


def forward(x, w1, w2):
    h = np.maximum(x @ w1, 0) / KEEP
    return h @ w2, (x, w1, w2, h)


def backward(dout, cache):
    x, w1, w2, h = cache
    dh, dw2 = affine_backward(dout, h, w2)
    da = dh / KEEP
    da[x @ w1 <= 0] = 0
    dx, dw1 = affine_backward(da, x, w1)
    return dx, dw1, dw2
"""


@pytest.mark.parametrize(
    ("right", "wrong"), [("da = dh / KEEP", "da = dh + 0"), ("da[x @ w1", "da[dh")]
)
def test_a_helper_that_is_given_what_is_wrong_is_not_mended(
    right: str, wrong: str, tmp_path: Path
) -> None:
    text = HANDED.replace(right, wrong)
    report = checked(tmp_path / "handed.py", text, (6, 4), (4, 5), (5, 3))
    assert report.fixes, str(report)
    assert report.fixes[0].line == HANDED[: HANDED.index(right)].count("\n") + 1, str(report)


FUSED = """import functools

import jax
import jax.numpy as jnp
from jax import lax

CHUNK, CAP = 4, 5.0


@jax.custom_vjp
def loss(x, w):
    return loss_fwd(x, w)[0]


def loss_fwd(x, w):
    def step(lse, wc):
        z = CAP * jnp.tanh(x @ wc.T / CAP)
        return jnp.logaddexp(lse, jax.nn.logsumexp(z, axis=-1)), None

    lse, _ = lax.scan(step, jnp.full(len(x), -jnp.inf), w.reshape(-1, CHUNK, w.shape[-1]))
    return jnp.mean(lse), (x, w, lse)


def loss_bwd(kept, g):
    x, w, lse = kept

    def step(dx, wc):
        t = jnp.tanh(x @ wc.T / CAP)
        p = jnp.exp(CAP * t - lse[:, None])
        dz = p * g / len(x)
        return dx + dz @ wc, dz.T @ x

    dx, dw = lax.scan(step, jnp.zeros_like(x), w.reshape(-1, CHUNK, w.shape[-1]))
    return dx, dw.reshape(w.shape)


loss.defvjp(loss_fwd, loss_bwd)
"""


def test_a_slope_that_a_scan_forgets_is_found(tmp_path: Path) -> None:
    module, rng = load(tmp_path / "fused.py", FUSED), np.random.default_rng(0)
    inputs = [np.asarray(rng.normal(size=shape), np.float32) for shape in ((5, 3), (8, 3))]
    report = gradlab.check(module.loss, *inputs)
    assert report.fixes and "(1 - t**2)" in report.fixes[0].diff, str(report)
