"""The source of a layer object is mended in its own file; gradlab's adapters are never edited."""

import importlib.util
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from repair.test_mistakes import load

import gradlab
from gradlab.repair.world import is_pure

SOURCE = """
import numpy as np

class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, upstream):
        return upstream * (1 - self.y)
"""


def test_the_method_of_an_object_is_mended_in_its_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "layers.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("layers_of_a_test", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    spec.loader.exec_module(module)
    report = gradlab.check(module.Tanh(), np.linspace(-1.0, 2.0, 12).reshape(4, 3))
    assert not report.ok
    (fix, *_) = report.fixes
    assert Path(fix.file).name == "layers.py"
    assert fix.line == 10
    assert "self.y**2" in fix.after[0] or "self.y * self.y" in fix.after[0]
    package = Path(gradlab.__file__).parent
    assert not any(Path(each.file).resolve().is_relative_to(package) for each in report.fixes)


def doubled_until_seen(gradient):
    """A helper that ends only where some entry is not zero."""
    while not np.any(gradient):
        gradient = gradient + 0 * gradient
    return gradient


def test_an_edit_may_send_another_function_into_a_loop_without_end():
    def backward(upstream, x):
        return doubled_until_seen(3 * x * upstream)

    report = gradlab.check(lambda x: x * x, np.arange(1.0, 5.0), backward=backward)
    assert report.status == "wrong"
    assert report.fixes[0].after == ("        return doubled_until_seen(2 * x * upstream)",)


def test_a_fault_of_the_search_does_not_cost_the_verdict(monkeypatch):
    def fails(problem):
        raise ZeroDivisionError("a fault of gradlab's own")

    monkeypatch.setattr("gradlab.repair.written.mend", fails)
    with pytest.warns(RuntimeWarning, match="search for a fix failed"):
        report = gradlab.check(lambda x: x * x, np.ones(3), backward=lambda g, x: 3 * g * x)
    assert report.status == "wrong"
    assert report.fixes == ()


def test_a_fault_of_the_search_for_a_cause_does_not_cost_the_verdict(monkeypatch):
    def fails(*case):
        raise ZeroDivisionError("a fault of gradlab's own")

    monkeypatch.setattr("gradlab.checking.diagnosis.scaling", fails)
    backward = eval("lambda upstream, x: upstream * x**3")  # without a source: no fix
    with pytest.warns(RuntimeWarning, match="search for a cause failed"):
        report = gradlab.check(lambda x: x * x, np.arange(3.0), backward=backward)
    assert report.status == "wrong"


def test_a_forward_that_keeps_another_function_of_a_value_is_mended():
    @jax.custom_vjp
    def centred(x):
        y = x - jnp.mean(x)
        return y * jax.lax.rsqrt(jnp.mean(y * y) + 1e-5)

    def forward(x):
        y = x - jnp.mean(x)
        variance = jnp.mean(y * y) + 1e-5
        return y * jax.lax.rsqrt(variance), (y, variance)

    def backward(kept, g):
        y, r = kept
        g = g - jnp.mean(g)
        return (r * g - y * r**3 * jnp.mean(g * y),)

    centred.defvjp(forward, backward)
    report = gradlab.check(centred, jnp.array([0.3, -1.0, 2.0, 0.7, 1.1]))
    assert report.status == "wrong"
    assert "(y, jax.lax.rsqrt(variance))" in report.fixes[0].after[0]


