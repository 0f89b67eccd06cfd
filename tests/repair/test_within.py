"""The gradients within a forward are those of calculus, turn by turn."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.repair.source import read
from gradlab.repair.watch import Watch
from gradlab.repair.within import Known, gradients_within
from gradlab.repair.world import Failed, World
from gradlab.tracing import trace


def test_each_turn_of_a_scan_has_a_gradient_of_its_own() -> None:
    """Before, the gradients of all turns were added up."""

    def forward(xs, h0):
        def step(h, x):
            h = jnp.tanh(h * x)
            return h, h

        return jax.lax.scan(step, h0, xs)[1]

    xs, h0 = np.arange(1.0, 7.0).reshape(3, 2) / 5, np.array([0.3, 0.4])
    upstream = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]])
    program = trace(forward, xs, h0, names=["xs", "h0"])
    within = gradients_within(program, [xs, h0], [upstream], forward=False)
    whole, hs = Known([gradient for _, gradient in within.whole]), [h0]
    for x in xs:
        hs.append(np.tanh(hs[-1] * x))
    dh = np.zeros(2)
    for x, h, g in list(zip(xs, hs[1:], upstream))[::-1]:
        dh = dh + g
        assert whole.holds(dh, turns=False)
        assert whole.holds(dh * (1 - h**2), turns=False)
        dh = dh * (1 - h**2) * x


def test_dots_that_an_einsum_leaves_out_are_summed_as_in_jax(tmp_path: Path) -> None:
    """NumPy refuses them; then a search that compiles each candidate found nothing."""
    text = (
        "import jax\nimport jax.numpy as jnp\n\n\n"
        "@jax.custom_vjp\ndef dense(x, w):\n    return jnp.tanh(x @ w)\n\n\n"
        "def fwd(x, w):\n    y = dense(x, w)\n    return y, (x, w, y)\n\n\n"
        "def bwd(saved, g):\n    x, w, y = saved\n    da = g * (1 - y**2)\n"
        '    dw = jnp.einsum("...i,...o->io", x, g)\n    return da @ w.T, dw\n\n\n'
        "dense.defvjp(fwd, bwd)\n"
    )
    module, rng = load(tmp_path / "dense.py", text), np.random.default_rng(0)
    inputs = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 3, 4), (4, 3))]
    report = gradlab.check(module.dense, *inputs)
    assert report.fixes, str(report)
    assert report.fixes[0].after == ('    dw = jnp.einsum("...i,...o->io", x, da)',)


def test_a_backward_that_fails_while_it_is_watched_is_left_as_it_was(tmp_path: Path) -> None:
    module = load(tmp_path / "twice.py", "def twice(x):\n    y = 2 * x\n    return y\n")
    world, code = World(lambda path: path.endswith("twice.py")), module.twice.__code__
    world.load(module.twice)
    (copy,), text = world.copies[code], read(code)
    assert text is not None
    before = copy.__code__

    def fails() -> list[np.ndarray]:
        raise Failed("it does not run")

    with pytest.raises(Failed), Watch(world, {code: text}, fails):
        pass
    assert copy.__code__ is before
