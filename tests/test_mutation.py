"""The mutation score of a test file: mistakes that its tests notice, and those that survive."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from gradlab.repair.mutants import mutants

LAYERS = """
import numpy as np

def scale(x, w):
    return x * w

def scale_backward(upstream, x, w):
    dx = upstream * w
    return dx, upstream * x
"""
WEAK = """
import layers_to_mutate as layers
import numpy as np

def test_scale(gradcheck):
    x = np.linspace(1.0, 2.0, 3)
    gradcheck(layers.scale, x, np.ones(3), backward=layers.scale_backward)

def test_something_else():
    assert True
"""


def run(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "layers_to_mutate.py").write_text(LAYERS)
    (folder / "test_layers.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_survivors_are_shown_and_the_least_share_is_asked_for(tmp_path: Path) -> None:
    target = "--gradlab-mutate=layers_to_mutate:scale_backward"
    done = run(tmp_path, WEAK, target, "--gradlab-mutate-min=100")
    score = re.search(r"scale_backward   (\d+) of (\d+) caught", done.stdout)
    assert score, done.stdout + done.stderr
    assert 0 < int(score[1]) < int(score[2])
    assert re.search(r"survived layers_to_mutate.py:8  -  dx = upstream \* w .*\+", done.stdout)
    assert done.returncode == 1
    strong = WEAK.replace("np.ones(3)", "np.array([0.5, -2.0, 3.0])")
    done = run(tmp_path, strong, target, "--gradlab-mutate-min=100")
    assert done.returncode == 0, done.stdout
    assert "survived" not in done.stdout


def test_no_mutant_runs_where_the_tests_fail(tmp_path: Path) -> None:
    wrong = WEAK.replace("layers.scale, x", "lambda x, w: 2 * x * w, x")
    done = run(tmp_path, wrong, "--gradlab-mutate=layers_to_mutate:scale_backward")
    assert "must pass without a mutant first" in done.stdout and done.returncode == 1


def test_two_functions_of_one_module_keep_their_own_calls(tmp_path: Path) -> None:
    names = ("scale_backward", "scale")
    done = run(tmp_path, WEAK, *(f"--gradlab-mutate=layers_to_mutate:{name}" for name in names))
    for name in names:
        assert re.search(rf"mutate:{name}   \d+ of \d+ caught", done.stdout), done.stdout


def softmax_backward(upstream, x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return p * (upstream - (upstream * p).sum(axis=-1, keepdims=True))


def test_a_mutant_that_only_rounds_otherwise_is_not_asked_for():
    rng = np.random.default_rng(0)
    calls = [(np.ones((3, 4)), rng.normal(size=(3, 4)))]  # there the right gradient is zero
    found = mutants(softmax_backward, calls, 200, 0, lambda path: path == __file__)
    alike = [m for m in found if m.lines[2] == "e = np.exp(x)"]
    assert alike and all(m.same for m in alike)
    other = [m for m in found if "upstream * p).mean" in m.lines[2]]
    assert other and not any(m.same for m in other)
