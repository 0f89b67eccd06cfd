"""What is remembered between checks is the program, never the function; small ones compile once."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab.checking import reach
from gradlab.tracing import program

SOURCE = """
import jax
import jax.numpy as jnp

def slope(x):
    return {slope}

@jax.custom_vjp
def layer(x):
    return jnp.tanh(x) * 3.0

layer.defvjp(lambda x: (layer(x), x), lambda x, u: (u * slope(x) * {factor},))
"""
X = np.linspace(-1.0, 1.0, 6).astype(np.float32)


def test_a_rule_that_is_edited_and_reloaded_is_checked_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    right, wrong = "1 - jnp.tanh(x) ** 2", "1 - jnp.tanh(x)"
    file = tmp_path / "edited_layer.py"
    file.write_text(SOURCE.format(slope=right, factor=2.0))
    module = importlib.import_module("edited_layer")
    for slope, factor, ok in ((right, 2.0, False), (right, 3.0, True), (wrong, 3.0, False)):
        file.write_text(SOURCE.format(slope=slope, factor=factor))
        importlib.invalidate_caches()
        module = importlib.reload(module)
        assert gradlab.check(module.layer, X, prove=False).ok is ok
    monkeypatch.setattr(module, "slope", lambda x: 1 - jnp.tanh(x) ** 2)  # a helper alone
    assert gradlab.check(module.layer, X, prove=False).ok
    monkeypatch.setattr(module, "slope", lambda x: 2 - jnp.tanh(x) ** 2)
    assert not gradlab.check(module.layer, X, prove=False).ok


@pytest.fixture
def compiled(monkeypatch):
    """The functions that a test has compiled."""
    found = []
    compile_once = program.compile_once

    def counted(function, *arguments, **options):
        found.append(function)
        return compile_once(function, *arguments, **options)

    monkeypatch.setattr(program, "compile_once", counted)
    return found


def test_a_small_check_compiles_the_rule_alone_and_that_once(compiled):
    @jax.custom_vjp
    def layer(x):
        return x * jnp.exp(-x * 0.37)

    layer.defvjp(lambda x: (layer(x), x), lambda x, u: (u * (1 - 0.37 * x) * jnp.exp(-x * 0.37),))
    assert gradlab.check(layer, X).ok
    assert len(compiled) == 1
    assert gradlab.check(layer, X * 2, seed=3).ok
    assert len(compiled) == 1


def test_the_cause_of_a_wrong_gradient_is_searched_for_without_compiling(caplog):
    @jax.custom_vjp
    def layer(x):
        return x * jnp.tanh(x * 0.41)

    layer.defvjp(lambda x: (layer(x), x), lambda x, u: (u * x * jnp.cos(x * 0.41),))
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        assert gradlab.check(layer, np.ones((2, 1), np.float32) * X).failed
    compiled = [r.message for r in caplog.records if r.message.startswith("Compiling")]
    mine = [said for said in compiled if said.startswith("Compiling jit(_run)")]
    assert len(mine) == 1, compiled
    assert len(compiled) <= 4, compiled  # JAX 0.12 makes erf of three primitives that NumPy lacks


def test_proof_and_branches_are_remembered_where_the_inputs_decide_alike(monkeypatch):
    @jax.custom_vjp
    def layer(x):
        return jnp.where(x > 20.0, x * 0.71, jnp.sin(x * 0.71))

    def forward(x):
        return layer(x), x

    def backward(x, u):
        return (u * 0.71 * jnp.where(x > 20.0, 1.0, jnp.cos(x * 0.71)),)

    layer.defvjp(forward, backward)
    calls = []
    for name in ("prove", "walk_branches"):
        plain = getattr(reach, name)
        monkeypatch.setattr(reach, name, lambda *a, n=name, f=plain: calls.append(n) or f(*a))
    first = gradlab.check(layer, X)
    assert first.grade == "proved" and calls.count("walk_branches") == 1
    calls.clear()
    again = gradlab.check(layer, X * 0.9, seed=2)
    assert not calls and again.evidence == first.evidence
    assert gradlab.check(layer, X + 30.0).grade == "proved" and "prove" in calls  # the other side
    calls.clear()
    assert gradlab.check(layer, X, branches=False).evidence["x"].tried["branches"] == 0
    assert calls.count("walk_branches") == 1


def test_a_rule_that_is_wrong_on_another_branch_is_found_each_time():
    @jax.custom_vjp
    def layer(x):
        return jnp.where(x > 20.0, x, jnp.sin(x * 0.73))

    def backward(x, u):
        return (u * 0.73 * jnp.cos(x * 0.73),)

    def plain(x):
        return jnp.where(x > 20.0, x, jnp.sin(x * 0.73))

    layer.defvjp(lambda x: (layer(x), x), backward)
    for seed in range(2):
        report = gradlab.check(layer, X * (1 + seed), reference=plain, seed=seed)
        assert report.status == "wrong" and "gradlab made" in str(report)


def test_numbers_that_a_jitted_function_is_given_share_what_is_compiled(compiled):
    """What differs in such a number alone is compiled once, and judged by its own number."""

    @jax.custom_vjp
    def power(x, k):
        return x**k

    def backward(kept, u):
        x, k = kept
        return u * k * x ** (k - jnp.where(k == 5, 2, 1)), None

    power.defvjp(lambda x, k: (power(x, k), (x, k)), backward)
    jitted = jax.jit(power)
    statuses = [
        gradlab.check(lambda x, k=k: jitted(x, k), X + 2, branches=False).status
        for k in (3, 4, 5, 3)
    ]
    assert statuses == ["right", "right", "wrong", "right"]
    assert len(compiled) == 1


def test_equal_functions_are_traced_to_one_program():
    first, second = (program.trace(lambda x: jnp.sin(x) * 0.73, X) for _ in range(2))
    assert first.jaxpr is second.jaxpr
    table = np.arange(6, dtype=np.float32)  # JAX knows it by its dtype while anything holds it
    first, second = (program.trace(lambda x: x * table, X) for _ in range(2))
    assert first.jaxpr is not second.jaxpr
