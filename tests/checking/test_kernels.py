"""Checks of kernels: with plain code beside them and alone, and of what cannot be opened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs.kernels import KERNELS, causal, compiled_tanh, plain_causal

import gradlab

HALF = ("bfloat16", "float16")
KINDS = [(name, dtype) for k, name in enumerate(KERNELS) for dtype in ("float32", HALF[k % 2])]
ALWAYS = {
    ("tanh", "float32"),
    ("softmax", "float16"),
    ("matmul", "bfloat16"),
    ("running", "float32"),
}


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.parametrize(
    ("name", "dtype", "beside"),
    [
        pytest.param(
            *kind,
            beside,
            marks=() if kind in ALWAYS and beside == (kind[1] in HALF) else pytest.mark.slow,
        )
        for kind in KINDS
        for beside in (False, True)
    ],
)
def test_a_right_kernel_passes_and_a_wrong_one_fails_by_its_factor(name, dtype, beside):
    kernel = KERNELS[name]
    inputs = kernel.inputs(dtype)
    reference = kernel.plain if beside else None
    report = gradlab.check(kernel.layer(), *inputs, reference=reference)
    assert report.ok, report
    wrong = gradlab.check(kernel.layer(1.01), *inputs, reference=reference)
    assert wrong.failed and "factor 1.01" in wrong.diagnosis, wrong


def test_a_kernel_is_its_own_reference():
    kernel = KERNELS["softmax"]
    report = gradlab.check(kernel.layer(), *kernel.inputs("float32"))
    assert report.oracle == "autodiff of softmax without its rule"
    assert any("pallas_call at kernels.py" in note for note in report.notes)


def _attention(plain):
    layer = jax.custom_vjp(causal)
    layer.defvjp(lambda *qkv: (causal(*qkv), qkv), lambda qkv, u: jax.vjp(plain, *qkv)[1](u))
    return layer


@pytest.mark.slow
@pytest.mark.usefixtures("verdict_alone")
def test_attention_whose_loop_ends_where_the_past_does():
    """JAX does not differentiate such a loop backwards: the reference is made of pushforwards."""
    rng = np.random.default_rng(0)
    qkv = [jnp.asarray(rng.standard_normal((8, 2)), jnp.float32) for _ in range(3)]
    report = gradlab.check(_attention(plain_causal), *qkv)
    assert report.ok and report.oracle == "autodiff of causal without its rule"
    assert not any("loses" in law.reason for law in report.laws)

    def forgets_the_mask(q, k, v):
        return jax.nn.softmax(q @ k.T) @ v

    wrong = gradlab.check(_attention(forgets_the_mask), *qkv, branches=False, prove=False)
    assert wrong.failed


def _callback(function, like):
    """A function that JAX can only call: nothing of its rounding is seen."""

    def called(*inputs):
        shape = jax.ShapeDtypeStruct(like(*inputs), inputs[0].dtype)
        return jax.pure_callback(function, shape, *inputs, vmap_method="sequential")

    return called


def _summed(a, b):
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in range(a.shape[1]):
        total += np.outer(np.asarray(a)[:, k], np.asarray(b)[k]).astype(a.dtype)
    return total


def _product(factor):
    product = _callback(_summed, lambda a, b: (a.shape[0], b.shape[1]))
    layer = jax.custom_vjp(product)

    def backward(inputs, u):
        a, b = inputs
        return product(u, b.T) * factor, product(a.T, u)

    layer.defvjp(lambda a, b: (product(a, b), (a, b)), backward)
    return layer


@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.one_in(2)
@pytest.mark.parametrize(("terms", "seed"), [(256, 2), (64, 0)])
def test_sums_inside_what_is_only_called_may_round_as_sums_do(terms, seed):
    rng = np.random.default_rng(seed)
    a, b = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((16, terms), (terms, 16)))
    report = gradlab.check(_product(1.0), a, b, reference=jnp.matmul, seed=seed)
    assert report.ok, report
    assert not any("loses" in law.reason for law in report.laws)
    assert gradlab.check(_product(1.01), a, b, reference=jnp.matmul, seed=seed).failed


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_staircase_of_half_precision_is_no_witness(dtype):
    tanh = _callback(lambda x: np.tanh(x.astype(np.float32)).astype(x.dtype), lambda x: x.shape)
    layer = jax.custom_vjp(tanh)
    layer.defvjp(lambda x: (tanh(x), x), lambda x, u: ((u * (1 - jnp.tanh(x) ** 2)),))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8)), dtype)
    alone = gradlab.check(layer, x)
    assert not alone.failed and not alone.ok
    assert gradlab.check(layer, x, reference=jnp.tanh).ok


@pytest.fixture
def gpu():
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX sees no GPU here")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_compiled_kernel_on_the_gpu(gpu, factor):
    layer = jax.custom_vjp(compiled_tanh)

    def backward(y, upstream):
        return (factor * upstream * (1 - y**2),)

    layer.defvjp(lambda x: (compiled_tanh(x),) * 2, backward)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 128)), jnp.float32)
    with jax.default_device(gpu):
        report = gradlab.check(layer, x)
    assert report.ok == (factor == 1.0), report
    assert report.ok or "factor 1.01" in report.diagnosis


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [None, "high", "highest"])
def test_products_on_the_gpu(gpu, precision):
    def layer(factor):
        f = jax.custom_vjp(jnp.matmul)
        f.defvjp(
            lambda x, w: (x @ w, (x, w)),
            lambda inputs, u: (factor * u @ inputs[1].T, inputs[0].T @ u),
        )
        return f

    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((96, 64), (64, 48)))
    with jax.default_matmul_precision(precision), jax.default_device(gpu):
        assert gradlab.check(layer(1.0), x, w).ok
        assert gradlab.check(layer(1.0001), x, w).failed


@pytest.mark.gpu
def test_gradients_that_are_added_in_any_order_on_the_gpu(gpu):
    table = jnp.asarray(np.random.default_rng(0).standard_normal((5, 64)), jnp.float32)
    rows = jnp.asarray(np.arange(4000) % 5, jnp.int32)
    with jax.default_device(gpu):
        assert gradlab.check(lambda table: jnp.tanh(table)[rows], table).ok
