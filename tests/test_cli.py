"""The command line: statuses, formats, files; cheap to ask for help."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradlab
from gradlab import __version__
from gradlab._commands import COMMANDS
from gradlab.cli import main

LAYERS = """
import jax, jax.numpy as jnp, numpy as np

@jax.custom_vjp
def right(x):
    return jnp.tanh(x)
right.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))

@jax.custom_vjp
def wrong(x):
    return jnp.tanh(x)
wrong.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (2 * g * (1 - jnp.tanh(x) ** 2),))

def poly(x, y):
    return (x + y) * x

def tanh(x):
    return np.tanh(x)

def tanh_backward(upstream, x):
    return upstream * (1 - np.tanh(x) ** 2)

def raises(x):
    raise RuntimeError("my own fault")

def inputs():
    return np.array([-2.0, 3.0]), np.array([5.0, 7.0])

def product(x, y):
    return x * y

class Scale:
    def __init__(self, n):
        self.w = np.ones(n)

    def forward(self, x):
        self.x = x
        return x * self.w

    def backward(self, upstream):
        self.dw = (upstream * self.x).sum(0)
        return upstream * self.w

scale = Scale(3)
"""


@pytest.fixture(autouse=True)
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_layers.py").write_text(LAYERS)
    (tmp_path / "broken_layers.py").write_text("import surely_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path


def run(words: str) -> int:
    return main(words.split())


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("check my_layers:right 4x3", 0),
        ("check my_layers:wrong 4x3", 1),
        ("check my_layers:tanh 5:float64 --backward my_layers:tanh_backward", 0),
        ("audit my_layers:wrong 4x3", 1),
        ("jacobian my_layers:poly 3 3", 0),
        ("jacobian my_layers:poly 3 3 --evaluate", 0),
        ("graph my_layers:poly scalar scalar", 0),
        ("graph my_layers:right 4x3", 0),
        ("nodes", 0),
        ("doctor", 0),
    ],
)
def test_status(words: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == status
    printed = capsys.readouterr()
    assert printed.out and not printed.err


@pytest.mark.parametrize("command", ["check my_layers:raises 3", "graph my_layers:raises 3"])
def test_the_users_own_error(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 2
    error = capsys.readouterr().err
    assert 'raise RuntimeError("my own fault")' in error
    assert "gradlab/cli.py" not in error


def test_a_module_that_fails_to_import(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check broken_layers:f 3") == 2
    error = capsys.readouterr().err
    assert "broken_layers.py" in error and "surely_not_there" in error


def test_inputs_from_a_function_and_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("graph my_layers:poly --inputs my_layers:inputs --format json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "gradlab.graph/2"
    assert report["wires"][-1]["value"]["entries"] == [-6.0, 30.0]
    np.savez("saved.npz", y=np.array([5.0, 7.0]), x=np.array([-2.0, 3.0]))
    assert run("graph my_layers:poly --inputs saved.npz --format json") == 0
    assert json.loads(capsys.readouterr().out) == report


def test_entries_are_evaluated_where_that_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jacobian my_layers:poly --inputs my_layers:inputs --evaluate") == 0
    first = re.search("  entries +(.*)", capsys.readouterr().out)
    assert first and list(map(float, first[1].split())) == [1.0, 0.0, -2.0, 0.0]
    for words in ("", " --evaluate"):
        assert run("jacobian jax.numpy:positive 4" + words + " --format json") == 0
        assert json.loads(capsys.readouterr().out)["structure"] == "diagonal"
    assert run("jacobian jax.numpy:tanh 100x100 --evaluate --max-bytes 10") == 2
    assert "max_bytes" in capsys.readouterr().err


def test_values_are_given_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """d(x y)/dx is y, whatever the order of the words."""
    assert run("graph my_layers:product y=5 x=-2 --format json") == 0
    wires = json.loads(capsys.readouterr().out)["wires"]
    assert {w["name"]: w["gradient"]["entries"] for w in wires[:2]} == {"x": 5.0, "y": -2.0}


def test_inputs_may_stand_behind_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("jacobian my_layers:poly --format json 3 --wrt 0 3") == 0
    assert [side["shape"] for side in json.loads(capsys.readouterr().out)["inputs"]] == [[3]]
    assert run("nodes tanh --format json relu") == 0
    assert [page["name"] for page in json.loads(capsys.readouterr().out)["pages"]] == [
        "tanh",
        "relu",
    ]


def test_an_object_is_checked_in_the_dtype_of_its_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("check my_layers:scale 4x3") == 0
    assert "right for x and w (float64" in capsys.readouterr().out
    assert run("check my_layers:Scale 4x3") == 2
    said = capsys.readouterr().err
    assert "Scale is a class. Write layer = Scale(n) in" in said


def test_the_api_is_explained_and_steps_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain --api") == 0
    page = capsys.readouterr().out
    assert all(f"\n{name}" in f"\n{page}" for name in gradlab.__all__ if name != "__version__")
    assert run("check my_layers:right 4x3 -v") == 0
    assert re.search(r"cpu time\n( +[0-9.]+ s  [a-z ]+\n)+", capsys.readouterr().out)


def test_what_is_explained_is_written_as_a_page_too(layers: Path) -> None:
    assert run("explain --api -o api.html") == 0 and run("explain GL103 -o code.html") == 0
    page = (layers / "api.html").read_text()
    assert all(f"<code>{name}" in page for name in gradlab.__all__ if name != "__version__")
    assert "<h1>GL103: A size is missing" in (layers / "code.html").read_text()
    assert run("explain GL103 -o code.txt") == 0
    assert (layers / "code.txt").read_text().startswith("GL103: A size is missing")


def test_a_graph_is_drawn_with_what_was_asked_for(layers: Path) -> None:
    words = "graph my_layers:poly 3x4 3x4 --seed 1"
    assert run(f"{words} -o page.html") == 0
    page = (layers / "page.html").read_text()
    assert "Right: along a random direction" in page and "local gradient" in page
    assert "heat map" in page
    assert run(f"{words} --no-heat-maps -o graph.svg") == 0
    assert "heat map" not in (layers / "graph.svg").read_text()
    assert run(f"{words} --checks -o graph.json") == 0
    gates = json.loads((layers / "graph.json").read_text())["gates"]
    assert {gate["check"]["status"] for gate in gates} == {"passed"}


def test_a_table_shows_local_gradients_and_checks_where_they_are_asked_for(capsys) -> None:
    assert run("graph my_layers:poly x=-2 y=5 --local-gradients --checks") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-1][-3:] == ["-2,", "3", "right"] and rows[-2][-3:] == ["1,", "1", "right"]


def test_files_are_written_whole_or_not_at_all(layers: Path) -> None:
    assert run("graph my_layers:poly 2 2 -o graph.json") == 0
    written = layers / "graph.json"
    assert json.loads(written.read_text())["ok"]
    before = sorted(path.name for path in layers.iterdir())
    (layers / "folder.json").mkdir()
    assert run("graph my_layers:poly 2 2 -o folder.json") == 2
    assert sorted(path.name for path in layers.iterdir()) == sorted([*before, "folder.json"])


def test_colour_is_for_those_who_want_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    run("check my_layers:right 4x3")
    assert "\x1b[32m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    run("check my_layers:right 4x3")
    assert "\x1b[" not in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_an_example_that_it_understands(
    command: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command.name, "--help"])
    assert caught.value.code == 0
    assert command.example in " ".join(capsys.readouterr().out.split())


def python(*words: str) -> str:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True
    ).stdout


def seconds(*words: str) -> float:
    """Return the processor time that a Python of its own takes, the least of five."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def test_help_is_cheap() -> None:
    library = seconds("-c", "import argparse, dataclasses, inspect, typing, contextlib, shutil")
    assert seconds("-m", "gradlab", "--help") < 3 * library
    code = "import sys, gradlab.cli; print(*{'jax', 'numpy', 'rich'} & set(sys.modules))"
    assert python("-c", code) == "\n"


