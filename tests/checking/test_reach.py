"""Rules that are wrong only on a branch are found from inputs that never take it."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from scipy.special import digamma

import gradlab
from gradlab.checking import reach

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(-3, 3, (4, 5)), jnp.float32)
POSITIVE = jnp.asarray(RNG.uniform(0.5, 2.0, 6), jnp.float32)


class Layer(NamedTuple):
    """A forward, its right gradient, and one that is wrong on a branch alone."""

    name: str
    forward: Callable[..., Any]
    right: Callable[..., Any]
    wrong: Callable[..., Any]
    inputs: tuple[Any, ...]


def rule(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    @jax.custom_vjp
    def layer(*inputs: Any) -> Any:
        return forward(*inputs)

    layer.defvjp(lambda *x: (forward(*x), x), lambda x, u: backward(u, *x))
    return layer


def softplus(x: Any) -> Any:
    return jnp.where(x > 20, x, jnp.log1p(jnp.exp(jnp.minimum(x, 20.0))))


def huber(x: Any) -> Any:
    size = jnp.abs(x)
    return jnp.where(size <= 10, 0.5 * x * x, 10 * size - 50)


def clip_norm(x: Any) -> Any:
    return x * jnp.minimum(1.0, 100.0 / jnp.sqrt((x * x).sum()))


def clip_norm_right(u: Any, x: Any) -> Any:
    norm = jnp.sqrt((x * x).sum())
    clipped = 100 * (u / norm - x * (u * x).sum() / norm**3)
    return (jnp.where(norm > 100, clipped, u),)


def gated(x: Any) -> Any:
    return jax.lax.cond(x.sum() > 1000.0, lambda x: x * x, lambda x: 3 * x, x)


def _nested(x: Any, slope: float) -> Any:
    return jnp.where(x > 3, slope, 2.0)


def _rows(x: Any, small: Callable[[Any], Any]) -> Any:
    size = (x * x).sum(-1)
    return jnp.where(size > 1e-6, jnp.sqrt(jnp.where(size > 1e-6, size, 1.0)), small(size))


def _rows_gradient(u: Any, x: Any, slope: float) -> Any:
    size = (x * x).sum(-1)
    inverse = jnp.where(size > 1e-6, 1 / jnp.sqrt(jnp.where(size > 1e-6, size, 1.0)), slope)
    return (u * inverse)[:, None] * x


def _picked(x: Any, labels: Any) -> Any:
    return jnp.take_along_axis(x, jnp.where(labels == -100, 0, labels)[:, None], 1)[:, 0]


def focal(x: Any, labels: Any) -> Any:
    return jnp.where(labels == 3, 2.0, 1.0) * x


def masked(x: Any, mask: Any) -> Any:
    return jnp.where(mask, x * x, 0.0)


def leaky(x: Any) -> Any:
    return jnp.where(x >= 0, x, 0.01 * x)


def cubic(x: Any) -> Any:
    return jnp.where(x**3 - 5 * x + 40 < 0, x, x * x)


def hinge(x: Any, y: Any) -> Any:
    return jnp.maximum(0.0, 1 - x * y).sum()


def safe_log(x: Any) -> Any:
    return jnp.where(x > 1e-3, jnp.log(jnp.maximum(x, 1e-3)), jnp.log(1e-3) + (x / 1e-3 - 1))


LAYERS = [
    Layer(
        "softplus",
        softplus,
        lambda u, x: (u * jnp.where(x > 20, 1.0, jax.nn.sigmoid(x)),),
        lambda u, x: (u * jnp.where(x > 20, 0.5, jax.nn.sigmoid(x)),),
        (X,),
    ),
    Layer(
        "huber",
        huber,
        lambda u, x: (u * jnp.clip(x, -10, 10),),
        lambda u, x: (u * x,),
        (X,),
    ),
    Layer("clip_norm", clip_norm, clip_norm_right, lambda u, x: (u,), (X,)),
    Layer(
        "gated",
        gated,
        lambda u, x: (jnp.where(x.sum() > 1000.0, 2 * x, 3.0) * u,),
        lambda u, x: (jnp.where(x.sum() > 1000.0, x, 3.0) * u,),
        (X,),
    ),
    Layer(
        "focal",
        focal,
        lambda u, x, labels: (u * jnp.where(labels == 3, 2.0, 1.0), None),
        lambda u, x, labels: (u, None),
        (POSITIVE, jnp.array([0, 1, 2, 1, 0, 2])),
    ),
    Layer(
        "masked",
        masked,
        lambda u, x, mask: (jnp.where(mask, 2 * x * u, 0.0), None),
        lambda u, x, mask: (2 * x * u, None),
        (POSITIVE, jnp.ones(6, bool)),
    ),
    Layer(
        "leaky",
        leaky,
        lambda u, x: (jnp.where(x >= 0, u, 0.01 * u),),
        lambda u, x: (jnp.where(x >= 0, u, 0.1 * u),),
        (POSITIVE,),
    ),
    Layer(
        "cubic",
        cubic,
        lambda u, x: (u * jnp.where(x**3 - 5 * x + 40 < 0, 1.0, 2 * x),),
        lambda u, x: (u * 2 * x,),
        (X,),
    ),
    Layer(
        "hinge",
        hinge,
        lambda u, x, y: (
            jnp.where(x * y < 1, -u * y, 0.0),
            jnp.where(x * y < 1, -u * x, 0.0),
        ),
        lambda u, x, y: (-u * y, jnp.where(x * y < 1, -u * x, 0.0)),
        (0.3 * POSITIVE, 0.3 * POSITIVE[::-1]),
    ),
    Layer(
        "safe_log",
        safe_log,
        lambda u, x: (u * jnp.where(x > 1e-3, 1 / jnp.maximum(x, 1e-3), 1e3),),
        lambda u, x: (u / x,),
        (POSITIVE,),
    ),
    Layer(
        "row_max",
        lambda x: x.max(-1),
        lambda u, x: (jnp.where(x == x.max(-1, keepdims=True), u[:, None], 0.0),),
        lambda u, x: (jnp.zeros_like(x).at[:, 0].set(u),),
        (jnp.array([[5.0, 1.0, 2.0], [4.0, 0.0, 3.0]]),),
    ),
    Layer(
        "sort",
        jnp.sort,
        lambda u, x: (u[jnp.argsort(jnp.argsort(x))],),
        lambda u, x: (u,),
        (jnp.arange(1.0, 6.0),),
    ),
    Layer(
        "whole_tens",
        lambda x: x * jnp.floor(x / 10),
        lambda u, x: (u * jnp.floor(x / 10),),
        lambda u, x: (0 * u,),
        (POSITIVE,),
    ),
    Layer(  # both conditions are reached one by one, and hide each other
        "nested",
        lambda x, y: jnp.where(y > 0, jnp.where(x > 3, x * x, x), jnp.where(x > 3, 5 * x, 2 * x)),
        lambda u, x, y: (u * jnp.where(y > 0, jnp.where(x > 3, 2 * x, 1), _nested(x, 5)), 0 * y),
        lambda u, x, y: (u * jnp.where(y > 0, jnp.where(x > 3, 2 * x, 1), _nested(x, 4)), 0 * y),
        (jnp.array([0.5]), jnp.array([0.7])),
    ),
    Layer(  # one half of what lies beyond
        "far",
        lambda x: jnp.where(jnp.abs(x) < 1e3, x * x / 2e3, jnp.abs(x) - 5e2),
        lambda u, x: (u * jnp.where(jnp.abs(x) < 1e3, x / 1e3, jnp.sign(x)),),
        lambda u, x: (u * jnp.where(jnp.abs(x) < 1e3, x / 1e3, 1.0),),
        (X,),
    ),
    Layer(  # at zero itself both are right
        "small_rows",
        lambda x: _rows(x, lambda s: 1e3 * s),
        lambda u, x: (_rows_gradient(u, x, 2e3),),
        lambda u, x: (_rows_gradient(u, x, 1e3),),
        (X,),
    ),
    Layer(
        "ignored_labels",
        lambda x, t: -jnp.where(t != -100, _picked(x, t), 0.0).sum(),
        lambda u, x, t: (-u * jax.nn.one_hot(t, 5) * (t != -100)[:, None], None),
        lambda u, x, t: (-u * jax.nn.one_hot(jnp.where(t == -100, 0, t), 5), None),
        (X, jnp.array([0, 2, 1, 4])),
    ),
    Layer(
        "labels_below_zero",
        lambda x, t: -jnp.where(t >= 0, _picked(x, jnp.where(t < 0, 0, t)), 0.0).sum(),
        lambda u, x, t: (-u * jax.nn.one_hot(t, 5) * (t >= 0)[:, None], None),
        lambda u, x, t: (-u * jax.nn.one_hot(jnp.where(t < 0, 0, t), 5), None),
        (X, jnp.array([0, 2, 1, 4])),
    ),
    Layer(
        "masked_mean",
        lambda x, mask: jnp.where(mask, x, 0.0).sum() / jnp.maximum(mask.sum(), 1),
        lambda u, x, mask: (jnp.where(mask, u, 0.0) / jnp.maximum(mask.sum(), 1), None),
        lambda u, x, mask: (jnp.where(mask, u, 0.0) / mask.size, None),
        (POSITIVE, jnp.ones(6, bool)),
    ),
    Layer(  # JAX has no reverse mode for it
        "while",
        lambda x: jax.lax.while_loop(lambda x: (x * x).sum() > 400.0, lambda x: x / 2, x),
        lambda u, x: (
            jax.lax.while_loop(
                lambda c: (c[0] * c[0]).sum() > 400.0, lambda c: (c[0] / 2, c[1] / 2), (x, u)
            )[1],
        ),
        lambda u, x: (u,),
        (X,),
    ),
    Layer(  # far from the boundary both gradients vanish
        "elu",
        lambda x: jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0))),
        lambda u, x: (u * jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0))),),
        lambda u, x: (u * jnp.where(x > 0, 1.0, 2 * jnp.exp(jnp.minimum(x, 0))),),
        (POSITIVE,),
    ),
]


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("verdict_alone")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_rule_that_is_wrong_on_another_branch_is_found(layer: Layer) -> None:
    report = gradlab.check(rule(layer.forward, layer.wrong), *layer.inputs)
    assert report.status == "wrong"
    law = next(law for law in report.laws if law.name == "branches")
    assert law.status == "failed"
    assert "at an input that gradlab made" in law.reason
    assert any(re.match(r"gradlab made \w+.* = \S+; .*domain=", note) for note in report.notes)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_right_rule_passes_on_every_branch(layer: Layer) -> None:
    report = gradlab.check(rule(layer.forward, layer.right), *layer.inputs)
    assert report.status == "right", str(report)
    assert report.grade in ("every branch", "proved")


def test_the_grade_says_proved_with_its_bound_and_what_it_assumes() -> None:
    report = gradlab.check(rule(LAYERS[1].forward, LAYERS[1].right), X)
    (evidence,) = report.evidence.values()
    assert evidence.grade == "proved"
    assert evidence.bound is not None and evidence.bound <= 2.0**-40
    assert evidence.assumes
    assert "every branch" in evidence.also


def test_switches_turn_proof_and_branches_off() -> None:
    report = gradlab.check(rule(LAYERS[1].forward, LAYERS[1].wrong), X, branches=False)
    (evidence,) = report.evidence.values()
    assert report.ok and evidence.grade == "proved"
    assert any("10" in condition for condition in evidence.where)
    assert gradlab.check(jax.nn.silu, X, prove=False, branches=False).grade == "points"


def test_a_wrong_gradient_has_no_grade() -> None:
    report = gradlab.check(rule(jnp.sin, lambda u, x: (u * jnp.sin(x),)), X)
    assert report.grade is None


def silu(backward: Callable[..., Any]) -> Callable[..., Any]:
    return rule(jax.nn.silu, backward)


def silu_right(u: Any, x: Any) -> tuple[Any]:
    s = jax.nn.sigmoid(x)
    return (u * (s * (1 + x * (1 - s))),)


def test_an_elementwise_rule_in_half_precision_is_judged_at_every_value() -> None:
    x = jnp.linspace(-2, 2, 12, dtype=jnp.bfloat16).reshape(3, 4)
    report = gradlab.check(silu(silu_right), x)
    (evidence,) = report.evidence.values()
    assert report.ok
    assert "every value" in (evidence.grade, *evidence.also)
    assert evidence.tried["values"] == 65280


@pytest.mark.usefixtures("verdict_alone")
def test_a_rule_that_is_wrong_at_few_values_of_half_precision_is_found() -> None:
    """No comparison tells where: the mistake lies in an arithmetic that overflows far away."""

    def wrong(u: Any, x: Any) -> tuple[Any]:
        far = jnp.clip(jnp.abs(x) - 100, 0, 1) * jnp.clip(jnp.abs(x) - 100, 0, 1)
        return (silu_right(u, x)[0] + far * u,)

    x = jnp.linspace(-2, 2, 12, dtype=jnp.float16).reshape(3, 4)
    report = gradlab.check(silu(wrong), x, branches=False)
    assert report.status == "wrong"
    assert report.worst is not None and report.worst.index
    (made,) = re.findall(r"gradlab made .*\] = (\S+);", " ".join(report.notes))
    assert abs(float(made)) > 100


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("power", "factor"), [(12.9, 1.0), (25.9, 1.0), (12.9, 1.05)])
def test_a_power_that_bfloat16_rounds_is_judged_by_the_one_that_was_written(
    power: float, factor: float
) -> None:
    """The trace holds 12.875, or 25.875, and the backward 12.9 in float32."""

    def backward(x: Any, g: Any) -> Any:
        wide = x.astype(jnp.float32)
        return ((g.astype(jnp.float32) * factor * power * wide ** (power - 1)).astype(x.dtype),)

    f = jax.custom_vjp(lambda x: x**power)
    f.defvjp(lambda x: (f(x), x), backward)
    x = jnp.asarray(np.abs(np.random.default_rng(0).normal(size=6)) + 0.5, jnp.bfloat16)
    assert gradlab.check(f, x).status == ("right" if factor == 1 else "wrong")


def test_rows_that_meet_have_no_grade_for_every_value() -> None:
    report = gradlab.check(jax.nn.softmax, jnp.ones((2, 3), jnp.bfloat16))
    assert all("values" not in evidence.tried for evidence in report.evidence.values())


def test_a_comparison_that_holds_with_equality_is_a_side_that_was_taken() -> None:
    """After a maximum with 0, `h <= 0` is true at zeros alone, and these were there."""

    def backward(u: Any, x: Any) -> tuple[Any]:
        return (jnp.where(jnp.maximum(x, 0.0) <= 0, 0.0, u),)

    report = gradlab.check(rule(lambda x: jnp.maximum(x, 0.0), backward), X)
    (evidence,) = report.evidence.values()
    assert report.ok and evidence.unreached == ()


def by_sum(x: Any) -> Any:
    return 2 * x if x.sum() > 0 else 3 * x


def by_size(x: Any) -> Any:
    if np.max(np.abs(x)) > 5:
        return np.tanh(x)
    return x * x


def halved(x: Any) -> Any:
    while np.sum(x * x) > 100:
        x = x / 2
    return x


def halved_right(u: Any, x: Any) -> Any:
    while np.sum(x * x) > 100:
        x, u = x / 2, u / 2
    return u


def by_number(x: Any, k: Any) -> Any:
    if k == 0:
        return x
    return 2 * x if k == 1 else x * x * x


NUMPY = {
    "if": (by_sum, lambda u, x: u * (2 if x.sum() > 0 else 3), lambda u, x: 2 * u, ()),
    "if of a maximum": (
        by_size,
        lambda u, x: u * (1 - np.tanh(x) ** 2 if np.max(np.abs(x)) > 5 else 2 * x),
        lambda u, x: 2 * x * u,
        (),
    ),
    "while": (halved, halved_right, lambda u, x: u, ()),
    "if of a whole number": (
        by_number,
        lambda u, x, k: (u * (1, 2, 3 * x * x)[min(int(k), 2)], None),
        lambda u, x, k: (u * (1 if k == 0 else 2), None),
        (np.array(1),),
    ),
}


@pytest.mark.parametrize("name", NUMPY)
def test_the_values_by_which_numpy_decides_are_conditions_too(name: str) -> None:
    forward, right, wrong, others = NUMPY[name]
    x = np.asarray(POSITIVE, np.float64)
    report = gradlab.check(forward, x, *others, backward=wrong)
    law = next(law for law in report.laws if law.name == "branches")
    assert report.status == "wrong" and law.status == "failed"
    report = gradlab.check(forward, x, *others, backward=right)
    assert report.status == "right" and report.grade in ("every branch", "proved"), str(report)
    assert not any(each.unreached for each in report.evidence.values())


@jax.jit
def relu(x: Any) -> Any:  # JAX has a function of this name, too
    return jnp.where(
        (x > 20.0) & (x != 7.0),
        x,
        2 * x,
    )


def test_a_condition_of_a_helper_is_told_in_its_own_words() -> None:
    layer = rule(lambda x: 3 * relu(x) + 1, lambda u, x: (6 * u,))
    report = gradlab.check(layer, X)
    (law,) = (law for law in report.laws if law.name == "branches")
    assert "test_reach.py:" in law.reason and "`x > 20.0` is true" in law.reason


def test_a_random_key_among_the_operands_of_a_rule_is_no_number():
    @jax.custom_vjp
    def dropout(key, x):
        return x * jax.random.bernoulli(key, 0.5, x.shape)

    dropout.defvjp(
        lambda key, x: (dropout(key, x), (key, x)),
        lambda kept, g: (None, g * jax.random.bernoulli(kept[0], 0.5, kept[1].shape)),
    )
    key, x = jax.random.key(0), jnp.linspace(0.5, 2.0, 5)
    assert gradlab.check(dropout, key, x).ok
    assert gradlab.audit(lambda x: dropout(key, x), x).ok


def test_a_key_that_is_made_from_an_input_passes_through_the_walk():
    @jax.custom_vjp
    def dropout(seed, x):
        return x * jax.random.bernoulli(jax.random.key(seed), 0.5, x.shape)

    def backward(kept, g):
        seed, x = kept
        return None, g * jax.random.bernoulli(jax.random.key(seed), 0.5, x.shape)

    dropout.defvjp(lambda seed, x: (dropout(seed, x), (seed, x)), backward)
    assert gradlab.check(dropout, 3, jnp.linspace(0.5, 2.0, 5)).ok
    assert gradlab.check(dropout, jnp.int32(3), jnp.linspace(0.5, 2.0, 5)).ok


def test_places_that_are_written_to_stay_apart():
    """Which of two writes to one place stands is nobody's promise."""

    @jax.custom_vjp
    def put(x, values, index):
        return x.at[index].set(values)

    put.defvjp(
        lambda x, values, index: (put(x, values, index), index),
        lambda index, g: (g.at[index].set(0.0), g[index], None),
    )
    assert gradlab.check(put, jnp.arange(1.0, 7.0), jnp.array([1.3, 0.9]), jnp.array([1, 4])).ok


