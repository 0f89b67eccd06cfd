"""Wrong calls of the library, and the message that each gets, word for word.

A message names the argument, what came, what was expected, and what to do; `...` stands for words
of JAX or NumPy.
"""

import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.errors import InvalidArgument

import gradlab
from gradlab import Graph, nodes, strategies

X, W = np.ones((2, 3)), np.ones((4, 5))
FLOATS = "float64, float32, bfloat16, float16"
NOT_TRACED = (
    "f: JAX cannot trace this function, because it reads values of its inputs (an `if` on a value, "
    "NumPy inside); use jax.numpy, jnp.where, jax.lax.cond"
)
NOT_READ = (
    "gradlab cannot read this function at test_wrong_calls.py:49: it reads values "
    "of its inputs here, where shapes "
    "alone may decide; choose with np.where"
)
RECORDED = (
    "a graph records arithmetic, nodes, and NumPy's functions of their names; use Graph.from_jax "
    "for a JAX function"
)


def same(x):
    return 2 * x


def rate(x=1.0):
    return 2 * x


def two(x, w):
    return x @ w


def f(x):
    return x if x.sum() > 0 else -x


def loss(x):
    return (x * x).sum(), 2 * x


def check(*arguments, **options):
    return lambda: gradlab.check(*arguments, **options)


def linear():
    return gradlab.jacobian(same, X)


def structure(*arguments, **options):
    return lambda: gradlab.assert_structure(*arguments, **options)


def precision(*arguments, **options):
    return lambda: gradlab.precision(*arguments, **options)


