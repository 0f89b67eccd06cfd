"""Audit the rules of the JAX libraries that are installed: one line for each call that meets some.

Run it with `python tests/benchmarks/audit_ecosystem.py [LIBRARY ...]`. A library that is missing is
left out. A call is a function of a library with simple inputs; one that meets no rule is counted,
not shown. Whether a rule that is called wrong is really wrong, `examples/audit_report.md` says.
"""

import importlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradlab

X = np.array([0.7, 1.3, 0.2, 2.1], np.float32)
Y = np.array([0.4, 0.9, 1.1, 0.3], np.float32)
P = np.array([0.2, 0.5, 0.7, 0.9], np.float32)
ROWS = np.array([[0.3, -1.2, 0.8], [1.4, 0.1, -0.6]], np.float32)
CLASSES = np.array([2, 0])
SIMPLEX = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], np.float32)


class Call(NamedTuple):
    """A function of a library, and inputs for it."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[Any, ...]


def _named(module: Any, names: str, *inputs: Any) -> Iterator[Call]:
    for name in names.split():
        if hasattr(module, name):
            yield Call(name, getattr(module, name), inputs)


def _jax() -> Iterator[Call]:
    activations = (
        "relu relu6 silu gelu softplus elu selu celu log_sigmoid mish hard_tanh squareplus"
    )
    yield from _named(jax.nn, f"{activations} leaky_relu sparse_plus softmax log_softmax", ROWS)
    special = "digamma gammaln expit logit ndtr log_ndtr ndtri i0 i0e i1 i1e erfinv entr erf"
    yield from _named(jax.scipy.special, special, P)
    yield from _named(jax.scipy.special, "betainc", X, Y, P)
    yield from _named(jax.scipy.special, "gammainc gammaincc xlogy xlog1py rel_entr", X, P)
    yield from _named(jnp, "logaddexp logaddexp2 hypot", X, Y)
    yield from _named(jax.nn, "logsumexp logmeanexp", ROWS)


def _optax() -> Iterator[Call]:
    optax: Any = importlib.import_module("optax")
    yield from _named(optax, "l2_loss huber_loss log_cosh squared_error", X, Y)
    yield from _named(optax, "sigmoid_binary_cross_entropy sigmoid_focal_loss", X, P)
    whole = "softmax_cross_entropy safe_softmax_cross_entropy poly_loss_cross_entropy"
    yield from _named(optax, f"{whole} kl_divergence convex_kl_divergence", ROWS, SIMPLEX)
    counted = "softmax_cross_entropy_with_integer_labels multiclass_hinge_loss"
    yield from _named(optax, f"{counted} multiclass_perceptron_loss", ROWS, CLASSES)
    yield from _named(optax, "cosine_similarity cosine_distance", X, Y)
    yield from _named(optax, "safe_norm", X, 0.0)
    yield from _named(optax, "safe_root_mean_squares", X, 0.0)
    if hasattr(optax, "projections"):
        sets = "projection_simplex projection_l1_ball projection_non_negative projection_l2_ball"
        yield from _named(optax.projections, sets, X)
    if hasattr(optax, "perturbations"):
        yield Call("global_norm", optax.global_norm, (X,))


def _density(module: Any, value: Any, name: str, *parameters: Any) -> Iterator[Call]:
    if hasattr(module, name):
        made = getattr(module, name)
        yield Call(name, lambda *p: made(*p[1:]).log_prob(p[0]), (value, *parameters))


def _numpyro() -> Iterator[Call]:
    module: Any = importlib.import_module("numpyro.distributions")
    for name in (
        "Normal",
        "Laplace",
        "Cauchy",
        "Logistic",
        "Gumbel",
        "LogNormal",
        "Gamma",
        "Pareto",
    ):
        yield from _density(module, X + 1, name, Y, P)
    for name in ("InverseGamma", "Weibull", "Kumaraswamy", "Beta", "BetaProportion"):
        yield from _density(module, P, name, P, X)
    for name in ("Exponential", "HalfNormal", "HalfCauchy", "Chi2"):
        yield from _density(module, X, name, Y)
    yield from _density(module, X, "StudentT", X, Y, P)
    yield from _density(module, X, "VonMises", Y, P)
    yield from _density(module, SIMPLEX, "Dirichlet", SIMPLEX)
    low, high = np.full(4, 0.5, np.float32), np.full(4, 4.0, np.float32)
    for power in (1.5, -0.5, -1.0):
        yield from _density(
            module, X + 0.5, "DoublyTruncatedPowerLaw", np.full(4, power, np.float32), low, high
        )
    yield from _density(module, X + 0.5, "LowerTruncatedPowerLaw", -X - 1, low)
    yield from _density(module, X, "TruncatedNormal", Y, P)
    util: Any = importlib.import_module("numpyro.distributions.util")
    yield from _named(util, "log1mexp clamp_probs softplus_inv safe_normalize", -X)


def _distrax() -> Iterator[Call]:
    module: Any = importlib.import_module("distrax")
    for name in ("Normal", "Laplace", "Logistic", "Gumbel", "Gamma", "Uniform", "LogStddevNormal"):
        yield from _density(module, P, name, Y, X)
    yield from _density(module, SIMPLEX, "Dirichlet", SIMPLEX)
    for name in ("Tanh", "Sigmoid"):
        yield Call(name, getattr(module, name)().forward_and_log_det, (X,))
        yield Call(f"{name} inverse", getattr(module, name)().inverse_and_log_det, (P,))
    utilities = "multiply_no_nan power_no_nan mul_exp"
    yield from _named(importlib.import_module("distrax._src.utils.math"), utilities, X, Y)


def _ott() -> Iterator[Call]:
    module: Any = importlib.import_module("ott.math.utils")
    yield Call("norm", module.norm, (X,))
    yield Call("norm at 0", module.norm, (np.zeros(3, np.float32),))
    yield from _named(module, "logsumexp", ROWS)
    yield Call("safe_log", module.safe_log, (X,))
    yield from _named(module, "kl js gen_js gen_kl", SIMPLEX[0], SIMPLEX[1])


def _equinox() -> Iterator[Call]:
    module: Any = importlib.import_module("equinox")
    layer = module.nn.LayerNorm(4)
    yield Call("LayerNorm", layer, (X,))
    yield Call("RMSNorm", module.nn.RMSNorm(4), (X,))
    yield Call("PReLU", module.nn.PReLU(), (X,))
    linear = module.nn.Linear(4, 3, key=jax.random.key(0))
    yield Call("Linear under filter_jit", module.filter_jit(linear), (X,))
    yield Call("filter_checkpoint", module.filter_checkpoint(lambda x: jnp.sin(linear(x))), (X,))
    loop = module.internal.while_loop
    yield Call(
        "checkpointed while_loop",
        lambda x: loop(lambda v: v[0] < 3, lambda v: (v[0] + 1, jnp.sin(v[1])), (0, x),
                       max_steps=4, kind="checkpointed")[1],
        (X,),
    )  # fmt: skip


def _lineax() -> Iterator[Call]:
    module: Any = importlib.import_module("lineax")
    matrix = np.array(
        [[3.0, 1, 0.2, 0], [1, 2, 0.1, 0], [0.2, 0.1, 4, 1], [0, 0, 1, 3]], np.float64
    )
    for name in ("LU", "QR", "SVD", "AutoLinearSolver"):
        solver = getattr(module, name)(*((True,) if name == "AutoLinearSolver" else ()))
        yield Call(
            name,
            lambda a, b, solver=solver: (
                module.linear_solve(module.MatrixLinearOperator(a), b, solver).value
            ),
            (matrix, X.astype(np.float64)),
        )


def _optimistix() -> Iterator[Call]:
    module: Any = importlib.import_module("optimistix")
    root = module.Newton(rtol=1e-8, atol=1e-8)
    yield Call(
        "root_find",
        lambda b: module.root_find(lambda x, b: x**3 + x - b, root, jnp.ones_like(b), args=b).value,
        (X.astype(np.float64),),
    )


def _jaxopt() -> Iterator[Call]:
    module: Any = importlib.import_module("jaxopt")
    yield from _named(module.projection, "projection_simplex projection_l2_ball", X)
    yield from _named(module.loss, "huber_loss", 0.3, 1.4)
    yield from _named(module.loss, "multiclass_logistic_loss", np.int32(1), ROWS[0])
    yield from _named(module.loss, "multiclass_sparsemax_loss", np.int32(1), ROWS[0])
    yield from _named(module.loss, "binary_logistic_loss binary_sparsemax_loss", np.int32(1), 0.4)


def _flax() -> Iterator[Call]:
    module: Any = importlib.import_module("flax.linen")
    for name in ("LayerNorm", "RMSNorm", "GroupNorm"):
        options = {"num_groups": 1} if name == "GroupNorm" else {}
        layer = getattr(module, name)(**options)
        yield Call(name, layer.apply, (layer.init(jax.random.key(0), ROWS), ROWS))
    attention = module.MultiHeadDotProductAttention(num_heads=1)
    start = attention.init(jax.random.key(0), ROWS[None], ROWS[None])
    yield Call("attention", attention.apply, (start, ROWS[None], ROWS[None]))


def _jax_solvers() -> Iterator[Call]:
    ode: Any = importlib.import_module("jax.experimental.ode")
    times = np.array([0.0, 0.5, 1.0], np.float32)
    decay = lambda y, t, k: -k * y + jnp.sin(t)  # noqa: E731
    yield Call("odeint", lambda y, k: ode.odeint(decay, y, times, k), (X, np.float32(0.7)))
    matrix = np.array([[3.0, 1, 0.2, 0], [1, 2, 0.1, 0], [0.2, 0.1, 4, 1], [0, 0, 1, 3]])
    linear: Any = importlib.import_module("jax.scipy.sparse.linalg")
    for name in ("cg", "bicgstab", "gmres"):
        solver = getattr(linear, name)
        yield Call(
            name,
            lambda a, b, s=solver: s(lambda v: a @ v, b, tol=1e-12)[0],
            (matrix, X.astype(np.float64)),
        )
    yield Call("solve", jnp.linalg.solve, (matrix, X.astype(np.float64)))
    yield Call(
        "custom_root",
        lambda a: jax.lax.custom_root(
            lambda x: x**3 + x - a,
            jnp.zeros_like(a),
            lambda g, x: jax.lax.fori_loop(0, 40, lambda _, x: x - g(x) / (3 * x**2 + 1), x),
            lambda g, y: y / g(jnp.ones_like(y)),
        ),
        (X,),
    )
    sparse: Any = importlib.import_module("jax.experimental.sparse")
    held = sparse.BCOO.fromdense(matrix)
    yield Call(
        "BCOO @ vector",
        lambda data, v: sparse.BCOO((data, held.indices), shape=held.shape) @ v,
        (np.asarray(held.data), X),
    )
    yield Call("gamma sampler", lambda a: jax.random.gamma(jax.random.key(1), a), (X,))
    yield Call("beta sampler", lambda a, b: jax.random.beta(jax.random.key(1), a, b), (X, Y))
    yield Call("dirichlet", lambda a: jax.random.dirichlet(jax.random.key(1), a), (X,))
    attention = jax.nn.dot_product_attention
    queries = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 2, 3)
    yield Call("dot_product_attention", attention, (queries, queries * 0.5, queries + 0.3))


def _pallas() -> Iterator[Call]:
    norms: Any = importlib.import_module("jax.experimental.pallas.ops.gpu.layer_norm")
    rows = np.linspace(-1.0, 2.0, 32, dtype=np.float32).reshape(4, 8)
    scale, shift = np.linspace(0.5, 1.5, 8, dtype=np.float32), np.zeros(8, np.float32)
    yield Call(
        "layer_norm",
        lambda x, w, b: norms.layer_norm(x, w, b, interpret=True),
        (rows[None], scale, shift),
    )
    attend: Any = importlib.import_module("jax.experimental.pallas.ops.gpu.attention")
    queries = np.linspace(-1, 1, 2 * 16 * 16, dtype=np.float32).reshape(1, 16, 2, 16)
    sizes = attend.BlockSizes(block_q=16, block_k=16, block_q_dkv=16, block_kv_dkv=16,
                              block_q_dq=16, block_kv_dq=16)  # fmt: skip
    yield Call(
        "mha",
        lambda q, k, v: attend.mha(q, k, v, segment_ids=None, block_sizes=sizes, interpret=True),
        (queries, queries * 0.5, queries + 0.3),
    )


def _tfp() -> Iterator[Call]:
    module: Any = importlib.import_module("tensorflow_probability.substrates.jax")
    one = "log_cosh log1mexp softplus_inverse erfcinv erfcx logerfc logerfcx sqrt1pm1 lambertw"
    yield from _named(module.math, one, P)
    two = "lbeta log_add_exp log_gamma_difference owens_t igammainv igammacinv log_combinations"
    yield from _named(module.math, two, X + 1, P)
    yield from _named(module.math, "bessel_ive bessel_kve log_bessel_ive log_bessel_kve", Y, X)
    yield from _named(module.math, "betaincinv", X, Y, P)
    yield from _named(module.math, "clip_by_value_preserve_gradient", X, 0.3, 1.5)
    yield from _named(module.math, "reduce_logmeanexp reduce_log_harmonic_mean_exp", ROWS)
    special = "expi exp1 dawsn atan_difference"
    yield from _named(getattr(module.math, "special", None), special, P)
    for name in [
        "Normal",
        "Laplace",
        "Cauchy",
        "Logistic",
        "Gumbel",
        "LogNormal",
        "Gamma",
        "InverseGamma",
        "Weibull",
        "Pareto",
        "Moyal",
        "LogLogistic",
        "LogitNormal",
        "SinhArcsinh",
    ]:
        yield from _density(module.distributions, P + 0.05, name, X, Y)
    for name in ("Beta", "Kumaraswamy"):
        yield from _density(module.distributions, P, name, X, Y)
    for name in ("HalfNormal", "Exponential", "Chi2", "Chi", "Poisson"):
        yield from _density(module.distributions, X, name, Y)
    yield from _density(module.distributions, X, "StudentT", X + 1, Y, P)
    yield from _density(module.distributions, X + 1, "HalfStudentT", X + 1, Y, P)
    yield from _density(module.distributions, X, "VonMises", Y, P)
    yield from _density(module.distributions, X, "TruncatedNormal", Y, P, -Y, X + 1)
    yield from _density(module.distributions, X, "GeneralizedNormal", Y, P, X)
    for name in ("Gamma", "Beta", "Normal", "StudentT", "VonMises"):
        made = getattr(module.distributions, name)
        given = (X + 1, Y, P) if name == "StudentT" else (X, Y)
        yield Call(
            f"{name} sampler", lambda *p, made=made: made(*p).sample(seed=jax.random.key(0)), given
        )
    for name in ("Softplus", "Sigmoid", "Tanh", "Softsign", "NormalCDF", "Expm1", "GumbelCDF"):
        bijector = getattr(module.bijectors, name)()
        yield Call(f"{name} forward", bijector.forward, (X,))
        yield Call(f"{name} inverse", bijector.inverse, (P,))


def _diffrax() -> Iterator[Call]:
    module: Any = importlib.import_module("diffrax")

    def solve(adjoint: Any) -> Callable[..., Any]:
        term = module.ODETerm(lambda t, y, k: -k * y + jnp.sin(t))
        steps = {"t0": 0.0, "t1": 1.0, "dt0": 0.25, "max_steps": 16}
        return lambda y, k: (
            module.diffeqsolve(term, module.Heun(), y0=y, args=k, adjoint=adjoint, **steps).ys
        )

    for name in ("RecursiveCheckpointAdjoint", "DirectAdjoint"):
        yield Call(name, solve(getattr(module, name)()), (X[:2], Y[:2]))
    times = np.linspace(0, 1, 4).astype(np.float32)
    yield Call(
        "LinearInterpolation",
        lambda ys, t: module.LinearInterpolation(times, ys).evaluate(t),
        (X, np.float32(0.4)),
    )


def _haiku() -> Iterator[Call]:
    module: Any = importlib.import_module("haiku")

    def layer(name: str, make: Callable[[], Any], *inputs: Any) -> Call:
        made = module.transform(lambda *xs: make()(*xs))
        start = made.init(jax.random.key(0), *inputs)
        return Call(name, lambda p, *xs: made.apply(p, jax.random.key(1), *xs), (start, *inputs))

    yield layer("LayerNorm", lambda: module.LayerNorm(-1, True, True), ROWS)
    yield layer("RMSNorm", lambda: module.RMSNorm(-1), ROWS)
    yield layer("GroupNorm", lambda: module.GroupNorm(1), ROWS)
    yield layer("MLP", lambda: module.nets.MLP([4, 3]), ROWS)
    yield layer("Conv1D", lambda: module.Conv1D(2, 2), ROWS[..., None])
    yield layer("attention", lambda: module.MultiHeadAttention(1, 3, 1.0), ROWS, ROWS, ROWS)
    yield layer("LSTM", lambda: _unrolled(module.LSTM(3)), ROWS)
    yield layer("GRU", lambda: _unrolled(module.GRU(3)), ROWS)


def _unrolled(core: Any) -> Callable[[Any], Any]:
    return lambda x: core(x, core.initial_state(len(x)))[0]


def _jaxlie() -> Iterator[Call]:
    module: Any = importlib.import_module("jaxlie")
    for name, size in (("SO2", 1), ("SO3", 3), ("SE2", 3), ("SE3", 6)):
        group = getattr(module, name)
        tangent = np.linspace(0.2, 0.9, size).astype(np.float32)
        for at, value in (("", tangent), (" at 0", 0 * tangent)):
            yield Call(f"{name}.exp{at}", lambda t, g=group: g.exp(t).as_matrix(), (value,))
            yield Call(f"{name}.log{at}", lambda t, g=group: g.exp(t).log(), (value,))
    yield Call("SO3.from_rpy", lambda t: module.SO3.from_rpy_radians(*t).wxyz, (X[:3],))
    yield Call(
        "rplus",
        lambda t: module.manifold.rplus(module.SE3.identity(), t).as_matrix(),
        (np.r_[X, Y[:2]],),
    )


def _interpax() -> Iterator[Call]:
    module: Any = importlib.import_module("interpax")
    knots = np.linspace(0, 1, 6).astype(np.float32)
    values = np.sin(3 * knots).astype(np.float32)
    for method in [
        "linear",
        "cubic",
        "cubic2",
        "cardinal",
        "catmull-rom",
        "akima",
        "monotonic",
        "monotonic-0",
    ]:
        yield Call(
            f"interp1d {method}",
            lambda x, f, m=method: module.interp1d(x, jnp.asarray(knots), f, method=m),
            (P[:3], values),
        )
    table = np.outer(values, np.cos(knots)).astype(np.float32)
    for method in ("linear", "cubic"):
        yield Call(
            f"interp2d {method}",
            lambda x, y, f, m=method: module.interp2d(
                x, y, jnp.asarray(knots), jnp.asarray(knots), f, method=m
            ),
            (P[:2], Y[:2], table),
        )


def _tinygp() -> Iterator[Call]:
    module: Any = importlib.import_module("tinygp")
    for name in ("ExpSquared", "Matern32", "Matern52", "Exp", "RationalQuadratic", "Cosine"):
        options = {"alpha": 1.5} if name == "RationalQuadratic" else {}
        made = getattr(module.kernels, name)
        yield Call(
            name,
            lambda scale, y, made=made, options=options: module.GaussianProcess(
                made(scale=scale, **options), jnp.asarray(X), diag=0.1
            ).log_probability(y),
            (np.float32(0.8), Y),
        )
    quasi = module.kernels.quasisep
    for name in ("Matern32", "Exp"):
        made = getattr(quasi, name)
        yield Call(
            f"quasisep {name}",
            lambda scale, y, made=made: module.GaussianProcess(
                made(scale=scale), jnp.sort(jnp.asarray(X)), diag=0.1
            ).log_probability(y),
            (np.float32(0.8), Y),
        )


def _blackjax() -> Iterator[Call]:
    module: Any = importlib.import_module("blackjax")
    density = lambda x: -jnp.sum(x**2 + jnp.logaddexp(x, 0.3))  # noqa: E731
    for name in ("hmc", "mala", "nuts"):
        options = {"hmc": (0.1, jnp.ones(4), 3), "mala": (0.1,), "nuts": (0.1, jnp.ones(4))}[name]
        sampler = getattr(module, name)(density, *options)
        if name != "nuts":
            yield Call(
                f"{name} step",
                lambda x, s=sampler: s.step(jax.random.key(0), s.init(x))[0].position,
                (X,),
            )
        yield Call(f"{name} init", lambda x, s=sampler: s.init(x).logdensity, (X,))
    yield Call("sghmc density", lambda x: jax.grad(density)(x), (X,))


def _e3nn() -> Iterator[Call]:
    module: Any = importlib.import_module("e3nn_jax")
    vector = np.array([[0.3, -0.5, 0.8], [1.0, 0.2, -0.4]], np.float32)
    for degree in (1, 2, 3):
        for normalised in (True, False):
            yield Call(
                f"spherical_harmonics {degree} {normalised}",
                lambda x, d=degree, n=normalised: (
                    module.spherical_harmonics(d, module.IrrepsArray("1o", x), n).array
                ),
                (vector,),
            )
    yield from _named(module, "soft_envelope sus", P)
    yield Call("bessel", lambda x: module.bessel(x, 3, 2.0), (P,))
    arrays = module.IrrepsArray
    yield Call("norm", lambda x: module.norm(arrays("1o", x)).array, (vector,))
    yield Call("norm at 0", lambda x: module.norm(arrays("1o", x)).array, (0 * vector,))
    yield Call(
        "tensor_product",
        lambda x, y: module.tensor_product(arrays("1o", x), arrays("1o", y)).array,
        (vector, vector[::-1].copy()),
    )
    yield Call("gate", lambda x: module.gate(arrays("1x0e + 1x0e + 1x1o", x)).array,
               (np.c_[X, Y, X, Y, X].astype(np.float32),))  # fmt: skip
    yield Call("quaternion", lambda q: module.quaternion_to_matrix(q), (X,))
    yield Call("angles", lambda a, b, c: module.angles_to_matrix(a, b, c), (X, Y, P))


def _dynamax() -> Iterator[Call]:
    module: Any = importlib.import_module("dynamax.linear_gaussian_ssm")
    hidden: Any = importlib.import_module("dynamax.hidden_markov_model")
    start, change = np.array([0.4, 0.6], np.float32), np.array([[0.8, 0.2], [0.3, 0.7]], np.float32)
    seen = -np.abs(np.linspace(-1, 2, 8, dtype=np.float32)).reshape(4, 2)
    for name in ("hmm_filter", "hmm_smoother"):
        run = getattr(hidden, name)
        yield Call(
            name, lambda i, a, s, run=run: run(i, a, s).marginal_loglik, (start, change, seen)
        )
    filtered = module.lgssm_filter
    made = module.LinearGaussianSSM(2, 1)
    parameters, _ = made.initialize(jax.random.key(0))
    yield Call("lgssm_filter", lambda y: filtered(parameters, y).marginal_loglik, (X[:, None],))


def _s2fft() -> Iterator[Call]:
    module: Any = importlib.import_module("s2fft")
    real = np.linspace(-1, 1, 4 * 7, dtype=np.float64).reshape(4, 7) * (1 + 0.5j)
    yield Call("forward_jax", lambda f: module.forward_jax(f, 4), (real,))
    flm = np.asarray(module.forward(real, 4))
    yield Call("inverse_jax", lambda f: module.inverse_jax(f, 4), (flm,))


def _mjx() -> Iterator[Call]:
    mujoco: Any = importlib.import_module("mujoco")
    module: Any = importlib.import_module("mujoco.mjx")
    maths: Any = importlib.import_module("mujoco.mjx._src.math")
    yield Call("norm", maths.norm, (X,))
    yield Call("norm at 0", maths.norm, (0 * X,))
    yield Call("normalize", maths.normalize, (X,))
    yield Call("normalize at 0", maths.normalize, (0 * X,))
    yield from _named(maths, "quat_to_mat quat_inv", X)
    yield from _named(maths, "quat_mul quat_sub", X, Y)
    yield Call("axis_angle_to_quat", maths.axis_angle_to_quat, (X[:3], np.float32(0.4)))
    text = (
        "<mujoco><worldbody><body><joint type='hinge' axis='0 1 0'/>"
        "<geom size='.1' mass='1' pos='0 0 .4'/></body></worldbody></mujoco>"
    )
    model = module.put_model(mujoco.MjModel.from_xml_string(text))
    start = module.make_data(model)
    yield Call(
        "step",
        lambda q, v: module.step(model, start.replace(qpos=q, qvel=v)).qpos,
        (np.array([0.3], np.float32), np.array([0.1], np.float32)),
    )


LIBRARIES: dict[str, Callable[[], Iterator[Call]]] = {
    "jax": _jax,
    "jax solvers": _jax_solvers,
    "pallas": _pallas,
    "optax": _optax,
    "flax": _flax,
    "haiku": _haiku,
    "equinox": _equinox,
    "lineax": _lineax,
    "optimistix": _optimistix,
    "diffrax": _diffrax,
    "jaxopt": _jaxopt,
    "distrax": _distrax,
    "numpyro": _numpyro,
    "tfp": _tfp,
    "ott": _ott,
    "jaxlie": _jaxlie,
    "interpax": _interpax,
    "tinygp": _tinygp,
    "blackjax": _blackjax,
    "e3nn": _e3nn,
    "dynamax": _dynamax,
    "s2fft": _s2fft,
    "mjx": _mjx,
}


def main(chosen: list[str]) -> None:
    """Print a line for each call that meets a rule, then the counts of each library."""
    warnings.filterwarnings("ignore")
    counted: dict[str, Counter[str]] = {}
    for library, calls in LIBRARIES.items():
        if chosen and library not in chosen:
            continue
        try:
            found = list(calls())
        except Exception as error:  # it is not installed, or another version of it
            print(f"{library}: left out ({type(error).__name__}: {str(error)[:60]})")
            continue
        counts = counted.setdefault(library, Counter())
        for call in found:
            clock = time.process_time()
            status, told = _audited(call)
            counts[status] += 1
            if status != "no rule":
                took = time.process_time() - clock
                print(f"{library:<12}{call.name:<44}{status:<12}{took:5.1f} s  {told}", flush=True)
        print(f"{library:<12}{counts.total()} calls: {dict(counts)}", flush=True)
    total: Counter[str] = sum(counted.values(), Counter())
    print(f"{len(counted)} libraries, {total.total()} calls: {dict(total)}")


def _audited(call: Call) -> tuple[str, str]:
    inputs = jax.tree.map(_on_the_device, call.inputs)
    try:
        report = gradlab.audit(call.function, *inputs)
    except gradlab.GradlabError as error:
        return "refused", str(error)[:120]
    except Exception as error:  # a crash of gradlab's own is what this script looks for
        return "CRASH", f"{type(error).__name__}: {str(error)[:120]}"
    judged = [rule for rule in report.rules if rule.calls]
    if not judged:
        return "no rule", ""
    worst = [rule for rule in judged if rule.status not in ("right", "right, loses digits")]
    if not worst:
        return "right", ", ".join(dict.fromkeys(rule.name for rule in judged))
    said = worst[0].report
    laws = "; ".join(law.reason for law in said.laws if law.status in ("failed", "inconclusive"))
    return worst[0].status, f"{worst[0].name} at {worst[0].defined}: {said.diagnosis or laws}"[:200]


def _on_the_device(value: Any) -> Any:
    """Return what a caller of JAX has: a NumPy array that JAX keeps as it is, is JAX's."""
    kept = isinstance(value, np.ndarray) and value.dtype in (np.float32, np.int32)
    return jnp.asarray(value) if kept else value


if __name__ == "__main__":
    main(sys.argv[1:])