MASK = np.tril(np.ones((4, 4), bool))


def attention(x, w):
    s = np.where(MASK, (x @ w) @ x.T, -1e9)
    e = np.exp(s - s.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def attention_backward(u, x, w):
    p = attention(x, w)
    s = p * (u - (u * p).sum(1, keepdims=True))  # p is 0 where the mask hides: no mask is needed
    return s @ x @ w.T + s.T @ (x @ w), x.T @ s @ x


def test_one_input_that_multiplies_itself_stays_within_a_mask():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    report = gradlab.check(attention, x, w, backward=attention_backward)
    assert report.ok, report


@jax.custom_vjp
def scaled_norm(x, w):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True)) * w


def scaled_norm_backward(kept, g):
    x, _ = kept
    r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True))
    return r * (g - x * r * jnp.mean(g * x * r, -1, keepdims=True)), jnp.sum(g * x * r, axis=0)


scaled_norm.defvjp(lambda x, w: (scaled_norm(x, w), (x, w)), scaled_norm_backward)


def affine(x, w, b):
    return x @ w + b, (x, w, b)


def affine_backward(u, kept):
    x, w, b = kept
    return u @ w.T, x.T @ u, u.sum(0) + b


def test_weights_of_ones_and_biases_of_zero_hide_nothing():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 8)), jnp.float32)
    report = gradlab.check(scaled_norm, x, jnp.ones(8))
    assert report.status == "wrong" and "the factor `kept[1]` is missing" in report.diagnosis, (
        report
    )
    assert "near the given ones" in str(report) and "gradlab made" in str(report)
    arrays = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), np.zeros(4)
    options = {"backward": affine_backward, "returns": "output+residuals"}
    report = gradlab.check(affine, *arrays, **options)
    assert report.status == "wrong" and [leaf.path for leaf in report.leaves if leaf.wrong] == ["b"]
    assert gradlab.check(affine, *arrays, **options, domain={"b": lambda b: not b.any()}).ok


