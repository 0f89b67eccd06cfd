"""Compiled Jacobians against `jax.jacfwd`, under every transformation that they must bear."""

import functools
import math
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from gradlab.errors import InputError, StructureMismatch
from gradlab.structure import jacobian

X = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
Y = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
V = Y.ravel()


def burgers(u):
    wide = jnp.pad(u, 1)
    left, right = wide[:-2], wide[2:]
    return -u * (right - left) / 2 + (right - 2 * u + left)


def two_fields(x, y):
    return {"a": x * y[::-1] + jnp.roll(x, 1), "b": (y[:3] ** 2).sum() + x[:2]}


FUNCTIONS = {
    "diagonal": (jnp.tanh, X),
    "rows": (lambda x: jax.nn.softmax(x, -1), X),
    "band": (burgers, V),
    "tall": (lambda x: (x**2).sum(), X),
    "wide": (lambda x: x * jnp.arange(5.0), np.float32(2)),
    "permutation": (lambda x: 2 * jnp.sin(x).T[::-1], X),
    "causal": (lambda x: jnp.cumsum(x * x, 0), X),
    "zero": (jnp.round, X),
    "loop": (lambda x: lax.fori_loop(0, 3, lambda _, y: jnp.sin(y), x), V),
    "arrow": (lambda x: x * x[0] + jnp.zeros(24).at[0].set((x**2).sum()), V),
}


def dense_of(function, *inputs):
    flat, unravel = ravel_pytree(inputs)
    return np.asarray(jax.jit(jax.jacfwd(lambda v: ravel_pytree(function(*unravel(v)))[0]))(flat))


@functools.cache
def expected_of(name):
    return dense_of(*FUNCTIONS[name])


def band_to_dense(bands, low, high, shape):
    dense = np.zeros(shape, bands.dtype)
    for i in range(shape[0]):
        for j in range(max(0, i - low), min(shape[1], i + high + 1)):
            dense[i, j] = bands[high + i - j, j]
    return dense


@pytest.mark.one_in(3)
@pytest.mark.parametrize("format", ["bcoo", "data", "csr", "dense", "banded", "lineax"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_format_has_the_entries_of_jacfwd(name, format):
    function, x = FUNCTIONS[name]
    expected = expected_of(name)
    c = jacobian(function, jax.ShapeDtypeStruct(x.shape, x.dtype)).compile(format)
    found = c(x)
    if format == "data":
        dense = np.zeros(c.shape, np.float32)
        dense[c.rows, c.cols] = found
    elif format == "banded":
        dense = band_to_dense(np.asarray(found), *c.bandwidths, c.shape)
    else:
        turn = {"bcoo": "todense", "csr": "toarray", "lineax": "as_matrix"}
        dense = getattr(found, turn[format])() if format in turn else found
    assert np.allclose(dense, expected, atol=1e-5)
    parts = [m.data if format == "csr" else jax.tree.leaves(m)[0] for m in (found, c(x))]
    assert np.array_equal(*parts)
    assert "\n" not in repr(c) and format in repr(c)
    order = np.lexsort((c.cols, c.rows))
    assert np.array_equal(order, np.arange(c.nnz))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_runs_under_every_transformation(name):
    function, x = FUNCTIONS[name]
    c = jacobian(function, x).compile("dense")
    expected = expected_of(name)
    same = partial(np.allclose, atol=1e-5)
    assert same(jax.jit(c)(x), expected)
    assert same(jax.vmap(c)(np.stack([x, 2 * x]))[0], expected)
    assert same(lax.cond(True, c, lambda x: jnp.zeros(c.shape), x), expected)
    assert same(lax.scan(lambda s, _: (s, c(s)), x, None, 2)[1][1], expected)
    looped = lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, c(x)), (0, expected * 0))[1]
    assert same(looped, expected)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["diagonal", "rows", "band", "causal", "arrow"])
def test_it_is_differentiated_as_jax_does(name):
    function, x = FUNCTIONS[name]
    data = jacobian(function, x).compile("bcoo")

    def ours(x):
        return (data(x).data ** 2).sum()

    def theirs(x):
        return (jax.jacfwd(function)(x) ** 2).sum()

    assert np.allclose(jax.grad(ours)(x), jax.grad(theirs)(x), rtol=1e-4, atol=1e-4)
    t = np.linspace(0.5, 1.5, x.size, dtype=x.dtype).reshape(x.shape)  # softmax ignores a shift
    assert np.allclose(jax.jvp(ours, (x,), (t,))[1], jax.jvp(theirs, (x,), (t,))[1], rtol=1e-4)


def test_it_runs_inside_shard_map():
    mesh = Mesh(np.array(jax.devices()[:1]), ("a",))
    c = jacobian(burgers, V).compile("data")
    spread = jax.shard_map(
        lambda v: c(v[0])[None],
        mesh=mesh,
        in_specs=PartitionSpec("a"),
        out_specs=PartitionSpec("a"),
    )
    assert np.allclose(spread(V[None])[0], c(V), atol=1e-6)


def test_several_inputs_and_outputs_are_one_matrix_or_blocks():
    x, y = V[:5], V[5:10]
    J = jacobian(two_fields, x, y)
    expected = dense_of(two_fields, x, y)
    assert np.allclose(J.compile("dense")(x, y), expected, atol=1e-6)
    value, blocks = J.compile("dense", value=True, layout="leaves")(x, y)
    assert set(blocks) == set(J.patterns)
    assert np.allclose(
        np.block([[blocks[o.path, i.path] for i in J.inputs] for o in J.outputs]),
        expected,
        atol=1e-6,
    )
    for key, array in two_fields(x, y).items():
        assert np.allclose(value[key], array)
    assert np.allclose(J.at(x, y).to("dense"), expected, atol=1e-6)


