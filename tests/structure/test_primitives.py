"""Every primitive of JAX that has a JVP rule: handled on axes, or listed here with the reason."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from one_by_one import nonzero

from gradlab.structure import jacobian

V = np.linspace(0.1, 0.9, 6).astype(np.float32)
M = (np.arange(9).reshape(3, 3) / 10 + np.eye(3)).astype(np.float32)
S = (M @ M.T).astype(np.float32)
INDEX = np.array([[0], [2]])


def _fold(function, dimensions=(0,)):
    return lambda x: lax.reduce(x, np.float32(0), function, dimensions)


def _gathered(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID")


def _pooled(function):
    return lambda x: lax.reduce_window(x, 0.0, function, (2,), (1,), "VALID")


def _repeated(x):
    return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 2), (0, x))[1]


def _polynomial(x):
    return lax.polynomial(x, (x, 2 * x)) if hasattr(lax, "polynomial") else x + 2 * x * x


def _linear_call(x):
    return jax.custom_derivatives.linear_call(
        lambda r, v: r * v, lambda r, v: r * v, jnp.ones_like(x), x
    )


def _linear_solve(x):
    return lax.custom_linear_solve(
        lambda v: 2 * v, x, lambda matvec, b: b / 2, lambda matvec, b: b / 2, symmetric=True
    )


def _scattered(function):
    return lambda x: function(
        x, INDEX, x[:2],
        lax.ScatterDimensionNumbers((), (0,), (0,)), unique_indices=True,
    )  # fmt: skip


@jax.custom_batching.custom_vmap
def _batched(x):
    return jnp.sin(x)


@_batched.def_vmap
def _batch_rule(size, batched, x):
    return jnp.sin(x), True


def _cell(use):
    def apply(x):
        cell = jax.new_ref(x)
        use(cell, x)
        return cell[...]

    return apply


UNARY = (
    "abs acos asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erf_inv "
    "erfc exp exp2 expm1 floor lgamma log log1p logistic neg round rsqrt sign sin sinh sqrt square "
    "tan tanh stop_gradient cumsum cumprod cummax cummin cumlogsumexp"
)
BINARY = "add sub mul div max min pow rem atan2 igamma igammac"
COMPARISONS = "eq ne lt le gt ge"


def _with_reverse(function):
    return lambda x: function(x, x[::-1])


def _chosen_by(function):
    return lambda x: jnp.where(function(x, x[::-1]), x, 2 * x)


EXAMPLES: dict = {
    **{name: (getattr(lax, name), V) for name in UNARY.split()},
    **{name: (_with_reverse(getattr(lax, name)), V) for name in BINARY.split()},
    **{name: (_chosen_by(getattr(lax, name)), V) for name in COMPARISONS.split()},
    "conj": (lambda x: jnp.real(lax.conj(lax.complex(x, x))), V),
    "imag": (lambda x: lax.imag(lax.complex(x, x)), V),
    "real": (lambda x: lax.real(lax.complex(x, x)), V),
    "complex": (lambda x: lax.real(lax.complex(x, x)), V),
    "new_ref": (_cell(lambda cell, x: None), V),
    "get": (_cell(lambda cell, x: cell[...]), V),
    "swap": (_cell(lambda cell, x: cell.__setitem__(0, x[1])), V),
    "addupdate": (_cell(lambda cell, x: cell.addupdate(x)), V),
    "freeze": (lambda x: jax.freeze(jax.new_ref(x * x)), V),
    "log2": (getattr(lax, "log2", lax.log), V),
    "nextafter": (lambda x: lax.nextafter(x, x + 1) if jax.__version__ >= "0.12" else x, V),
    "polynomial": (_polynomial, V),
    "one_minus_square": (lambda x: jax.jvp(jnp.tanh, (x,), (x,))[1], V),
    "acosh": (lax.acosh, 1 + V),
    "add_any": (lambda x: jax.grad(lambda y: (y * jnp.sin(y) * y).sum())(x), V),
    "clamp": (lambda x: lax.clamp(np.float32(0.2), x, np.float32(0.8)), V),
    "select_n": (lambda x: lax.select_n(x > 0.5, x, -x), V),
    "integer_pow": (lambda x: x**3, V),
    "polygamma": (lambda x: special.polygamma(1, x), V),
    "regularized_incomplete_beta": (lambda x: special.betainc(2.0, 3.0, x), V),
    "random_gamma": (lambda x: jax.random.gamma(jax.random.key(0), x), V),
    "is_finite": (lambda x: jnp.where(lax.is_finite(x), x, 0), V),
    "convert_element_type": (lambda x: x.astype(jnp.bfloat16), V),
    "bitcast_convert_type": (
        lambda x: x + lax.bitcast_convert_type(x, jnp.int32).astype(jnp.float32),
        V,
    ),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 5, 10), V),
    "copy": (jnp.copy, V),
    "device_put": (lambda x: jax.device_put(x, jax.devices()[0]), V),
    "optimization_barrier": (lambda x: lax.optimization_barrier((x, x * 2))[1], V),
    "name": (lambda x: checkpoint_name(x, "a"), V),
    "broadcast_in_dim": (lambda x: jnp.broadcast_to(x, (2, 6)), V),
    "reshape": (lambda x: x.reshape(2, 3), V),
    "squeeze": (lambda x: lax.squeeze(x[None], (0,)), V),
    "transpose": (jnp.transpose, M),
    "rev": (lambda x: lax.rev(x, (0,)), V),
    "slice": (lambda x: x[1:5:2], V),
    "pad": (lambda x: lax.pad(x, np.float32(0), [(1, -1, 1)]), V),
    "concatenate": (lambda x: jnp.concatenate([x, x]), V),
    "split": (lambda x: jnp.split(x, 2)[1], V),
    "tile": (lambda x: jnp.tile(x, 2), V),
    "stack": (lambda x: jnp.stack([x, x]), V),
    "unstack": (lambda x: jnp.unstack(x.reshape(2, 3))[0], V),
    "reduce_sum": (lambda x: x.sum(0), M),
    "reduce_max": (lambda x: x.max(0), M),
    "reduce_min": (lambda x: x.min(0), M),
    "reduce_prod": (lambda x: x.prod(0), M),
    "reduce": (_fold(lambda a, b: a + b * 2), M),
    "argmax": (lambda x: x + jnp.argmax(x), V),
    "argmin": (lambda x: x + jnp.argmin(x), V),
    "dot_general": (lambda x: x @ M, M),
    "ragged_dot_general": (lambda x: lax.ragged_dot(x, jnp.ones((2, 3, 4)), jnp.array([1, 2])), M),
    "conv_general_dilated": (lambda x: jnp.convolve(x, np.ones(3, np.float32)), V),
    "reduce_window": (
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + b, (2,), (1,), "VALID"),
        V,
    ),
    "reduce_window_sum": (_pooled(lax.add), V),
    "reduce_window_max": (_gathered, V),
    "reduce_window_min": (lambda x: -_gathered(-x), V),
    "select_and_scatter_add": (lambda x: jax.grad(lambda y: _gathered(y).sum())(x * x), V),
    "select_and_gather_add": (lambda x: jax.jvp(_gathered, (x,), (x,))[1], V),
    "gather": (lambda x: x[np.array([0, 2])], V),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (jnp.argmax(x),), (2,)), V),
    "dynamic_update_slice": (lambda x: lax.dynamic_update_slice(x, x[:2], (1,)), V),
    "scatter": (lambda x: x.at[np.array([0, 2])].set(x[:2]), V),
    "scatter-add": (lambda x: x.at[np.array([0, 2])].add(x[:2]), V),
    "scatter-sub": (lambda x: x.at[np.array([0, 2])].subtract(x[:2]), V),
    "scatter-mul": (_scattered(lax.scatter_mul), V),
    "scatter-min": (lambda x: x.at[np.array([0, 2])].min(x[:2]), V),
    "scatter-max": (lambda x: x.at[np.array([0, 2])].max(x[:2]), V),
    "sort": (jnp.sort, V),
    "top_k": (lambda x: lax.top_k(x, 2)[0], V),
    "approx_top_k": (lambda x: lax.approx_max_k(x, 2)[0], V),
    "fft": (lambda x: jnp.real(jnp.fft.rfft(x)), V),
    "cholesky": (jnp.linalg.cholesky, S),
    "lu": (lambda x: lax.linalg.lu(x)[0], M),
    "qr": (lambda x: jnp.linalg.qr(x)[0], M),
    "eigh": (lambda x: jnp.linalg.eigh(x)[0], S),
    "eig": (lambda x: jnp.real(jnp.linalg.eigvals(x)), M),
    "svd": (lambda x: jnp.linalg.svd(x)[0], M),
    "triangular_solve": (
        lambda x: lax.linalg.triangular_solve(x, x, left_side=True, lower=True),
        M,
    ),
    "tridiagonal_solve": (lambda x: lax.linalg.tridiagonal_solve(x, x, x, x[:, None]), V),
    "custom_linear_solve": (_linear_solve, V),
    "linear_call": (_linear_call, V),
    "scan": (lambda x: lax.scan(lambda c, y: (c + y, c * y), x[0], x)[1], V),
    "while": (
        lambda x: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 2), (0, x))[1],
        V,
    ),
    "cond": (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), V),
    "jit": (jax.jit(jnp.sin), V),
    "remat2": (jax.checkpoint(jnp.sin), V),
    "custom_vmap_call": (_batched, V),
    "random_bits": (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), V),
    "debug_callback": (lambda x: (jax.debug.callback(lambda: None), x * 2)[1], V),
    "debug_print": (lambda x: (jax.debug.print("a"), x * 2)[1], V),
    "and": (lambda x: jnp.where((x > 0) & (x < 1), x, 2 * x), V),
    "or": (lambda x: jnp.where((x > 0) | (x < 1), x, 2 * x), V),
    "xor": (lambda x: jnp.where((x > 0) ^ (x < 1), x, 2 * x), V),
    "not": (lambda x: jnp.where(~(x > 0), x, 2 * x), V),
}
INTEGER = {
    "shift_left", "shift_right_arithmetic", "shift_right_logical", "mulhi", "random_fold_in",
    "random_seed", "random_split", "random_unwrap", "random_wrap", "eq_to", "le_to", "lt_to",
    "to_edtype", "from_edtype", "dce_sink", "inspect_sharding",
}  # fmt: skip
"""No derivative passes through these."""

PLACED = {
    "all_gather", "all_gather_invariant", "all_gather_reduced", "all_to_all", "layout_constraint",
    "pbroadcast", "ppermute", "preduced", "psum", "psum_invariant", "pvary", "ragged_all_to_all",
    "reduce_scatter", "reduced_vary_cast_p", "reshard", "sharding_constraint", "unreduced_psum",
    "pbroadcast_dynamic", "reduced_vary_cast", "relayout", "unreduced_reduce_scatter",
    "vary_unreduced_cast", "vary_unreduced_cast_p", "with_memory_space_constraint",
}  # fmt: skip
"""Programs that are spread over devices; see test_sharded."""

CALLS = {"eval_jaxpr", "remat_opt", "stage", "tie", "empty_ref", "free_ref"}
"""Only inside JAX's own transformations; entered, or passed through."""

REFUSED = {"composite", "ffi_call", "io_callback", "pure_callback"}
"""Their JVP rule raises: JAX cannot differentiate them."""

DENSE = {
    "accum_grad_in_ref", "run_state", "call_hi_primitive", "box_get", "box_set", "new_box",
    "log_extend", "log_read", "new_log", "program_order",
}  # fmt: skip
"""Counted as dense on all axes, and named in the report."""


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_primitive_is_handled_on_axes(name):
    function, x = EXAMPLES[name]
    report = jacobian(function, x)
    assert not report.unknown
    assert not any("on all axes" in note for note in report.notes)
    pattern = report.pattern.to_dense()
    assert not (nonzero(function, x) & ~pattern).any()


def test_the_rest_is_listed_and_small():
    """In a process of its own: other modules bring primitives of their own."""
    code = "import jax, jax.interpreters.ad as ad; print(*{p.name for p in ad.primitive_jvps})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    primitives = set(said.stdout.split()) - REFUSED
    handled = set(EXAMPLES) | INTEGER | PLACED | CALLS
    assert primitives - handled <= DENSE
    assert len(primitives & handled) >= 0.95 * len(primitives)