def cross_entropy(logits, labels):
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -(labels * logp).sum(), (np.exp(logp) - labels, -logp)


def trace_of_square(a):
    return np.sum(a * a.T), (2 * a,)  # a transpose is left out: a is symmetric


def component(x):
    """How far a direction points along (1, 2, 3, 4); the gradient takes the length of x for 1."""
    along = np.arange(1.0, 5.0)
    return along @ x / np.sqrt(x @ x), (along - x * (along @ x),)


def test_rows_of_probabilities_symmetric_matrices_and_unit_vectors_stay_so():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 4))
    q = rng.normal(size=4)
    for function, arrays in (
        (cross_entropy, (rng.normal(size=(5, 3)), np.eye(3)[[0, 2, 1, 1, 0]])),
        (trace_of_square, (a @ a.T + np.eye(4),)),
        (component, (q / np.linalg.norm(q),)),
    ):
        report = gradlab.check(function, *arrays, returns="output+gradients")
        assert report.ok, report


def half_transposed(x, w):
    """A matrix product whose gradient is right if w is symmetric."""
    return (x @ w).sum(), (np.ones_like(x @ w) @ w, x.T @ np.ones_like(x @ w))


def test_what_was_found_near_a_symmetric_matrix_says_nothing_of_others():
    x, s = np.random.default_rng(1).normal(size=(2, 4, 4))
    check = functools.partial(gradlab.check, half_transposed, returns="output+gradients")
    for w, status in ((s @ s.T, "right"), (np.full((4, 4), 0.3), "wrong")):
        assert check(x, w).status == status


