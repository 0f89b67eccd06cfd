"""Whatever is called with whatever: gradlab answers, or says what is wrong; it does not break."""

import functools
import re
import sys
import warnings

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import gradlab
from gradlab import nodes
from gradlab.cli import main

LAYERS = """
import jax, jax.numpy as jnp, numpy as np

def right(x): return jnp.tanh(x)
def two(x, w): return (x * w).sum()
def numpy(x): return np.tanh(x)
def backward(upstream, *rest): return upstream
def raises(*x): raise RuntimeError("the user's own")
def inputs(): return np.array([-2.0, 3.0]), np.array([5.0, 7.0])
def words(): return "abc"
number = 3
"""
NAMES = st.sampled_from(
    [
        *("layers:right", "layers:two", "layers:numpy", "layers:backward", "layers:raises"),
        *("layers:inputs", "layers:words", "layers:number", "layers:none", "nowhere:f", "layers"),
        *(
            ":",
            "layers:",
            "jax.numpy:sin",
            "layers:right.x",
            "bad.npz",
            "none.npz",
            "\x00:f",
            "é:é",
        ),
    ]
)
SPECS = st.sampled_from(
    [
        *("3", "2x3", "scalar", "0", "2x0", "3:float64", "3:bfloat16", "3:int32", "3:bool"),
        *("3:complex64", "3:float31", "-3", "3x", "x3", "", ":", "999999999999", "scalar:int8"),
    ]
)
WORDS = st.sampled_from(
    ["x", "0", "-1", "9", "a,b", "", ",", "float64", "int8", "cpu", "none", "é"]
)
FLAGS = st.sampled_from(
    [
        *("--seed", "--samples", "--order", "--wrt", "--dtypes", "--device", "--devices"),
        *("--returns", "--format", "-o", "--decimals", "--thorough", "--bogus"),
    ]
)
OPTIONS = st.one_of(
    st.tuples(FLAGS, WORDS),
    st.tuples(st.sampled_from(["--inputs", "--backward", "--reference"]), NAMES),
    st.tuples(st.just("--format"), st.sampled_from(["json", "html", "svg", "junit", "dot"])),
    st.tuples(st.just("-o"), st.sampled_from(["x.json", "x.svg", "nowhere/x.txt", "x", ".", ""])),
)
READING = st.sampled_from(["jacobian", "graph", "nodes", "doctor", "check", "audit", "precision"])


@st.composite
def command_lines(draw):
    """Draw words that are nearly a command: half of them with a target that fits its inputs."""
    command = draw(READING)
    fitting = st.tuples(st.sampled_from(["layers:right", "jax.numpy:sin"]), SPECS).map(list)
    wild = st.tuples(NAMES, st.lists(SPECS, max_size=2)).map(lambda pair: [pair[0], *pair[1]])
    target = draw(fitting | wild) if command not in ("nodes", "doctor") else []
    options = draw(st.lists(OPTIONS, max_size=2))
    return [command, *target, *(word for option in options for word in option if word)]


def stop_or_status(words):
    try:
        return main(words)
    except SystemExit as stopped:
        return stopped.code


@pytest.fixture
def layers(tmp_path, monkeypatch):
    (tmp_path / "layers.py").write_text(LAYERS)
    (tmp_path / "bad.npz").write_text("not a zip")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "layers", raising=False)


EXAMPLES = pytest.mark.parametrize(
    "examples", [25, pytest.param(600, marks=pytest.mark.slow)], ids=["few", "many"]
)


@EXAMPLES
def test_no_command_line_breaks_it(layers, capsys, examples):
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(command_lines())
    def hold(words):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = stop_or_status(words)
        printed = capsys.readouterr()
        assert status in (0, 1, 2)
        assert not re.search(r'File ".*gradlab/\w+\.py"', printed.err), printed.err
        assert status == 0 or printed.err or printed.out

    hold()


def same(x):
    return 2 * x


def own_error(*inputs):
    raise ArithmeticError("the user's own")


FUNCTIONS = st.sampled_from(
    [
        *(same, jnp.sin, np.tanh, own_error, lambda x, y: x, lambda: 1.0, lambda *x: None),
        *(lambda x: "a", lambda x: x > 0, lambda x: {"a": x}, lambda x: x if x.sum() > 0 else -x),
        *(jax.custom_vjp(same), nodes.Tanh(), nodes.Tanh, 3, None, "tanh", int, len, object()),
        functools.partial(jnp.sum, axis=0),
    ]
)
LEAVES = st.sampled_from(
    [
        *(1.0, 2, True, None, "a", 1j, np.nan, np.float16(3.0), np.ones(3), np.ones((2, 0))),
        *(
            np.arange(3),
            np.ones(2, bool),
            np.ones(3, np.complex128),
            np.array(["a"]),
            np.array(3.0),
        ),
        *(np.array([None]), np.ones(3, np.float16), jnp.ones(3), jax.random.key(0), object()),
        *(np.full(3, np.inf), np.array([0.0, np.nan]), np.ones((1, 1, 1, 1)), np.float64(2.0)),
    ]
)
INPUTS = st.lists(st.one_of(LEAVES, st.lists(LEAVES, max_size=2), st.just({})), max_size=2)
ANY = st.one_of(LEAVES, FUNCTIONS, st.sampled_from([(), (0, 1), [0], "x", -1, 10**20, 0.5, {}]))
CALLS = {
    "check": ("backward", "reference", "returns", "wrt", "order", "seed", "samples", "dtypes"),
    "audit": ("seed",),
    "jacobian": ("wrt",),
    "assert_structure": ("structure", "elementwise", "independent", "causal", "wrt"),
    "precision": ("dtypes", "devices", "seed"),
    "Graph": (),
}


@st.composite
def calls(draw):
    """Draw a public function, inputs and up to two of its options, all of any kind."""
    name = draw(st.sampled_from(sorted(CALLS)))
    known = st.sampled_from(CALLS[name]) if CALLS[name] else st.nothing()
    options = draw(st.dictionaries(known, ANY, max_size=2)) if CALLS[name] else {}
    fitting = st.tuples(st.sampled_from([same, jnp.sin, nodes.Tanh()]), LEAVES.map(lambda x: [x]))
    return name, *draw(fitting | st.tuples(FUNCTIONS, INPUTS)), options


@EXAMPLES
def test_no_call_breaks_it(examples):
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(calls())
    def hold(call):
        name, function, inputs, options = call
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                report = getattr(gradlab, name)(function, *inputs, **options)
            except (gradlab.GradlabError, gradlab.StructureMismatch) as refused:
                report = refused
        assert str(report)

    hold()
