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

def numpy(x):
    return np.tanh(x)

def needs(x):
    return x

number = 3
"""
NAME = "expected MODULE:NAME, such as layers:softmax, got"
SHAPE = (
    "INPUT: expected SHAPE[:DTYPE] or NAME=VALUE, such as 100x4096, 8x64:bfloat16, scalar or x=-2, "
    "got"
)
EACH = "\n  Give a shape for each: gradlab check"
FLOATS = "float64, float32, bfloat16, float16"

REFUSED = [
    ("check layers 3", f"TARGET: {NAME} 'layers'"),
    ("check :right 3", f"TARGET: {NAME} ':right'"),
    ("check .layers:right 3", f"TARGET: {NAME} '.layers:right'"),
    ("check layers.py:right 3", "TARGET: pass the module, not its file: layers:right"),
    (
        "check layer:right 3",
        "TARGET: there is no module named 'layer'; did you mean 'layers'?; modules are "
        "looked for in the current directory and on sys.path",
    ),
    ("check layers:rihgt 3", "TARGET: layers has no 'rihgt'; did you mean 'right'?"),
    (
        "check layers:number 3",
        "TARGET: layers:number is int; pass a function, or an object with forward",
    ),
    ("check layers:right", f"right takes 1 input (x), but you gave 0.{EACH} layers:right SHAPE"),
    ("check layers:right 3 4", f"right takes 1 input (x), but you gave 2.{EACH} layers:right 3"),
    ("check layers:right y=3", "INPUT: no input is called 'y'; the inputs are x"),
    (
        "check layers:right x=low",
        "INPUT: x=low is no number; write x=0.5, or a shape such as 8x64",
    ),
    ("check layers:right 3y4", f"{SHAPE} '3y4'"),
    ("check layers:right -3", f"{SHAPE} '-3'"),
    (
        "check layers:right 3:float31",
        "INPUT: '3:float31' has no dtype that gradlab draws; did you mean 'float32' or ...",
    ),
    (
        "check layers:right 99999999999x99999",
        "INPUT: '99999999999x99999' is more than fits in memory here",
    ),
    (
        "check layers:right 3:int32",
        "x is int32, so it has no gradient.\n"
        "  Give a float array, on the command line a float dtype: 3:float32",
    ),
    (
        "check layers:right 3 --inputs layers:needs",
        "--inputs: it gives all inputs; leave out SHAPE[:DTYPE] or --inputs",
    ),
    (
        "check layers:right --inputs layers:needs",
        "--inputs takes (x), but gradlab calls layers:needs()",
    ),
    ("check layers:right --inputs none.npz", "--inputs: there is no file none.npz"),
    (
        "check layers:right --inputs bad.npz",
        "--inputs: bad.npz holds no arrays of numbers; write it with numpy.savez",
    ),
    ("check layers:right 3 --seed -1", "seed: expected at least 0, got -1"),
    ("check layers:right 3 --samples 0", "samples: expected at least 1, got 0"),
    ("check layers:right 3 --order 3", "order: expected 1 or 2, got 3"),
    ("check layers:right 3 --dtypes int8", f"dtypes: expected some of {FLOATS}, got 'int8'"),
    ("check layers:right 3 --device abacus", "device: JAX sees no 'abacus'; choose among ..."),
    ("check layers:right 3 --wrt y", "wrt: no input is named 'y'; the inputs are x"),
    ("check layers:right 3 --wrt 4", "wrt: there is no input 4; the inputs are x"),
    ("check layers:right 3 --backward layers:x", "--backward: layers has no 'x'"),
    ("check layers:right 3 --reference layers:number", "--reference: layers:number is int; ..."),
    (
        "check layers:right 3 --reference layers:two",
        "inputs: two takes (x, w), but 1 input came; pass one for each",
    ),
    (
        "check layers:right 3 --returns output+residuals",
        "backward: returns='output+residuals' needs it: backward(upstream, residuals)",
    ),
    (
        "check layers:right 3 --format svg",
        "--format: check can be drawn as text, json, junit, html",
    ),
    ("jacobian layers:right 3 -o nowhere/x.svg", "-o: there is no folder nowhere"),
    (
        "jacobian layers:right 3 -o x.bmp",
        "-o: x.bmp has no suffix that tells a format; pass --format",
    ),
    (
        "jacobian layers:right 3:int32",
        "inputs: right has no floating-point input to differentiate by (x: int32); "
        "cast with x.astype('float32')",
    ),
    (
        "jacobian layers:right 3 --wrt y",
        "wrt: 'y' is no differentiable input of right; choose among x",
    ),
    ("graph layers:two 2 3", "...shapes 2 and 3 do not broadcast..."),
    (
        "precision layers:right 3 --dtypes int8",
        f"dtypes: 'int8' is no floating-point dtype; expected some of {FLOATS}...",
    ),
    (
        "precision layers:right 3 --devices abacus",
        "devices: JAX has no 'abacus' here; it has ...",
    ),
    ("verify tahn", "there is no node named 'tahn'; did you mean 'tan' or 'tanh' or 'atan2'?"),
    ("verify tanh --seed -1", "seed: expected at least 0, got -1"),
    ("nodes softmac", "there is no node named 'softmac'; did you mean 'softmax' or ..."),
    ("nodes tanh --format svg", "--format: nodes can be drawn as text, json, html"),
    ("doctor --format svg", "--format: doctor can be drawn as text, json, html"),
]
UNREADABLE = [
    ("chekc layers:right 3", "argument COMMAND: invalid choice: 'chekc' (choose from ...verify..."),
    ("check", "the following arguments are required: TARGET, INPUT"),
    ("check layers:right 3 --bogus", "unrecognized arguments: --bogus"),
    ("check layers:right 3 --seed a", "argument --seed: invalid int value: 'a'"),
    ("check layers:right 3 --dtypes", "argument --dtypes: expected one argument"),
    (
        "check layers:right 3 --returns both",
        "argument --returns: invalid choice: 'both' (choose ...",
    ),
    (
        "check layers:right 3 --format pdf",
        "argument --format: invalid choice: 'pdf' (choose from ...",
    ),
    ("doctor x", "unrecognized arguments: x"),
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
    ("gradcheck(same)", "-q", "inputs: same was given no inputs; nothing can be differentiated"),
    ("gradcheck(same, 1.0, dtypes=['int8'])", "-q", f"dtypes: expected some of {FLOATS}, got"),
    ("gradaudit(same)", "-q", "inputs: same was given none; nothing can be differentiated"),
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


@pytest.mark.parametrize(("words", "expected"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_wrong_command_is_refused_in_these_words(layers, words, expected, capsys):
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert not printed.out and "Traceback" not in printed.err
    assert says(printed.err, f"gradlab {words.split()[0]}: {expected}\n"), printed.err


@pytest.mark.parametrize(("words", "expected"), UNREADABLE, ids=[words for words, _ in UNREADABLE])
def test_unreadable_words_are_refused_with_the_usage(layers, words, expected, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    usage, _, message = capsys.readouterr().err.partition("error: ")
    assert usage.startswith("usage: gradlab")
    assert says(message, f"{expected}\n"), message


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