@pytest.mark.parametrize(
    "function", [lambda x: jnp.abs(jnp.fft.fft(x)) ** 2, lambda x: jax.lax.cummax(x, 1)]
)
def test_complex_constants_and_arrays_without_entries_pass_through_the_walk(function):
    rule = jax.custom_vjp(function)
    rule.defvjp(lambda x: (function(x), x), lambda x, u: jax.vjp(function, x)[1](u))
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    assert gradlab.check(rule, x).ok


def likelihood(a):
    """NumPy whose derivative JAX knows to seven digits alone where `a` is large."""
    return scipy.special.betaln(a, 0.7).sum(), (digamma(a) - digamma(a + 0.7),)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_was_read_is_no_judge_where_it_is_not_what_numpy_computes(dtype):
    report = gradlab.check(likelihood, np.array([0.5, 1.7, 1.1], dtype), returns="output+gradients")
    assert report.ok and "read from NumPy" in report.oracle, report


def solved(a):
    """NumPy that refuses an input which the walk over branches makes."""
    x = np.linalg.lstsq(a, np.ones(4), rcond=None)[0]
    u = np.linalg.solve(a.T @ a, np.ones(2))
    return x.sum(), (np.outer(np.ones(4) - a @ x, u) - np.outer(a @ u, x),)


