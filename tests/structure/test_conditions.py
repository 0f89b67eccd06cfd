"""Masks that are finite numbers: what they hide is proved zero under conditions, and no more.

Each attention is written as a library writes it. The oracle is JAX's own Jacobian at points at
which the conditions hold: no entry outside the proved pattern may differ from zero.
"""

import operator
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from one_by_one import jacobian_by_rows

import gradlab
from gradlab import InputError, InputTypeError, StructureMismatch, assert_structure, jacobian
from gradlab.patterns import Pattern
from gradlab.primitives.known import Affine
from gradlab.primitives.positions import _comparison

B, T, N, H = 2, 6, 2, 2
ACCEPTED = ("nonempty", "finite", 1e3)
POINT = np.random.default_rng(0).normal(size=(B, T, 4)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(3, 4, N * H)).astype(np.float32) / 3
attention = jax.nn.dot_product_attention


def projected(x, kv=N):
    made = [x @ w[:, : n * H].astype(x.dtype) for w, n in zip(WEIGHTS, (N, kv, kv))]
    return [y.reshape(*x.shape[:2], -1, H) for y in made]


def scores_of(x):
    q, k, _ = projected(x)
    return jnp.einsum("bqnh,bknh->bnqk", q, k) / np.sqrt(H)


def mixed(p, x):
    return jnp.einsum("bnqk,bknh->bqnh", p, projected(x)[2])


def weighted(s, x):
    return mixed(jax.nn.softmax(s, axis=-1), x)


def by_hand(s, x):
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return mixed(e / e.sum(-1, keepdims=True), x)


def rows_and_columns():
    return lax.broadcasted_iota(jnp.int32, (T, T), 0), lax.broadcasted_iota(jnp.int32, (T, T), 1)


def tril():
    rows, columns = rows_and_columns()
    return rows >= columns


def strict():
    rows, columns = rows_and_columns()
    return rows > columns


def flax_nnx(x):
    s = scores_of(x)
    return weighted(jnp.where(tril()[None, None], s, jnp.finfo(s.dtype).min), x)


def flax_linen(x):
    at = jnp.broadcast_to(jnp.arange(T), (B, T))
    mask = jnp.greater_equal(at[..., :, None], at[..., None, :])[:, None].astype(np.float32)
    return weighted(jnp.where(mask, scores_of(x), jnp.finfo(np.float32).min), x)


def haiku(x):
    return weighted(jnp.where(jnp.tril(jnp.ones((1, 1, T, T))), scores_of(x), -1e30), x)


def gpt2(x):
    mask = jnp.tril(jnp.ones((T, T)))
    return weighted(scores_of(x) * mask - 1e10 * (1 - mask), x)


def equinox(x):
    layer = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    return jax.vmap(lambda row: layer(row, row, row, mask=tril()))(x)


def base_two(x):
    s = jnp.where(tril(), scores_of(x), -1e30) * 1.4426950408889634
    e = jnp.exp2(s - lax.stop_gradient(s.max(-1, keepdims=True)))
    return mixed(e / e.sum(-1, keepdims=True), x)


def alibi(x):
    rows, columns = rows_and_columns()
    bias = (columns - rows).astype(np.float32) * 0.5
    return weighted(jnp.where(tril(), scores_of(x) + bias, -1e30), x)