CHECK = [
    (check(3, X), "function: expected a function, got int 3"),
    (check("layers:f", X), "function: expected a function, got str 'layers:f'"),
    (check((same, same), X), "function: got 2 functions in a tuple; give the forward alone, ..."),
    (
        check(nodes.Tanh, X),
        "function: Tanh is a class of nodes; pass a node, such as Tanh()",
    ),
    (check(same), "inputs: same got none; pass arrays to differentiate by"),
    (check(two, X), "inputs: two takes (x, w), but 1 input came; pass one for each"),
    (check(two, X, W), "two: calling it raised TypeError: ..."),
    (check(same, "a"), "same: returned str, expected arrays"),
    (
        check(same, np.arange(3)),
        "x is int64, so it has no gradient; give a float array",
    ),
    (check(f, X), f"{NOT_TRACED}; pass backward= to check a NumPy function"),
    (
        check(lambda x: x > 0, X),
        "<lambda>: returns no float array (bool), so it has no gradient; return floats",
    ),
    (
        check(lambda x: None, X),
        "<lambda>: returns no float array (nothing), so it has no gradient; return floats",
    ),
    (
        check(jax.custom_vjp(same), X),
        "same: calling it raised AttributeError: No VJP defined for custom_vjp function same ...",
    ),
    (check(same, X, backward=3), "backward: expected a function, got int 3"),
    (
        check(same, X, backward=lambda g: g),
        "backward takes (g), but gradlab calls backward(upstream, *inputs)",
    ),
    (
        check(same, X, backward=lambda g, x: "a"),
        "backward: returned str for x, expected an array of shape 2x3, or None",
    ),
    (
        check(same, X, backward=lambda g, x: (g, g)),
        "backward: returned 2 gradients for 1 input; pass everything that is differentiated as an "
        "input of the forward",
    ),
    (check(same, X, backward=lambda g, x: 1 // 0), "backward: calling it raised ZeroDivision..."),
    (check(same, X, reference="f"), "reference: expected a function, got str 'f'"),
    (
        check(gradlab.nodes.Tanh(), X, reference=X[0]),
        "reference: expected a function, got ndarray array([1., 1., 1.])",
    ),
    (check(gradlab.nodes.Tanh(), X, reference=0), "reference: expected a function, got int 0"),
    (
        check(same, X, reference=lambda x: x.sum()),
        "reference: <lambda> returns scalar, but same returns 2x3",
    ),
    (
        check(same, X, returns="both"),
        "returns: expected one of output, output+residuals, output+gradients, got 'both'",
    ),
    (
        check(same, X, returns="output+residuals"),
        "backward: returns='output+residuals' needs it: backward(upstream, residuals)",
    ),
    (
        check(same, X, returns="output+residuals", backward=lambda g, c: g),
        "same: returns='output+residuals' expects a pair from the forward, got ndarray",
    ),
    (
        check(loss, X, returns="output+gradients", backward=lambda g, x: g),
        "backward: leave it out; with returns='output+gradients' the function has its own",
    ),
    (
        check(lambda x: (x, x), X, returns="output+gradients"),
        "<lambda>: returns='output+gradients' expects one scalar loss beside the gradients, "
        "got 2x3",
    ),
    (check(same, X, wrt="y"), "wrt: no input is named 'y'; the inputs are x"),
    (check(same, X, wrt=4), "wrt: there is no input 4; the inputs are x"),
    (check(same, X, wrt=1.5), "wrt: expected positions or names of inputs, got float"),
    (check(same, X, wrt=()), "wrt: empty; leave it out to check all inputs"),
    (
        check(same, X, order=5),
        "order: expected 1 to 4, got 5; for more, check jax.grad of the function",
    ),
    (check(same, X, samples=0), "samples: expected at least 1, got 0"),
    (check(same, X, samples=1.5), "samples: expected an integer, got float"),
    (check(same, X, seed=-1), "seed: expected at least 0, got -1"),
    (check(same, X, seed="a"), "seed: expected an integer, got str"),
    (check(same, X, dtypes="int8"), f"dtypes: expected some of {FLOATS}, got 'int8'"),
    (check(same, X, dtypes=3), f"dtypes: expected some of {FLOATS}, got '3'"),
    (check(same, X, dtypes=()), "dtypes: empty; leave it out to check the inputs as they are"),
    (
        check(same, X + 1j, dtypes="bfloat16"),
        "dtypes: a complex input cannot be checked in bfloat16",
    ),
    (check(same, X, device="abacus"), "device: JAX sees no 'abacus'; choose among ..."),
    (check(same, X, device=3), "device: JAX sees no 3; choose among ..."),
    (lambda: gradlab.assert_gradients(3, X), "function: expected a function, got int 3"),
    (lambda: gradlab.audit(3, X), "function: expected a function, got int 3"),
    (lambda: gradlab.audit(same), "inputs: same got none; pass arrays to differentiate by"),
    (lambda: gradlab.jacobian(rate), "inputs: rate got none; pass arrays to differentiate by"),
    (lambda: gradlab.audit(same, X, seed=1.0), "seed: expected an integer, got float"),
    (lambda: gradlab.audit(f, X), NOT_READ),
]
STRUCTURE = [
    (lambda: gradlab.jacobian(3, X), "function: expected a function, got int 3"),
    (
        lambda: gradlab.jacobian(same),
        "inputs: same takes (x), but 0 inputs came; pass one for each",
    ),
    (
        lambda: gradlab.jacobian(same, np.arange(3)),
        "inputs: same has no floating-point input to differentiate by (x: int64); "
        "cast with x.astype('float32')",
    ),
    (lambda: gradlab.jacobian(f, X), NOT_READ),
    (
        lambda: gradlab.jacobian(lambda x: x > 0, X),
        "function: <lambda> returns bool, which has no derivative; it must return floating-point "
        "arrays",
    ),
    (
        lambda: gradlab.jacobian(same, X, wrt="y"),
        "wrt: 'y' is no differentiable input of same; choose among x",
    ),
    (
        lambda: gradlab.jacobian(same, X, wrt=()),
        "wrt: empty; leave it out to differentiate by all inputs",
    ),
    (
        lambda: gradlab.jacobian(two, X, X.T).pattern,
        "pattern: there are 2 blocks, ('output', 'x'), ('output', 'w'); look in .patterns[output "
        "path, input path]",
    ),
    (
        lambda: gradlab.jacobian(same, X).why("batch"),
        "why: expected an axis or a pair (input axis, output axis), got 'batch'",
    ),
    (
        lambda: gradlab.jacobian(same, X).why(9),
        "why: axis 9 does not exist; shapes are (2, 3)",
    ),
    (
        lambda: gradlab.jacobian(same, X).plot("a.png"),
        "plot: path must end in .svg, got 'a.png'",
    ),
    (
        lambda: gradlab.jacobian(same, np.ones(100_000)).to_dense(),
        "to_dense: the dense 100,000 x 100,000 matrix takes 74.5 GiB, more than max_bytes=1 GiB; "
        "use evaluate() or to_scipy(), which keep only the entries of the pattern, or raise "
        "max_bytes",
    ),
    (
        structure(same, X),
        "assert_structure: nothing is claimed; give structure=, elementwise=, independent= or "
        "causal=",
    ),
    (
        structure(same, X, structure="diag"),
        "structure: 'diag' is not known; choose one of zero, identity, diagonal, ...",
    ),
    (
        structure(same, X, independent=5),
        "independent: axis 5 does not exist in x of shape (2, 3); give (input axis, output axis) "
        "where they differ",
    ),
    (
        structure(same, X, causal=True),
        "causal: expected an axis or a pair (input axis, output axis), got True",
    ),
    (
        structure(same, X, causal=(0, 1, 2)),
        "causal: expected an axis or a pair (input axis, output axis), got (0, 1, 2)",
    ),
]
MEASURED = [
    (precision(3, X), "function: expected a function, got int 3"),
    (precision(same, X, seed="a"), "seed: expected an integer, got str"),
    (precision(len, X), "len: returns no float array, so it has no gradient"),
    (
        precision(same, X, dtypes=["int8"]),
        "dtypes: 'int8' is no floating-point dtype; expected ...",
    ),
    (precision(same, X, devices=["abacus"]), "devices: JAX has no 'abacus' here; it has ..."),
    (
        lambda: gradlab.verify("tahn"),
        "there is no node named 'tahn'; did you mean 'tan' or 'tanh...",
    ),
    (lambda: gradlab.verify(3), "node: expected a node, its class or its name, got int"),
    (lambda: gradlab.verify("tanh", seed="a"), "seed: expected an integer, got str"),
    (
        lambda: gradlab.verify("tanh", dtypes=["int8"]),
        f"dtypes: expected some of {FLOATS}, got 'int8'",
    ),
]
GRAPH = [
    (lambda: Graph(3, 1.0), "function: expected a function, got int 3"),
    (lambda: Graph(two, 1.0), "inputs: two takes (x, w), but 1 input came; pass one for each"),
    (
        lambda: Graph(lambda x: jnp.sin(x), X),
        f"function: calling it raised TypeError: ...{RECORDED}",
    ),
    (
        lambda: Graph(f, X),
        "Variable(...) has no truth value: a graph is the same for every input, so `if` and "
        "`while` cannot look at its values; use nodes such as maximum or relu",
    ),
    (
        lambda: Graph(lambda x: 3.0, X),
        "Graph: the function returned float, not something made of its inputs",
    ),
    (
        lambda: Graph(two, X, W),
        "Matmul(): shapes 2x3 and 4x5 do not multiply; the last axis of the first must be as long "
        "as the second-last of the second",
    ),
    (
        lambda: Graph(same, X).backward(np.ones(2)),
        "backward: upstream has shape 2, but the output has shape 2x3; pass the gradient with "
        "respect to the output, such as ones for the gradient of the sum of its entries",
    ),
    (
        lambda: Graph(same, X).backward("a"),
        "backward: upstream is str; pass an array of shape 2x3",
    ),
    (
        lambda: Graph(same, 1.0).values["q"],
        "there is no wire named 'q'; there are 'x', 'constant', 'multiply'",
    ),
    (lambda: Graph(same, 1.0).gradients["x"], "gradients['x']: call backward first"),
    (
        lambda: Graph(same, 1.0).local_gradients["x"],
        "local_gradients['x']: pass two names, [node, input]",
    ),
    (
        lambda: Graph(same, 1.0).group([]),
        "group: names is empty; name the nodes by the wires that leave them",
    ),
    (
        lambda: Graph(same, 1.0).draw("a.png"),
        "draw: '.png' tells no format; use one of .svg, .html, ...",
    ),
    (lambda: Graph.from_jax(f, X), NOT_READ),
    (lambda: nodes.multiply(X), "Multiply takes 2 input(s) (x, y), but 1 came"),
    (lambda: nodes.softmax(X, axes=1), "softmax: no parameter 'axes'; it takes axis"),
    (
        lambda: nodes.softmax(X, axis=7),
        "Softmax(axis=7): axis 7 is out of range for shape 2x3; axes run from -2 to 1",
    ),
    (lambda: nodes.tanh("a"), "Tanh(): input 0 (x) is str; pass an array or a number"),
    (
        lambda: nodes.Tanh().as_jax("both"),
        "as_jax: mode is 'both'; expected 'vjp' (backward) or 'jvp' (pushforward)",
    ),
]
FLAG, BYTES = (
    "expected True or False, got",
    "max_bytes: expected a number of bytes, such as 2**30, got",
)
ARRAYS = [np.ones((2, 2)), jnp.arange(3)]
OPTIONS = [
    *((check(same, X, branches=a), f"branches: {FLAG} ...") for a in ARRAYS),
    (check(same, X, branches=1), f"branches: {FLAG} 1"),
    *((check(same, X, prove=p), 'prove: expected True, False or "long", got ...') for p in ARRAYS),
    (check(same, X, prove="short"), "prove: expected True, False or \"long\", got 'short'"),
    (check(same, X, intended=X), "intended: expected a function, got ndarray ..."),
    (
        check(same, X, domain=lambda: True),
        "domain: calling it raised TypeError: ...; it must take the inputs and return a bool",
    ),
    (lambda: gradlab.audit(same, X, branches=X), f"branches: {FLAG} ndarray"),
    (lambda: gradlab.audit(same, X, prove=0), 'prove: expected True, False or "long", got 0'),
    (lambda: gradlab.verify("tanh", thorough=X), f"thorough: {FLAG} ndarray"),
    (lambda: gradlab.verify("tanh", prove="long"), f"prove: {FLAG} 'long'"),
    *(
        (lambda method=method, limit=limit: getattr(linear(), method)(max_bytes=limit), said)
        for method in ("evaluate", "to_dense", "to_scipy", "to_bcoo")
        for limit, said in (
            *((a, f"{BYTES} {type(a).__name__}") for a in ARRAYS),
            (None, f"{BYTES} None"),
            ("1 GB", f"{BYTES} '1 GB'"),
            (True, f"{BYTES} True"),
            (float("nan"), f"{BYTES} nan"),
        )
    ),
    (lambda: linear().at(X, max_bytes=X), f"{BYTES} ndarray"),
    (lambda: linear().evaluate().to_dense(max_bytes=[1]), f"{BYTES} list"),
    (lambda: linear().evaluate(probes=X), f"probes: {FLAG} ndarray"),
    (lambda: linear().at(X, probes=None), f"probes: {FLAG} None"),
    (lambda: linear().compile(value=X), f"value: {FLAG} ndarray"),
    (lambda: linear().compile(probe="no"), f"probe: {FLAG} 'no'"),
    (
        lambda: linear().compile(layout=X),
        "layout: ndarray is not known; choose one of matrix, leaves",
    ),
    (lambda: linear().compile(format=X), "format: ndarray is not known; choose one of bcoo, ..."),
    (
        lambda: linear().evaluate().to(None),
        "format: None is not known; choose one of bcoo, ...",
    ),
    (lambda: linear().render(X), "format: a jacobian report cannot be drawn as ..."),
    (lambda: linear().plot(None), "path: expected a file ending in .svg, got NoneType"),
    (
        lambda: gradlab.jacobian(same, X, sizes=X),
        "sizes: expected a dict from names to numbers, such as {'T': 8}, got ndarray",
    ),
    (
        structure(same, X, causal=0, sizes="T"),
        "sizes: expected a dict from names to numbers, such as {'T': 8}, got str",
    ),
]
DRAWN = [
    (strategies.arrays(3), "shape: 3 is no shape; expected a tuple of integers that are 0 or more"),
    (strategies.arrays((2,), dtype="int32"), "dtype: int32 is not floating point; try 'float64'"),
    (strategies.arrays((2,), "float31"), "dtype: float31 is not floating point; try 'float64'"),
    (strategies.inputs_for("tahn"), "node: there is no node named 'tahn'; did you mean ..."),
    (
        strategies.upstreams(3),
        "output: int has no shape and dtype; pass the array that the function returns",
    ),
    (strategies.shapes_for("m,k"), "signature: 'm,k' names no input; try '(m,k),(k,n)->(m,n)'"),
    (strategies.shapes_for(3), "signature: 3 names no input; try '(m,k),(k,n)->(m,n)'"),
]


def says(message, expected):
    pattern = ".*".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, message, re.S) is not None


@pytest.mark.parametrize(("call", "expected"), CHECK + STRUCTURE + MEASURED + GRAPH + OPTIONS)
def test_a_wrong_call_is_refused_in_these_words(call, expected):
    with pytest.raises(gradlab.GradlabError) as caught:
        call()
    assert says(str(caught.value), expected), str(caught.value)


@pytest.mark.parametrize(("strategy", "expected"), DRAWN)
def test_a_wrong_strategy_is_refused_when_drawn(strategy, expected):
    with pytest.raises(InvalidArgument) as caught:
        hypothesis.find(strategy, lambda drawn: True)
    assert says(str(caught.value), expected), str(caught.value)


def test_a_node_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="did you mean 'tan' or 'tanh' or 'atan2'"):
        nodes.tahn
