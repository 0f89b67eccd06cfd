"""Groups: one node of several and back, with the same values and gradients."""

import numpy as np
import pytest

from gradlab import Graph, nodes
from gradlab.errors import InputError

GATES = ["negate", "exp", "add_2", "reciprocal"]


def neuron(w0, x0, w1, x1, w2):
    return 1 / (1 + np.exp(-(w0 * x0 + w1 * x1 + w2)))


@pytest.fixture
def graph() -> Graph:
    g = Graph(neuron, 2.0, -1.0, -3.0, -2.0, -3.0)
    g.backward()
    return g


def test_a_group_is_one_node_with_the_same_numbers(graph: Graph) -> None:
    before, value, names = graph.backward(), graph.forward(), graph.names
    graph.backward()
    graph.group(GATES, name="sigma")
    assert "exp" not in graph.names and len(graph.plan.steps) == 5
    assert graph.gradients["w0"] == before[0]  # backward was made again
    assert (graph.forward(), graph.backward()) == (value, before)
    y = float(value)
    local = graph.local_gradients["reciprocal", "add_1"].to_dense()
    np.testing.assert_allclose(local, [[y * (1 - y)]])
    with pytest.raises(InputError, match="inside a group"):
        graph.values["exp"]
    graph.ungroup("reciprocal")
    assert graph.names == names
    assert (graph.forward(), graph.backward()) == (value, before)
    assert {gate.frame for gate in graph.report().gates} == {(), ("sigma",)}


def test_groups_nest(graph: Graph) -> None:
    before = graph.backward()
    graph.group(["negate", "exp"]).group(["exp", "add_2"]).group(["reciprocal", "add_2"])
    assert graph.report().gates[-1].members == 4
    assert graph.backward() == before
    for name in ("reciprocal", "add_2", "exp"):
        graph.ungroup(name)
    assert graph.backward() == before and "negate" in graph.names


def test_a_group_becomes_a_hand_written_node(graph: Graph) -> None:
    before = graph.backward()
    graph.group(GATES, as_node=nodes.Sigmoid())
    assert graph.report().gates[-1].node == "sigmoid"
    np.testing.assert_allclose(graph.backward(), before, rtol=1e-15)
    assert "exp" in graph.ungroup("reciprocal").names


@pytest.mark.parametrize(
    ("names", "node", "message"),
    [
        (GATES, nodes.Tanh(), r"Tanh\(\) is not the same function"),
        (GATES, nodes.Multiply(), "does not fit"),
        (GATES, nodes.Softplus(), "not the same function"),
        (["negate", "add_2"], None, "exp at .* depends on the group and feeds it"),
        (["x0"], None, "an input or a constant"),
        ([], None, "names is empty"),
        (["nothing"], None, "there is no wire"),
    ],
)
def test_what_cannot_be_grouped(graph: Graph, names, node, message: str) -> None:
    before = graph.names
    with pytest.raises(InputError, match=message):
        graph.group(names, as_node=node)
    assert graph.names == before


def test_only_groups_open(graph: Graph) -> None:
    with pytest.raises(InputError, match="leaves a node, not a group"):
        graph.ungroup("exp")


def test_a_node_with_the_right_value_and_another_derivative_is_refused() -> None:
    g = Graph(lambda x: nodes.copy(x, times=1)[0] * 1.0, np.zeros(3))
    with pytest.raises(InputError, match="not the same function"):
        g.group(["copy[0]", "multiply"], as_node=nodes.Square())  # both are 0 at 0


def test_a_group_with_two_ways_out_and_a_fork_inside() -> None:
    def f(x, y):
        h = np.tanh(x) * y
        return h * h + np.exp(h) * x

    g = Graph(f, np.array([0.3, -1.2]), np.array([2.0, 0.7]))
    before = g.backward(np.ones(2))
    g.group(["tanh", "multiply", "exp"], name="inner")
    np.testing.assert_allclose(g.backward(np.ones(2)), before, rtol=1e-15)
    x, y = 0.3, 2.0
    local = g.local_gradients["exp", "x"].to_dense()[0, 0]
    h = np.tanh(x) * y
    np.testing.assert_allclose(local, np.exp(h) * y * (1 - np.tanh(x) ** 2))
