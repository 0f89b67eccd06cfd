"""Wrong calls of the command line and of the pytest plugin, and the message that each gets."""

import re
import sys

import jax  # noqa: F401  (an inner run in this process must find JAX loaded, not load it twice)
import pytest
import scipy.sparse.csgraph  # noqa: F401  (nor SciPy)

from gradlab.cli import main

LAYERS = """
import jax.numpy as jnp, numpy as np

def right(x):
    return jnp.tanh(x)

def two(x, w):
    return (x + w) * w

def rate(x=1.0):
    return 2 * x

def numpy(x):
    return np.tanh(x)

def needs(x):
    return x

number = 3
"""
SHAPE = "is not an input; write a shape (100x4096, 8x64:bfloat16, scalar) or a value (x=-2)"
FLOATS = "float64, float32, bfloat16, float16"
NAME = "is not MODULE:NAME; write layers:softmax for softmax in layers.py"
HELP = "Help: gradlab {} --help"

REFUSED = [  # a command, its message, the command that ends it
    ("check layers 3", f"layers {NAME}", HELP),
    ("check .layers:right 3", f".layers:right {NAME}", HELP),
    ("check layers.py:right 3", "pass the module, not its file: layers:right", "layers:right 3"),
    (
        "check layer:right 3",
        "there is no module layer in this directory, nor on sys.path",
        "layers:right 3",
    ),
    ("check layers:rihgt 3", "layers has no rihgt; did you mean right?", "layers:right 3"),
    (
        "check layers:number 3",
        "layers:number is of type int; pass a function, or an object with forward",
        HELP,
    ),
    ("check layers:right", "right takes 1 input (x), but you gave 0.", "layers:right SHAPE"),
    ("check layers:right 3 4", "right takes 1 input (x), but you gave 2.", "layers:right 3"),
    (
        "check layers:right y=3",
        "no input is called y; the inputs are x",
        "layers:right x=3",
    ),
    (
        "check layers:right x=low",
        "x=low is not a number; write x=0.5, or a shape without a name (8x64)",
        "layers:right x=0.5",
    ),
    (
        "check layers:right x=4x3",
        "x=4x3 is not a number; write x=0.5, or a shape without a name (8x64)",
        "layers:right 4x3",
    ),
    ("check layers:right 4*3", f"4*3 {SHAPE}", "layers:right 4x3"),
    ("check layers:right 4x3,3", f"4x3,3 {SHAPE}, with a blank before the next", HELP),
    (
        "check layers:right 3 --dtypes float32 float16",
        "float16 is a dtype; write it behind a shape (8x64:float16), or put commas between dtypes "
        "(--dtypes float32,float16)",
        HELP,
    ),
    ("check layers:right 3y4", f"3y4 {SHAPE}", HELP),
    ("check layers:right -3", f"-3 {SHAPE}", HELP),
    (
        "check layers:right 3:float31",
        "3:float31: gradlab draws no float31; did you mean float32?",
        "layers:right 3:float32",
    ),
    (
        "check layers:right 99999999999x99999",
        "an array of shape 99999999999x99999 does not fit into memory; give a smaller shape",
        HELP,
    ),
    (
        "check layers:right 3:int32",
        "x is int32, so it has no gradient; give a float array",
        "layers:right 3:float32",
    ),
    (
        "check layers:right 3 --inputs layers:needs",
        "--inputs gives all inputs; leave out 3, or --inputs",
        HELP,
    ),
    (
        "check layers:right --inputs layers:needs",
        "--inputs takes (x), but gradlab calls layers:needs()",
        HELP,
    ),
    (
        "check layers:right --inputs none.npz",
        "--inputs: there is no file none.npz; write it with numpy.savez('none.npz', x=x)",
        HELP,
    ),
    (
        "check layers:right --inputs bad.npz",
        "--inputs: bad.npz holds no arrays of numbers; write it with numpy.savez('bad.npz', x=x)",
        HELP,
    ),
    (
        "check layers:right 3 --seed -1",
        "seed: expected at least 0, got -1",
        "layers:right 3 --seed 0",
    ),
    (
        "check layers:right 3 --dtypes int8",
        f"dtypes: expected some of {FLOATS}, got 'int8'",
        "layers:right 3 --dtypes float32",
    ),
    (
        "check layers:right 3 --device abacus",
        "device: JAX sees no 'abacus'; choose among ...",
        "layers:right 3 --device cpu",
    ),
    (
        "check layers:right 3 --wrt y",
        "wrt: no input is named 'y'; the inputs are x",
        "layers:right 3 --wrt x",
    ),
    (
        "check layers:right 3 --wrt 4",
        "wrt: there is no input 4; the inputs are x",
        "layers:right 3 --wrt 0",
    ),
    ("check layers:right 3 --backward layers:q", "--backward: layers has no q", HELP),
    (
        "check layers:right 3 --reference layers:two",
        "inputs: two takes (x, w), but 1 input came; pass one for each",
        HELP,
    ),
    (
        "check layers:right 3 --returns output+residuals",
        "backward: returns='output+residuals' needs it: backward(upstream, residuals)",
        HELP,
    ),
    (
        "check layers:right 3 --format svg",
        "--format: check has no svg; its formats are text, json, junit and html",
        "layers:right 3 --format html",
    ),
    ("jacobian layers:right 3 -o nowhere/x.svg", "-o: there is no folder nowhere", HELP),
    (
        "jacobian layers:right 3 -o x.bmp",
        "-o: the suffix of x.bmp names no format; end it in .html, or pass --format",
        "layers:right 3 -o x.html",
    ),
    (
        "jacobian layers:right 3:int32",
        "inputs: right has no floating-point input to differentiate by (x: int32); "
        "cast with x.astype('float32')",
        "layers:right 3:float32",
    ),
    (
        "jacobian layers:right 3 --wrt y",
        "wrt: 'y' is no differentiable input of right; choose among x",
        "layers:right 3 --wrt x",
    ),
    ("graph layers:rate", "inputs: rate got none; pass arrays to differentiate by", HELP),
    ("graph layers:two 2 3", "...shapes 2 and 3 do not broadcast...", HELP),
    (
        "precision layers:right 3 --dtypes int8",
        f"dtypes: 'int8' is no floating-point dtype; expected some of {FLOATS}...",
        "layers:right 3 --dtypes float32",
    ),
    (
        "precision layers:right 3 --devices abacus",
        "devices: JAX has no 'abacus' here; it has ...",
        "layers:right 3 --devices cpu",
    ),
    (
        "verify tahn",
        "there is no node named 'tahn'; did you mean 'tan' or 'tanh' or 'atan2'?",
        "tan",
    ),
    ("nodes softmac", "there is no node named 'softmac'; did you mean 'softmax' or ...", "softmax"),
    (
        "doctor --format svg",
        "--format: doctor has no svg; its formats are text, json and html",
        "--format html",
    ),
]
UNREADABLE = [
    ("doctor 3", "gradlab doctor: it takes no further words, and got 3", ""),
    ("chekc layers:right 3", "gradlab: there is no command chekc; ...", "check layers:right 3"),
    (
        "check layers:right 3 --sampels 2",
        "gradlab check: there is no option --sampels",
        "check layers:right 3 --samples 2",
    ),
    (
        "check",
        "gradlab check: give a TARGET and its inputs",
        "",
    ),
    ("check layers:right 3 --patch", "gradlab check: --patch needs a value", ""),
    (
        "check layers:right 3 --domain x=0,1",
        "gradlab check: --domain: expected NAME=LOW..HIGH, such as x=0..1, or x=positive, ...",
        "",
    ),
    ("check layers:right 3 --seed a", "gradlab check: --seed: expected an integer, got a", ""),
    (
        "check layers:right 3 --returns outptu",
        "gradlab check: --returns: there is no outptu; choose output, ...",
        "check layers:right 3 --returns output",
    ),
    (
        "jacobian layers:right 3 --causal x",
        "gradlab jacobian: --causal: expected an axis, such as 0, or a pair of axes, ...",
        "",
    ),
]
IN_PYTEST = [
    (
        "",
        "--gradlab-seed=three",
        "--gradlab-seed (ini gradlab_seed): 'three' came, expected a whole",
    ),
    ("", "--gradlab-samples=x", "--gradlab-samples (ini gradlab_samples): 'x' came, expected"),
    ("", "--gradlab-device=abacus", "'abacus' came, expected one of cpu, gpu, all"),
    ("gradlab_seed = one", "-q", "--gradlab-seed (ini gradlab_seed): 'one' came, expected a whole"),
    (
        "@pytest.mark.gradcheck(sede=3)",
        "-q",
        "@pytest.mark.gradcheck: unknown keyword 'sede'; the valid keywords are ",
    ),
    (
        "@pytest.mark.gradcheck('float32')",
        "-q",
        "@pytest.mark.gradcheck: positional arguments; the valid keywords are ",
    ),
    ("gradcheck(3, 1.0)", "-q", "function: expected a function, got int 3"),
    ("gradcheck(same)", "-q", "inputs: same got none; pass arrays to differentiate by"),
    ("gradcheck(same, 1.0, dtypes=['int8'])", "-q", f"dtypes: expected some of {FLOATS}, got"),
    ("gradaudit(same)", "-q", "inputs: same got none; pass arrays to differentiate by"),
    ("jacobian(same, 1)", "-q", "inputs: same has no floating-point input to differentiate by"),
    (
        "jacobian(same, 1.0).assert_causal(0)",
        "-q",
        "causal: axis 0 does not exist in x of shape ()",
    ),
]