def test_a_function_may_refuse_what_the_walk_makes():
    a = np.random.default_rng(0).normal(size=(4, 2))
    report = gradlab.check(solved, a, returns="output+gradients")
    assert report.ok and "read from NumPy" in report.oracle, report


@pytest.mark.parametrize(("prove", "then"), [(True, 'prove="long"'), ("long", "smaller inputs")])
def test_a_proof_that_is_stopped_leaves_a_note_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, prove: reach.Prove, then: str
) -> None:
    for name in ("BUDGET", "LONG"):
        monkeypatch.setattr(reach, name, 10.0)
    layer = rule(jnp.tanh, lambda u, x: (u * (1 - jnp.tanh(x) ** 2),))
    report = gradlab.check(layer, jnp.linspace(-1.0, 1.0, 17), prove=prove)
    assert report.ok and report.grade == "every branch"
    assert any("stopped the proof" in note and then in note for note in report.notes)


def _blocks(x: Any) -> Any:
    return x.reshape(-1, 2, x.shape[-1])


def _flash(q: Any, k: Any, v: Any) -> Any:
    """Attention block by block, and the logarithm of each row's sum."""

    def step(carry: Any, block: Any) -> Any:
        (top, total, out), (keys, values) = carry, block
        scores = q @ keys.T / q.shape[-1] ** 0.5
        new = jnp.maximum(top, scores.max(-1))
        p, shrink = jnp.exp(scores - new[:, None]), jnp.exp(top - new)
        return (new, total * shrink + p.sum(-1), out * shrink[:, None] + p @ values), None

    zeros = jnp.zeros(len(q), q.dtype)
    start = zeros - 1e30, zeros, jnp.zeros((len(q), v.shape[1]), q.dtype)
    (top, total, out), _ = jax.lax.scan(step, start, (_blocks(k), _blocks(v)))
    return out / total[:, None], top + jnp.log(total)


