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


LIBRARIES: dict[str, Callable[[], Iterator[Call]]] = {
    "jax": _jax,
    "optax": _optax,
    "flax": _flax,
    "equinox": _equinox,
    "lineax": _lineax,
    "optimistix": _optimistix,
    "jaxopt": _jaxopt,
    "distrax": _distrax,
    "numpyro": _numpyro,
    "ott": _ott,
}


def main(chosen: list[str]) -> None:
    """Print a line for each call that meets a rule, and the counts."""
    warnings.filterwarnings("ignore")
    counts: Counter[str] = Counter()
    for library, calls in LIBRARIES.items():
        if chosen and library not in chosen:
            continue
        try:
            found = list(calls())
        except Exception as error:  # it is not installed, or another version of it
            print(f"{library}: left out ({type(error).__name__}: {str(error)[:60]})")
            continue
        for call in found:
            clock = time.process_time()
            status, told = _audited(call)
            counts[status] += 1
            if status != "no rule":
                took = time.process_time() - clock
                print(f"{library:<11}{call.name:<44}{status:<12}{took:5.1f} s  {told}", flush=True)
    print(dict(counts))


def _audited(call: Call) -> tuple[str, str]:
    try:
        report = gradlab.audit(call.function, *call.inputs)
    except gradlab.InputError as error:
        return "refused", str(error)[:120]
    except Exception as error:  # a crash of gradlab's own is what this script looks for
        return "CRASH", f"{type(error).__name__}: {str(error)[:120]}"
    judged = [rule for rule in report.rules if rule.calls]
    if not judged:
        return "no rule", ""
    worst = [rule for rule in judged if rule.status not in ("right", "right, loses digits")]
    if not worst:
        return "right", ", ".join(dict.fromkeys(rule.name for rule in judged))
    told = worst[0].report.diagnosis or "; ".join(law.reason for law in worst[0].report.failed)
    return worst[0].status, f"{worst[0].name} at {worst[0].defined}: {told[:140]}"


if __name__ == "__main__":
    main(sys.argv[1:])
