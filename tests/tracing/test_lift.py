import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import gradlab
from gradlab.references.interpreted import Interpreted
from gradlab.references.setting import Setting
from gradlab.tracing import arithmetic, lift, narrowings, opaque, trace, without_checks

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 6)).astype(np.float32)
INDICES = np.array([0, 2, 2, 3])


def lifted(function, *inputs):
    program = trace(function, *inputs)
    with without_checks():
        outputs = jax.jit(lift(program))(*program.flatten(inputs))
        return [np.asarray(output) for output in outputs]


FUNCTIONS = {
    "elementwise": lambda x: jnp.tanh(x) * jnp.exp(-x) / (1 + x * x),
    "matmul": lambda x: x @ x.T,
    "einsum": lambda x: jnp.einsum("ij,ik->jk", x, x),
    "sort": lambda x: jnp.sort(x, 1),
    "top k": lambda x: lax.top_k(x, 2)[0],
    "cumulative": lambda x: jnp.cumsum(x, 0) + lax.cumlogsumexp(x, 1) + lax.cumprod(x, 1),
    "scatter": lambda x: jnp.zeros((4, 6), x.dtype).at[INDICES].add(x).at[1].mul(x[0]),
    "scatter max": lambda x: x.at[INDICES].max(x * 2).at[0].set(x[1]),
    "gather": lambda x: x[INDICES, 1],
    "conv": lambda x: lax.conv(x[None, None], x[None, None, :2, :2], (1, 1), "SAME"),
    "pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"),
    "reduce": lambda x: lax.reduce(x, x.dtype.type(1), lambda a, b: a * b + 0 * a, (0,)),
    "scan": lambda x: lax.scan(lambda c, r: (jnp.sin(c + r), c), jnp.zeros(6, x.dtype), x),
    "scan with dtypes": lambda x: lax.scan(
        lambda c, r: ((c + r).astype(jnp.float32), c), jnp.zeros(6, jnp.float32), x, reverse=True
    ),
    "while": lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x))[
        1
    ],
    "cond": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "switch": lambda x: lax.switch(1, [jnp.sin, jnp.cos, jnp.tan], x),
    "solve": lambda x: jnp.linalg.solve(x @ x.T + jnp.eye(4, dtype=x.dtype), x),
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T + jnp.eye(4, dtype=x.dtype)),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)),
    "complex": lambda x: jnp.exp(1j * x) * (x + 2j),
    "rules of jax": lambda x: jax.nn.relu(x) + jax.nn.softplus(x),
    "remat": jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))),
    "platform": lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lifting_is_the_function_in_float64(name):
    function = FUNCTIONS[name]
    with jax.enable_x64(True):
        wide = [np.asarray(a) for a in jax.tree.leaves(function(jnp.asarray(A, jnp.float64)))]
    for ours, theirs in zip(lifted(function, A), wide, strict=True):
        assert ours.dtype in (np.float64, np.complex128)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6 if "dtypes" in name else 1e-12)


def test_what_does_not_depend_on_the_inputs_is_as_traced():
    def dropout(x, key):
        keep = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.where(keep, x / 0.5, 0) + jnp.finfo(x.dtype).eps

    key = jax.random.key(7)
    (output,) = lifted(dropout, A, key)
    traced = np.asarray(dropout(A, key))
    np.testing.assert_array_equal(output > 1, traced > 1)
    zero = np.abs(traced) < 1e-6
    np.testing.assert_array_equal(output[zero], np.float64(np.finfo(np.float32).eps))


def test_narrow_roundings_are_undone_and_listed():
    def layer(x):
        y = x.astype(jnp.bfloat16)
        return (y * y).astype(jnp.float32)

    np.testing.assert_allclose(lifted(layer, A)[0], A.astype(np.float64) ** 2, rtol=1e-15)
    (narrowing,) = narrowings(trace(layer, A))
    assert narrowing.dtype == "bfloat16" and str(narrowing).startswith("rounds to bfloat16 at test")
    assert not narrowings(trace(lambda x, k: x * jax.random.normal(k), A, jax.random.key(0)))


def test_callbacks_and_bitcasts_are_listed_and_run_as_traced():
    def function(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        y = jax.pure_callback(lambda a: np.sin(a), shape, x * 3)
        return y + lax.bitcast_convert_type(x, jnp.int32)

    found = opaque(trace(function, A))
    assert [item.name for item in found] == ["pure_callback", "bitcast_convert_type"]
    np.testing.assert_allclose(lifted(function, A)[0], np.sin(A * 3) + A.view(np.int32), rtol=1e-6)


def test_the_users_switches_do_not_matter():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        (output,) = lifted(lambda x: jnp.where(x > 0, jnp.log(x), x), A)
        assert np.isfinite(output).all()
        assert np.isnan(lifted(lambda x: jnp.log(x), A)[0][A < 0]).all()


def test_a_reduction_is_traced_once_for_all_of_its_points(monkeypatch):
    """XLA compiles it once, where it was compiled for each point: 105 s for one check."""
    traced = []

    class Counting(arithmetic._Wide):
        def __call__(self, *arguments):
            traced.append(1)
            return super().__call__(*arguments)

    monkeypatch.setattr(arithmetic, "_Wide", Counting)

    def pair(x, y):
        return lax.reduce(
            (x, y), (np.float32(0), np.float32(1)), lambda a, b: (a[0] + b[0], a[1] * b[1]), (0,)
        )

    assert gradlab.check(pair, A, A + 3, order=2).ok
    assert 0 < len(traced) < 40


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_eigenvalues_stand_in_the_order_that_their_dtype_chose(dtype):
    """LAPACK finds them in another order in float64, which would be another function."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 6, 6)).astype(dtype)
    mine, own = lifted(jnp.linalg.eig, x), jnp.linalg.eig(x)
    for wide, narrow in zip(mine, own):
        np.testing.assert_allclose(wide, narrow, atol=2e-4)
    np.testing.assert_allclose(mine[0].sum(-1), np.trace(x.astype(mine[0].dtype), 0, 1, 2))
    assert gradlab.check(jnp.linalg.eigvals, x[:2]).ok


def test_numbers_of_half_precision_that_only_move_are_never_compiled_for(monkeypatch):
    def refused(*_):
        raise AssertionError("JAX was asked")

    def placed(u):
        return lax.dynamic_update_slice(jnp.ones((7, 5), u.dtype), u[::-1].T, (4, 1))

    program = trace(placed, jnp.ones((3, 2), jnp.bfloat16))
    monkeypatch.setattr(arithmetic.NumPy, "_rows", refused)
    run = Interpreted(Setting({"forward": program}, {}, None, {}))
    u = np.arange(6.0).reshape(3, 2)
    (found,) = run.values({"u": u}, "forward")["forward"]
    expected = np.ones((7, 5))
    expected[4:6, 1:4] = u[::-1].T
    np.testing.assert_array_equal(found, expected)
