"""A sweep finds the numbers of a dtype at which a gradient loses digits, and no others."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.errors import InputError
from gradlab.numerics.sweep import sweep


def cancelling():
    @jax.custom_vjp
    def softplus(x):
        return jax.nn.softplus(x)

    def backward(x, upstream):
        return (upstream * (1 - 1 / (1 + jnp.exp(x))),)

    softplus.defvjp(lambda x: (jax.nn.softplus(x), x), backward)
    return softplus


def test_a_gradient_that_cancels_is_found_with_its_worst_input() -> None:
    report = sweep(cancelling(), "float16")
    assert not report.ok
    assert report.worst is not None and report.worst.digits < 0.5
    lost = [binade for binade in report.binades if binade.avoidable]
    x = np.float64(lost[0].worst[0])
    assert x < -5  # where 1 - 1 / (1 + exp(x)) has no digits left
    assert lost[0].expected == pytest.approx(1 / (1 + np.exp(-x)), rel=1e-9)


def test_every_finite_normal_and_subnormal_number_of_half_precision_is_tried() -> None:
    report = sweep(jnp.sin, "float16")
    assert report.tried == 2 * 31 * 1024
    assert sweep(jnp.tanh, "bfloat16").tried == 2 * 255 * 128


def test_autodiff_itself_loses_nothing_that_autodiff_keeps() -> None:
    for function in (jax.nn.silu, jax.nn.gelu, jnp.sinc, jax.nn.softplus):
        assert sweep(function, "float16").ok


def test_float32_takes_each_binade_and_both_signs() -> None:
    report = sweep(lambda x: x * x)
    assert report.tried == 2 * 254 * 4096
    assert report.worst is not None and report.worst.digits > 7


def test_functions_of_two_numbers_are_swept_on_a_grid() -> None:
    report = sweep(lambda x, y: x * y, "float32")
    assert report.tried == 256 * 256
    assert all(len(binade.worst) == 2 for binade in report.binades)
    assert report.ok


def test_more_digits_judge_where_float64_cancels() -> None:
    """The derivative of (exp(x) - 1) / x at small x cancels in float64; fifty digits do not."""
    pytest.importorskip("mpmath")
    report = sweep(lambda x: jnp.expm1(x) / x)
    small = [b for b in report.binades if 1e-12 < b.low < 1e-10]
    assert small and all(b.expected == pytest.approx(0.5, rel=1e-3) for b in small)


def test_what_is_expected_is_right_where_float64_and_fifty_digits_cancel() -> None:
    """The slope of log(ndtr(x)) at far negative x is -x."""
    pytest.importorskip("mpmath")
    report = sweep(jax.scipy.special.log_ndtr)
    far = [b for b in report.binades if b.worst[0] < -1e4]
    assert far and all(b.expected == pytest.approx(-b.worst[0], rel=1e-3) for b in far)
    assert all(b.lost for b in far if b.worst[0] < -1e6)


OLD = pytest.mark.skipif(version("jax") >= "0.11", reason="newer JAX mended sinc")


@pytest.mark.parametrize(
    ("function", "dtype", "low", "high"),
    [
        (jax.nn.gelu, "float16", -65504.0, -64.0),
        (jax.nn.squareplus, "float32", -1e38, -1e4),
        pytest.param(jnp.sinc, "float32", -1e-3, 1e-3, marks=OLD),
        (lambda x: jnp.log(1 + jnp.exp(x)), "float32", 64.0, 1e38),
    ],
    ids=["gelu", "squareplus", "sinc", "log(1 + exp(x))"],
)
def test_a_sweep_finds_where_public_functions_lose_their_digits(function, dtype, low, high) -> None:
    report = sweep(function, dtype)
    assert any(low <= b.worst[0] <= high and b.digits < 1 for b in report.binades)


def test_what_cannot_be_swept_says_what_to_do() -> None:
    with pytest.raises(InputError, match="float16"):
        sweep(jnp.sin, "float64")
    with pytest.raises(InputError, match="partial"):
        sweep(lambda x, y, z: x + y + z, "float16")


def test_the_report_is_drawn_as_text_picture_and_data() -> None:
    report = sweep(cancelling(), "float16")
    assert "loses digits that autodiff keeps" in str(report)
    assert report.render("svg").startswith("<svg")
    assert report.to_dict()["schema"] == "gradlab.sweep/1"
    assert isinstance(report, gradlab.SweepReport)
