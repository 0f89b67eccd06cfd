"""Rules with many parameters, each setting against `jax.jacrev`: no entry missed, none too many."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradlab.structure import jacobian

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compare(function, *inputs, spare=0, mode=jax.jacfwd):
    """Hold the inferred patterns against dense Jacobians at three points."""
    random = np.random.default_rng(0)
    points = [
        np.stack([random.standard_normal(x.shape).astype(x.dtype) for _ in range(3)])
        for x in inputs
    ]
    report = jacobian(function, *inputs)
    numbers = tuple(range(len(inputs)))
    run = jax.jit(jax.vmap(mode(function, numbers)), compiler_options=QUICK)
    for dense, pattern in zip(run(*points), report.patterns.values()):
        values = np.asarray(dense).reshape(3, *pattern.shape)
        nonzero = (np.isfinite(values) & (values != 0)).any(0)
        found = pattern.to_dense()
        assert not (nonzero & ~found).any(), report.notation
        assert (found & ~nonzero).sum() <= spare, (report.notation, report.notes)
    return report


def zeros(*shape):
    return np.zeros(shape, np.float32)


CONVOLUTIONS = [
    # strides, padding, input dilation, kernel dilation
    ((1, 1), ((1, 1), (0, 0)), (1, 1), (1, 1)),
    ((2, 1), ((0, 1), (2, 0)), (1, 1), (1, 2)),
    ((1, 2), ((1, 2), (1, 1)), (2, 1), (1, 1)),
    ((1, 1), ((-1, 1), (0, -1)), (1, 2), (2, 1)),
]


@pytest.mark.parametrize("setting", CONVOLUTIONS)
@pytest.mark.parametrize(("groups", "batches"), [(1, 1), (2, 1), (1, 2)])
def test_convolutions_by_their_input_and_kernel(setting, groups, batches):
    strides, padding, base, dilation = setting
    x = zeros(2 * batches, 2 * groups, 5, 4)
    w = zeros(2 * groups * batches, 2, 3, 2)

    def apply(x, w):
        return lax.conv_general_dilated(
            x, w, strides, padding, base, dilation,
            feature_group_count=groups, batch_group_count=batches,
        )  # fmt: skip

    compare(apply, x, w)


def test_a_convolution_with_zeros_in_its_kernel_reads_only_its_taps():
    cross = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)
    compare(
        lambda x: lax.conv_general_dilated(x, cross[None, None], (1, 1), "SAME"), zeros(1, 1, 5, 6)
    )
    compare(
        lambda x: lax.conv_general_dilated_patches(x, (2, 2), (1, 1), "VALID"), zeros(1, 2, 3, 4)
    )


@pytest.mark.parametrize("layout", [("NHWC", "HWIO", "NHWC"), ("CHWN", "OIHW", "NCHW")])
def test_layouts_of_convolutions(layout):
    shapes = {"N": 2, "C": 3, "H": 4, "W": 5, "I": 3, "O": 2}
    x = zeros(*(shapes[c] for c in layout[0]))
    w = zeros(*({"H": 2, "W": 3}.get(c, shapes[c]) for c in layout[1]))
    compare(
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout), x, w
    )


@pytest.mark.parametrize("axes", list(itertools.product([1, 2, 3], [1, 2], ["SAME", "VALID"])))
def test_pooling(axes):
    size, stride, padding = axes
    compare(
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, size), (1, stride), padding), zeros(2, 5)
    )


@pytest.mark.parametrize(
    "dimensions",
    [
        (((1,), (0,)), ((), ())),
        (((2,), (1,)), ((0,), (0,))),
        (((0, 2), (2, 1)), ((), ())),
        (((), ()), ((1,), (2,))),
    ],
)
def test_products(dimensions):
    sizes = iter((2, 3, 4))
    a = [next(sizes) for _ in range(3)]
    (lc, rc), (lb, rb) = dimensions
    b = [5, 6, 7]
    for left, right in zip((*lc, *lb), (*rc, *rb)):
        b[right] = a[left]
    compare(lambda x, y: lax.dot_general(x, y, dimensions), zeros(*a), zeros(*b))


def test_a_product_with_a_known_factor_reads_where_it_is_not_zero():
    lower = np.tril(np.ones((5, 5), np.float32))
    sparse = np.array([[0, 1, 0, 0], [2, 0, 0, 3]], np.float32)
    assert compare(lambda x: lower @ x, zeros(5, 2)).notation == "out[t, i] <- x[<=t, i]"
    compare(lambda x: x @ sparse.T, zeros(3, 4))
    compare(lambda x: jnp.einsum("bij,ij->bi", x, sparse), zeros(3, 2, 4))
    compare(lambda x: jnp.triu(jnp.ones((6, 6))) @ x, zeros(6))


def test_a_reshape_that_transposes_first():
    compare(lambda x: lax.reshape(x, (4, 6), dimensions=(2, 0, 1)), zeros(2, 3, 4))
    compare(lambda x: jnp.prod(x, axis=-1), zeros(2, 3, 4))
    mask = np.arange(6).reshape(2, 3) % 2 == 0
    compare(lambda x: jnp.where(lax.reshape(jnp.asarray(mask), (3, 2), (1, 0)), x, 0), zeros(3, 2))
    rows = lax.broadcasted_iota(jnp.int32, (2, 3), 0)
    compare(lambda x: jnp.where(lax.reshape(rows, (3, 2), (1, 0)) > 0, x, 0), zeros(3, 2))


INDEX = np.array([[2, 0], [1, 2], [2, -1]])


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[INDEX],
        lambda x: x[:, INDEX[:, 0]],
        lambda x: x[INDEX[:, 0], INDEX[:, 1]],
        lambda x: x[INDEX[:, 0], 1:3],
        lambda x: x[1:, INDEX[:, 1]],
        lambda x: x[:, None, ::-1][..., ::2],
        lambda x: x[np.array([True, False, True])],
        lambda x: x.at[np.array([0, 7])].get(mode="fill", fill_value=0),
        lambda x: x.at[np.array([0, 7])].get(mode="clip"),
        lambda x: jnp.take_along_axis(x, INDEX[:, :1], axis=1),
        lambda x: lax.dynamic_slice(x, (1, 9), (2, 2)),
        lambda x: jax.vmap(lambda row, k: lax.dynamic_slice(row, (k,), (2,)))(x, np.arange(3)),
        lambda x: jnp.diagonal(x),
    ],
)
def test_reading_at_known_indices(read):
    assert not compare(read, zeros(3, 4)).notes


@pytest.mark.parametrize(
    "write",
    [
        lambda x, y: x.at[INDEX[:, 0]].add(y[:, :4]),
        lambda x, y: x.at[INDEX[:2, 0]].set(y[:2, :4], unique_indices=True),
        lambda x, y: x.at[INDEX[:, 0], INDEX[:, 1]].add(y[:, 0]),
        lambda x, y: x.at[:, 1].set(y[:, 0]),
        lambda x, y: x.at[1, 1:3].set(y[0, :2]),
        lambda x, y: x.at[np.array([0, 9])].set(y[:2, :4], mode="drop", unique_indices=True),
        lambda x, y: lax.dynamic_update_slice(x, y[:2, :2], (1, 9)),
        lambda x, y: jax.ops.segment_sum(y[:, :4], np.array([0, 2, 0]), 3) + x,
    ],
)
def test_writing_at_known_indices(write):
    assert not compare(write, zeros(3, 4), zeros(3, 5)).notes


AT_ROWS = np.array([[0], [2], [2]])
AT_ROW = np.array([1])


@pytest.mark.parametrize(
    ("index", "sizes", "numbers"),
    [
        (AT_ROWS, (1, 2), ((1,), (0,), (0,))),
        (AT_ROWS, (1, 1), ((), (0, 1), (0,))),
        (AT_ROW, (2, 3), ((0, 1), (), (0,))),
        (AT_ROW, (1, 3), ((0,), (0,), (0,))),
    ],
)
def test_a_window_narrower_than_an_axis_without_an_index_is_at_its_start(index, sizes, numbers):
    read = lax.GatherDimensionNumbers(*numbers)
    compare(lambda x: lax.gather(x, index, read, sizes), zeros(4, 5))
    written = lax.ScatterDimensionNumbers(*numbers)
    shape = lax.gather(zeros(4, 5), index, read, sizes).shape
    compare(lambda x, y: lax.scatter_add(x, index, y, written), zeros(4, 5), zeros(*shape))


def _pair(x):
    return lax.complex(x, x[::-1] ** 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.real(_pair(x)),
        lambda x: jnp.imag(jnp.conj(_pair(x)) * 2j),
        lambda x: jnp.real(_pair(x) * jnp.cos(x)),
        lambda x: jnp.imag(_pair(x) / (2 + jnp.arange(4))),
        lambda x: jnp.real(_pair(x) * (1 + 2j)),
        lambda x: jnp.imag(_pair(x)[jnp.array([0, 2, 2])].sum()),
        lambda x: jnp.real(jnp.concatenate([_pair(x), x + 0j]).reshape(2, 4)),
        lambda x: jnp.real((1 + jnp.arange(12.0)).reshape(3, 4) @ _pair(x)),
        lambda x: jnp.imag(_pair(x) @ jnp.diag(jnp.array([1.0, 1j, 2.0, 1 + 1j]))),
        lambda x: abs(_pair(x)),
        lambda x: jnp.real(jnp.fft.fft(x)),
        lambda x: jnp.imag(jnp.fft.fft(x)),
        lambda x: jnp.real(jnp.fft.ifft(_pair(x))),
        lambda x: jnp.imag(jnp.fft.fft(x[:3])),
        lambda x: jnp.real(jnp.fft.rfft(x)),
        lambda x: jnp.imag(jnp.fft.rfft(x)),
        lambda x: jnp.fft.irfft(lax.complex(x[:3], x[1:]), n=4),
        lambda x: jnp.imag(jnp.fft.fft2(x.reshape(2, 2))),
    ],
)
def test_what_real_and_imaginary_parts_read(function):
    compare(function, zeros(4), mode=_by_columns)


def _by_columns(function, numbers):
    """Return a Jacobian, one JVP at a time: XLA's FFT fails on some layouts of batches."""

    def jacobian_at(x):
        columns = [jax.jvp(function, (x,), (seed,))[1].ravel() for seed in jnp.eye(x.size)]
        return (jnp.stack(columns, axis=1),)

    return jacobian_at


