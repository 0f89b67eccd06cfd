"""Precision against closed forms: digits, bias, underflow with its remedy, overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import InputError, InputTypeError
from gradlab.measuring import doctor, precision

X = np.random.default_rng(0).standard_normal(200)


def by_dtype(report):
    return {m.dtype: m for m in report.measurements}


def test_digits_follow_the_dtype():
    report = precision(jnp.tanh, X)
    found = by_dtype(report)
    assert found["float64"].digits > 15
    assert 6 < found["float32"].digits < 9
    assert 1.5 < found["bfloat16"].digits < 4
    assert 2.5 < found["float16"].digits < 5
    assert report.ok
    assert all(m.deterministic for m in report.measurements)


def test_underflow_is_counted_and_the_advice_was_tried():
    def small(x):
        return jnp.sum(x * x) * jnp.asarray(1e-6, x.dtype)

    report = precision(small, X, dtypes=["float16"])
    (m,) = report.measurements
    exact = 2e-6 * np.abs(X)
    assert m.underflow > 0
    assert m.underflow <= (exact < 1e-5).sum()
    (sentence,) = [line for line in report.advice if "underflow" in line]
    assert "scale the loss by 2^" in sentence
    assert "tried" in sentence


def test_overflow_is_no_pass():
    report = precision(lambda x: jnp.exp(x) * jnp.asarray(3e4, x.dtype), X, dtypes=["float16"])
    assert report.measurements[0].overflow > 0
    assert not report.ok
    assert any("Inf or NaN" in line for line in report.advice)


def test_a_leaf_of_a_pytree_has_its_path():
    report = precision(lambda p: p["w"] * p["b"], {"w": X, "b": X}, dtypes=["float32"])
    assert {m.path for m in report.measurements} == {"p['b']", "p['w']"}


def test_the_report_reads_and_draws():
    report = precision(jax.nn.softmax, X[:8], dtypes=["float32", "bfloat16"])
    assert "bfloat16" in str(report)
    assert report.render("svg").startswith("<svg")
    assert report.to_dict()["schema"] == "gradlab.precision/1"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: precision(3.0, X), InputTypeError, "expected a function, got float"),
        (lambda: precision(jnp.tanh, X, dtypes=["int8"]), InputError, "'int8' is no floating"),
        (lambda: precision(jnp.tanh, X, dtypes=["float"]), InputError, "'float' is no floating"),
        (lambda: precision(jnp.tanh, X, devices=["abacus"]), InputError, "no 'abacus' here"),
        (lambda: precision(lambda n: n * 1.0, np.arange(3)), InputTypeError, "differentiated"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_doctor_measures_what_products_are():
    report = doctor()
    assert report.versions["jax"] == jax.__version__
    cpu = [d for d in report.devices if d.platform == "cpu"]
    assert all(d.product == "float32" for d in cpu)
    assert "float32 products" in str(report)


@pytest.mark.gpu
def test_the_gpu_agrees_within_floors():
    try:
        jax.devices("gpu")
    except RuntimeError:
        pytest.skip("JAX sees no GPU here")
    report = precision(lambda a, b: a @ b, np.eye(64) + 0.1, np.eye(64) - 0.1, devices=["gpu"])
    highest = [m for m in report.measurements if m.matmul == "highest"]
    assert all(m.floors <= 8 for m in highest)


def test_what_cannot_run_eagerly_is_not_called_the_same(monkeypatch):
    from gradlab.measuring.measure import Subject

    runner = Subject.runner

    def compiled_only(self, device, matmul, *, eager=False):
        if eager:
            raise NotImplementedError("only compiled")
        return runner(self, device, matmul)

    monkeypatch.setattr(Subject, "runner", compiled_only)
    report = precision(jnp.tanh, X[:4], dtypes=["float32"])
    assert report.measurements[0].eager_agrees is None
    assert "compiled only" in str(report)
