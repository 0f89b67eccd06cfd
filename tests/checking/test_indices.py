"""Repeated and shifted indices: what became of their contributions is said, and is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab

TABLE = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
INDEX = np.array([4, 1, 4, 0, 1, 4], np.int32)


def lookup(table, index):
    return table[index] ** 3


def slope(g, table, index):
    return g * 3 * table[index] ** 2


def added(g, table, index):
    return jnp.zeros_like(table).at[index].add(slope(g, table, index)), None


def overwritten(order):
    def backward(g, table, index):
        gradient = np.zeros_like(table)
        gradient[np.asarray(index)[::order]] = np.asarray(slope(g, table, index))[::order]
        return gradient, None

    return backward


def shifted(step):
    def backward(g, table, index):
        moved = (index + step) % table.shape[0]
        return jnp.zeros_like(table).at[moved].add(slope(g, table, moved)), None

    return backward


def test_contributions_that_are_added_are_right():
    assert gradlab.check(lookup, TABLE, INDEX, backward=added).ok


@pytest.mark.parametrize(("order", "kept"), [(1, "last"), (-1, "first")])
def test_contributions_that_overwrite_each_other_are_named(order, kept):
    report = gradlab.check(lookup, TABLE, INDEX, backward=overwritten(order))
    if report.fixes:
        assert report.fixes[0].kind == "GL331" and "np.add.at(" in report.fixes[0].after[0]
        return
    assert [finding.kind for finding in report.findings] == ["overwritten"]
    assert f"only the {kept} one counts" in report.diagnosis


@pytest.mark.parametrize("step", [1, -1])
def test_indices_that_are_off_by_one_are_named(step):
    report = gradlab.check(lookup, TABLE, INDEX, backward=shifted(step))
    found = [finding.kind for finding in report.findings]
    if report.fixes:  # the source is at hand, and one edit of it says more
        assert not found and "index + step" in report.fixes[0].before[0]
    else:
        assert found == ["index shifted"] and f"shifted by {step}" in report.diagnosis


def test_whole_numbers_of_64_bits_are_those_of_the_trace_where_a_cause_is_searched():
    def weighed(v, k, total):
        return jnp.where(v[k] < k, jnp.exp(v[k]), v[k]) * jnp.where(k > 2, 1.0, 0.5) / total

    @jax.custom_vjp
    def shares(v, k):
        return weighed(v, k, jnp.exp(v).sum())

    def backward(kept, upstream):
        v, k = kept
        held = jax.lax.stop_gradient(jnp.exp(v).sum())
        return jax.vjp(lambda v: weighed(v, k, held), v)[1](upstream)[0], None

    shares.defvjp(lambda v, k: (shares(v, k), (v, k)), backward)
    v = np.linspace(0, 1, 6, dtype=np.float32)
    report = gradlab.check(shares, v, np.array([0, 3, 5, 2, 2], np.int64))
    assert report.status == "wrong"
    assert any(f.kind == "term" for f in report.findings) or report.fixes