@pytest.fixture
def layers(tmp_path, monkeypatch):
    (tmp_path / "layers.py").write_text(LAYERS)
    (tmp_path / "bad.npz").write_text("not a zip")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "layers", raising=False)


def says(message, expected):
    pattern = ".*".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, message, re.S) is not None


@pytest.mark.parametrize(("words", "expected", "then"), REFUSED, ids=[each[0] for each in REFUSED])
def test_a_wrong_command_is_refused_in_these_words(layers, words, expected, then, capsys):
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    command = words.split()[0]
    first, *_, last = printed.err.splitlines()
    assert not printed.out and says(first, f"gradlab {command}: {expected}"), printed.err
    works = then.format(command) if then == HELP else f"gradlab {command} {then}"
    assert last.endswith(works), printed.err
    if command in ("jacobian", "nodes", "doctor", "verify") and then != HELP:
        assert main([command, *then.split()]) == 0


@pytest.mark.parametrize(
    ("words", "expected", "then"), UNREADABLE, ids=[each[0] for each in UNREADABLE]
)
def test_unreadable_words_are_refused_with_a_command(layers, words, expected, then, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert says(first, expected), first
    assert last.endswith(f"gradlab {then}" if then else f"gradlab {words.split()[0]} --help"), last


@pytest.mark.parametrize(("wrong", "option", "expected"), IN_PYTEST)
def test_a_wrong_use_in_pytest_is_refused(pytester, wrong, option, expected):
    mark = wrong if wrong.startswith("@") else ""
    call = wrong if wrong.endswith(")") and not mark else "pass"
    pytester.makefile(".ini", pytest=f"[pytest]\n{wrong if ' = ' in wrong else ''}")
    pytester.makepyfile(
        "import pytest\n"
        "def same(x): return 2 * x\n"
        f"{mark}\ndef test_it(gradcheck, gradaudit, jacobian): {call}\n"
    )
    result = pytester.runpytest_inprocess(option)
    assert result.ret != pytest.ExitCode.OK
    assert expected in result.stdout.str() + result.stderr.str()
