"""Fixes in the reports of check and audit, on the command line, and where none may be given."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental import pallas
from repair import mistakes_jax
from repair.test_mistakes import load, wrong_text

import gradlab
from gradlab.cli import main

LAYER, TEXT = wrong_text("jax", 0)


def twice(y: jax.Array) -> jax.Array:
    return 2 * y


def with_a_kernel(y: jax.Array) -> jax.Array:
    """What the search cannot run in NumPy."""

    def kernel(read: Any, written: Any) -> None:
        written[...] = 2 * read[...]

    shape = jax.ShapeDtypeStruct(y.shape, y.dtype)
    return pallas.pallas_call(kernel, out_shape=shape, interpret=True)(y)


@pytest.mark.parametrize("around", [twice, with_a_kernel])
def test_an_audit_mends_the_rule_and_says_so(
    around: Callable[[jax.Array], jax.Array], tmp_path: Path
) -> None:
    assert mistakes_jax.MISTAKES[0][0] == "rms_norm"
    module = load(tmp_path / "layers.py", TEXT)
    inputs = module.inputs(np.random.default_rng(0))["rms_norm"]
    report = gradlab.audit(lambda x, w: around(module.rms_norm(3 * x, w)), *inputs)
    (rule,) = report.rules
    assert rule.fixes[0].kind == "GL103" and "jnp.mean(u * x" in rule.fixes[0].after[0]
    assert "+    dot = jnp.mean(u * x, axis=-1, keepdims=True)" in str(report)


def test_the_patch_of_the_command_turns_the_check_green(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mended_by_patch.py").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "mended_by_patch:rms_norm", "4x6", "6", "--patch", "fix.diff"]) == 1
    said = capsys.readouterr().out
    assert "gradlab check mended_by_patch:rms_norm 4x6 6 --seed 0\n" in said
    assert len(said.splitlines()) <= 24 and "GL103 mended_by_patch.py:" in said
    assert (tmp_path / "mended_by_patch.py").read_text() == TEXT, "nothing is edited in place"
    subprocess.run(["patch", "-p1", "-i", "fix.diff"], cwd=tmp_path, check=True)
    right = load(tmp_path / "again.py", (tmp_path / "mended_by_patch.py").read_text())
    inputs = right.inputs(np.random.default_rng(0))["rms_norm"]
    assert gradlab.check(right.rms_norm, *inputs).ok


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("np.cos(x)", "GL223"),
        ("g * np.sin(x)", "GL204"),
        ("np.tanh(g * np.cos(x))", "GL204"),
    ],
)
def test_the_upstream_is_missing_only_where_it_is_put_in(
    wrong: str, code: str, tmp_path: Path
) -> None:
    text = "import numpy as np\n\ndef sine(x):\n    return np.sin(x)\n\n"
    text += f"def back(g, x):\n    return {wrong}\n"
    module = load(tmp_path / "sines.py", text)
    report = gradlab.check(module.sine, np.linspace(-2.0, 3.0, 7), backward=module.back)
    assert report.fixes and report.fixes[0].kind == code, str(report)
    assert report.fixes[0].evidence == "proved"


def test_what_changes_its_input_gets_no_fix() -> None:
    def backward(upstream, x):
        upstream *= 2
        return -upstream

    report = gradlab.check(lambda x: 2 * x, np.ones(3), backward=backward)
    assert not report.ok and not report.fixes


def test_a_function_without_source_gets_no_fix() -> None:
    space: dict = {}
    exec("def backward(upstream, x):\n    return -2 * upstream", space)
    report = gradlab.check(lambda x: 2 * x, np.arange(3.0), backward=space["backward"])
    assert not report.ok and not report.fixes
    assert report.findings[0].code == "GL101"


def test_line_ends_comments_and_blanks_stay(tmp_path: Path) -> None:
    text = (
        "# of  a   course\r\n"
        "def backward(g, x):\r\n"
        "    a = (g   *  3)  # half\r\n"
        "    return a\r\n\r\n"
        "def forward(x):\r\n    return 2 * x\r\n"
    )
    path = tmp_path / "odd.py"
    path.write_bytes(text.encode())
    space = load_bytes(path)
    report = gradlab.check(space["forward"], np.arange(4.0), backward=space["backward"])
    fix = report.fixes[0]
    (tmp_path / "fix.diff").write_bytes(fix.diff.encode())
    subprocess.run(["patch", "--binary", "-p1", "odd.py", "fix.diff"], cwd=tmp_path, check=True)
    changed = path.read_bytes().decode()
    assert changed != text and changed.count("\r\n") == text.count("\r\n")
    before, after = text.split("\r\n"), changed.split("\r\n")
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert "# of  a   course" in changed and "# half" in changed


def load_bytes(path: Path) -> dict:
    space: dict = {"__name__": "odd"}
    exec(compile(path.read_bytes(), str(path), "exec"), space)
    return space
