"""The structures that gradlab must prove, exactly, from programs of any size."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core as jex
from jax.interpreters import ad

from gradlab import GradlabError
from gradlab.structure import jacobian


def blank(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layer_norm(x):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def perceptron(x, w1, w2):
    return jnp.tanh(x @ w1) @ w2


def convolution(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def brusselator(u):
    x, y = u[..., 0], u[..., 1]

    def laplacian(a):
        return sum(jnp.roll(a, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * a

    return jnp.stack(
        [1 + x * x * y - 4.4 * x + laplacian(x), 3.4 * x - x * x * y + laplacian(y)], -1
    )


def burgers(u):
    padded = jnp.pad(u, 1)
    left, right = padded[:-2], padded[2:]
    return -u * (right - left) / 2 + (right - 2 * u + left)


def attention(x):
    t = x.shape[0]
    mask = jnp.tril(jnp.ones((t, t), bool))
    weights = jax.nn.softmax(jnp.where(mask, x @ x.T, -jnp.inf), axis=-1)
    return weights @ x


def windowed_attention(x):
    i, j = jnp.arange(x.shape[0])[:, None], jnp.arange(x.shape[0])[None, :]
    mask = (j <= i) & (i - j < 16)
    return jax.nn.softmax(jnp.where(mask, x @ x.T, -jnp.inf), axis=-1) @ x


def recurrent(xs):
    w = jnp.full((xs.shape[1], xs.shape[1]), 0.1)

    def step(h, x):
        h = jnp.tanh(h @ w + x)
        return h, h

    return lax.scan(step, jnp.zeros(xs.shape[1]), xs)[1]


def triangle(t):
    return t * (t + 1) // 2


def stepwise(t):
    """One step reads its own input entry by entry, and all entries of earlier ones."""
    return 16 * t + 256 * triangle(t - 1)


PERIODIC = 224 * 224 * 2 * 6  # itself, four neighbours, the other species

CASES = [
    ("tanh", jnp.tanh, [(100, 4096)], "diagonal", 409_600, 1),
    ("softmax", jax.nn.softmax, [(100, 512)], "block-diagonal", 100 * 512**2, 512),
    ("layer norm", layer_norm, [(100, 512)], "block-diagonal", 100 * 512**2, 512),
    ("brusselator", brusselator, [(224, 224, 2)], None, PERIODIC, None),
    ("burgers", burgers, [(100_000,)], "banded", 299_998, 3),
    ("attention 64", attention, [(64, 16)], None, triangle(64) * 256, 1024),
    ("attention 4096", attention, [(4096, 16)], None, triangle(4096) * 256, 65_536),
    ("recurrent 100", recurrent, [(100, 16)], None, stepwise(100), 1600),
    ("recurrent 100000", recurrent, [(100_000, 16)], None, stepwise(100_000), 1_600_000),
    ("cumsum", jnp.cumsum, [(4096,)], "lower-triangular", triangle(4096), 4096),
]


@pytest.mark.parametrize(
    ("function", "shapes", "structure", "nnz", "passes"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
def test_the_pattern_is_exact_and_fast(function, shapes, structure, nnz, passes):
    inputs = [blank(*shape) for shape in shapes]
    jacobian(function, *inputs)
    began = time.thread_time()
    report = jacobian(function, *inputs)
    found = report.nnz, report.structure, report.notation
    assert time.thread_time() - began < 3  # 0.3 s
    assert found[0] == nnz, found
    assert report.exact
    assert structure is None or report.structure == structure
    assert passes is None or report.passes == passes
    assert not report.unknown
    assert not report.notes


def test_a_perceptron_by_its_input_and_its_weights():
    report = jacobian(perceptron, blank(100, 256), blank(256, 1024), blank(1024, 256))
    assert report.patterns["output", "x"].nnz == 100 * 256 * 256
    assert report.patterns["output", "x"].notation == "out[b, :] <- in[b, :]"
    assert report.patterns["output", "w2"].nnz == 100 * 256 * 1024
    assert report.patterns["output", "w1"].is_dense


def test_a_convolution_by_its_input_and_its_kernel():
    x, w = np.ones((2, 5, 6, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)
    report = jacobian(convolution, x, w)
    for path, argument in (("x", 0), ("w", 1)):
        dense = np.asarray(jax.jacrev(convolution, argument)(x, w)) != 0
        pattern = report.patterns["output", path]
        assert (pattern.to_dense() == dense.reshape(pattern.shape)).all()
    big = jacobian(convolution, blank(8, 32, 32, 3), blank(3, 3, 3, 8), wrt="x")
    assert big.nnz == 8 * (32 * 3 - 2) ** 2 * 3 * 8


def test_a_sliding_window_is_proved():
    report = jacobian(windowed_attention, blank(4096, 8))
    assert report.nnz == sum(min(i + 1, 16) for i in range(4096)) * 64
    assert report.exact


def transformer(parameters, x):
    """Two pre-norm blocks with several heads, as they are written in practice."""
    batch, length, width = x.shape
    heads = 2

    def split(a):
        return a.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)

    mask = jnp.tril(jnp.ones((length, length), bool))
    for p in parameters:
        q, k, v = map(split, jnp.split(layer_norm(x) @ p["qkv"], 3, axis=-1))
        scores = jnp.where(mask, q @ jnp.swapaxes(k, -1, -2), -jnp.inf)
        mixed = jax.nn.softmax(scores, axis=-1) @ v
        x = x + mixed.transpose(0, 2, 1, 3).reshape(x.shape) @ p["out"]
        x = x + jax.nn.gelu(layer_norm(x) @ p["up"]) @ p["down"]
    return x


def test_a_transformer_is_causal_and_its_batch_independent():
    shapes = {"qkv": (8, 24), "out": (8, 8), "up": (8, 16), "down": (16, 8)}
    parameters = [{name: blank(*shape) for name, shape in shapes.items()} for _ in range(2)]
    report = jacobian(transformer, parameters, blank(3, 512, 8), wrt="x")
    assert report.notation == "out[b, t, :] <- x[b, <=t, :]"
    assert report.nnz == 3 * triangle(512) * 64
    assert not report.notes


def test_size_costs_nothing():
    def cost(size):
        began = time.thread_time()  # another process may have the core meanwhile
        report = jacobian(jnp.tanh, blank(size))
        assert (report.nnz, report.structure) == (size, "diagonal")
        return time.thread_time() - began

    small, large = zip(*((cost(1000), cost(10_000_000)) for _ in range(12)))
    assert min(large) < 3 * min(small)  # 1.5 alone


# the faults of other tools


def test_one_jitted_callee_with_a_constant_and_with_a_variable():
    g = jax.jit(lambda a, b: a * b)
    report = jacobian(lambda x: g(jnp.zeros_like(x), x) + g(x, x), blank(5))
    assert report.structure == "diagonal"


def test_a_straight_through_rule_counts_as_the_rule_says():
    f = jax.custom_jvp(lambda x: jnp.round(x))
    f.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0]))
    assert jacobian(f, blank(5)).structure == "diagonal"
    assert jacobian(jnp.round, blank(5)).pattern.is_zero


def test_a_custom_vjp_is_read_from_its_backward_pass():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g[::-1] * jnp.cos(x),))
    report = jacobian(f, np.ones(4, np.float32))
    assert (report.pattern.to_dense() == np.eye(4, dtype=bool)[::-1]).all()
    assert report.report.modes == ("vjp",)
    assert np.allclose(report.to_dense(), jax.jacrev(f)(jnp.ones(4)))


def test_a_while_loop_with_constants_in_condition_and_body():
    def f(x, w, limit):
        return lax.while_loop(
            lambda s: (s[0] < 3) & (s[1].sum() < limit.sum()),
            lambda s: (s[0] + 1, s[1] * w),
            (0, x),
        )[1]

    report = jacobian(f, blank(4), blank(4), blank(4))
    assert report.patterns["output", "x"].is_diagonal
    assert report.patterns["output", "w"].is_diagonal
    assert report.patterns["output", "limit"].is_zero
    assert report.report.modes == ("jvp",)


@pytest.mark.parametrize("size", [255, 256, 257, 512])
def test_a_contraction_of_any_length_keeps_its_entries(size):
    report = jacobian(lambda x: jnp.ones((2, size)) @ x, blank(size, 2))
    assert report.nnz == 2 * 2 * size


def test_fft_is_not_elementwise():
    assert jacobian(lambda x: jnp.abs(jnp.fft.fft(x)), blank(6)).pattern.is_dense


def test_a_backward_pass_that_adds_a_constant_is_dense():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g + 1,))
    report = jacobian(f, blank(4))
    assert report.pattern.is_dense
    assert report.notes[0].startswith("add:") and "upstream of zero" in report.notes[0]


def test_a_backward_pass_that_clips_stays_entry_by_entry():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (jnp.clip(g, -1, 1) * jnp.maximum(x, 0),))
    assert jacobian(f, blank(4)).structure == "diagonal"


def test_an_unknown_primitive_is_dense_and_named():
    same_shape = jex.Primitive("rotate_everything")
    same_shape.def_abstract_eval(lambda x: x)
    ad.primitive_jvps[same_shape] = lambda p, t: (same_shape.bind(p[0]), same_shape.bind(t[0]))
    report = jacobian(lambda x: same_shape.bind(x), blank(3, 2))
    assert report.pattern.is_dense
    assert report.unknown == ("rotate_everything",)
    assert "rotate_everything: taken as dense" in str(report)
    assert "test_jacobian.py" in report.notes[0]


def test_mutable_arrays_are_followed_at_the_top_and_dense_in_loops():
    def whole(x):
        box = jax.new_ref(x)
        box[...] = jnp.sin(box[...])
        return box[...]

    def part(x):
        box = jax.new_ref(x)
        box[0] = 2 * x[1]
        return box[...]

    def loop(x):
        box = jax.new_ref(jnp.zeros_like(x))
        lax.fori_loop(0, 3, lambda i, _: box.__setitem__(i, x[i]), None)
        return box[...]

    assert jacobian(whole, blank(3)).structure == "diagonal"
    report = jacobian(part, blank(3))
    assert report.nnz == 5
    assert "a part of a mutable array counts as all of it" in report.notes[0]
    assert jacobian(loop, blank(3)).unknown == ("swap",)


# inputs


def test_trees_and_wrt():
    def f(params, x, scale):
        return {"y": x @ params["w"] + params["b"], "n": scale * x.sum()}

    params = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}
    x = np.ones((5, 3), np.float32)
    report = jacobian(f, params, x, 2.0)
    assert ("output['y']", "params['w']") in report.patterns
    assert report.patterns["output['y']", "scale"].is_zero
    assert report.patterns["output['n']", "scale"].is_dense
    only = jacobian(f, params, x, 2.0, wrt="x")
    assert {given for _, given in only.patterns} == {"x"}
    assert set(jacobian(f, params, x, 2.0, wrt=(0,)).patterns) == {
        (o, p) for o in ("output['y']", "output['n']") for p in ("params['w']", "params['b']")
    }


def test_integer_inputs_are_not_known_and_constants_are():
    x = blank(6, 2)
    index = np.array([3, 0, 5])
    assert jacobian(lambda x: x[index], x).nnz == 6
    assert jacobian(lambda x, i: x[i], x, index).notation == "out[:, i] <- x[:, i]"


def test_float64_is_traced_as_float64():
    report = jacobian(jnp.tanh, np.ones(3))
    assert report.inputs[0].dtype == "float64"
    assert report.evaluate().flat.dtype == np.float64


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: jacobian(3, 1.0), "function: expected a function"),
        (
            lambda: jacobian(lambda x: jax.pure_callback(np.sin, x, x), np.ones(3)),
            "cannot differentiate",
        ),
        (lambda: jacobian(jnp.tanh, np.ones(3, int)), "floating"),
        (lambda: jacobian(jnp.argmax, np.ones(3, np.float32)), "no derivative"),
        (lambda: jacobian(jnp.tanh, np.ones(3), wrt="y"), "wrt"),
        (lambda: jacobian(jnp.tanh, blank(3)).evaluate(), "shapes"),
        (lambda: jacobian(lambda x: x if x > 0 else -x, 1.0), "reads values"),
        (lambda: jacobian(jnp.tanh, blank(3)).why(1), "axis 1"),
        (lambda: jacobian(jnp.tanh, blank(3)).plot("a.png"), "svg"),
    ],
)
def test_a_wrong_call_says_what_to_do(call, match):
    with pytest.raises(GradlabError, match=match):
        call()


@pytest.mark.parametrize(
    ("function", "rung", "said"),
    [
        (jnp.tanh, "symbolic", "exact: every axis was followed\n"),
        (lambda x: x[np.array([2, 0, 2, 1, 0, 2])], "explicit", "some through index arrays"),
        (lambda x: x[jnp.argsort(x)], "widened", "upper bound: some axes were taken as wider"),
    ],
)
def test_the_rung_of_the_ladder_is_named(function, rung, said):
    report = jacobian(function, np.arange(6, dtype=np.float32))
    assert report.rung == report.to_dict()["rung"] == rung
    assert said in str(report)


def test_digits_that_do_not_nest_are_not_split_without_end():
    def products(x):
        a, b = x[:24].reshape(2, 3, 4), x[24:].reshape(2, 3, 5)
        return (a[..., :, None] * b[..., None, :]).ravel()

    J = jacobian(products, blank(54))
    nonzero = jax.jacfwd(products)(jnp.arange(1.0, 55)) != 0
    assert J.nnz == 240 and np.array_equal(J.pattern.to_dense(), nonzero)