def by_blocks(x, start=-1e30, fill=-1e30, guard=False, open_at=tril, reverse=False, counted=False):
    q, k, v = projected(x)
    size = 2
    keys, values = (a.reshape(B, T // size, size, N, H).swapaxes(0, 1) for a in (k, v))
    rows = jnp.arange(T)[:, None]

    def step(carry, block):
        total, most, norm = carry
        number, key, value = block
        columns = number * size + jnp.arange(size)[None]
        open_here = rows >= columns if open_at is tril else rows > columns
        s = jnp.where(open_here, jnp.einsum("bqnh,bknh->bnqk", q, key) / 2, fill)
        new = jnp.maximum(most, s.max(-1))
        safe = jnp.where(jnp.isinf(new), 0, new) if guard else new
        p, old = jnp.exp(s - safe[..., None]), jnp.exp(most - safe)
        total = total * old[..., None] + jnp.einsum("bnqk,bknh->bnqh", p, value)
        return (total, new, norm * old + p.sum(-1)), None

    carry = jnp.zeros((B, N, T, H)), jnp.full((B, N, T), start), jnp.zeros((B, N, T))
    if counted:
        carry = lax.fori_loop(0, T // size, lambda i, c: step(c, (i, keys[i], values[i]))[0], carry)
    else:
        blocks = jnp.arange(T // size), keys, values
        carry, _ = lax.scan(step, carry, blocks, reverse=reverse)
    return (carry[0] / carry[2][..., None]).transpose(0, 2, 1, 3)


def with_own_rule(x, open_at=operator.ge):
    """A flash attention whose backward keeps the maximum of each row, and runs by blocks too."""
    rows, size = np.arange(T)[:, None], 2

    def in_blocks(a):
        return a.reshape(B, T // size, size, N, H).swapaxes(0, 1)

    def masked(number, q, key):
        columns = number * size + jnp.arange(size)[None]
        s = jnp.einsum("bqnh,bknh->bnqk", q, key) / 2
        return jnp.where(open_at(rows, columns), s, -1e30)

    def forward(q, k, v):
        def step(carry, block):
            number, key, value = block
            total, most, norm = carry
            s = masked(number, q, key)
            new = jnp.maximum(most, s.max(-1))
            p, old = jnp.exp(s - new[..., None]), jnp.exp(most - new)
            total = total * old[..., None] + jnp.einsum("bnqk,bknh->bnqh", p, value)
            return (total, new, norm * old + p.sum(-1)), None

        start = jnp.zeros((B, N, T, H)), jnp.full((B, N, T), -1e30), jnp.zeros((B, N, T))
        blocks = jnp.arange(T // size), in_blocks(k), in_blocks(v)
        (total, most, norm), _ = lax.scan(step, start, blocks)
        out = (total / norm[..., None]).transpose(0, 2, 1, 3)
        return out, (q, k, v, out, most, norm)

    def backward(kept, u):
        q, k, v, out, most, norm = kept
        mean = jnp.einsum("bqnh,bqnh->bnq", u, out)

        def step(dq, block):
            number, key, value = block
            p = jnp.exp(masked(number, q, key) - most[..., None]) / norm[..., None]
            ds = p * (jnp.einsum("bqnh,bknh->bnqk", u, value) - mean[..., None]) / 2
            dk = jnp.einsum("bnqk,bqnh->bknh", ds, q)
            dv = jnp.einsum("bnqk,bqnh->bknh", p, u)
            return dq + jnp.einsum("bnqk,bknh->bqnh", ds, key), (dk, dv)

        blocks = jnp.arange(T // size), in_blocks(k), in_blocks(v)
        dq, (dk, dv) = lax.scan(step, jnp.zeros_like(q), blocks)
        return dq, *(a.swapaxes(0, 1).reshape(B, T, N, H) for a in (dk, dv))

    attend = jax.custom_vjp(lambda q, k, v: forward(q, k, v)[0])
    attend.defvjp(forward, backward)
    return attend(*projected(x))


def blocks_in_blocks(x):
    q = projected(x)[0].reshape(B, T // 2, 2, N, H).swapaxes(0, 1)
    k, v = (a.reshape(B, T // 2, 2, N, H).swapaxes(0, 1) for a in projected(x)[1:])

    def outer(_, row_block):
        row, query = row_block

        @jax.checkpoint
        def inner(carry, block):
            total, most, norm = carry
            column, key, value = block
            mask = row * 2 + jnp.arange(2)[:, None] >= column * 2 + jnp.arange(2)[None]
            s = jnp.where(mask, jnp.einsum("bqnh,bknh->bnqk", query, key) / 2, -1e30)
            new = jnp.maximum(most, s.max(-1))
            p, old = jnp.exp(s - new[..., None]), jnp.exp(most - new)
            total = total * old[..., None] + jnp.einsum("bnqk,bknh->bnqh", p, value)
            return (total, new, norm * old + p.sum(-1)), None

        start = jnp.zeros((B, N, 2, H)), jnp.full((B, N, 2), -jnp.inf), jnp.zeros((B, N, 2))
        (total, _, norm), _ = lax.scan(inner, start, (jnp.arange(T // 2), k, v))
        return None, (total / norm[..., None]).transpose(0, 2, 1, 3)

    _, out = lax.scan(outer, None, (jnp.arange(T // 2), q))
    return out.swapaxes(0, 1).reshape(B, T, N, H)


def masks_multiplied(x):
    keys = (jnp.arange(T)[None] < LENGTHS[:, None]).astype(np.float32)
    mask = jnp.ones((B, 1, T, 1)) * keys[:, None, None] * tril().astype(np.float32)
    return weighted(jnp.where(mask, scores_of(x), jnp.finfo(np.float32).min), x)


LENGTHS = jnp.array([T, T - 2])
CAUSAL = {
    "jax": lambda x: attention(*projected(x), is_causal=True),
    "jax, window": lambda x: attention(*projected(x), is_causal=True, local_window_size=2),
    "jax, window of two sides": lambda x: attention(*projected(x), local_window_size=(2, 0)),
    "jax, grouped": lambda x: attention(*projected(x, 1), is_causal=True),
    "jax, lengths": lambda x: attention(
        *projected(x), is_causal=True, key_value_seq_lengths=LENGTHS
    ),
    "jax, both lengths": lambda x: attention(
        *projected(x), is_causal=True, query_seq_lengths=LENGTHS, key_value_seq_lengths=LENGTHS
    ),
    "jax, bfloat16": lambda x: attention(*projected(x.astype(jnp.bfloat16)), is_causal=True),
    "jax, mask": lambda x: attention(*projected(x), mask=tril()[None, None]),
    "jax, bias": lambda x: attention(*projected(x), bias=jnp.where(tril(), 0.0, -1e9)[None, None]),
    "flax.nnx": flax_nnx,
    "flax.linen": flax_linen,
    "haiku": haiku,
    "gpt2": gpt2,
    "equinox": equinox,
    "added": lambda x: by_hand(scores_of(x) + (1.0 - tril().astype(np.float32)) * -1e9, x),
    "1 - True": lambda x: weighted(scores_of(x) - 1e10 * (1 - tril()), x),
    "by hand": lambda x: by_hand(jnp.where(tril(), scores_of(x), -1e30), x),
    "exp2": base_two,
    "log_softmax": lambda x: mixed(
        jnp.exp(jax.nn.log_softmax(jnp.where(tril(), scores_of(x), -1e30))), x
    ),
    "smaller of two": lambda x: weighted(
        jnp.minimum(scores_of(x), jnp.where(tril(), 1e30, -1e30)), x
    ),
    "alibi": alibi,
    "blocks": by_blocks,
    "blocks from -inf": lambda x: by_blocks(x, -jnp.inf, -1e30),
    "blocks, counted": lambda x: by_blocks(x, counted=True),
    "blocks in blocks": blocks_in_blocks,
    "a rule of its own": with_own_rule,
    "masks multiplied": masks_multiplied,
    "blocks, last first": lambda x: by_blocks(x, reverse=True),
}
UNCONDITIONAL = {
    "float16, where -1e30 is -inf": lambda x: weighted(
        jnp.where(tril(), scores_of(x), -1e30).astype(np.float16), x.astype(np.float16)
    ),
    "capped scores": lambda x: weighted(
        jnp.where(tril(), 50 * jnp.tanh(scores_of(x) / 50), -2.3819763e38), x
    ),
    "sigmoid": lambda x: mixed(jax.nn.sigmoid(jnp.where(tril(), scores_of(x), -1e30)), x),
    "blocks of -inf": lambda x: by_blocks(x, -jnp.inf, -jnp.inf, True),
}


def shifted(least, most, fill=-1e30):
    def attend(x):
        rows, columns = rows_and_columns()
        apart = rows - columns
        return weighted(jnp.where((apart >= least) & (apart <= most), scores_of(x), fill), x)

    return attend


def twice(x):
    s = jnp.where(tril(), scores_of(x), -1e30)
    return weighted(jnp.where((jnp.arange(T) != 0)[None], s, -1e30), x)  # row 0 keeps nothing


def below_the_mean(x):
    s = jnp.where(tril(), scores_of(x), -1e30)
    e = jnp.exp((s - lax.stop_gradient(s.mean(-1, keepdims=True))) * 1e-30)
    return mixed(e / e.sum(-1, keepdims=True), x)


def below_a_sorted(x):
    s = jnp.where(strict(), scores_of(x), -1e30)
    e = jnp.exp(s - lax.stop_gradient(jnp.sort(s, -1)[..., -1:]))
    return mixed(e / e.sum(-1, keepdims=True), x)


LEAKS = {
    "a mask of -30": shifted(0, T, -30.0),
    "an added mask of -5": lambda x: weighted(scores_of(x) + jnp.where(tril(), 0, -5.0), x),
    "an empty row": shifted(1, T),
    "an empty row, by hand": lambda x: by_hand(jnp.where(strict(), scores_of(x), -1e30), x),
    "an empty row, sorted": below_a_sorted,
    "empty rows of a window": shifted(2, 3),
    "one later key": shifted(-1, T),
    "the past is hidden": shifted(-T, 0),
    "a sequence of length 0": lambda x: attention(
        *projected(x), is_causal=True, key_value_seq_lengths=jnp.array([T, 0])
    ),
    "two masks that leave nothing": twice,
    "the other axis": lambda x: mixed(
        jax.nn.softmax(jnp.where(tril(), scores_of(x), -1e30), axis=-2), x
    ),
    "masked afterwards": lambda x: mixed(jnp.where(tril(), jax.nn.softmax(scores_of(x)), 0), x),
    "scaled down": lambda x: weighted(jnp.where(tril(), scores_of(x), -1e9) * 1e-9, x),
    "compared with the mean": below_the_mean,
    "blocks that leave a row empty": lambda x: by_blocks(x, open_at=strict),
    "a rule of its own that leaves a row empty": lambda x: with_own_rule(x, operator.gt),
    "blocks of 0": lambda x: by_blocks(x, 0.0, 0.0),
    "blocks of -30": lambda x: by_blocks(x, -30.0, -30.0),
}


def entries(function):
    return np.nan_to_num(jacobian_by_rows(function, POINT).astype(np.float64))


def assert_sound(function, J):
    outside = entries(function)[~J.pattern.to_dense()]
    assert not outside.any()


def causal_along_time(J):
    shapes = J.pattern.output_shape, J.pattern.input_shape
    return Pattern.from_axes(*shapes, [(1, ~1, 0, None)]).covers(J.pattern)


LONG = {"blocks from -inf", "blocks, counted", "blocks, last first"}  # blocks in other orders


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in CAUSAL]
)
def test_attention_as_libraries_write_it_is_causal_under_conditions(name):
    before = jacobian(CAUSAL[name], POINT)
    assert before.conditions and not causal_along_time(before)
    J = assert_structure(CAUSAL[name], POINT, causal=1, independent=0, conditions=ACCEPTED)
    assert J.conditions
    assert all(c.accepted and c.source for c in J.conditions)
    assert all(bool(held) for held in J.holds(POINT))
    assert_sound(CAUSAL[name], J)


@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_scores_that_are_bounded_need_no_condition(name):
    J = assert_structure(UNCONDITIONAL[name], POINT, causal=1, independent=0)
    assert not J.conditions
    assert_sound(UNCONDITIONAL[name], J)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_refused_whatever_is_accepted(name):
    J = jacobian(LEAKS[name], POINT, conditions=ACCEPTED)
    assert not causal_along_time(J)
    assert_sound(LEAKS[name], J)


@pytest.mark.parametrize(
    "chosen",
    [
        jnp.nan_to_num,
        lambda s: jnp.where(s > 0, s, 50.0),
        lambda s: jnp.where(s > 0, s, jnp.finfo(s.dtype).max),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_what_a_choice_leaves_unbounded_is_not_taken_for_hidden(chosen, axis):
    def attend(s):
        lower = jnp.where(strict(), 0.0, jnp.finfo(s.dtype).min)
        return jax.nn.softmax(chosen(s) * 3 + lower, axis=axis)

    s = np.random.default_rng(2).normal(size=(T, T)).astype(np.float32)
    dense = np.asarray(jax.jacfwd(attend)(s)).reshape(T * T, T * T)
    pattern = jacobian(attend, s, conditions=ACCEPTED).pattern.to_dense()
    assert not np.nan_to_num(dense)[~pattern].any()


def test_a_refusal_ends_with_what_to_accept():
    with pytest.raises(StructureMismatch) as caught:
        assert_structure(haiku, POINT, causal=1)
    assert "condition |scores| <= 9.99e+29 at test_conditions.py" in str(caught.value)
    assert "accept    pass conditions=1e6, if it always holds" in str(caught.value)


def test_a_mask_of_minus_30_is_said_to_weigh():
    notes = " ".join(jacobian(LEAKS["a mask of -30"], POINT, conditions=ACCEPTED).notes)
    assert "a mask of -30 does not hide; it weighs by exp(-30)" in notes


def attend(s, v):
    return jax.nn.softmax(jnp.where(jnp.tri(4, dtype=bool), s, -1e4), axis=-1) @ v


def test_a_magnitude_is_what_exp_needs():
    shapes = np.zeros((4, 4), np.float32), np.zeros((4, 2), np.float32)
    J = jacobian(attend, *shapes)
    [condition] = J.conditions
    assert condition.kind == "magnitude" and not condition.accepted
    assert condition.bound == pytest.approx(1e4 - 104.3, abs=0.5)
    assert str(condition).startswith("|scores| <= 9.89e+03 at test_conditions.py:")
    assert J.under(1e6).nnz == J.nnz
    assert J.under(9e3).nnz == J.under(condition).nnz < J.nnz
    assert J.under(J.conditions).conditions[0].accepted
    high = np.full((4, 4), 9.8e3, np.float32)
    assert J.holds(high, shapes[1]) == (True,)
    assert jax.jit(J.holds)(2 * high, shapes[1]) == (False,)
    assert "conditions=9.8e+03" in J.why()
    assert J.to_dict()["conditions"][0]["kind"] == "magnitude"


@pytest.mark.parametrize("mask", [-1e9, -104_106.5, -105.07, -106.02, -10_107.0])
def test_the_bound_that_is_told_is_accepted(mask):
    def attend(x):
        past = jnp.tril(jnp.ones((5, 5), bool))
        return jax.nn.softmax(jnp.where(past, x @ x.T, mask)) @ x

    x = jnp.ones((5, 4))
    with pytest.raises(StructureMismatch) as caught:
        assert_structure(attend, x, causal=0)
    told = re.findall(r"\| <= (\S+) at|pass conditions=(\S+),", str(caught.value))
    bounds = [float(a or b) for a, b in told]
    assert len(bounds) == 2
    for bound in bounds:
        assert_structure(attend, x, causal=0, conditions=bound)
    page = jacobian(attend, x).report.render("html")
    shown = re.search(r"at most (\S+)\) at", page)
    assert shown is not None and float(shown[1]) == bounds[0]


def test_at_the_bound_the_mask_still_hides():
    x = np.full((4, 4), 9.89e3, np.float32)
    x[:, 0] = -9.89e3
    x[0, 1:] = 9.89e3
    v = np.eye(4, 2, dtype=np.float32)
    J = jacobian(attend, x, v, conditions=9.89e3)
    got = np.asarray(jax.jacfwd(attend, 1)(x, v)).reshape(8, 8)
    assert not got[~J.patterns["output", "v"].to_dense()].any()


def masked_by_input(s, mask):
    return jax.nn.softmax(jnp.where(mask & jnp.tri(4, dtype=bool), s, -1e30), axis=-1)


def test_a_mask_that_is_an_input_has_to_leave_each_row_an_entry():
    s = np.ones((4, 4), np.float32)
    J = jacobian(masked_by_input, s, np.ones((4, 4), bool))
    assert {c.kind for c in J.conditions} == {"magnitude", "nonempty"}
    assert jacobian(masked_by_input, s, np.ones((4, 4), bool), conditions=1e6).nnz == J.nnz
    less = J.under(("nonempty", 1e6))
    assert less.pattern.has_structure("lower-triangular") or less.nnz < J.nnz
    assert all(less.holds(s, np.ones((4, 4), bool)))
    empty = np.ones((4, 4), bool)
    empty[2] = False
    held = dict(zip((c.kind for c in less.conditions), less.holds(s, empty)))
    assert held["magnitude"] and not held["nonempty"]


def test_conditions_are_watched_inside_loops():
    def layers(x):
        return lax.scan(lambda c, _: (by_hand_rows(c) * 10, None), x, None, 3)[0]

    def by_hand_rows(x):
        return jax.nn.softmax(jnp.where(jnp.tri(4, dtype=bool), x, -1e4), axis=-1)

    x = np.ones((4, 4), np.float32)
    J = jacobian(layers, x)
    assert J.conditions
    assert J.holds(x) == (True,) and J.holds(x * 1e5) == (False,)


@pytest.mark.parametrize("wrong", ["soft", -1.0, object()])
def test_unknown_conditions_are_refused(wrong):
    with pytest.raises((InputError, InputTypeError), match="conditions:"):
        jacobian(jnp.tanh, POINT, conditions=wrong)


def test_nothing_is_said_where_there_is_no_mask():
    J = gradlab.jacobian(lambda x: jax.nn.softmax(jax.nn.relu(x) - 3.0), POINT)
    assert not J.conditions and not J.notes


@pytest.mark.parametrize("row", [4, 5])
def test_many_blocks_hide_what_they_cover(row):
    """A row of blocks reads all before it, through more steps than marks are kept."""

    def attend(x):
        keys = x.reshape(6, 2, 3)

        def step(carry, block):
            total, most, norm = carry
            number, key = block
            open_here = 2 * row + jnp.arange(2)[:, None] >= 2 * number + jnp.arange(2)
            s = jnp.where(open_here, keys[row] @ key.T, -1e30)
            new = jnp.maximum(most, s.max(-1))
            p, old = jnp.exp(s - new[:, None]), jnp.exp(most - new)
            return (total * old[:, None] + p @ key, new, norm * old + p.sum(-1)), None

        start = jnp.zeros((2, 3)), jnp.full(2, -jnp.inf), jnp.zeros(2)
        (total, _, norm), _ = lax.scan(step, start, (jnp.arange(6), keys))
        return total / norm[:, None]

    J = jacobian(attend, jax.ShapeDtypeStruct((12, 3), jnp.float32), conditions=("finite", 1e6))
    seen = np.arange(12) <= 2 * row + np.arange(2)[:, None]
    expected = np.kron(seen, np.ones((3, 3), bool))
    assert np.array_equal(J.pattern.to_dense(), expected)


def _in_blocks(blocks, fill, sees):
    """Attention over blocks of two keys, with a running maximum, which a loop goes through."""

    def attend(x):
        place = jnp.arange(2 * blocks)[:, None]

        def step(carry, block):
            total, most, norm = carry
            number, key = block
            s = jnp.where(sees(place, 2 * number + jnp.arange(2)), x @ key.T, fill)
            new = jnp.maximum(most, s.max(-1))
            p, old = jnp.exp(s - new[:, None]), jnp.exp(most - new)
            return (total * old[:, None] + p @ key, new, norm * old + p.sum(-1)), None

        start = jnp.zeros_like(x), jnp.full(2 * blocks, fill), jnp.zeros(2 * blocks)
        keys = jnp.arange(blocks), x.reshape(blocks, 2, 3)
        (total, _, norm), _ = lax.scan(step, start, keys)
        return total / norm[:, None]

    return attend, jax.ShapeDtypeStruct((2 * blocks, 3), jnp.float32)


@pytest.mark.parametrize("fill", [-1e30, -jnp.inf])
def test_blocks_hide_what_they_cover_however_many_they_are(fill):
    J = assert_structure(*_in_blocks(200, fill, lambda i, j: i >= j), causal=0, conditions=1e6)
    assert [c.kind for c in J.conditions] == ["magnitude"] * (fill == -1e30)
    assert all(J.holds(np.ones((400, 3), np.float32)))
    assert not any(J.holds(np.full((400, 3), 1e20, np.float32)))


@pytest.mark.parametrize(
    ("fill", "sees"),
    [
        (-1e30, lambda i, j: i + 1 >= j),
        (-jnp.inf, lambda i, j: i + 1 >= j),
        (-1e30, lambda i, j: i > j),  # row 0 keeps nothing, and is the mean over all
        (-20.0, lambda i, j: i >= j),
        (-1e30, lambda i, j: j >= i),
    ],
)
def test_many_blocks_that_leak_are_refused(fill, sees):
    with pytest.raises(StructureMismatch):
        assert_structure(*_in_blocks(200, fill, sees), causal=0, conditions=1e6)


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
@pytest.mark.parametrize("apart", [-3, 0, 2])
def test_places_in_blocks_are_compared_by_their_digits(name, apart):
    ways = [((6, 3, 2), (1, 0, 0), (0, 2, 1)), ((2, 3, 3, 2), (0, 2, 0, 1), (1, 0, 2, 0))]
    for shape, first, second in ways:
        a, b = Affine(shape, first, apart), Affine(shape, second, 0)
        known = _comparison(name, a, b)
        true = getattr(operator, name)(a.write(), b.write())
        assert np.array_equal(known.nonzero.to_dense().reshape(shape), true)
        assert np.array_equal(known.untrue.to_dense().reshape(shape), ~true)
