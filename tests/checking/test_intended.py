"""What an author declares: a gradient that is no derivative, and inputs that are legal."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

X = jnp.array([-1.3, 0.4, 2.6], jnp.float32)


def straight_through(factor=1.0, clip=np.inf):
    @jax.custom_vjp
    def round_ste(x):
        return jnp.round(x)

    round_ste.defvjp(
        lambda x: (round_ste(x), None), lambda _, g: (jnp.clip(factor * g, -clip, clip),)
    )
    return round_ste


def reversed_(x):
    return -x


def test_a_straight_through_gradient_is_wrong_until_it_is_declared():
    f = straight_through()
    assert not gradlab.check(f, X).ok
    report = gradlab.check(f, X, intended=lambda x: x)
    assert report.ok, report
    assert [leaf.status for leaf in report.leaves] == ["right"]
    assert not gradlab.check(straight_through(2.0), X, intended=lambda x: x).ok
    assert not gradlab.check(f, X, intended=reversed_).ok
    assert [rule.intended for rule in report.rules] == ["<lambda>"]


def test_the_value_is_still_that_of_the_primal():
    @jax.custom_vjp
    def f(x):
        return jnp.round(x)

    f.defvjp(lambda x: (jnp.floor(x), None), lambda _, g: (g,))
    report = gradlab.check(f, X, intended=lambda x: x)
    assert [law.name for law in report.failed] == ["value"]


def test_any_gradient_may_be_intended_but_not_one_that_clips():
    report = gradlab.check(straight_through(3.0), X, intended="any")
    assert report.ok and not report.leaves, report
    assert "not judged: intended" in str(report)
    report = gradlab.check(straight_through(3.0, clip=10.0), X, intended="any")
    assert [law.name for law in report.failed] == ["linear"]


@pytest.mark.parametrize("key", ["function", "name", "file"])
def test_a_rule_inside_is_declared_by_the_function_its_name_or_its_file(key):
    f = straight_through()
    named = {"function": f, "name": "round_ste", "file": "test_intended.py:round_ste"}[key]

    def model(x):
        return jnp.sum(jnp.sin(3 * f(2 * x)) ** 2)

    assert not gradlab.audit(model, X).ok
    report = gradlab.audit(model, X, intended={named: lambda x: x})
    assert report.ok and [rule.intended for rule in report.rules] == ["<lambda>"]
    assert not gradlab.audit(model, X, intended={named: reversed_}).ok
    assert gradlab.check(model, X, intended={named: lambda x: x}).ok
    assert not gradlab.check(model, X, intended={named: reversed_}).ok
    assert gradlab.audit(model, X, intended={named: "any"}).ok
    assert gradlab.check(model, X, intended={named: "any"}).ok


def test_a_backward_beside_its_forward_may_be_declared():
    def backward(g, x):
        return -g

    assert gradlab.check(lambda x: x * 1.0, X, backward=backward, intended=reversed_).ok
    assert not gradlab.check(lambda x: x * 1.0, X, backward=backward).ok


def test_what_is_declared_for_no_rule_is_refused_with_the_rules():
    with pytest.raises(gradlab.InputError, match=r"round_ste at test_intended\.py"):
        gradlab.audit(straight_through(), X, intended={"round_st": "any"})
    with pytest.raises(gradlab.InputError, match="not both"):
        gradlab.check(straight_through(), X, intended=lambda x: x, reference=jnp.sin)
    with pytest.raises(gradlab.InputTypeError, match="expected a dict"):
        gradlab.audit(straight_through(), X, intended=lambda x: x)
    with pytest.raises(gradlab.InputError, match="intended: sum returns"):
        gradlab.audit(straight_through(), X, intended={"round_ste": jnp.sum})


# domain


def test_gradlab_makes_no_inputs_outside_of_the_domain():
    def least_and_largest(domain):
        got = []

        def on_host(x):
            got.append(np.asarray(x))
            return np.sqrt(np.asarray(x))

        @jax.custom_vjp
        def root(x):
            return jax.pure_callback(
                on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential"
            )

        root.defvjp(lambda x: (root(x), x), lambda x, g: (g / (2 * jnp.sqrt(x)),))
        x = jnp.array([0.3, 2.0], jnp.float32)
        report = gradlab.check(root, x, reference=jnp.sqrt, samples=3, domain=domain)
        assert report.ok, report
        return min(a.min() for a in got), max(a.max() for a in got)

    low, high = least_and_largest({"x": (0.25, 2.25)})
    assert low >= 0.25 and high <= 2.25
    assert least_and_largest(None)[0] <= 0.0


def repr_without_addresses(value: object) -> str:
    """Name a case alike in every process that collects it."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(
    ("domain", "legal"),
    [
        ("positive", True),
        ("finite", True),
        ((0.0, None), True),
        ((None, 3.0), True),
        ({"x": (0.0, 5.0)}, True),
        ({"x": lambda x: x > 0}, True),
        (lambda x: (x > 0).all(), True),
        ((5.0, None), False),
        ({"x": lambda x: x < 0}, False),
        (lambda x: False, False),
    ],
    ids=repr_without_addresses,
)
def test_a_domain_is_said_in_words_bounds_or_by_a_function(domain, legal):
    x = np.array([0.5, 2.0])
    if legal:
        assert gradlab.check(jnp.log, x, domain=domain, samples=2).ok
        assert gradlab.audit(jax.nn.relu, x, domain=domain, samples=2).ok
    else:
        with pytest.raises(gradlab.InputError, match=r"domain: the given inputs"):
            gradlab.check(jnp.log, x, domain=domain)


def test_a_domain_that_makes_no_sense_is_refused():
    x = np.array([0.5, 2.0])
    for domain, says in (
        ({"y": "positive"}, "no input is named 'y'"),
        ("negative", "'positive' or 'finite'"),
        ((3.0, 1.0), "is empty"),
        ({"x": 3.5}, "expected \\(low, high\\)"),
    ):
        with pytest.raises(gradlab.GradlabError, match=says):
            gradlab.check(jnp.log, x, domain=domain)


def test_integers_may_be_listed():
    table = np.arange(12.0).reshape(4, 3)

    def rows(table, index):
        return table[index]

    index = np.array([0, 2], np.int32)
    assert gradlab.check(rows, table, index, domain={"index": [0, 1, 2, 3]}).ok
    with pytest.raises(gradlab.InputError, match="among"):
        gradlab.check(rows, table, index, domain={"index": [0, 1]})


def test_what_may_be_meant_names_every_wrong_input():
    @jax.custom_vjp
    def product(a, b):
        return a * b

    def backward(residuals, g):
        a, b = residuals
        return -g * b, -g * a

    product.defvjp(lambda a, b: (product(a, b), (a, b)), backward)
    said = " ".join(gradlab.check(product, X, X + 1).diagnosis.split())
    texts = [f.text for f in gradlab.check(product, X, X + 1).findings]
    meant = "the gradient of a has the wrong sign (b too); if you meant it, pass intended="
    assert any(text.startswith(meant) for text in (said, *texts)), (said, texts)