@pytest.mark.parametrize("size", [6, 8, 15, 30, 61, 127])
def test_no_coefficient_of_a_transform_that_is_rounded_counts_as_zero(size):
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    columns = jax.lax.map(jnp.fft.fft, jnp.eye(size, dtype=jnp.complex64))
    for part in (np.real, np.imag):
        of_jax = getattr(jnp, part.__name__)
        pattern = jacobian(lambda x, of_jax=of_jax: of_jax(jnp.fft.fft(x)), x).pattern.to_dense()
        assert not part(np.asarray(columns).T)[~pattern].any()


def test_r_of_qr_reads_the_columns_up_to_its_own():
    compare(lambda x: jnp.linalg.qr(x)[1], zeros(4, 3))


def test_unknown_indices_are_dense_on_their_axis_alone():
    report = jacobian(lambda x, i: x[i], zeros(6, 4), np.array([1, 2]))
    assert report.notation == "out[:, i] <- x[:, i]"
    assert "dense along axis 0" in report.notes[0]
    compare(lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1), zeros(3, 4), spare=99)


# masks


def causal(n):
    i = lax.broadcasted_iota(jnp.int32, (n, n), 0)
    j = lax.broadcasted_iota(jnp.int32, (n, n), 1)
    return i >= j


MASKED = [
    lambda s: jnp.where(causal(5), s, -jnp.inf),
    lambda s: jnp.where(~causal(5), -jnp.inf, s),
    lambda s: s + jnp.where(causal(5), 0.0, -jnp.inf),
    lambda s: s + jnp.log(jnp.tril(jnp.ones((5, 5)))),
    lambda s: jnp.where(np.tril(np.ones((5, 5), bool)), s, -np.inf),
    lambda s: jnp.where(jnp.tril(jnp.ones((5, 5))) == 0, -jnp.inf, s),
    lambda s: jnp.where((jnp.arange(5)[:, None] - jnp.arange(5)) >= 0, s, -jnp.inf),
    lambda s: jnp.where(jnp.logical_not(jnp.arange(5) > jnp.arange(5)[:, None]), s, -jnp.inf),
]


