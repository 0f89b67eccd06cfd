"""The first wrong line of a long backward is named, and mended where one edit can."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from repair import transformer
from repair.test_mistakes import load

import gradlab

TEXT = Path(str(transformer.__file__)).read_text().split("MISTAKES = ")[0]
ODD = (
    "ds = a * (da - (da * a).sum(axis=-1, keepdims=True))",
    "ds = np.sin(da) * np.cos(a) + 3 * np.cumsum(da, axis=1)",
)


def checked(text: str, path: Path) -> gradlab.CheckReport:
    module = load(path, text)
    inputs = module.inputs(np.random.default_rng(0))
    return gradlab.check(
        module.train_step, *inputs, returns="output+gradients", wrt=(0, 2, 3, 4), branches=False
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param(*transformer.MISTAKES[1], marks=pytest.mark.slow),
        transformer.MISTAKES[19],
    ],
)
def test_one_mistake_in_a_training_step_is_mended_in_its_line(
    right: str, wrong: str, tmp_path: Path
) -> None:
    line = TEXT[: TEXT.index(right)].count("\n") + 1
    report = checked(TEXT.replace(right, wrong), tmp_path / "step.py")
    assert report.fixes and report.fixes[0].line == line, str(report)
    (tmp_path / "fix.diff").write_text(report.fixes[0].diff)
    subprocess.run(["patch", "-p1", "step.py", "fix.diff"], cwd=tmp_path, check=True)
    mended = load(tmp_path / "mended.py", (tmp_path / "step.py").read_text())
    given = mended.inputs(np.random.default_rng(7))
    for came, right_one in zip(
        leaves(mended.train_step(*given)), leaves(transformer.train_step(*given)), strict=True
    ):
        np.testing.assert_allclose(came, right_one, rtol=1e-9, atol=1e-12)


def test_a_line_that_no_edit_mends_is_named(tmp_path: Path) -> None:
    report = checked(TEXT.replace(*ODD), tmp_path / "step.py")
    line = TEXT[: TEXT.index(ODD[0])].count("\n") + 1
    assert not report.fixes
    assert [f.line for f in report.findings] == [f"step.py:{line}"], str(report)
    assert len(str(report).splitlines()) <= 24


def leaves(result: object) -> list[np.ndarray]:
    import jax

    return [np.asarray(x) for x in jax.tree.leaves(result)]


FORWARD_MODE = """
import jax
import jax.numpy as jnp

@jax.custom_jvp
def chain(x, w):
    a = jnp.tanh(x @ w)
    b = jnp.sin(a) * x
    c = jnp.exp(b / 4) + a
    return jnp.log(1 + c * c) * b

@chain.defjvp
def chain_jvp(primals, tangents):
    x, w = primals
    dx, dw = tangents
    a = jnp.tanh(x @ w)
    b = jnp.sin(a) * x
    e = jnp.exp(b / 4)
    c = e + a
    s = 1 + c * c
    dz = dx @ w + x @ dw
    da = dz * (1 - a * a)
    dsin = da * jnp.cos(a)
    db = dsin * x + jnp.sin(a) * dx
    de = e * db / 4
    dc = de + da
    ds = 2 * c * dc
    dlog = ds / s
    left = dlog * b
    right = jnp.log(s) * db
    dy = left + right
    return jnp.log(s) * b, dy
"""


def test_the_first_wrong_line_of_a_forward_mode_rule_is_named(tmp_path: Path) -> None:
    line = "db = dsin * x + jnp.sin(a) * dx"
    odd = "db = jnp.cumsum(dsin[:, ::-1], axis=0) * jnp.cos(a) ** 3 + 3 * jnp.cumsum(dx, axis=1)"
    text = FORWARD_MODE.replace(line, odd)
    module = load(tmp_path / "chain.py", text)
    rng = np.random.default_rng(0)
    report = gradlab.check(module.chain, rng.normal(size=(3, 4)), rng.normal(size=(4, 4)))
    number = FORWARD_MODE[: FORWARD_MODE.index(line)].count("\n") + 1
    assert not report.fixes
    assert f"chain.py:{number}" in [f.line for f in report.findings], str(report)


SHORT = """import numpy as np


def soft(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return p


def forward(x, w):
    h = x @ w
    return soft(h) * np.cos(w), (x, w, soft(h))


def backward(g, kept):
    x, w, p = kept
    dp = g * np.cos(w)
    dh = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    return dh @ w.T, x.T @ dh - g * p * np.sin(w)
"""


@pytest.mark.parametrize(
    ("right", "wrong", "line", "told"),
    [
        (
            "(x, w, soft(h))",
            "(x, w, np.sin(h) * np.cumsum(h, axis=0) ** 3)",
            16,
            "`p` at short.py:16 is not what it is in the forward",
        ),
        (
            "dh = p * (dp - (dp * p).sum(axis=1, keepdims=True))",
            "dh = dp * np.cos(p) + 3 * np.cumsum(dp, axis=1)",
            18,
            "short.py:18 is the first wrong line",
        ),
    ],
)
def test_where_a_short_backward_is_wrong(
    right: str, wrong: str, line: int, told: str, tmp_path: Path
) -> None:
    """What no edit mends is named too, after the search."""
    module = load(tmp_path / "short.py", SHORT.replace(right, wrong))
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(4, 4)) for _ in range(2)]
    report = gradlab.check(
        module.forward, *inputs, backward=module.backward, returns="output+residuals"
    )
    assert not report.fixes, str(report)
    assert [f.line for f in report.findings] == [f"short.py:{line}"], str(report)
    assert report.findings[0].text.startswith(told), str(report)


def test_a_line_that_reads_what_is_wrong_is_not_the_first(tmp_path: Path) -> None:
    """A last line would be right with the right gradient, which says nothing."""
    text = SHORT.replace("p = kept", "h = kept").replace("soft(h))\n\n", "h)\n\n")
    odd = "    p = np.sin(h) * np.cumsum(h, axis=0) ** 3\n    dp = g * np.cos(w)\n"
    text = text.replace("    dp = g * np.cos(w)\n", odd).replace("    p = e /", "    q = e /")
    module = load(tmp_path / "short.py", text.replace("return p\n", "return q\n"))
    inputs = [np.random.default_rng(3).normal(size=(4, 4)) for _ in range(2)]
    report = gradlab.check(
        module.forward, *inputs, backward=module.backward, returns="output+residuals"
    )
    assert report.failed and not report.fixes, str(report)
    (finding,) = [f for f in report.findings if f.kind == "line"]
    assert not finding.line
    assert finding.text.startswith("the mistake is at short.py:19 or at line 17")