def test_what_does_not_differ_is_refused_with_both_shapes():
    c = jacobian(jnp.tanh, X).compile()
    with pytest.raises(InputError, match=r"5x6.*4x6"):
        c(np.ones((5, 6), np.float32))
    with pytest.raises(InputError, match=r"float16.*float32"):
        c(X.astype(np.float16))
    with pytest.raises(InputError, match="bcoo"):
        jax.jit(jacobian(jnp.tanh, X).compile("csr"))(X)
    with pytest.raises(InputError, match="choose one of"):
        jacobian(jnp.tanh, X).compile("coo")


def test_a_setting_is_part_of_the_function():
    c = jacobian(lambda x, n: x**n, V, 2).compile("data")
    assert np.allclose(c(V, 2), 2 * V)
    with pytest.raises(InputError, match="setting 3"):
        c(V, 3)


def test_float64_stays_float64():
    x = np.linspace(0, 1, 5)
    c = jacobian(jnp.sin, x).compile("data")
    assert np.asarray(c(x)).dtype == np.float64
    assert np.allclose(c(x), np.cos(x), rtol=1e-14)


def test_chunks_give_the_same():
    J = jacobian(FUNCTIONS["rows"][0], X)
    assert np.allclose(J.compile("data", chunk=4)(X), J.compile("data")(X), atol=1e-7)


def rms_norm(x):
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)


@jax.custom_vjp
def ruled(x):
    return rms_norm(x)


ruled.defvjp(lambda x: (rms_norm(x), x), lambda x, g: jax.vjp(rms_norm, x)[1](g))


FUNCTIONS_OF_ROWS = [rms_norm, ruled, lambda x: x * x.sum(-1, keepdims=True)]


@pytest.mark.parametrize(
    ("function", "shape"),
    [  # each function and each shape always, all pairs with --slow
        pytest.param(function, shape, marks=pytest.mark.slow if k != n else ())
        for k, function in enumerate(FUNCTIONS_OF_ROWS)
        for n, shape in enumerate([(3, 8, 8), (24, 8), (4, 64)])
    ],
)
def test_passes_are_compiled_rightly_where_jacrev_is_not(function, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    J = jacobian(function, x)
    expected = np.asarray(jax.jacrev(function)(x)).reshape(J.shape)
    for format in ("dense", "bcoo"):
        c = J.compile(format, chunk=256)
        for found in (c(x), jax.jit(c)(x)):
            dense = found if format == "dense" else found.todense()
            assert np.allclose(dense, expected, atol=1e-4)
    coupled = jacobian(lambda x: function(x) + 1e-3 * x.sum(), x)
    expected = np.asarray(jax.jit(jax.jacfwd(rms_norm))(x)).reshape(J.shape) + 1e-3
    if function is rms_norm:
        assert np.allclose(coupled.compile("dense", chunk=256)(x), expected, atol=1e-4)


def test_the_probe_sees_entries_that_are_wrong(monkeypatch):
    c = jacobian(burgers, V).compile("data")
    monkeypatch.setattr(c, "_run", lambda index, *values: ([], [jnp.ones(c.nnz)]))
    with pytest.raises(StructureMismatch, match="probe"):
        c(V)


def test_solvers_take_the_formats():
    matrix = dense_of(burgers, V) - 5 * np.eye(24)
    J = jacobian(lambda u: burgers(u) - 5 * u, V)
    c = J.compile("banded")
    expected = np.linalg.solve(matrix, V)
    assert np.allclose(scipy.linalg.solve_banded(c.bandwidths, c(V), V), expected, atol=1e-4)
    lineax = pytest.importorskip("lineax")
    operator = jax.jit(J.compile("lineax"))(V)
    assert lineax.is_tridiagonal(operator)
    assert np.allclose(lineax.linear_solve(operator, V).value, expected, atol=1e-4)
    lower = jacobian(lambda x: jnp.cumsum(x**2 + 3 * x), V).compile("lineax")(V)
    assert lineax.is_lower_triangular(lower)
    found = lineax.linear_solve(lower, V).value
    assert np.allclose(lower.mv(found), V, atol=1e-3)
    wide = jacobian(lambda x: x + x[::-1] * x.sum(), V).compile("lineax")(V)
    expected = np.linalg.solve(np.asarray(wide.as_matrix()), V)
    assert np.allclose(lineax.linear_solve(wide, V).value, expected, rtol=1e-2, atol=1e-2)
    assert np.allclose(wide.T.mv(V), np.asarray(wide.as_matrix()).T @ V, rtol=1e-4)


def test_a_report_is_plain_data():
    J = jacobian(two_fields, V[:5], V[5:10])
    again = pickle.loads(pickle.dumps(J.report))
    assert again == J.report
    assert again.to_dict() == J.to_dict()
    assert again.pattern if len(again.patterns) == 1 else again.patterns == J.patterns
    other = jacobian(two_fields, V[:6], V[5:10][[0, 1, 2, 3, 4, 0]])
    assert other.report != J.report
    assert math.isclose(again.density, J.density)


def test_inside_a_trace_evaluate_says_what_works():
    with pytest.raises(InputError, match="compile"):
        jax.jit(lambda x: jnp.asarray(jacobian(jnp.tanh, x).to_dense()))(V)