def test_a_fix_of_what_a_forward_keeps_leaves_its_value(tmp_path):
    source = (
        "import jax\nimport jax.numpy as jnp\n\n\n"
        "@jax.custom_vjp\ndef wave(x):\n    return 2 * jnp.sin(x)\n\n\n"
        "def wave_fwd(x):\n    y = 2 * jnp.sin(x)\n    return y, y\n\n\n"
        "def wave_bwd(kept, g):\n    return (g * kept,)\n\n\n"
        "wave.defvjp(wave_fwd, wave_bwd)\n"
    )
    module = load(tmp_path / "wave.py", source)
    x = jnp.linspace(0.3, 2.0, 7)
    report = gradlab.check(module.wave, x)
    assert report.status == "wrong" and report.fixes
    for fix in report.fixes:
        (tmp_path / "fix.diff").write_text(fix.diff)
        (tmp_path / "wave.py").write_text(source)
        subprocess.run(["patch", "-p1", "wave.py", "fix.diff"], cwd=tmp_path, check=True)
        right = load(tmp_path / "again.py", (tmp_path / "wave.py").read_text())
        value, slope = jax.vmap(jax.value_and_grad(right.wave))(x)
        np.testing.assert_allclose(value, 2 * np.sin(x), rtol=1e-6)
        np.testing.assert_allclose(slope, 2 * np.cos(x), rtol=1e-5)


class Recurrent:
    """Its backward lacks the slope of tanh, and may write into its upstream."""

    def __init__(self, w, u):
        self.w, self.u = w, u

    def forward(self, xs):
        h = np.zeros((xs.shape[1], len(self.u)))
        self.kept = []
        for x in xs:
            before, h = h, np.tanh(x @ self.w + h @ self.u)
            self.kept.append((x, before, h))
        return h

    def backward(self, dh):
        self.dw, self.du = np.zeros_like(self.w), np.zeros_like(self.u)
        for x, before, h in reversed(self.kept):  # noqa: B007 - the factor that lacks
            da = dh
            self.dw += x.T @ da
            self.du += before.T @ da
            dh = da @ self.u.T


def test_a_slope_that_a_loop_lacks_is_found():
    rng = np.random.default_rng(0)
    layer = Recurrent(rng.normal(size=(3, 4)), rng.normal(size=(4, 4)))
    report = gradlab.check(layer, rng.normal(size=(3, 2, 3)))
    assert report.status == "wrong"
    assert report.fixes[0].after == ("            da = dh * (1 - h**2)",)


def slope_of_sigmoid(z):
    s = 1 / (1 + np.exp(-z))
    return s * (1 - s)


def slope_of_slope(z):
    return slope_of_sigmoid(z) * 2


def checks_itself(z):
    return gradlab.check(np.sin, z).ok


def writes_a_file(path):
    np.save(path, np.zeros(3))


def opens_a_file(path):
    import os

    return os.remove(path)


@pytest.mark.parametrize(
    ("function", "pure"),
    [
        *((slope_of_sigmoid, True), (slope_of_slope, True), (np.linalg.norm, True)),
        *((checks_itself, False), (writes_a_file, False), (opens_a_file, False), (print, False)),
    ],
)
def test_the_search_calls_mathematics_alone(function, pure):
    """A candidate once ran another test of its module, which checked 1,402 rules."""
    assert is_pure(function) == pure


def test_gradients_in_a_dataclass_that_the_backward_makes_are_mended(tmp_path: Path) -> None:
    """JAX knows the user's class, and no copy of it."""
    text = (
        "from dataclasses import dataclass\n\nimport jax\nimport jax.numpy as jnp\n\n\n"
        "@jax.tree_util.register_dataclass\n@dataclass\nclass Params:\n"
        "    w: jax.Array\n    b: jax.Array\n\n\n"
        "@jax.custom_vjp\ndef layer(p, x):\n    z = x @ p.w + p.b\n"
        "    return z * jax.nn.sigmoid(z)\n\n\n"
        "def backward(kept, g):\n    p, x = kept\n    z = x @ p.w + p.b\n"
        "    s = jax.nn.sigmoid(z)\n    dz = g * s\n"
        "    return Params(x.T @ dz, dz.sum(axis=0)), dz @ p.w.T\n\n\n"
        "layer.defvjp(lambda p, x: (layer(p, x), (p, x)), backward)\n"
    )
    module, rng = load(tmp_path / "layer.py", text), np.random.default_rng(0)
    made = rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=(4, 3))
    w, b, x = (np.float32(each) for each in made)
    report = gradlab.check(module.layer, module.Params(w, b), x)
    assert report.fixes, str(report)
    assert report.fixes[0].line == text[: text.index("    dz")].count("\n") + 1
