"""What gradlab reads is data: nothing in a file is ever run."""

import ast
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gradlab.cli import main

PACKAGE = Path(__file__).parent.parent / "gradlab"
RUN = {"eval", "exec", "compile", "execfile", "__import__", "breakpoint", "input"}
MODULES = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "codeop", "runpy"),
    *("subprocess", "pty", "ctypes", "socket", "http", "urllib", "ftplib", "smtplib", "requests"),
    *("ssl", "asyncio", "multiprocessing", "webbrowser", "yaml", "xmlrpc"),
}
SYSTEM = {"system", "popen", "fork", "execv", "execve", "spawnv", "posix_spawn", "startfile"}


def dangers(source):
    """Yield what could run data, start a process or open a connection."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (name for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in RUN:
            yield called.id
        if isinstance(called, ast.Attribute):
            whole = ast.unparse(called)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            default = "True" if whole in ("np.load", "numpy.load") else "False"
            starts = whole.startswith("os.") and called.attr in SYSTEM
            if starts or given.get("allow_pickle", default) != "False":
                yield whole


# The edit engine compiles edits of the user's own source, which the user imported already.
EDITS = {
    PACKAGE / "repair" / name: {"compile", "exec", "eval"}
    for name in ("bench.py", "pool.py", "world.py")
}


def test_nothing_runs_data():
    for path in PACKAGE.rglob("*.py"):
        assert not set(dangers(path.read_text())) - EDITS.get(path, set()), path


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')", "exec(text)", "import pickle", "from urllib.request import urlopen",
        "np.load(f)", "np.load(f, allow_pickle=True)", "os.system('ls')", "import subprocess",
        "def f():\n  import multiprocessing.pool", "np.savez(f, x, allow_pickle=True)",
    ],
)  # fmt: skip
def test_a_danger_would_be_seen(source):
    assert list(dangers(source))


class Payload:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.fixture
def layers(tmp_path, monkeypatch):
    (tmp_path / "plain_layers.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "plain_layers", raising=False)
    return tmp_path


def test_a_file_of_inputs_is_not_unpickled(layers, capsys):
    np.savez("evil.npz", x=np.array([Payload()], dtype=object))
    assert main(["jacobian", "plain_layers:double", "--inputs", "evil.npz"]) == 2
    said = capsys.readouterr().err
    assert "evil.npz holds no arrays of numbers; write it with numpy.savez" in said
    assert not (layers / "pwned").exists()
    with np.load("evil.npz", allow_pickle=True) as arrays:
        assert arrays["x"] is not None
    assert (layers / "pwned").exists(), "the file would have done it"


def test_a_pickle_of_another_name_is_not_unpickled(layers, capsys):
    import pickle

    (layers / "evil.npz").write_bytes(pickle.dumps(Payload()))
    assert main(["jacobian", "plain_layers:double", "--inputs", "evil.npz"]) == 2
    assert "holds no arrays of numbers" in capsys.readouterr().err
    assert not (layers / "pwned").exists()


def test_a_module_is_not_reached_through_a_path(layers, capsys):
    for target in ("/etc/passwd:f", "..plain_layers:double", "../plain_layers:double"):
        assert main(["jacobian", target, "3"]) == 2
        assert "Traceback" not in capsys.readouterr().err
