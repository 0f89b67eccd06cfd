"""The strategies keep what they promise: domains, kinks, layouts, distinct sizes."""

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis.errors import InvalidArgument

from gradlab import nodes, strategies
from gradlab.nodes._domain import Domain

few = settings(max_examples=30, deadline=None)


@few
@given(strategies.arrays((3, 4), domain=Domain(low=0.0, kinks=(1.0,))))
def test_entries_lie_in_the_domain_and_clear_of_kinks(x):
    assert (x > 0).all()
    assert (np.abs(x - 1.0) >= 1 / 16).all()


@few
@given(strategies.arrays((5, 30), domain=Domain(distinct=True)))
def test_distinct_entries_have_no_ties(x):
    assert np.unique(x).size == x.size


def test_kinks_and_ties_are_drawn_on_request():
    relu = Domain(kinks=(0.3,))
    assert 0.3 in find(strategies.arrays((4,), domain=relu, near_kinks=True), lambda x: 0.3 in x)


def test_a_failure_shrinks_to_one_nonzero_entry():
    smallest = find(strategies.arrays((3, 4)), lambda x: x.sum() > 1)
    assert np.count_nonzero(smallest) == 1


@few
@given(strategies.upstreams(np.zeros((2, 3), np.float32)))
def test_upstreams_fit_the_output(upstream):
    assert upstream.shape == (2, 3)
    assert upstream.dtype == np.float32


@pytest.mark.parametrize("flag", ["C_CONTIGUOUS", "WRITEABLE"])
def test_layouts_that_rules_forget_are_drawn(flag):
    found = find(strategies.upstreams(np.zeros((2, 3))), lambda u: not u.flags[flag])
    assert not found.flags[flag]


@few
@given(strategies.shapes_for("(m,k),(k,n)->(m,n)"))
def test_sizes_of_different_axes_differ(shapes):
    (m, k), (k2, n) = shapes
    assert k == k2
    assert len({m, k, n}) == 3


@pytest.mark.parametrize("name", ["multiply", "log", "max", "take", "softmax", "affine"])
def test_inputs_for_a_node_are_accepted_by_it(name):
    @settings(max_examples=10, deadline=None)
    @given(strategies.inputs_for(name))
    def run(inputs):
        cases = [c for c in nodes.registry()[name].cases() if c.generic]
        shapes = [x.shape for x in inputs]
        fitting = [c for c in cases if [np.shape(x) for x in c.draw(0)] == shapes]
        fitting[0].node.forward(*inputs)

    run()


@few
@given(strategies.pytrees(strategies.arrays((2,))))
def test_pytrees_hold_arrays(tree):
    stack = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, np.ndarray):
            assert item.shape == (2,)
        else:
            stack += item.values() if isinstance(item, dict) else item


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: strategies.arrays((2, -1)), "is no shape"),
        (lambda: strategies.arrays((2,), "int32"), "not floating point"),
        (lambda: strategies.arrays((2,), domain=Domain(low=9.0, high=9.5)), "fewer than"),
        (lambda: strategies.inputs_for("sigmod"), "did you mean 'sigmoid'"),
        (lambda: strategies.upstreams("x"), "no shape and dtype"),
        (lambda: strategies.shapes_for("m,k"), "names no input"),
        (lambda: strategies.shapes_for("(a,b,c,d,e)"), "too few"),
    ],
)
def test_errors_come_when_drawn_and_say_what_to_do(strategy, message):
    made = strategy()  # no error yet: the house style of Hypothesis
    with pytest.raises(InvalidArgument, match=message):
        find(made, lambda _: True)
