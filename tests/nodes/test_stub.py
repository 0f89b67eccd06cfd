"""The stub of `gradlab.nodes` is what the registry says, and a type checker reads it."""

import subprocess
import sys

import pytest

from gradlab.nodes._stub import PATH, stub

RIGHT = """
import numpy as np
from gradlab import nodes

x = np.ones((2, 3))
nodes.softmax(x, axis=0)
nodes.concatenate(x, x, x, axis=1)
o, lse = nodes.flash_attention(x, x, x, block=2)
nodes.Conv2d(stride=(1, 2)).forward(x, x, x)[0]
"""
WRONG = {
    "nodes.sofmax(x)": 'Module has no attribute "sofmax"',
    "nodes.softmax(x, axes=0)": 'Unexpected keyword argument "axes"',
    'nodes.softmax(x, axis="rows")': 'has incompatible type "str"',
    "nodes.add(x)": "Too few arguments",
    "nodes.Softmax(axes=0)": 'Unexpected keyword argument "axes"',
}


def test_the_stub_is_what_the_registry_says():
    assert PATH.read_text() == stub(), "write it anew: python -m gradlab.nodes._stub"


@pytest.mark.slow
def test_a_type_checker_reads_the_stub(tmp_path):
    pytest.importorskip("mypy")
    wrong = "".join(f"{line}\n" for line in WRONG)
    (tmp_path / "uses.py").write_text(RIGHT + wrong)
    out = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "uses.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    ).stdout
    start = len(RIGHT.splitlines()) + 1
    errors = [line for line in out.splitlines() if "error:" in line]
    assert len(errors) == len(WRONG), out
    for i, (error, message) in enumerate(zip(errors, WRONG.values())):
        assert f"uses.py:{start + i}:" in error and message in error, out
