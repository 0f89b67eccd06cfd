"""A type checker finds a wrong call in a user's file, and nothing wrong with a right one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """
import numpy as np
import gradlab
from gradlab import Graph, nodes

x = np.ones((2, 3))
report = gradlab.check(lambda x: x * x, x, returns="output", prove="long")
ok: bool = report.ok
weakest: str | None = report.grade
structures: set[str] = {p.structure for p in gradlab.jacobian(lambda x: x, x).patterns.values()}
names: list[str] = Graph(lambda x: nodes.tanh(x), x).names
nodes.softmax(x, axis=0)
nodes.concatenate(x, x, x, axis=1)
o, lse = nodes.flash_attention(x, x, x, block=2)
nodes.Conv2d(stride=(1, 2)).forward(x, x, x)[0]
"""
WRONG = (
    "gradlab.chekc(lambda x: x, x)",
    'gradlab.check(lambda x: x, x, returns="value_and_grad")',
    'gradlab.check(lambda x: x, x, prove="lang")',
    "gradlab.precision(lambda x: x, x, colour=1)",
    'gradlab.verify("tanh", sed=1)',
    "report.fixs",
    "nodes.sofmax(x)",
    "nodes.softmax(x, axes=0)",
    'nodes.softmax(x, axis="rows")',
    "nodes.add(x)",
    "nodes.Softmax(axes=0)",
)
TOOLS = {
    "mypy": (sys.executable, "-m", "mypy", "--strict"),
    "pyright": (str(Path(sys.executable).with_name("pyright")), "--pythonpath", sys.executable),
}


@pytest.mark.parametrize("tool", ["pyright", pytest.param("mypy", marks=pytest.mark.slow)])
def test_a_type_checker_sees_what_is_wrong(tool, tmp_path):
    command = TOOLS[tool]
    if tool == "mypy":
        pytest.importorskip("mypy")
    elif shutil.which(command[0]) is None:
        pytest.skip("pyright is not installed")
    (tmp_path / "uses.py").write_text(RIGHT + "".join(f"{line}\n" for line in WRONG))
    out = subprocess.run(
        [*command, str(tmp_path / "uses.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    ).stdout
    start = len(RIGHT.splitlines()) + 1
    lines = {
        int(line.partition("uses.py:")[2].partition(":")[0])
        for line in out.splitlines()
        if "error:" in line
    }
    assert lines == set(range(start, start + len(WRONG))), out
