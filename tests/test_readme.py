"""What the README shows is true: its Python runs, its tests pass, its commands are there."""

import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^\$ gradlab (\w+)", README, re.M)


def test_the_snippets_run_in_order(capsys):
    space = {}
    for block in BLOCKS:
        if "def test_" not in block:
            exec(compile(block, "README.md", "exec"), space)
    printed = capsys.readouterr().out
    assert "the gradient is WRONG" in printed
    assert re.search(r"worst entry  \w+\[\d+\]: got -?[\d.]+, expected -?[\d.]+", printed)
    assert "off by a factor 32" in printed
    assert "diag(d)" in printed
    assert re.search(r"coupled at README\.md:\d+", printed)
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
def test_every_command_shown_is_there(command, capsys):
    from gradlab.cli import main

    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "example" in capsys.readouterr().out


def test_the_files_and_scripts_that_it_names_are_there():
    root = Path(__file__).parent.parent
    named = re.findall(r"`((?:tests|gradlab|examples)/[\w/.]+)`", README)
    linked = re.findall(r"\]\(([\w/.]+)\)", README)
    scripts = [f"tests/benchmarks/{name}" for name in re.findall(r"`(bench_\w+\.py)", README)]
    for path in (*named, *linked, *scripts):
        assert "FAMILY" in path or "NAME" in path or (root / path).exists(), path


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
        "exit status: 0 all held, 1 something is wrong with the gradient, 2 wrong call",
    ):
        assert answer in text