def _flash_backward(g: Any, q: Any, k: Any, v: Any, out: Any, sums: Any, forget: bool) -> Any:
    delta = 0 if forget else (g * out).sum(-1, keepdims=True)

    def step(dq: Any, block: Any) -> Any:
        keys, values = block
        p = jnp.exp(q @ keys.T / q.shape[-1] ** 0.5 - sums[:, None])
        ds = p * (g @ values.T - delta) / q.shape[-1] ** 0.5
        return dq + ds @ keys, (ds.T @ q, p.T @ g)

    dq, (dk, dv) = jax.lax.scan(step, jnp.zeros_like(q), (_blocks(k), _blocks(v)))
    return dq, dk.reshape(k.shape), dv.reshape(v.shape)


def flash_attention(forget: bool = False) -> Callable[..., Any]:
    @jax.custom_vjp
    def layer(q: Any, k: Any, v: Any) -> Any:
        return _flash(q, k, v)[0]

    def forward(q: Any, k: Any, v: Any) -> Any:
        out, sums = _flash(q, k, v)
        return out, (q, k, v, out, sums)

    layer.defvjp(forward, lambda kept, g: _flash_backward(g, *kept, forget))
    return layer


def test_a_flash_attention_backward_is_proved_with_its_bound() -> None:
    inputs = [jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32) for _ in range(3)]
    report = gradlab.check(flash_attention(), *inputs)
    assert report.status == "right" and report.grade == "proved"
    for evidence in report.evidence.values():
        assert evidence.bound is not None and evidence.bound <= 2.0**-40 and not evidence.where
    assert "proved as a formula" in str(report)
    wrong = gradlab.check(flash_attention(forget=True), *inputs)
    assert wrong.status == "wrong" and wrong.grade is None


