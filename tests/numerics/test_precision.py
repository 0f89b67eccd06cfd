"""Precision against closed forms: digits, bias, underflow with its remedy, overflow."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import InputError, InputTypeError
from gradlab.numerics import precision

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
    assert {"float8_e4m3fn", "float8_e5m2"} < set(found)
    assert 0.5 < found["float8_e5m2"].digits < found["float8_e4m3fn"].digits < 2
    assert report.ok
    assert "float8_e5m2" not in report.judged
    assert all(m.deterministic for m in report.measurements)


def test_what_does_not_run_in_a_dtype_is_noted():
    report = precision(lambda x: jnp.linalg.inv(x), np.eye(3) + 0.1)
    assert report.ok
    assert "float8_e5m2" not in by_dtype(report)
    assert any(re.match("float8_e5m2.*: not supported here: ", note) for note in report.notes)
    asked = precision(lambda x: jnp.linalg.inv(x), np.eye(3), dtypes=["float32", "float8_e5m2"])
    assert not asked.ok
    with pytest.raises(InputError, match=r"none of the dtypes; float8_e5m2.*: not"):
        precision(lambda x: jnp.linalg.inv(x), np.eye(3), dtypes=["float8_e5m2"])


def test_a_dtype_without_infinity_has_no_digits_of_what_overflows():
    """Not softmax, which JAX 0.10.2 compiles to a program that changes from run to run there."""

    def overflows(x):
        largest = jnp.asarray(448.0, x.dtype)
        return x * (x * largest * largest)

    report = precision(overflows, X[:8], dtypes=["float8_e4m3fn"], devices=["cpu"])
    (m,) = report.measurements
    assert m.nan == 8
    assert np.isnan(m.digits)
    assert not report.ok
    assert "no entry is finite" in report.render("svg")
    assert report.to_dict()["measurements"][0]["digits"] == "nan"
    assert any("use a wider range" in line for line in report.advice)


def test_bias_is_told_with_a_remedy_that_was_tried():
    def long_sum(x):  # float16 keeps no more of a long sum of like numbers than its first part
        return jax.lax.scan(lambda c, v: (c + v * v, None), jnp.zeros((), x.dtype), x)[0] * x

    report = precision(long_sum, np.full(3000, 0.7), dtypes=["bfloat16"], devices=["cpu"])
    (m,) = report.measurements
    assert m.bias < -0.1
    assert m.scatter > 0
    (line,) = [line for line in report.advice if "too small by" in line]
    assert "compute in float32 and round at the end (tried: 0." in line


def test_underflow_is_counted_and_the_advice_was_tried():
    def small(x):
        return jnp.sum(x * x) * jnp.asarray(1e-6, x.dtype)

    report = precision(small, X, dtypes=["float16"], devices=["cpu"])
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
    assert report.to_dict()["schema"] == "gradlab.precision/2"


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
    from gradlab.numerics.measure import Subject

    runner = Subject.runner

    def compiled_only(self, device, matmul, *, eager=False):
        if eager:
            raise NotImplementedError("only compiled")
        return runner(self, device, matmul)

    monkeypatch.setattr(Subject, "runner", compiled_only)
    report = precision(jnp.tanh, X[:4], dtypes=["float32"])
    assert report.measurements[0].eager_agrees is None
    assert "jit only" in str(report)
