"""Mistakes that people make are mended, and the mended source is right in a check of its own."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from repair import layers_jax, layers_numpy, mistakes_jax, mistakes_numpy

import gradlab
from gradlab.repair import HandRule, fixes_of, rules_met
from gradlab.report import Fix

EVERY = [("numpy", k) for k in range(len(mistakes_numpy.MISTAKES))]
EVERY += [("jax", k) for k in range(len(mistakes_jax.MISTAKES))]
NOT_MENDED = {("jax", 30)}


def wrong_text(which: str, k: int) -> tuple[str, str]:
    """The layer's name, and the module's text with the mistake in it."""
    layers, mistakes = {
        "numpy": (layers_numpy, mistakes_numpy),
        "jax": (layers_jax, mistakes_jax),
    }[which]
    text = Path(str(layers.__file__)).read_text()
    layer, changes = mistakes.MISTAKES[k]
    starts = [text.find(f"def {layer}_{end}(") for end in ("backward", "bwd", "jvp")]
    start = max(starts)
    end = text.index("\n\n\n", start)
    body = text[start:end]
    for old, new in changes:
        assert body.count(old) == 1
        body = body.replace(old, new)
    return layer, text[:start] + body + text[end:]


def load(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    name = f"{path.stem}_{abs(hash(text))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def assert_mended(
    path: Path, text: str, shapes: Sequence[tuple[int, ...]], meant: str, jax: bool
) -> None:
    """Hold that a wrong layer, `f` in JAX or a pair in NumPy, gets a fix with the line meant."""
    head = "import jax\nimport jax.numpy as jnp\n" if jax else "import numpy as np\n"
    module, rng = load(path, f"{head}\n\n{text}"), np.random.default_rng(0)
    if jax:
        inputs = [np.asarray(0.3 + rng.random(size=s), np.float32) for s in shapes]
        report = gradlab.check(module.f, *inputs)
    else:
        inputs = [np.asarray(rng.normal(size=s)) for s in shapes]
        options = {"backward": module.backward, "returns": "output+residuals"}
        report = gradlab.check(module.forward, *inputs, **options)
    assert report.status == "wrong"
    lines = [line for fix in report.fixes for line in fix.diff.splitlines()]
    assert f"+{meant}" in lines, "\n".join(lines)


def mended(which: str, k: int, folder: Path) -> tuple[str, tuple[Fix, ...]]:
    layer, text = wrong_text(which, k)
    module = load(folder / "layers.py", text)
    inputs = module.inputs(np.random.default_rng(0))[layer]
    names = tuple(f"x{i}" for i in range(len(inputs)))
    if which == "jax":
        rules = rules_met(getattr(module, layer), inputs, names)
    else:
        paths = tuple(n for n, x in zip(names, inputs) if x.dtype.kind == "f")
        functions = getattr(module, layer), getattr(module, f"{layer}_backward")
        rules = [HandRule("residuals", *functions, inputs, names, paths)]
    return layer, tuple(fix for rule in rules for fix in fixes_of(rule, 0)[0])


@pytest.mark.one_in(16)
@pytest.mark.parametrize(("which", "k"), [each for each in EVERY if each not in NOT_MENDED])
def test_the_first_fix_makes_the_gradient_right(which: str, k: int, tmp_path: Path) -> None:
    layer, fixes = mended(which, k, tmp_path)
    assert fixes
    (tmp_path / "fix.diff").write_text(fixes[0].diff)
    patched = subprocess.run(
        ["patch", "-p1", "layers.py", "fix.diff"], cwd=tmp_path, capture_output=True, text=True
    )
    assert patched.returncode == 0, patched.stdout
    right = load(tmp_path / "mended.py", (tmp_path / "layers.py").read_text())
    inputs = right.inputs(np.random.default_rng(5))[layer]
    if which == "jax":
        report = gradlab.check(getattr(right, layer), *inputs)
    else:
        backward = getattr(right, f"{layer}_backward")
        wrt = tuple(i for i, x in enumerate(inputs) if x.dtype.kind == "f")
        forward = getattr(right, layer)
        report = gradlab.check(
            forward, *inputs, backward=backward, returns="output+residuals", wrt=wrt
        )
    assert report.ok, str(report)
    assert 1 <= fixes[0].edits <= 2
    assert len(fixes[0].verified_at) == 3


@pytest.mark.parametrize("speed", [pytest.param(0.1, marks=pytest.mark.slow), 3.0])
def test_a_slow_machine_finds_the_same_fixes(
    speed: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.process_time
    for which, k in (("jax", 41), ("numpy", 6)):
        expected = mended(which, k, tmp_path)
        monkeypatch.setattr(time, "process_time", lambda: speed * clock())
        assert mended(which, k, tmp_path) == expected
        monkeypatch.undo()


@pytest.mark.parametrize("layers", [layers_numpy, layers_jax])
def test_a_right_layer_gets_no_fix(layers: ModuleType) -> None:
    for layer, inputs in layers.inputs(np.random.default_rng(0)).items():
        names = tuple(f"x{i}" for i in range(len(inputs)))
        if layers is layers_jax:
            rules = rules_met(getattr(layers, layer), inputs, names)
            assert rules
        else:
            paths = tuple(n for n, x in zip(names, inputs) if x.dtype.kind == "f")
            functions = getattr(layers, layer), getattr(layers, f"{layer}_backward")
            rules = [HandRule("residuals", *functions, inputs, names, paths)]
        assert not [fix for rule in rules for fix in fixes_of(rule, 0)[0]], layer