def test_a_failure_on_a_branch_names_the_line_of_the_comparison() -> None:
    report = gradlab.check(rule(softplus, LAYERS[0].wrong), X)
    law = next(law for law in report.laws if law.name == "branches")
    assert "test_reach.py:" in law.reason and "`x > 20` is true" in law.reason


def test_where_a_function_has_no_value_nothing_is_judged():
    rule = jax.custom_vjp(lambda p: jnp.where(p <= 1, p * p, jnp.nan))
    rule.defvjp(lambda p: (rule(p), p), lambda p, u: (u * jnp.where(p <= 1, 2 * p, jnp.nan),))
    assert gradlab.check(rule, jnp.array([0.2, 0.5])).status == "right"


def dropout(x: Any, keep: Any, train: bool) -> Any:
    return x * keep if train else x


@pytest.mark.parametrize("train", [True, False])
def test_a_setting_is_tried_both_ways(train: bool) -> None:
    """A rule that forgets it is wrong; one that refuses the other way, or heeds it, is not."""
    keep, x = np.array([True, False, True]), np.array([0.3, -1.0, 2.0])

    def forgets(u: Any, x: Any, keep: Any, train: bool) -> Any:
        return u * keep

    def heeds(u: Any, x: Any, keep: Any, train: bool) -> Any:
        return dropout(u, keep, train)

    def refuses(u: Any, x: Any, keep: Any, wanted: bool) -> Any:
        if wanted is not train:
            raise NotImplementedError
        return dropout(u, keep, train)

    for backward, status in ((forgets, "wrong"), (heeds, "right"), (refuses, "right")):
        report = gradlab.check(dropout, x, keep, train, backward=backward)
        assert report.status == status, str(report)
        assert not report.fixes
    made = gradlab.check(dropout, x, keep, True, backward=forgets)
    assert any("gradlab made train = False" in note for note in made.notes)
    legal = gradlab.check(dropout, x, keep, True, backward=forgets, domain={"train": [True]})
    assert legal.status == "right"


