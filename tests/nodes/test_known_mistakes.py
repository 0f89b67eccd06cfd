"""Where hand-written backwards are known to go wrong, against numbers worked out by hand."""

import math

import ml_dtypes
import numpy as np
import pytest

from gradlab import nodes


def gradients(node, *inputs, upstream=None):
    inputs = [np.asarray(x) for x in inputs]
    y, residuals = node.forward(*inputs)
    upstream = np.ones_like(y) if upstream is None else np.asarray(upstream, y.dtype)
    return node.backward(upstream, residuals)


def test_softplus_has_slope_one_half_at_zero():
    assert gradients(nodes.Softplus(), [0.0])[0] == 0.5
    assert gradients(nodes.LogSigmoid(), [0.0])[0] == 0.5


def test_a_product_with_zeros_does_not_divide_by_them():
    rows = [[2.0, 0.0, 5.0], [0.0, 0.0, 5.0]]
    (dx,) = gradients(nodes.Prod(axis=1), rows)
    np.testing.assert_array_equal(dx, [[0.0, 10.0, 0.0], [0.0, 0.0, 0.0]])
    (dx,) = gradients(nodes.Cumprod(), [2.0, 0.0, 5.0])
    np.testing.assert_array_equal(dx, [1.0, 2.0 + 10.0, 0.0])


def test_a_batch_norm_sees_more_than_an_upstream_of_ones():
    rng = np.random.default_rng(0)
    x, scale, shift = rng.standard_normal((6, 3)), np.array([1.0, 2.0, -1.0]), np.zeros(3)
    ones, *_ = gradients(nodes.BatchNorm(), x, scale, shift)
    np.testing.assert_allclose(ones, 0.0, atol=1e-14)  # a shift of a whole feature does nothing
    upstream = rng.standard_normal((6, 3))
    by_formula = gradients(nodes.BatchNorm(), x, scale, shift, upstream=upstream)
    by_steps = gradients(nodes.BatchNormStepwise(), x, scale, shift, upstream=upstream)
    for one, other in zip(by_formula, by_steps):
        np.testing.assert_allclose(one, other, atol=1e-13)
    np.testing.assert_allclose(by_formula[0].sum(axis=0), 0.0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=str)
def test_half_precision_does_not_overflow_in_squares(dtype):
    x = np.array([[600.0, -600.0, 300.0, -300.0]], dtype)  # 600^2 is beyond float16
    y = nodes.layer_norm(x, np.ones(4, dtype), np.zeros(4, dtype))
    root = math.sqrt(2.5)
    np.testing.assert_allclose(
        y.astype(float), [[2 / root, -2 / root, 1 / root, -1 / root]], rtol=0.01
    )
    assert float(nodes.l2_norm(x)) == pytest.approx(math.sqrt(900000), rel=0.01)
    assert float(nodes.std(x)) == pytest.approx(math.sqrt(225000), rel=0.01)
    rows = np.full((2000, 1), 100.0, dtype)
    assert float(nodes.l1_loss(rows, 0 * rows)) == pytest.approx(100.0, rel=0.01)


def test_half_precision_keeps_a_tiny_epsilon():
    x = np.full((1, 4), 3.0, np.float16)
    node = nodes.LayerNorm(eps=1e-8)
    dx, _, _ = gradients(node, x, np.ones(4, np.float16), np.zeros(4, np.float16))
    assert np.isfinite(dx).all()


def test_what_a_scatter_overwrites_gets_no_gradient():
    dx, _, du = gradients(nodes.Scatter(), [1.0, 2.0, 3.0], [1, 1], [8.0, 9.0], upstream=[1, 5, 7])
    np.testing.assert_array_equal(dx, [1.0, 0.0, 7.0])
    np.testing.assert_array_equal(du, [0.0, 5.0])  # the first update was overwritten by the second


def test_the_padding_of_an_embedding_is_not_trained():
    words = np.tile([0, 2, 0, 1], 400)
    dtable, _ = gradients(nodes.Embedding(padding=0), np.ones((3, 2)), words)
    np.testing.assert_array_equal(dtable, [[0.0, 0.0], [400.0, 400.0], [400.0, 400.0]])


def test_segments_count_more_rows_than_half_precision_can():
    x = np.ones((5000, 1), np.float16)
    dx, _ = gradients(nodes.SegmentMean(segments=1), x, np.zeros(5000, int))
    np.testing.assert_allclose(dx.astype(float), 1 / 5000, rtol=0.01)


def test_a_loss_of_three_axes_keeps_its_upstream_in_place():
    rng = np.random.default_rng(0)
    x, upstream = 3 * rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    dx, dt = gradients(nodes.HuberLoss("none"), x, np.zeros_like(x), upstream=upstream)
    np.testing.assert_array_equal(dx, upstream * np.clip(x, -1, 1))
    np.testing.assert_array_equal(dt, -dx)


def test_the_mean_of_a_weighted_loss_divides_by_the_weights():
    x, labels = np.zeros((3, 2)), np.array([0, 1, 1])
    loss = nodes.cross_entropy(x, labels, weights=(3.0, 1.0))
    assert loss == pytest.approx(math.log(2))
    dx, _ = gradients(nodes.CrossEntropy(weights=(3.0, 1.0)), x, labels)
    np.testing.assert_allclose(dx, [[-0.3, 0.3], [0.1, -0.1], [0.1, -0.1]])
    assert nodes.cross_entropy(x, np.array([7, 7, 7]), ignore=7) == 0.0


def test_losses_of_logits_stay_finite_and_exact_far_out():
    x, target = np.array([-1e4, 1e4, 40.0]), np.array([1.0, 0.0, 1.0])
    dx, _ = gradients(nodes.SigmoidCrossEntropy("sum"), x, target)
    np.testing.assert_allclose(dx, [-1.0, 1.0, -math.exp(-40.0)], rtol=1e-12)


def test_a_dropout_keeps_the_mean_and_drops_the_gradient():
    dx, _ = gradients(nodes.Dropout(rate=0.75), [1.0, 2.0], [True, False], upstream=[3.0, 5.0])
    np.testing.assert_array_equal(dx, [12.0, 0.0])


def test_a_gradient_reversal_reverses():
    y, residuals = nodes.GradientReversal(strength=0.5).forward(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(y, [1.0, 2.0])
    (dx,) = nodes.GradientReversal(strength=0.5).backward(np.array([4.0, -2.0]), residuals)
    np.testing.assert_array_equal(dx, [-2.0, 1.0])


def test_a_sparsemax_leaves_a_support():
    np.testing.assert_allclose(nodes.sparsemax(np.array([1.0, 0.5, -9.0])), [0.75, 0.25, 0.0])
    (dx,) = gradients(nodes.Sparsemax(), [1.0, 0.5, -9.0], upstream=[1.0, 0.0, 5.0])
    np.testing.assert_allclose(dx, [0.5, -0.5, 0.0])


def test_sinc_keeps_its_digits_near_its_zeros():
    """pi x is rounded: near an integer the error of the sine's argument is all that is seen."""
    near = 2.0 ** -np.arange(4.0, 30.0, 3.0)
    for n in (1.0, -2.0, 5.0):
        x = n + near
        sign = -1.0 if n % 2 else 1.0
        expected = sign * np.sin(np.pi * near) / (np.pi * x)
        np.testing.assert_allclose(nodes.Sinc()(x), expected, rtol=1e-15)
    assert nodes.Sinc()(np.zeros(1)) == 1.0
