"""A graph with one wrong backward: the check says which node has it."""

import numpy as np
import pytest

import gradlab
from gradlab import Graph, nodes
from gradlab.nodes import registry


class Wrong(registry()["tanh"]):
    """tanh with a backward that is off by a little."""

    def backward_to(self, wanted, upstream, residuals):
        return tuple(1.001 * g for g in super().backward_to(wanted, upstream, residuals))


X = np.linspace(0.1, 2.0, 7)


def test_in_a_chain():
    report = gradlab.check(Graph(lambda x: nodes.exp(Wrong()(nodes.sin(x)) * 2.0), X), X)
    assert report.failed and report.findings[0].kind == "node"
    assert "first wrong node on the way back is Wrong" in report.findings[0].text
    assert "Sin" not in report.findings[0].text and "Exp" not in report.findings[0].text


def test_in_one_branch_of_a_fork():
    def fork(x):
        y = nodes.sin(x)
        return Wrong()(y) + nodes.exp(y)

    graph = Graph(fork, X)
    report = gradlab.check(graph, 0.5 * X)
    assert "the first wrong node on the way back is Wrong" in str(report)
    assert np.array_equal(graph.run.values[graph.plan.inputs[0]], X)  # the graph is as it was


def test_the_last_of_two_is_the_first_on_the_way_back():
    report = gradlab.check(Graph(lambda x: Wrong()(nodes.sin(Wrong()(x))), X), X)
    assert "; behind it Wrong" in report.findings[0].text


@pytest.mark.parametrize("backward", [lambda g, x: g, lambda g, x: g * np.cos(x)])
def test_a_backward_given_beside_the_graph_is_not_the_graphs(backward):
    report = gradlab.check(Graph(lambda x: nodes.sin(x), X), X, backward=backward)
    assert all(finding.kind != "node" for finding in report.findings)
