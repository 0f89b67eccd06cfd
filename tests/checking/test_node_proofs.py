"""The backward of a node is proved one formula with autodiff of its reference."""

import pytest

import gradlab
from gradlab.nodes import Tanh


@pytest.mark.parametrize(
    "name", ["tanh", "softmax", "attention", "layer_norm", "solve", "logaddexp"]
)
def test_the_backward_of_a_node_is_proved(name: str) -> None:
    (node,) = gradlab.verify(name, prove=True).nodes
    assert node.grade == "proved"
    assert all(each.bound is not None and each.bound < 2**-40 for each in node.evidence.values())


def test_a_decomposition_that_no_field_holds_stays_at_points() -> None:
    (node,) = gradlab.verify("qr", prove=True).nodes
    assert node.ok
    assert node.grade == "points"


def test_without_asking_nothing_is_proved() -> None:
    (node,) = gradlab.verify("tanh").nodes
    assert node.evidence == {}
    assert node.grade == "points"


def test_a_broken_node_has_no_grade() -> None:
    class Broken(Tanh):
        def backward(self, upstream, residuals):
            return (2 * super().backward(upstream, residuals)[0],)

    (node,) = gradlab.verify(Broken(), prove=True).nodes
    assert not node.ok
    assert node.grade is None
