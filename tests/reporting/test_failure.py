"""What a failure shows when there is more to say than 24 lines hold."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

NORM = """
import numpy as np

def norm(x, gamma, beta):
    return x * gamma + beta

def norm_backward(upstream, x, gamma, beta):
    dgamma = np.sum(upstream * x, axis=0)
    dbeta = np.sum(upstream, axis=0)
    return upstream * gamma, dgamma, dbeta
"""


def loaded(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def norm(tmp_path: Path) -> ModuleType:
    return loaded(tmp_path / "norm_of_rows.py", NORM)


def test_a_diff_and_every_sentence_stand_there_whole(norm: ModuleType) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 3, 5)), rng.normal(size=5), rng.normal(size=5)
    report = gradlab.check(norm.norm, *inputs, backward=norm.norm_backward)
    text = str(report)
    assert len(text.splitlines()) <= 24
    for line in report.fixes[0].diff.splitlines():
        assert f"{line}\n" in text
    assert "more input" in text or "  x " in text


def test_what_gradlab_changed_is_what_the_note_names() -> None:
    @jax.custom_vjp
    def ignoring(x, labels):
        return jnp.where(labels == -100, 0.0, x).sum()

    ignoring.defvjp(
        lambda x, labels: (ignoring(x, labels), labels),
        lambda labels, u: (u * jnp.ones(labels.shape), None),
    )
    report = gradlab.check(ignoring, jnp.ones(3), jnp.array([0, 1, 2]))
    assert not report.ok
    assert report.notes[0].startswith("gradlab made labels[") and "domain={'labels'" in str(report)
    assert "wrong at an input that gradlab made" in str(report)


def test_the_worst_of_many_inputs_is_shown_and_the_others_are_counted() -> None:
    @jax.custom_vjp
    def total(a, b, c, d, e):
        return (a + b + c + d + 7.0 * e).sum()

    total.defvjp(lambda *x: (total(*x), x), lambda x, u: tuple(2.5 * u * (1 + each) for each in x))
    inputs = [jnp.linspace(0.1, 0.9, 4) + k for k in range(5)]
    report = gradlab.check(total, *inputs)
    text = str(report)
    assert len(text.splitlines()) <= 24 and report.worst is not None
    assert f"Worst: {report.worst.path}[" in text
    said = sum(f"\n  {name} " in text for name in "abcde")
    assert said == 5 or text.count(f"{5 - said} more input") == 1, text


SLIPS = """
import numpy as np

def layer(x, w, v, b, c, d):
    return np.tanh(x @ w + b) @ v + c + d * x.sum()

def layer_backward(u, x, w, v, b, c, d):
    h = np.tanh(x @ w + b)
    dz = (u @ v.T) * (1 - h)
    dx = dz @ w.T + (u * d).sum()
    return dx, x.T @ dz, h.T @ u, dz.sum(axis=0), u[0], (u * x.sum()).sum(axis=0)
"""


def test_where_the_edit_was_verified_is_said_beside_many_wrong_inputs(tmp_path: Path) -> None:
    module = loaded(tmp_path / "two_slips.py", SLIPS)
    rng = np.random.default_rng(0)
    shapes = (3, 4), (4, 5), (5, 2), (5,), (2,), (2,)
    inputs = [rng.normal(size=shape) for shape in shapes]
    report = gradlab.check(module.layer, *inputs, backward=module.layer_backward)
    assert report.fixes and report.fixes[0].edits == 2
    text = str(report)
    assert len(text.splitlines()) <= 24
    assert "2 new inputs and at 1 input of other sizes" in text


def test_a_cause_that_no_edit_mends_stands_beside_a_line_that_says_so() -> None:
    @jax.custom_vjp
    def layer(x):
        return jnp.tanh(jnp.cumsum(x) ** 2 - jnp.flip(x))

    layer.defvjp(lambda x: (layer(x), x), lambda x, u: (jnp.sort(jnp.abs(u)),))
    report = gradlab.check(layer, jnp.array([0.5, -1.5, 2.0]))
    assert not report.fixes and report.findings
    said = "gradlab found no edit of one or two places that makes this gradient right"
    assert said in " ".join(str(report).split())


def test_what_has_no_line_is_counted_and_named() -> None:
    @jax.custom_vjp
    def total(a, b, c, d, e, f, g, h, i):
        return jnp.sort(a + b + c + d + e).sum() + (f + g + h + i).sum()

    def backward(x, u):
        wrong = [jnp.sort(jnp.abs(jnp.sin(each))) * u for each in x[:5]]
        return *wrong, *(u * jnp.ones(4) for _ in range(4))

    total.defvjp(lambda *x: (total(*x), x), backward)
    inputs = [jnp.linspace(0.1, 0.9, 4) + k for k in range(9)]
    report = gradlab.check(total, *inputs)
    text = " ".join(str(report).split())
    assert "the gradients of a, b, c, d and e are WRONG" in text  # one left over has its name
    assert not report.fixes
    assert "found no edit of one or two places that makes all these gradients right" in text
    assert " more input" not in text or "right): report.leaves has all" in text, text


def test_a_label_that_is_ignored_moves_with_its_setting(tmp_path: Path) -> None:
    """Else a right edit would seem to hold for one value of the setting alone."""
    text = (
        "import numpy as np\n\nIGNORE = -1\n\n\n"
        "def loss(x, labels):\n"
        "    valid = labels != IGNORE\n"
        "    safe = np.where(valid, labels, 0)\n"
        "    chosen = np.take_along_axis(x, safe[:, None], axis=1)[:, 0]\n"
        "    return np.sum(chosen**2 * valid) / np.maximum(valid.sum(), 1)\n\n\n"
        "def loss_backward(g, x, labels):\n"
        "    valid = labels != IGNORE\n"
        "    safe = np.where(valid, labels, 0)\n"
        "    count = np.maximum(valid.sum(), 1)\n"
        "    one_hot = safe[:, None] == np.arange(x.shape[1])\n"
        "    return g * 2 * x * one_hot * valid[:, None] / valid.size, None\n"
    )
    module = loaded(tmp_path / "labels.py", text)
    inputs = np.random.default_rng(0).normal(size=(6, 5)), np.array([0, 4, -1, 2, -1, 1])
    report = gradlab.check(module.loss, *inputs, backward=module.loss_backward)
    assert report.fixes and not report.fixes[0].reaches, report
    assert report.fixes[0].after[0].endswith("/ count, None")