@pytest.mark.parametrize("mask", MASKED)
def test_masked_attention_is_causal_however_the_mask_is_written(mask):
    def attend(x, v):
        return jax.nn.softmax(mask(x @ x.T), axis=-1) @ v

    report = jacobian(attend, zeros(5, 2), zeros(5, 3))
    assert report.patterns["output", "v"].notation == "out[t, i] <- in[<=t, i]"
    assert report.patterns["output", "x"].notation == "out[t, :] <- in[<=t, :]"
    compare(attend, zeros(5, 2), zeros(5, 3), spare=6)  # one score alone has weight 1


def test_positions_that_their_dtype_cannot_count_are_not_known():
    def attend(v):
        i = lax.broadcasted_iota(jnp.bfloat16, (600, 600), 0)
        j = lax.broadcasted_iota(jnp.bfloat16, (600, 600), 1)
        return jnp.where(i >= j, 1.0, 0.0) @ v  # 257 rounds to 256

    assert jacobian(attend, zeros(600)).pattern.is_dense


def test_a_mask_may_be_scaled_by_a_positive_number():
    def attend(s, v):
        return jax.nn.softmax(jnp.where(causal(4), s, -jnp.inf) / 2 * 3.0, axis=-1) @ v

    report = jacobian(attend, zeros(4, 4), zeros(4, 2))
    assert report.patterns["output", "v"].notation == "out[t, i] <- in[<=t, i]"


