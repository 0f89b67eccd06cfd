"""What convolution, pooling, attention and einsum get wrong elsewhere, held against plain loops."""

import itertools

import numpy as np
import pytest
import scipy.fft
import scipy.linalg

from gradlab import InputError, nodes

RNG = np.random.default_rng(0)


def conv2d_by_loops(x, w, b, stride, padding, dilation, groups):
    """Return the convolution as its formula says, entry by entry."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    (n, _, *size), (outs, per_group, *window) = x.shape, w.shape
    places = [(m - d * (k - 1) - 1) // s + 1 for m, k, s, d in zip(size, window, stride, dilation)]
    y = np.zeros((n, outs, *places))
    for i, o, p, q in np.ndindex(*y.shape):
        first = o // (outs // groups) * per_group
        y[i, o, p, q] = b[o] + sum(
            w[o, c, k, m]
            * x[i, first + c, stride[0] * p + dilation[0] * k, stride[1] * q + dilation[1] * m]
            for c, k, m in np.ndindex(*w.shape[1:])
        )
    return y


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((2, 3), ((1, 2), (0, 3)), (1, 1), 1),
        ((1, 2), ((0, 0), (1, 1)), (3, 2), 2),
        ((3, 1), ((2, 0), (0, 0)), (2, 1), 4),
    ],
)
def test_convolution_steps_dilates_and_pads_each_axis_by_its_own_number(
    stride, padding, dilation, groups
):
    x = RNG.standard_normal((2, 4, 7, 6))
    w, b = RNG.standard_normal((4, 4 // groups, 2, 3)), RNG.standard_normal(4)
    node = nodes.Conv2d(stride, padding, dilation, groups)
    wanted = conv2d_by_loops(x, w, b, stride, padding, dilation, groups)
    np.testing.assert_allclose(node(x, w, b), wanted, atol=1e-12)


def test_transposed_convolution_is_the_adjoint_of_convolution():
    steps = {"stride": (2, 3), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    x, w = RNG.standard_normal((2, 4, 6, 11)), RNG.standard_normal((6, 2, 3, 2))
    y = nodes.Conv2d(**steps)(x, w, np.zeros(6))
    u = RNG.standard_normal(y.shape)
    back = nodes.ConvTranspose2d(**steps, output_padding=(1, 2))(u, w, np.zeros(4))
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(u, y), np.vdot(back, x))


def test_average_pooling_counts_the_padding_but_never_what_hangs_over():
    x = np.ones((1, 4))
    counted = nodes.AveragePool((3,), stride=2, padding=1, ceil_mode=True)(x)
    np.testing.assert_allclose(counted, [[2 / 3, 1.0, 1 / 2]])  # the last window holds 4 and 5 of 6
    real = nodes.AveragePool((3,), stride=2, padding=1, ceil_mode=True, count_padding=False)(x)
    np.testing.assert_allclose(real, np.ones((1, 3)))


def test_ceil_mode_drops_a_window_that_begins_in_the_padding():
    x = np.arange(3.0)[None]
    assert nodes.MaxPool((2,), stride=2, padding=1, ceil_mode=True)(x).shape == (1, 2)
    assert nodes.MaxPool((2,), stride=2, ceil_mode=True)(x).shape == (1, 2)
    assert nodes.MaxPool((2,), stride=2)(x).shape == (1, 1)


def test_padding_is_never_the_greatest_entry():
    x = np.full((1, 1, 2, 2), -5.0)
    y, residuals = nodes.MaxPool((3, 3), padding=1, stride=1).forward(x)
    assert (y == -5.0).all()
    (dx,) = nodes.MaxPool((3, 3), padding=1, stride=1).backward(np.ones_like(y), residuals)
    assert dx.sum() == 4.0


def test_a_query_head_reads_the_key_head_of_its_own_group():
    q, k, v = (RNG.standard_normal(shape) for shape in ((1, 6, 2, 3), (1, 2, 4, 3), (1, 2, 4, 5)))
    y = nodes.GroupedQueryAttention()(q, k, v)
    for head in range(6):
        alone = nodes.Attention()(q[0, head], k[0, head // 3], v[0, head // 3])
        np.testing.assert_allclose(y[0, head], alone)


@pytest.mark.parametrize("block", [1, 3, 64])
def test_tiled_attention_does_not_depend_on_the_tiles(block):
    q, k, v = (RNG.standard_normal((2, 7, 4)) for _ in range(3))
    scale = 30.0  # scores of hundreds: the running maximum matters
    node, plain = nodes.FlashAttention(block, scale), nodes.AttentionLogsumexp(scale)
    (o, lse), kept = node.forward(q, k, v)
    (o_plain, lse_plain), kept_plain = plain.forward(q, k, v)
    np.testing.assert_allclose(o, o_plain, atol=1e-12)
    np.testing.assert_allclose(lse, lse_plain)
    upstream = RNG.standard_normal(o.shape), RNG.standard_normal(lse.shape)
    pairs = zip(node.backward(upstream, kept), plain.backward(upstream, kept_plain))
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_causal_attention_is_lower_triangular_in_time():
    x = [RNG.standard_normal((4, 2)) for _ in range(3)]
    _, residuals = nodes.CausalAttention().forward(*x)
    of_v = nodes.CausalAttention().local_gradient(residuals)[2]
    for i, j in itertools.product(range(4), repeat=2):
        assert of_v.pattern.contains((i, 0), (j, 0)) == (j <= i)


def test_a_sequence_is_lower_triangular_in_time():
    shapes = (2, 3, 1), (2, 2), (1, 2), (2, 2), (2,)
    _, residuals = nodes.Rnn().forward(*(RNG.standard_normal(s) for s in shapes))
    pattern = nodes.Rnn().local_gradient(residuals)[0].pattern
    for (n, t), (m, s) in itertools.product(np.ndindex(2, 3), repeat=2):
        assert pattern.contains((n, t, 1), (m, s, 0)) == (n == m and s <= t)


@pytest.mark.parametrize("size", [1e-8, 1.0, 30.0, 400.0])
def test_the_matrix_exponential_scales_and_squares(size):
    x = RNG.standard_normal((3, 4, 4))
    x = size * x / np.abs(x).sum(axis=-2).max()
    ours, theirs = nodes.MatrixExponential()(x), scipy.linalg.expm(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("n", [1, 2, 3, 8, 12])
def test_the_cosine_transform_is_scipys_and_orthogonal(n):
    x = RNG.standard_normal((2, n))
    np.testing.assert_allclose(nodes.Dct()(x), scipy.fft.dct(x, norm="ortho"), atol=1e-14)
    _, residuals = nodes.Dct().forward(x[0])
    matrix = nodes.Dct().local_gradient(residuals)[0].to_dense()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-14)


def test_ctc_of_a_sequence_too_short_for_its_labels_is_infinite():
    logits = RNG.standard_normal((1, 2, 3))
    with np.errstate(all="ignore"):
        loss = nodes.Ctc()(logits, np.array([[1, 1]]), np.array([2]), np.array([2]))
    assert loss[0] == np.inf  # "1 1" needs a blank between: three steps


WRONG = [
    (lambda: nodes.Conv2d()(np.ones((1, 3, 4, 4)), np.ones((2, 4, 2, 2)), np.ones(2)), "1x3x4x4"),
    (lambda: nodes.Conv1d(stride=0)(np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones(1)), "stride"),
    (
        lambda: nodes.Conv1d(padding=(1, 2))(np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones(1)),
        "padding",
    ),
    (
        lambda: nodes.Conv1d(dilation=4)(np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones(1)),
        "larger than",
    ),
    (lambda: nodes.MaxPool((2,), padding=2)(np.ones((1, 4))), "smaller than the window"),
    (lambda: nodes.Attention()(np.ones((3, 2)), np.ones((3, 4)), np.ones((3, 2))), "q has shape"),
    (lambda: nodes.Einsum("ij,jk")(np.ones((2, 2)), np.ones((2, 2))), "explicit output"),
    (lambda: nodes.Einsum()(np.ones((2, 3)), np.ones((4, 2))), "one size for each letter"),
    (lambda: nodes.Inverse()(np.ones((2, 3))), "n is 2 and 3"),
    (lambda: nodes.Qr()(np.ones((2, 3))), "as many rows"),
    (lambda: nodes.RotaryEmbedding()(np.ones((2, 3))), "even width"),
    (lambda: nodes.Rnn()(*(np.ones(s) for s in ((2, 3), (2, 2), (3, 2), (2, 2), (2,)))), "length"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m for _, m in WRONG])
def test_a_wrong_call_says_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()
