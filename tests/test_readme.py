"""What the README shows is true: its Python runs, its tests pass, its commands are there."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^\$ gradlab (.+?)(?: +#.*)?$", README, re.M)
LAYERS = """
import jax, jax.numpy as jnp

@jax.custom_vjp
def rms_norm(x, scale):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale

def forward(x, scale):
    r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
    return x * r * scale, (x, scale, r)

def backward(kept, g):
    x, scale, r = kept
    u = g * scale
    return r * u - x * r**3 * jnp.mean(u * x, -1, keepdims=True), (g * x * r).sum(0)

rms_norm.defvjp(forward, backward)

def block(x):
    return x + jax.vmap(rms_norm, (0, None))(jnp.tanh(x), jnp.ones(x.shape[-1]))
"""
SHOWS = {
    "verify": "2 of 2 nodes are right",
    "nodes": "diag(p) - p p^T",
    "check": "rms_norm: right for x and scale",
    "audit": "rms_norm",
    "jacobian": "block-diagonal",
    "graph": "<title>f</title>",
    "precision": "bfloat16",
    "sweep": "silu: the gradient loses digits in 2 of 62 ranges, as autodiff does",
    "explain": "assert_gradients(function",
}


def test_the_snippets_run_in_order(capsys):
    space = {}
    for block in BLOCKS:
        if "def test_" not in block:
            exec(compile(block, "README.md", "exec"), space)
    printed = capsys.readouterr().out
    assert "the gradients of prediction and target are WRONG" in printed
    assert re.search(r"Worst: \w+\[\d+\] is\s+-?[\d.]+, expected\s+-?[\d.]+", printed)
    assert "off by a factor 32" in printed
    assert "axis 0 of x is coupled" in printed
    assert re.search(r"axis 0 of x is coupled", printed)
    assert "-12" in printed


def test_the_pytest_snippet_passes(pytester):
    before = "\n".join(
        b for b in BLOCKS if "def mse" in b or "def mended" in b or "def attention" in b
    )
    tests = next(b for b in BLOCKS if "def test_my_layer" in b)
    pytester.makepyfile(test_readme_snippet=f"{before}\n{tests}")
    pytester.runpytest_inprocess().assert_outcomes(passed=3)


def test_the_shell_commands_are_the_promised_two():
    first = re.search(r"```bash\n(.*?)```", README, re.S)
    lines = first[1].strip().splitlines()
    assert len(lines) == 2
    assert shlex.split(lines[0])[-2:] == [".venv/bin/gradlab", "verify"]
    assert "-m pytest" in lines[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shown_does_what_is_said(command, tmp_path, monkeypatch, capsys):
    from gradlab.cli import main

    for module in ("layers", "model"):
        (tmp_path / f"{module}.py").write_text(LAYERS)
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    assert main(shlex.split(command)) == 0
    printed, where = capsys.readouterr(), re.search(r"-o (\S+)", command)
    assert not printed.err or command.startswith("verify")  # it says how far it has come
    shown = (tmp_path / where[1]).read_text() if where else printed.out
    assert SHOWS[command.split()[0]] in shown


def test_the_files_and_scripts_that_it_names_are_there():
    named = re.findall(r"`((?:tests|gradlab|examples)/[\w/.]+)`", README)
    linked = re.findall(r"\]\(([\w/.]+)\)", README)
    scripts = [f"tests/benchmarks/{name}" for name in re.findall(r"`(bench_\w+\.py)", README)]
    for path in (*named, *linked, *scripts):
        assert "FAMILY" in path or "NAME" in path or (ROOT / path).exists(), path


def test_a_newcomer_finds_the_answers(capsys):
    from gradlab.cli import main

    with pytest.raises(SystemExit):
        main(["--help"])
    text = README + capsys.readouterr().out
    for answer in (
        "gradlab.check(f, x)",
        'backward=backward, returns="output+residuals"',
        "gradlab.assert_structure(model, x, independent=0)",
        ".why(0)",
        "exit status: 0 right, 1 wrong or undecided, 2 the command was wrong",
    ):
        assert answer in text


def test_every_figure_of_the_table_has_a_command_that_measures_it():
    source = ROOT / "tests" / "benchmarks" / "figures.py"
    space = {"__name__": "figures", "__file__": str(source)}
    exec(compile(source.read_text(), str(source), "exec"), space)
    table = README.partition("| what | figure | how |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [what for what, _ in space["rows"]()] == [row.split(" | ")[0][2:] for row in table]
    for _, how in space["rows"]():
        *_, last = (word for word in space["command"](how) if not word.startswith("--"))
        assert how.startswith("gradlab verify") or (ROOT / last).is_file(), how