def test_a_finite_mask_is_not_taken_for_minus_infinity():
    def attend(s, v):
        return jax.nn.softmax(jnp.where(causal(4), s, -1e9), axis=-1) @ v

    report = jacobian(attend, zeros(4, 4), zeros(4, 2))
    assert report.patterns["output", "v"].nnz == 4 * 4 * 2
    assert "the mask uses -1e+09, a finite number; use -jnp.inf" in report.notes[0]


def test_block_masks_and_segments_are_followed():
    segment = np.array([0, 0, 1, 1, 1])

    def attend(s, v):
        mask = segment[:, None] == segment[None, :]
        return jax.nn.softmax(jnp.where(mask, s, -jnp.inf), axis=-1) @ v

    report = jacobian(attend, zeros(5, 5), zeros(5, 2))
    assert report.patterns["output", "v"].nnz == (4 + 9) * 2


# loops


def run_loop(step, length, reverse, width):
    def apply(x, c, w):
        last, out = lax.scan(lambda c, t: step(c, t, w), c, x, reverse=reverse)
        return jnp.concatenate([last.ravel(), out.ravel()])

    return apply, (zeros(length, width), zeros(2, width), zeros(width))


STEPS = {
    "accumulates": lambda c, t, w: (c + t, c * w),
    "registers": lambda c, t, w: (jnp.stack([t * w, c[0]]), c[1]),
    "swaps": lambda c, t, w: (c[::-1] * w + t, c[0]),
    "shifts": lambda c, t, w: (jnp.roll(c, 1, 1).at[0, 0].add(t[0]), c[1] + t),
    "forgets": lambda c, t, w: (jnp.stack([t, w]), c.sum(0)),
    "keeps": lambda c, t, w: (c, c[0] * t),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("length", "reverse"), [(1, False), (4, True), (15, False)])
def test_scans_follow_carries_inputs_and_constants(name, length, reverse):
    function, inputs = run_loop(STEPS[name], length, reverse, 3)
    compare(function, *inputs, spare=0 if length < 12 else 18)  # lags beyond 12 are one relation


