"""Compressed evaluation against `jax.jacfwd`, and what it costs in passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.errors import InputError, StructureMismatch
from gradlab.structure import jacobian
from gradlab.structure.evaluate import confirm

X = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
FUNCTIONS = {
    "diagonal": jnp.tanh,
    "rows": lambda x: jax.nn.softmax(x, -1),
    "band": lambda x: x[:, 1:] * x[:, :-1],
    "tall": lambda x: x.sum(),
    "wide": lambda x: jnp.outer(x[0], x[1]),
    "permutation": lambda x: 2 * x.T[::-1],
    "causal": lambda x: jnp.cumsum(x * x, 0),
    "zero": lambda x: jnp.round(x),
    "written over itself": lambda x: x.ravel().at[1:].set(jnp.sin(x.ravel()[::-1])[:-1]),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_entries_are_those_of_jax(name):
    report = jacobian(FUNCTIONS[name], X)
    dense = np.asarray(jax.jit(jax.jacfwd(FUNCTIONS[name]))(X)).reshape(report.shape)
    assert np.allclose(report.to_dense(), dense, atol=1e-6)
    assert np.allclose(report.to_bcoo().todense(), dense, atol=1e-6)
    assert report.to_scipy().shape == report.shape


def test_a_chunk_at_a_time_gives_the_same():
    report = jacobian(FUNCTIONS["rows"], X)
    whole = report.evaluate()
    small = report.evaluate(max_bytes=whole.nbytes + 800)
    assert np.array_equal(whole.flat, small.flat)
    with pytest.raises(InputError, match="max_bytes"):
        report.evaluate(max_bytes=100)


def test_what_jax_does_not_batch_is_passed_one_by_one():
    weights = np.linspace(1, 2, 36, dtype=np.float32).reshape(2, 6, 3)
    report = jacobian(lambda x: jax.lax.ragged_dot(x, weights, jnp.array([1, 3])), X)
    expected = np.zeros((4, 3, 4, 6), np.float32)
    for row, group in enumerate((0, 1, 1, 1)):
        expected[row, :, row] = weights[group].T
    assert np.allclose(report.to_dense(), expected.reshape(12, 24))
    assert np.allclose(report.compile("dense")(X), expected.reshape(12, 24))


def test_the_fewer_of_jvps_and_vjps_are_used():
    assert jacobian(FUNCTIONS["tall"], X).passes == 1
    assert jacobian(FUNCTIONS["band"], X).passes == 2
    assert jacobian(FUNCTIONS["rows"], X).passes == 6


def arrow(x):
    return (x[0] * jnp.sin(x[1:])).sum() + (x**4).sum() + jax.nn.logsumexp(x[:1])


def grouped(p):
    shared, own = p[:2], p[2:].reshape(-1, 5)
    return ((own - shared[0]) ** 2 * jnp.exp(shared[1])).sum() + (own.sum(1) ** 3).sum()


def bare(x):
    return (x[1:] ** 2).sum() * x[0]


def around(x):
    return (x * jnp.roll(x, 1) * jnp.roll(x, 2)).sum() + (x**4).sum()


def hessian(function):
    return jax.jit(jax.jacfwd(jax.grad(function)))


@pytest.mark.parametrize(
    ("function", "size", "passes"),
    [
        (arrow, 12, 2),
        pytest.param(grouped, 52, 7, marks=pytest.mark.slow),
        (lambda x: bare(x[::-1]), 3, 2),
        (bare, 9, 2),
        (around, 12, 5),
    ],
)
def test_a_hessian_is_read_by_columns_and_rows(function, size, passes):
    x = np.random.default_rng(2).standard_normal(size).astype(np.float32)
    report = jacobian(jax.grad(function), x)
    assert report.passes == passes
    assert f"{passes} JVPs give every entry of this symmetric matrix" in str(report)
    assert np.allclose(report.to_dense(), hessian(function)(x), rtol=1e-4, atol=1e-4)


def chain(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


GRADIENTS = {
    "jit": lambda f: jax.jit(jax.grad(f)),
    "inside jit": lambda f: jax.grad(jax.jit(f)),
    "lambda": lambda f: lambda x: jax.grad(f)(x),
    "partial": lambda f: functools.partial(jax.grad(lambda x, a: a * f(x)), a=2.0),
    "value and gradient": lambda f: lambda x: jax.value_and_grad(f)(x)[1],
    "jacrev": jax.jacrev,
}


@pytest.mark.parametrize(
    ("function", "passes", "name"),
    [  # each way and each function always, all pairs with --slow
        pytest.param(*each, name, marks=pytest.mark.slow if k % 2 != n else ())
        for k, name in enumerate(GRADIENTS)
        for n, each in enumerate([(chain, 3), (arrow, 2)])
    ],
)
def test_a_gradient_is_recognised_in_its_program(function, passes, name):
    x = np.random.default_rng(2).standard_normal(12).astype(np.float32)
    gradient = GRADIENTS[name](function)
    J = jacobian(gradient, x)
    assert J.report.symmetric
    assert J.passes == passes
    assert np.allclose(J.to_dense(), jax.jit(jax.jacfwd(gradient))(x), rtol=1e-3, atol=1e-3)
    other = jacobian(lambda x: gradient(x).at[0].mul(2), x)
    assert not other.report.symmetric
    assert np.allclose(other.to_dense()[1:], J.to_dense()[1:], atol=1e-3)


def meeting(x, y, z):
    return (x * y).sum() + (jnp.sin(y) * z).sum() + (z[1:] * z[:-1]).sum()


@pytest.mark.parametrize(
    ("order", "passes"), [((0, 1), 2), ((1, 0), 2), ((2, 0), 2), ((2, 0, 1), 3)]
)
def test_a_hessian_over_several_inputs_is_read_by_columns_and_rows(order, passes):
    points = np.random.default_rng(2).standard_normal((3, 6)).astype(np.float32)
    gradient, wrt = jax.grad(meeting, order), tuple(sorted(order))
    J = jacobian(gradient, *points, wrt=wrt)
    assert J.passes == passes
    assert J.report.symmetric == (order == wrt)
    blocks = jax.jit(jax.jacfwd(gradient, wrt))(*points)
    dense = np.block([[np.asarray(block) for block in row] for row in blocks])
    assert np.allclose(J.to_dense(), dense, atol=1e-5)
    assert np.allclose(J.compile("dense")(*points), dense, atol=1e-5)
    other = jacobian(
        lambda *x: [2 * g if k else g for k, g in enumerate(gradient(*x))], *points, wrt=wrt
    )
    assert not other.report.mirrors
    assert np.allclose(other.to_dense()[:6], dense[:6], atol=1e-5)


def test_the_gradient_of_a_loop_is_recognised_by_what_it_wraps():
    weights = np.arange(6, dtype=np.float32)

    def cost(x):
        def step(state, both):
            each, weight = both
            state = 0.9 * state + each
            return state, weight * jnp.tanh(state[0]) ** 2 + each**4

        return jnp.sum(jax.lax.scan(step, jnp.zeros(2), (x, jnp.asarray(weights)))[1])

    x = np.ones(6, np.float32)
    assert jacobian(jax.grad(cost), x).report.symmetric
    assert not jacobian(lambda x: jax.grad(cost)(x)[::-1], x).report.symmetric


def test_an_arrow_without_symmetry_takes_three_passes():
    def function(x):
        return x * x[0] + jnp.zeros(12).at[0].set((x**2).sum())

    J = jacobian(function, X.ravel()[:12])
    assert (J.passes, J.report.plan.jvps, J.report.plan.vjps) == (3, 2, 1)
    assert np.allclose(J.to_dense(), jax.jit(jax.jacfwd(function))(X.ravel()[:12]), atol=1e-5)


def test_a_cycle_over_two_grids_is_coloured_and_evaluated():
    def residual(u):
        return jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1)

    def two_grids(u):
        r = residual(u)
        coarse = 0.5 * r[::2] + 0.25 * (jnp.roll(r, 1)[::2] + jnp.roll(r, -1)[::2])
        return u + jnp.stack([coarse, 0.5 * (coarse + jnp.roll(coarse, -1))], 1).ravel()

    u = np.arange(8, dtype=np.float32)
    J = jacobian(two_grids, u)
    assert J.passes <= 8
    assert np.allclose(J.evaluate().to_dense(), jax.jit(jax.jacfwd(two_grids))(u))


def test_leaves_that_share_no_row_share_colours():
    def model(p):
        return {k: jnp.convolve(v, np.array([1.0, 2, 1], np.float32), "same") for k, v in p.items()}

    p = {f"w{k}": np.arange(9, dtype=np.float32) for k in range(8)}
    J = jacobian(model, p)
    assert J.passes == 3
    dense = J.to_dense()
    assert np.allclose(dense, np.kron(np.eye(8), dense[:9, :9]))
    shared = jacobian(lambda p: sum(model(p).values()), p)
    assert shared.passes <= 24
    assert np.allclose(shared.to_dense(), np.tile(dense[:9, :9], 8))


def test_symmetry_is_not_taken_from_the_pattern_alone():
    @functools.wraps(arrow)
    def no_gradient(x):
        return jax.grad(arrow)(x).at[0].mul(2)

    @jax.custom_vjp
    def doubled(x):
        return jnp.sin(x)

    doubled.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(2 * x),))

    def ruled(x):
        return (x[0] * doubled(x[1:])).sum()

    x = X[0]
    for function in (no_gradient, jax.grad(ruled), lambda x: x * x[0] + x.sum() * jnp.eye(6)[0]):
        report = jacobian(function, x)
        assert report.passes > 2 and not report.report.symmetric
        dense = np.asarray(jax.jit(jax.jacfwd(function))(x))
        assert np.allclose(report.to_dense(), dense, atol=1e-5)
        assert not np.allclose(dense, dense.T)


def test_several_leaves_make_one_matrix():
    def f(x, y):
        return {"a": x * y.sum(), "b": y[:2] * 3}

    x, y = np.ones(3, np.float32), np.arange(4, dtype=np.float32)
    matrix = jacobian(f, x, y).to_dense()
    parts = jax.jacrev(f, (0, 1))(x, y)
    assert np.allclose(matrix, np.block([[*map(np.asarray, parts[k])] for k in ("a", "b")]))


def test_the_probe_forgives_what_rounding_at_the_inputs_explains():
    """Programs that XLA compiles apart round `tanh` apart, and here a last digit moves all."""

    def steep(x):
        return jnp.cos(jnp.tanh(x) * 1e6)

    x = jnp.asarray(np.random.default_rng(0).uniform(1, 9, 12), jnp.float32)
    found = jacobian(steep, jax.ShapeDtypeStruct(x.shape, x.dtype)).compile("data")(x)
    assert found.shape == (12,)
    assert jacobian(steep, x).evaluate().listing.rows.tolist() == list(range(12))


def test_a_missed_entry_is_found_by_the_probe():
    J = jacobian(lambda x: x + x[::-1], np.ones(4, np.float32))
    narrow = jacobian(jnp.sin, np.ones(4, np.float32)).evaluate()
    with pytest.raises(StructureMismatch, match="probe"):
        confirm(J.derivative, J.values, "jvp", [(narrow.listing, np.ones(4, np.float32))])


def test_rounding_inside_is_no_missed_entry():
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)), jnp.float32)
    offset = jnp.float32(1e7)

    def half(x):
        return (x.astype(jnp.bfloat16) @ weights.astype(jnp.bfloat16)).astype(jnp.float32)

    def cancels(x):
        return (x * offset + x[:, ::-1]) - x * offset

    for function in (half, cancels):
        J = jacobian(function, X)
        dense = np.asarray(jax.jit(jax.jacfwd(function))(X)).reshape(J.shape)
        assert np.allclose(J.to_dense(), dense, rtol=1e-2, atol=2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float64, jnp.complex64])
def test_every_floating_dtype_can_be_evaluated(dtype):
    x = np.asarray(X[0], dtype)
    report = jacobian(lambda x: x * x[::-1], x)
    entries = report.evaluate()
    assert entries.flat.dtype == dtype
    expected = np.diag(x[::-1].astype(complex)) + np.diag(x.astype(complex))[:, ::-1]
    assert np.allclose(entries.to_dense(), expected)


def test_what_is_not_holomorphic_has_no_complex_entries():
    with pytest.raises(InputError, match="holomorphic"):
        jacobian(jnp.conj, np.ones(3, np.complex64)).evaluate()
