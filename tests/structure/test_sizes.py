"""Shapes with names: read at the numbers given, or proved for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from one_by_one import jacobian_by_rows

import gradlab
from gradlab import InputError, InputTypeError, StructureMismatch, assert_structure, jacobian
from gradlab.patterns.size import Sizes, Undecided

W = np.linspace(-1, 1, 16).reshape(4, 4).astype(np.float32)


def attend(x, hidden=-jnp.inf):
    s = jnp.where(jnp.tri(x.shape[1], dtype=bool), x @ x.mT, hidden)
    return jax.nn.softmax(s, axis=-1) @ x


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def heads(x):
    b, t, d = x.shape
    q = x.reshape(b, t, 2, 2).transpose(0, 2, 1, 3)
    s = jnp.where(jnp.tri(t, dtype=bool), q @ q.mT, -jnp.inf)
    return (jax.nn.softmax(s, -1) @ q).transpose(0, 2, 1, 3).reshape(b, t, d)


def block(x):
    x = x + heads(norm(x) @ W) @ W
    return x + jax.nn.gelu(norm(x) @ W) @ W.T


def window(x):
    i = jnp.arange(x.shape[1])
    near = (i[:, None] >= i) & (i[:, None] - i < 2)
    return jax.nn.softmax(jnp.where(near, x @ x.mT, -jnp.inf), -1) @ x


def rnn(x):
    def step(h, a):
        h = jnp.tanh(h @ W + a)
        return h, h

    start = jnp.zeros((x.shape[0], 4), x.dtype)
    return lax.scan(step, start, x.transpose(1, 0, 2))[1].transpose(1, 0, 2)


def rotated(x):
    turn = 1 + jnp.arange(x.shape[1], dtype=x.dtype)  # the sine of 0 is known at numbers alone
    angle = turn[:, None] * jnp.array([1.0, 0.1], x.dtype)
    a, b = x[..., :2], x[..., 2:]
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1)


def shifted(x):
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]


def convolved(x, padding=((2, 0),), dilation=(1,)):
    kernel = jnp.ones((3, 1, 4), x.dtype)
    numbers = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(
        x, kernel, (1,), padding, None, dilation, dimension_numbers=numbers, feature_group_count=4
    )


S, EVEN, TWO = "BxTx4", "BxTx4,T%2==0", "BxTx4,T>=2"
BATTERY = {
    "tanh": (jnp.tanh, S),
    "softmax": (jax.nn.softmax, S),
    "along_time": (lambda x: jax.nn.softmax(x, 1), S),
    "layer_norm": (norm, S),
    "batch_norm": (lambda x: (x - x.mean((0, 1))) / (x.std((0, 1)) + 1), S),
    "attention": (attend, S),
    "heads": (heads, S),
    "block": (block, S),
    "window": (window, S),
    "rnn": (rnn, S),
    "rotated": (rotated, S),
    "mean_over_batch": (lambda x: x.mean(0), S),
    "mean": (lambda x: x.mean(), S),
    "max": (lambda x: x.max(1), S),
    "cumsum": (lambda x: jnp.cumsum(x, 1), S),
    "reversed_cumsum": (lambda x: lax.cumsum(x, 1, reverse=True), S),
    "matmul": (lambda x: x @ W, S),
    "transpose": (lambda x: x.transpose(1, 0, 2) * 2, S),
    "merged": (lambda x: jnp.sin(x.reshape(-1, 4) @ W), S),
    "merged_and_split": (lambda x: jnp.sin(x.reshape(-1, 4) @ W).reshape(x.shape), S),
    "flattened": (lambda x: x.reshape(x.shape[0], -1) * x.sum(), S),
    "patches": (lambda x: x.reshape(x.shape[0], -1, 2, 4).sum(2), EVEN),
    "patches_in_order": (
        lambda x: jnp.cumsum(x.reshape(x.shape[0], -1, 2, 4), 1).reshape(x.shape),
        EVEN,
    ),
    "halves": (lambda x: x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :], EVEN),
    "shifted": (shifted, S),
    "difference": (lambda x: x[:, 1:] - x[:, :-1], TWO),
    "last": (lambda x: x[:, -1], S),
    "first": (lambda x: x[:, 0], S),
    "flipped": (lambda x: x[:, ::-1] + x, S),
    "strided": (lambda x: x[:, ::2], EVEN),
    "rolled": (lambda x: jnp.roll(x, 1, 1), TWO),
    "twice": (lambda x: jnp.concatenate([x, x * 2], 1), S),
    "longer": (lambda x: jnp.concatenate([x[:, :1], x], 1), S),
    "stacked": (lambda x: jnp.stack([x, jnp.cumsum(x, 1)], 2), S),
    "gram": (lambda x: x @ x.mT, S),
    "between_batches": (lambda x: jnp.einsum("bti,cti->bct", x, x), S),
    "triangle": (lambda x: jnp.triu(jnp.ones((x.shape[1],) * 2)) @ x, S),
    "two_outputs": (lambda x: (x.sum(0), x * 2), S),
    "stencil": (lambda x: shifted(x) + jnp.flip(shifted(jnp.flip(x, 1)), 1) - 2 * x, S),
    "convolved": (convolved, S),
    "convolved_inside": (lambda x: convolved(x, "VALID"), "BxT+2x4"),
    "merged_longer": (lambda x: jnp.sin(x.reshape(-1, 4)), "BxT+1x4"),
    "pooled": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID"),
        EVEN,
    ),
    "repeated": (lambda x: jnp.repeat(x, 2, 1), S),
    "tiled": (lambda x: jnp.tile(x, (1, 2, 1)), S),
    "gated": (lambda x: x[..., :2] * jax.nn.sigmoid(x[..., 2:]), S),
    "set": (lambda x: x.at[:, 0].set(0.0), S),
    "one_more": (lambda x: x[:, :-1] @ W, "BxT+1x4"),
    "gradient": (jax.grad(lambda x: (jnp.cumsum(x, 1) ** 2).sum()), S),
    "branch": (lambda x: lax.cond(x.sum() > 0, lambda y: y * 2, lambda y: y.cumsum(1), x), S),
    "repeated_step": (lambda x: lax.fori_loop(0, 3, lambda k, y: y + shifted(y), x), S),
}
NUMBERS = ({"B": 2, "T": 6}, {"B": 3, "T": 2}, {"B": 1, "T": 1})
MORE_NUMBERS = ({"B": 1, "T": 4}, {"B": 2, "T": 1})


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "all_numbers", [NUMBERS, pytest.param(MORE_NUMBERS, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", BATTERY)
def test_what_is_proved_for_all_sizes_is_what_is_proved_at_numbers(name, all_numbers):
    function, words = BATTERY[name]
    J = jacobian(function, words)
    unit = 2 if "%" in words else 1
    least = {"B": "B >= 1", "T": f"T >= {unit}, T divisible by 2" if unit == 2 else "T >= 1"}
    if words == TWO:
        least["T"] = "T >= 2"
    assert J.sizes == least
    assert not J.notes
    for numbers in all_numbers:
        if numbers["T"] < (2 if words in (EVEN, TWO) else 1):
            continue
        there = {"B": numbers["B"], "T": numbers["T"] // unit}
        for pair, pattern in jacobian(function, words, sizes=numbers).patterns.items():
            found = J.patterns[pair].sized(there)
            assert found.covers(pattern)
            assert pattern.covers(found)


@pytest.mark.parametrize("name", ["heads", "window", "stencil", "rolled", "patches_in_order"])
def test_no_derivative_is_missed_at_any_size(name):
    function, words = BATTERY[name]
    pattern = jacobian(function, words).pattern
    for b, t in ((2, 4), (1, 2)):
        x = np.random.default_rng(0).standard_normal((b, t, 4)).astype(np.float32)
        exact = jacobian_by_rows(function, x) != 0
        there = pattern.sized({"B": b, "T": t // (2 if "%" in words else 1)})
        assert not (exact & ~there.to_dense()).any()


def test_indices_keep_the_axes_apart_that_they_do_not_name():
    assert_structure(lambda x: x[:, jnp.array([1, 0])] * 2, TWO, independent=0)


def test_a_dilated_convolution_reads_each_tap():
    J = jacobian(lambda x: convolved(x, [(4, 0)], (2,)), "BxTx4,T>=5")
    assert J.notation == "out[b, i, j] <- x[b, i-4, j] | x[b, i-2, j] | x[b, i, j]"
    assert J.sizes == {"B": "B >= 1", "T": "T >= 5"}


def test_a_loop_as_long_as_a_size_is_not_counted():
    def run(x):
        return lax.fori_loop(0, x.shape[1], lambda k, y: y * 0.5 + x[:, k], x[:, 0])

    J = assert_structure(run, S, independent=0)
    assert J.sizes == {"B": "B >= 1", "T": "T >= 1"}


def test_sizes_divide_one_another_exactly():
    sizes = Sizes({"B": 1, "T": 3})
    b, t = sizes.named("B"), sizes.named("T")
    assert divmod(b * (t - 2), t - 2) == (b, 0)
    assert divmod((b + t) * (t - 2), b + t) == (t - 2, 0)
    assert divmod(t * t + 5, t) == (t, 5)
    assert sizes.assumed == [t - 6]


def test_a_factor_that_is_a_sum_stands_in_brackets():
    J = jacobian(lambda x: x.reshape(-1) * 2, "BxT+1")
    assert J.notation == "out[(T + 1)*i+j] <- x[i, j]"


def test_counts_are_formulas():
    J = jacobian(attend, "BxTx64")
    assert (str(J.nnz), str(J.passes)) == ("2048*B*T*(T + 1)", "64*T")
    assert str(J.stored_bytes) == "8192*B*T*(T + 1)"
    assert J.nnz.at({"B": 2, "T": 5}) == J.sized(B=2, T=5).nnz == 2048 * 2 * 5 * 6
    with pytest.raises(InputError, match=r"J.sized\(B=8, T=8\).evaluate"):
        J.evaluate()


def test_claims_are_proved_for_all_sizes():
    assert_structure(attend, "BxTx4", causal=1, independent=0)
    with pytest.raises(StructureMismatch, match="conditions=1e6"):
        assert_structure(lambda x: attend(x, -1e30), "BxTx4", causal=1)
    J = assert_structure(lambda x: attend(x, -1e30), "3BxTx4", causal=1, conditions=1e6)
    assert "true for every B >= 1 and every T >= 1, for all values" in J.why()
    with pytest.raises(StructureMismatch):
        assert_structure(lambda x: x[:, ::-1], "BxTx4", causal=1)


def test_what_values_read_is_no_part_of_a_claims_proof():
    def signed(x):
        return jnp.where(x[..., 0, None] > 0, 1.0, 2.0) * jnp.cumsum(x, 1)

    J = assert_structure(signed, "BxTx16", independent=0, causal=1)
    assert J.sizes == {"B": "B >= 1", "T": "T >= 1"}
    assert J.unseen.startswith("x also reaches out through a comparison")


def test_what_a_function_asks_of_a_size_is_said():
    def special(x):
        return x.cumsum(0) if x.shape[0] == 8 else x

    J = jacobian(special, "Tx2")
    assert J.structure == "diagonal"
    assert J.sizes == {"T": "T >= 1, T != 8"}
    assert J.sized(T=8).structure == "lower-triangular"


def test_where_a_proof_needs_a_larger_size_it_says_so():
    def near(x):
        i = jnp.arange(x.shape[0])
        apart = i[:, None] - i
        return jnp.where((apart >= 0) & (apart < 40), x, 0.0).sum(1)

    J = jacobian(near, "TxT")
    assert (J.sizes, str(J.nnz)) == ({"T": "T >= 42"}, "20*(2*T - 39)")
    assert J.sized(T=50).nnz == 20 * 61


def test_jax_names_of_sizes_are_read_too():
    batch, time = jax.export.symbolic_shape("batch, 4*time")
    J = jacobian(
        lambda x: x.reshape(x.shape[0], -1, 4).sum(2),
        jax.ShapeDtypeStruct((batch, time), np.float32),
    )
    assert (str(J.nnz), J.sizes) == ("4*batch*time", {"batch": "batch >= 1", "time": "time >= 1"})


def test_what_jax_traces_at_numbers_alone_asks_for_them():
    with pytest.raises(InputError, match=r"give sizes=\{'T': 8\}"):
        jacobian(lambda x: x * np.tril(np.ones(x.shape)), "TxT")


def test_sizes_are_compared_by_what_is_known():
    sizes = Sizes({"T": 2}, ["64 - T"])
    t = sizes.named("T")
    assert (t > 1, t <= 64, t * t >= 4, sizes.assumed) == (True, True, True, [])
    assert (str(t * (t + 1) // 2), str(2 * t - t), (4 * t + 3) % 4) == ("T*(T + 1)/2", "T", 3)
    assert t > 9
    assert sizes.bounds() == {"T": 10}
    with pytest.raises(Undecided):
        t // 3
    with pytest.raises(Undecided):
        range(t)


def test_names_stand_for_the_numbers_given():
    J = jacobian(attend, "BxTx4,T>=2,T%2==0", sizes={"B": 2, "T": 6})
    assert J.inputs[0].shape == (2, 6, 4)
    assert J.sizes == {"B": "B = 2", "T": "T = 6, T>=2, T%2==0"}
    assert J.to_dict()["sizes"] == J.sizes
    larger = J.sized(T=8)
    assert larger.pattern == jacobian(attend, jax.ShapeDtypeStruct((2, 8, 4), np.float32)).pattern
    assert_structure(attend, "BxTx4", causal=1, independent=0, sizes={"B": 3, "T": 5})


@pytest.mark.parametrize(
    ("words", "shape", "dtype"),
    [
        ("3BxT+1:bfloat16", (6, 5), jnp.bfloat16),
        ("B*Tx2", (8, 2), np.float32),
        ("2x3", (2, 3), np.float32),
        ("2T-1", (7,), np.float32),
    ],
)
def test_sizes_are_sums_of_products(words, shape, dtype):
    sizes = {name: number for name, number in {"B": 2, "T": 4}.items() if name in words}
    J = jacobian(jnp.tanh, words, sizes=sizes)
    assert (J.inputs[0].shape, J.inputs[0].dtype) == (shape, str(np.dtype(dtype)))
    assert J.structure == "diagonal"


@pytest.mark.parametrize("given", ["BxT", np.zeros((2, 3), np.float32)])
def test_a_number_for_a_name_that_no_shape_has_is_refused(given):
    with pytest.raises(InputError, match="no shape has a size K"):
        jacobian(jnp.tanh, given, sizes={"K": 3})


def test_a_lone_name_is_a_size_where_no_input_is_an_array():
    J = jacobian(lambda x, y: x * y.sum(), "N", "M")
    assert J.sizes == {"N": "N >= 1", "M": "M >= 1"}
    assert str(J.patterns["output", "x"].nnz) == "N"
    assert_structure(jnp.cumsum, "T", causal=0)


def test_other_strings_stay_what_they_are():
    def act(x, name, padding):
        assert padding == "SAME"
        return getattr(jax.nn, name)(x)

    assert jacobian(act, np.zeros(3, np.float32), "relu", "SAME").structure == "diagonal"


@pytest.mark.parametrize(
    ("words", "sizes", "said"),
    [
        ("BxT,T==6", {"B": 2}, "write the size itself, or give it a number"),
        ("BxT,T%8==0", {"B": 2, "T": 6}, "T%8==0 does not hold"),
        ("BxT-6", {"B": 2, "T": 6}, "a size of 0"),
        ("BxT:float7", {"B": 2, "T": 6}, "'float7' is no dtype"),
        ("BxT,even", {"B": 2, "T": 6}, "'even' is no constraint"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_give(words, sizes, said):
    with pytest.raises(InputError, match=said):
        jacobian(jnp.tanh, words, sizes=sizes)


def test_a_size_is_a_positive_integer():
    with pytest.raises(InputTypeError, match="T is a number of entries"):
        gradlab.jacobian(jnp.tanh, "T", sizes={"T": 0.5})


def test_a_transform_of_any_length_reads_all():
    J = jacobian(lambda x: jnp.fft.fft(x).real, "N")
    assert J.structure == "dense" and J.sizes == {"N": "N >= 1"}


@pytest.mark.parametrize(("words", "least"), [("N", 4), ("N,N>=3", 3)])
def test_where_a_shape_would_be_negative_nothing_is_proved(words, least):
    J = jacobian(lambda x: x[1:-1], words)
    assert J.sizes == {"N": f"N >= {least}"}
    assert J.sized(N=5).nnz == 3