def test_a_register_longer_than_the_lags_that_are_followed_one_by_one():
    def delay(x):
        return lax.scan(lambda c, t: (jnp.concatenate([t[None], c[:-1]]), c[-1]), jnp.zeros(20), x)[
            1
        ]

    compare(delay, zeros(30), spare=30 * 31 // 2)


def test_several_carries_and_an_empty_scan():
    def lstm(x, w):
        def step(state, t):
            h, c = state
            c = jnp.tanh(t + h) * c + w
            return (jnp.tanh(c), c), (h, t * c)

        return lax.scan(step, (jnp.zeros(3), jnp.ones(3)), x)[1][1]

    compare(lstm, zeros(5, 3), zeros(3))
    assert jacobian(lambda x: lax.scan(lambda c, t: (c, t), x, x[:0, None])[0], zeros(3)).nnz == 3


def test_short_loops_with_a_counter_are_followed_step_by_step():
    def by_hand(x):  # causal, as its scan would be
        def step(i, state):
            h, out = state
            h = jnp.tanh(h + x[i])
            return h, out.at[i].set(h)

        return lax.fori_loop(0, 6, step, (jnp.zeros(2), jnp.zeros((6, 2))))[1]

    assert not compare(by_hand, zeros(6, 2)).notes
    compare(lambda x: lax.scan(lambda c, i: (c + x[i], c), x[0], jnp.arange(3))[1], zeros(4, 2))
    compare(lambda x: lax.scan(lambda c, t: (c, x[c] * t), 1, x, reverse=True)[1], zeros(3))
    long = jacobian(lambda x: lax.fori_loop(0, 999, lambda i, s: s + x[i], 0.0 * x[0]), zeros(999))
    assert long.nnz == 999


def test_loops_that_end_by_a_condition():
    def newton(x):
        return lax.while_loop(
            lambda s: s[0] < 3, lambda s: (s[0] + 1, (s[1] + x / s[1]) / 2), (0, x)
        )[1]

    compare(newton, zeros(4))


@jax.custom_vjp
def squared(x):
    return x * x


squared.defvjp(lambda x: (x * x, x), lambda x, g: (2 * g * x,))


def test_rematerialised_programs_keep_their_values_in_reverse():
    """The barrier between forward and backward passes values on; they are not zero."""

    @jax.checkpoint
    def layer(x):
        return squared(jnp.sin(jnp.sin(x)) + jnp.cumsum(x))

    report = compare(lambda x: layer(layer(x)), zeros(5), mode=jax.jacrev)
    assert report.report.modes == ("vjp",)
    compare(
        lambda x: lax.scan(lambda c, t: (layer(c + t), c), x[0], x)[1], zeros(4, 3), mode=jax.jacrev
    )


def test_iterative_solvers_and_solvers_by_hand():
    def neighbours(v):
        return 3 * v + 0.1 * jnp.roll(v, 1)

    report = compare(lambda b: jax.scipy.sparse.linalg.cg(neighbours, b)[0], zeros(6), spare=36)
    assert not report.unknown
    compare(lambda b: jax.scipy.linalg.cho_solve((jnp.tri(3) + jnp.eye(3), True), b), zeros(3, 2))
    compare(lambda a, b: jnp.linalg.solve(a + 3 * jnp.eye(3), b), zeros(2, 3, 3), zeros(2, 3, 2))


def test_branches_join():
    compare(
        lambda x: lax.switch(
            jnp.int32(x[0] > 0), [lambda x: x[::-1] * x, lambda x: jnp.cumsum(x)], x
        ),
        zeros(5),
    )


@pytest.mark.parametrize("write", [lax.scatter, lax.scatter_add])
def test_a_scatter_without_indices_writes_every_update_at_one_place(write):
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=(1,), inserted_window_dims=(), scatter_dims_to_operand_dims=()
    )

    def function(x):
        return write(x[:3], jnp.zeros((2, 0), jnp.int32), x[3:].reshape(2, 3), numbers)

    x = jnp.arange(9.0)
    dense = np.asarray(jax.jacfwd(function)(x))
    report = jacobian(function, x)
    assert not (dense[~report.pattern.to_dense().reshape(dense.shape)]).any()
    assert np.array_equal(report.compile("dense")(x), dense)


@pytest.mark.parametrize(("shape", "passes"), [((3, 3), 6), ((4, 3), 6), ((3, 4), 9)])
def test_what_stands_below_the_diagonal_of_r_needs_no_pass(shape, passes):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    report = jacobian(lambda x: jnp.linalg.qr(x)[1], x)
    dense = np.asarray(jax.jacfwd(lambda x: jnp.linalg.qr(x)[1])(x)).reshape(-1, x.size)
    reads = report.pattern.to_dense().reshape(dense.shape)
    assert not dense[~reads].any()
    assert not reads.reshape(min(shape), shape[1], -1)[np.tril_indices(min(shape), -1)].any()
    compiled = report.compile("dense")
    assert compiled.passes == passes
    assert np.allclose(compiled(x), dense, atol=1e-5)


def test_a_complex_number_of_an_array_and_a_literal_is_read():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, upstream: (upstream * jnp.cos(x),))
    found = jacobian(lambda x: jnp.abs(jnp.fft.fft(sine(x))), np.ones((2, 2), np.float32))
    assert found.report.modes == ("vjp",)  # in which JAX writes `complex x 0.0`
    assert np.array_equal(found.pattern.to_dense(), np.kron(np.eye(2), np.ones((2, 2))))


def test_a_fault_in_a_rule_makes_an_equation_dense_and_is_told(monkeypatch):
    def fails(self, equation, operands):
        raise ZeroDivisionError("a fault of gradlab's own")

    monkeypatch.setattr("gradlab.structure.infer.Walk.primitive", fails)
    with pytest.warns(RuntimeWarning, match="rule for mul failed .* All entries count as read"):
        found = jacobian(jnp.sin, np.ones(3, np.float32))
    assert found.pattern.to_dense().all()
    assert "gradlab's rule for mul failed" in str(found.notes[0])