def test_where_autodiff_is_not_finite_either_nothing_that_gradlab_made_is_held_against_a_rule():
    """A pair that joins a point with itself: nobody gave it, and nobody can write its gradient."""

    def forward(x, pairs):
        apart = x[pairs[:, 0]] - x[pairs[:, 1]]
        length = np.sqrt((apart**2).sum(axis=1))
        return (length - 1.0) ** 2, (x, pairs, apart, length)

    def backward(g, kept):
        x, pairs, apart, length = kept
        force = (2 * g * (length - 1.0) / length)[:, None] * apart
        dx = np.zeros_like(x)
        np.add.at(dx, pairs[:, 0], force)
        np.add.at(dx, pairs[:, 1], -force)
        return dx, None

    x = np.random.default_rng(0).normal(size=(4, 2))
    pairs = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
    kept = {"backward": backward, "returns": "output+residuals"}
    assert gradlab.check(forward, x, pairs, **kept).ok
    assert not gradlab.check(forward, x, np.array([[0, 1], [2, 2]]), **kept).ok  # it was given


@pytest.mark.usefixtures("verdict_alone")
def test_an_order_stays_an_order_and_an_index_may_be_met_twice():
    """Of a ranking every place is met once: what a rule does beyond that is nobody's promise."""

    def ranked(s, order):
        chosen = s[order]
        tail = np.cumsum(np.exp(chosen)[::-1])[::-1]
        return np.sum(np.log(tail) - chosen)

    def backward(g, s, order):
        e = np.exp(s[order])
        tail = np.cumsum(e[::-1])[::-1]
        ds = np.zeros_like(s)
        ds[order] = g * (e * np.cumsum(1 / tail) - 1)
        return ds

    s, order = np.random.default_rng(0).normal(size=6), np.array([2, 0, 5, 1, 3, 4])
    report = gradlab.check(ranked, s, order, backward=backward)
    assert report.ok, str(report)

    def written_over(g, s, places):
        ds = np.zeros_like(s)
        ds[places] = g
        return ds

    read = gradlab.check(lambda s, i: s[i], s, np.array([2, 0, 1]), backward=written_over)
    assert read.failed, str(read)
