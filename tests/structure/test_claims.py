"""`assert_structure`: what passes, what fails, and what the failure says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.errors import InputError, StructureMismatch
from gradlab.structure import assert_structure

X = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)


def batch_norm(x):
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)


@pytest.mark.parametrize(
    ("function", "claim"),
    [
        (jnp.tanh, {"elementwise": True}),
        (jnp.tanh, {"structure": "banded", "independent": 1, "causal": 0}),
        (jnp.round, {"structure": "diagonal"}),
        (jax.nn.softmax, {"independent": 0, "structure": "block-diagonal"}),
        (lambda x: x.T * 2, {"independent": (0, 1)}),
        (lambda x: jnp.cumsum(x, 1), {"causal": 1, "independent": 0}),
        (lambda x: jnp.cumsum(x, 0), {"structure": "lower-triangular"}),
    ],
)
def test_what_holds_passes(function, claim):
    assert assert_structure(function, X, **claim).evidence == "proved"


@pytest.mark.parametrize(
    ("function", "claim"),
    [
        (jax.nn.softmax, {"elementwise": True}),
        (lambda x: x.sum(0), {"elementwise": True}),
        (batch_norm, {"independent": 0}),
        (lambda x: jnp.cumsum(x[::-1], 0)[::-1], {"causal": 0}),
        (jax.nn.softmax, {"structure": "diagonal"}),
        (jnp.tanh, {"structure": "zero"}),
    ],
)
def test_what_does_not_hold_fails_with_a_witness(function, claim):
    with pytest.raises(StructureMismatch, match="witness   d out") as caught:
        assert_structure(function, X, **claim)
    assert not caught.value.report.patterns["output", caught.value.report.inputs[0].path].is_zero


def test_the_failure_names_the_line_and_a_true_derivative():
    with pytest.raises(StructureMismatch) as caught:
        assert_structure(batch_norm, X, independent=0)
    text = str(caught.value)
    assert "test_claims.py:" in text
    assert "^^ averages over axis 0" in text
    line = next(line for line in text.splitlines() if line.startswith("  witness"))
    output, source = (
        tuple(map(int, part[part.index("[") + 1 : part.index("]")].split(",")))
        for part in line.split("/")
    )
    value = float(line.split("=")[1].partition(";")[0])
    assert output[0] != source[0]
    assert np.isclose(value, jax.jacrev(batch_norm)(X)[(*output, *source)], rtol=1e-2)


def test_what_no_input_refutes_is_not_proved_rather_than_wrong():
    def sorted_input(x):
        return jnp.sort(x, axis=0)

    ordered = np.sort(X, axis=0)
    with pytest.raises(StructureMismatch, match="unproved"):
        assert_structure(sorted_input, ordered, independent=0)


@pytest.mark.parametrize(
    ("claim", "match"),
    [({}, "nothing is claimed"), ({"structure": "round"}, "round"), ({"causal": 3}, "axis 3")],
)
def test_a_wrong_claim_is_refused(claim, match):
    with pytest.raises(InputError, match=match):
        assert_structure(jnp.tanh, X, **claim)


def test_rounding_is_no_witness():
    kernel = np.exp(-np.arange(16) / 5.0).astype(np.float32)

    def convolve(x, size):
        product = jnp.fft.rfft(x, size) * jnp.fft.rfft(kernel, size)
        return jnp.fft.irfft(product, size)[:16]

    x = np.random.default_rng(0).normal(size=16).astype(np.float32)
    with pytest.raises(StructureMismatch, match="which rounding explains") as caught:
        assert_structure(lambda x: convolve(x, 32), x, causal=0)
    assert "witness" not in str(caught.value)
    with pytest.raises(StructureMismatch, match="witness"):
        assert_structure(lambda x: convolve(x, 16), x, causal=0)
    with pytest.raises(StructureMismatch, match="nothing, because"):
        assert_structure(
            lambda x: convolve(x, 32), jax.ShapeDtypeStruct((16,), np.float32), causal=0
        )
