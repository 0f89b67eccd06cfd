"""Products on devices that keep fewer digits of float32 factors: measured, and allowed for."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs.kernels import KERNELS

from gradlab.references import Evaluation, bounds, unit_roundoff
from gradlab.references.bounds import cut_to, product_digits
from gradlab.tracing import trace

CPU = jax.devices("cpu")[0]
RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal((16, 16)).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize(
    ("kept", "name"),
    [(23, "float32"), (17, "tensorfloat32"), (10, "tensorfloat32"), (7, "bfloat16")],
)
def test_digits_are_those_that_survive(kept, name, monkeypatch):
    def narrow(a, b, **_):
        return jax.lax.reduce_precision(a, 8, kept) @ jax.lax.reduce_precision(b, 8, kept)

    monkeypatch.setattr(lax, "dot", narrow)
    assert product_digits.__wrapped__(CPU) == name


def test_products_in_three_parts_keep_the_digits_of_one_and_not_of_all(monkeypatch):
    """What JAX calls BF16_BF16_F32_X3, and on a GPU errs by 75 units."""

    def parts(a, b, **_):
        high = [jax.lax.reduce_precision(x, 8, 7) for x in (a, b)]
        low = [jax.lax.reduce_precision(x - h, 8, 7) for x, h in zip((a, b), high)]
        return high[0] @ high[1] + (high[0] @ low[1] + low[0] @ high[1])

    monkeypatch.setattr(lax, "dot", parts)
    assert product_digits.__wrapped__(CPU) == "tensorfloat32"


def equation_of(function, *inputs):
    return trace(function, *inputs).jaxpr.jaxpr.eqns[-1]


@pytest.fixture
def coarse(monkeypatch):
    def digits(device, precision=None):
        asked = precision in (None, lax.Precision.DEFAULT)
        return "tensorfloat32" if asked else "float32"

    monkeypatch.setattr(bounds, "product_digits", digits)


def convolved(a, b):
    return lax.conv(a[None, None], b[None, None], (1, 1), "SAME")


@pytest.mark.usefixtures("coarse")
def test_only_products_of_float32_that_ask_for_no_more_are_cut():
    assert cut_to(equation_of(jnp.matmul, A, B), CPU) == "tensorfloat32"
    assert cut_to(equation_of(convolved, A, B), CPU) == "tensorfloat32"
    exact = equation_of(lambda a, b: jnp.matmul(a, b, precision="highest"), A, B)
    assert cut_to(exact, CPU) is None
    assert cut_to(equation_of(jnp.matmul, A.astype(float), B.astype(float)), CPU) is None
    half = A.astype(jnp.bfloat16), B.astype(jnp.bfloat16)
    assert cut_to(equation_of(jnp.matmul, *half), CPU) is None
    assert cut_to(equation_of(jnp.add, A, B), CPU) is None
    assert cut_to(equation_of(jnp.matmul, A, B), None) is None


@pytest.mark.usefixtures("coarse")
def test_a_kernel_is_cut_as_the_products_inside_it():
    kernel = KERNELS["matmul"]
    equation = equation_of(kernel.function, *kernel.inputs("float32"))
    assert equation.primitive.name == "pallas_call"
    assert cut_to(equation, CPU) == "tensorfloat32"


@pytest.mark.usefixtures("coarse")
def test_the_scatter_is_that_of_the_digits_which_are_kept():
    a, b = A[:, :9], B[:9]
    program = trace(lambda a, b: jnp.matmul(a, b), a, b)
    formula, accuracy = Evaluation(reference=program).both({"a": a, "b": b})
    size = np.abs(a) @ np.abs(b) / np.sqrt(9)
    told = accuracy["reference"][0].scatter / size
    assert 0.2 < np.median(told) / unit_roundoff("tensorfloat32") < 5.0
    assert np.median(formula["reference"][0].scatter / size) < 1e-14


TENSOR_CORES = '''
import jax, numpy as np
from jax import lax
from jax.interpreters import mlir

def coarse(primitive):
    """Let the CPU compute a product as tensor cores do: cut each factor to ten bits."""
    known = mlir._platform_specific_lowerings["cpu"].get(primitive) or mlir._lowerings[primitive]
    plain = getattr(known, "rule", known)

    def cut(a):  # truncated, not rounded
        bits = lax.bitcast_convert_type(a, np.uint32) & np.uint32(0xFFFFE000)
        return lax.bitcast_convert_type(bits, np.float32)

    def lower(ctx, a, b, **params):
        asked = params["precision"]
        asked = asked[0] if isinstance(asked, tuple) else asked
        exact = {**params, "precision": (lax.Precision.HIGHEST,) * 2}
        if asked not in (None, lax.Precision.DEFAULT) or ctx.avals_in[0].dtype != np.float32:
            return plain(ctx, a, b, **params)
        function = lambda a, b: primitive.bind(cut(a), cut(b), **exact)
        return mlir.lower_fun(function, multiple_results=False)(ctx, a, b)

    mlir.register_lowering(primitive, lower, platform="cpu")

coarse(lax.dot_general_p)
coarse(lax.conv_general_dilated_p)
'''

CHECKS = (
    TENSOR_CORES
    + """
import jax.numpy as jnp, gradlab
from gradlab.numerics import doctor
from gradlab.numerics.measure import prepare

rng = np.random.default_rng(0)
def draw(*shape): return jnp.asarray(rng.standard_normal(shape), jnp.float32)
def layer(factor):
    f = jax.custom_vjp(lambda x, w: x @ w)
    f.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, u: (factor * u @ r[1].T, r[0].T @ u))
    return f
def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / 4) @ v

assert [d.product for d in doctor().devices] == ["tensorfloat32"]
x, w = draw(48, 32), draw(32, 24)
assert gradlab.check(layer(1.0), x, w).ok
assert gradlab.check(layer(1.0), abs(x), abs(w)).ok, "all errors to one side"
wrong = gradlab.check(layer(1.0001), x, w)
assert wrong.failed and "1.0001" in wrong.diagnosis, wrong
assert gradlab.check(lambda x, w: jnp.tanh(x @ w), x, w, backward=lambda u, x, w: (
    (u * (1 - jnp.tanh(x @ w) ** 2)) @ w.T, x.T @ (u * (1 - jnp.tanh(x @ w) ** 2)))).ok
def untraceable(u, x, w):
    if float(u[0, 0]) > 1e9:
        raise ValueError
    return u @ w.T, x.T @ u
assert gradlab.check(lambda x, w: x @ w, x, w, backward=untraceable).ok
assert gradlab.check(attention, draw(16, 16), draw(16, 16), draw(16, 16)).ok
measured = prepare(attention, [draw(16, 16) for _ in range(3)], np.float32, seed=0)
def off(matmul):
    gradients = measured.runner(jax.devices()[0], matmul)()
    pairs = zip(gradients, measured.exact)
    return max(abs(g - e.value).max() / abs(e.value).max() for g, e in pairs)
assert off("highest") < 1e-5 < 1e-4 < off("default"), "of the forward's products too"
image, taps = draw(1, 2, 9, 9), draw(3, 2, 3, 3)
assert gradlab.check(lambda x, k: lax.conv(x, k, (1, 1), "SAME"), image, taps).ok
"""
)


@pytest.mark.slow
def test_checks_where_products_are_coarse():
    """On a simulated device: correct gradients pass there, and small mistakes still fail."""
    done = subprocess.run([sys.executable, "-c", CHECKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