def test_version() -> None:
    assert python("-m", "gradlab", "--version") == f"gradlab {__version__}\n"


def test_what_an_error_and_its_notes_say_steers_no_terminal(layers, capsys):
    (layers / "hostile_layers.py").write_text(
        "from gradlab import InputError\n"
        "def function(x):\n"
        "    error = InputError('clears\\x1b[2J')\n"
        "    error.add_note('rings\\x07, at wire a')\n"
        "    raise error\n"
    )
    assert run("check hostile_layers:function 3") == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\x07" not in said
    assert r"clears\x1b[2J" in said and r"rings\x07, at wire a" in said


def test_a_claim_that_is_refuted_exits_with_one_and_says_the_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "leaks.py").write_text("def leaky(x):\n    return x - x.mean(axis=0)\n")
    monkeypatch.chdir(tmp_path)
    assert main(["jacobian", "leaks:leaky", "6x3", "--independent", "0"]) == 1
    assert "leaks.py:2" in capsys.readouterr().out
    assert main(["jacobian", "leaks:leaky", "6x3", "--independent", "0", "-o", "leaks.html"]) == 1
    assert "leaks.py:2" in capsys.readouterr().err
    page = (tmp_path / "leaks.html").read_text()
    assert "not as asserted" in page and "leaky couples axis 0 of x" in page
    assert main(["jacobian", "leaks:leaky", "6x3", "--independent", "0", "--format", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert not data["ok"] and data["refuted"].startswith("leaky couples axis 0 of x")
    assert main(["jacobian", "leaks:leaky", "6x3", "--independent", "1"]) == 0
    assert "proved, as asserted: independent 1\n" in capsys.readouterr().err
    assert main(["jacobian", "leaks:leaky", "6x3", "--why", "0"]) == 0
    assert "axis 0 of x is coupled" in capsys.readouterr().out


def test_a_wrong_gradient_is_told_though_the_report_goes_to_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "slips.py").write_text(
        "def square(x):\n    return (x * x).sum()\n\ndef backward(g, x):\n    return g * 3 * x\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = ["check", "slips:square", "3", "--backward", "slips:backward"]
    assert main([*asked, "-o", "slips.json"]) == 1
    printed = capsys.readouterr()
    assert "the gradient of x is WRONG" in printed.err and "See slips.json" in printed.err
    assert not printed.out and not json.loads((tmp_path / "slips.json").read_text())["ok"]


def test_a_text_names_the_options_that_the_shell_takes(tmp_path, monkeypatch, capsys):
    (tmp_path / "masked.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "def attention(x):\n"
        "    mask = jnp.tril(jnp.ones((len(x), len(x)), bool))\n"
        "    return jax.nn.softmax(jnp.where(mask, x @ x.T, -1e30)) @ x\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = ["jacobian", "masked:attention", "4x3", "--causal", "0"]
    assert main(asked) == 1
    told = capsys.readouterr().out
    assert "pass --conditions 1e6, if" in told
    assert main([*asked, *re.search(r"--conditions \S+(?=,)", told)[0].split()]) == 0


def test_a_domain_and_switches_reach_the_check(tmp_path, monkeypatch, capsys):
    (tmp_path / "branchy.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "@jax.custom_vjp\n"
        "def f(x):\n"
        "    return jnp.where(x > 20, 2 * x, x)\n"
        "f.defvjp(lambda x: (f(x), x), lambda x, u: (u,))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["check", "branchy:f", "4"]) == 1
    assert main(["check", "branchy:f", "4", "--no-branches"]) == 0
    assert main(["check", "branchy:f", "4", "--domain", "x=..10"]) == 0
    assert main(["check", "branchy:f", "4", "--domain", "y=..10"]) == 2
    assert "the inputs are x" in capsys.readouterr().err


def test_a_first_check_compiles_one_program_and_loads_no_more_than_it_needs(tmp_path):
    """Right or wrong: what costs a tenth of a second is loaded and compiled where it is needed."""
    code = (
        "import sys, logging, jax; from gradlab.cli import main\n"
        "class Count(logging.Handler):\n"
        "    def emit(self, record): print(record.getMessage(), file=sys.stderr)\n"
        "jax.config.update('jax_log_compiles', True)\n"
        "logging.getLogger('jax').addHandler(Count())\n"
        "main(['check', 'my_layers:{}', '4x3'])\n"
        "print(sorted({{'scipy.special', 'scipy.linalg', 'urllib.request'}} & set(sys.modules)))"
    )
    for name in ("right", "wrong"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(name)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.stdout.splitlines()[-1] == "[]", (name, done.stdout)
        compiled = re.findall("Finished XLA compilation of (.*) in", done.stderr)
        assert sorted(set(compiled)) == ["jit(_run)"], compiled


@pytest.mark.parametrize(("words", "status"), [("nodes tanh", 0), ("nodes tahn", 2)])
def test_the_process_ends_with_the_status_and_all_that_was_said(words, status):
    command = [sys.executable, "-m", "gradlab", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status and "tanh" in done.stdout + done.stderr


@pytest.mark.parametrize("words", ["nodes tanh", "explain GL103", "--help", "--version"])
def test_what_cannot_be_written_is_said_and_a_reader_that_has_gone_is_not(words):
    command = [sys.executable, "-m", "gradlab", *words.split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("gradlab: standard output cannot be written: No space left")
    assert "-o FILE" in done.stderr and "Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (0, "")


def test_a_link_stays_a_link_and_a_device_is_not_replaced(tmp_path, capsys):
    device, link = tmp_path / "device.txt", tmp_path / "link.txt"
    device.symlink_to("/dev/full")
    link.symlink_to(tmp_path / "real.txt")
    assert run(f"nodes tanh -o {device}") == 2
    assert "No space left" in capsys.readouterr().err
    assert run(f"nodes tanh -o {link}") == 0
    assert device.is_symlink() and link.is_symlink()
    assert "tanh" in (tmp_path / "real.txt").read_text()
