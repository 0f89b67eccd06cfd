"""Every script in examples/ runs, prints the numbers that it is there for, and is in the index."""

import ast
import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(
    {*FOLDER.glob("*.py"), *FOLDER.glob("inspector/*.py"), *FOLDER.glob("lecture/*.py")}
    - set(FOLDER.glob("test_*.py"))
)
SHOWN = {
    "simplest_graph": ("-12", "-4", "3"),
    "sigmoid_gates": ("0.7311", "as one sigmoid: -0.20 0.39 -0.39 -0.59 0.20"),
    "vector_graph": ("0.116", "[0.44 0.52]", "[[0.088 0.176] [0.104 0.208]]", "[-0.112 0.636]"),
    "first_nan": ("value: 5.0", "[nan, nan]", "sent by sqrt (sqrt, first_nan.py:17)"),
    "elementwise_layer": ("1.6 MB; dense would be 625 GiB", "local gradient: True"),
    "two_processes": ("process 0 of 2, 1 of 2 devices", "process 1 of 2, 1 of 2 devices"),
    "gpu_report": (
        "# Gradients on a GPU",
        "## Machine",
        "## Precision, dtype by dtype",
        "passes: ",
    ),
    "newton_burgers": ("gradlab", "dense JAX", "iterations"),
    "implicit_brusselator": ("passes", "gradlab", "dense JAX"),
    "block_least_squares": ("gradlab", "dense JAX"),
    "gates": ("3 and 4 get 2 and 2", "get 8 and 6", "get 0 and 2", "2 + 4 = 6"),
    "matrix_times_vector": ("[0.2 0.4 0.  0. ]", "[[0.088 0.176]", "[0.104 0.208]]"),
    "page": ("10 parts of the lecture",),
    "train_mlp": ("loss fell from", "largest relative difference from jax.grad"),
    "train_lenet": ("loss fell from", "largest relative difference from jax.grad"),
    "train_lstm": ("loss fell from", "largest relative difference from jax.grad"),
    "train_transformer": ("loss fell from", "largest relative difference from jax.grad"),
}
INDEX = re.findall(r"^\d+\. \[(.+)\]\((.+)\): (.+)$", (FOLDER / "README.md").read_text(), re.M)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    for text in SHOWN.get(path.stem, ()):
        assert text in printed


def test_the_index_names_every_example_once_with_its_own_first_line() -> None:
    files = {str(p.relative_to(FOLDER)): p for p in FOLDER.glob("**/*.py")}
    docstrings = {name: ast.get_docstring(ast.parse(p.read_text())) for name, p in files.items()}
    assert all(shown == linked for shown, linked, _ in INDEX)
    assert sorted(name for name, _, _ in INDEX) == sorted(docstrings)
    for name, _, teaches in INDEX:
        assert docstrings[name], f"{name} does not say what it teaches"
        assert teaches == docstrings[name].splitlines()[0]
