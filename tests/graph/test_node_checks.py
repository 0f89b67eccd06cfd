"""Each node of a graph against finite differences: wrong backwards fail, right ones never."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab import Graph, nodes
from gradlab.errors import InputError
from gradlab.nodes import registry
from gradlab.nodes._base import generic


class Wrong(registry()["tanh"]):
    """tanh with a backward that is off by a little."""

    def backward(self, upstream, residuals):
        return tuple(1.0001 * g for g in super().backward(upstream, residuals))


def checks(graph):
    with np.errstate(all="ignore"):
        return [gate.check for gate in graph.report(checks=True).gates]


def test_a_wrong_backward_fails_and_so_does_the_report():
    graph = Graph(lambda x: Wrong()(x) * 2.0, np.linspace(0.1, 2.0, 7))
    wrong, right = checks(graph)
    assert (wrong.status, right.status) == ("failed", "passed")
    assert abs(wrong.actual / wrong.expected - 1.0001) < 1e-9
    assert not graph.report(checks=True).ok and graph.report().ok


_ON_PURPOSE = {  # the backward of these is not the derivative of their forward
    *("straight_through_round", "straight_through_sign", "gradient_reversal", "embedding"),
    "spectral_norm",
}


@pytest.mark.parametrize("name", sorted(set(registry()) - _ON_PURPOSE))
def test_no_right_node_fails(name):
    node = registry()[name]
    for case in node.cases():
        inputs = case.draw(0)
        if sum(np.size(x) for x in inputs) == 0:
            continue
        (check,) = checks(Graph(case.node, *inputs))
        assert check.status != "failed", (case, check)


def test_ties_and_kinks_pass_between_their_slopes():
    x = np.array([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]] * 4)
    (check,) = checks(Graph(lambda x: nodes.max_pool(x), x.reshape(1, 1, 4, 8)))
    assert check.status == "passed" and "kink" in check.reason


def test_equations_of_jax_are_checked_in_their_own_dtype():
    graph = Graph.from_jax(lambda x: jnp.cumsum(x) @ jnp.sort(x), np.arange(5, dtype=np.float32))
    assert {check.status for check in checks(graph)} == {"passed"}


def test_what_is_not_finite_is_skipped_or_left_out():
    with np.errstate(all="ignore"):
        graph = Graph(lambda x: np.log(x) * x, np.array([-1.0, 2.0]))
    log, product = checks(graph)
    assert (log.status, log.reason) == ("passed", "1 of 2 entries too rough to tell")
    assert product.status == "skipped"


class TooMany(gradlab.Node):
    """A product that returns the gradients of its inputs exchanged, and a third."""

    @classmethod
    def cases(cls):
        return (generic(cls(), (3,), (3,)),)

    def forward(self, x, y):
        return x * y, (x, y)

    def backward(self, upstream, residuals):
        x, y = residuals
        return upstream * x, upstream * y, upstream

    def local_gradient(self, residuals):
        x, y = residuals
        return gradlab.operators.Diagonal(y), gradlab.operators.Diagonal(x)

    def reference(self, x, y):
        return x * y


def test_a_wrong_number_of_gradients_is_refused_and_never_taken_for_mended():
    graph = Graph(lambda x, y: TooMany()(x, y), np.ones(3), np.arange(3.0))
    said = "returned 3 gradients for 2 inputs"
    with pytest.raises(InputError, match=said):
        graph.backward(np.ones(3))
    with pytest.raises(InputError, match=said):
        gradlab.check(graph, np.ones(3), np.arange(3.0))
    (result,) = gradlab.verify(TooMany()).nodes
    assert "returns 3 gradients for 2 inputs" in str(result.findings[0])
    assert result.fixes == ()


def test_what_has_no_real_derivative_is_skipped():
    x = np.ones(4, np.float32)
    turned = Graph.from_jax(lambda x: jnp.abs(jnp.fft.fft(x)), x)
    assert (
        next(c.reason for c in checks(turned)) == "finite differences do not cover complex outputs"
    )


def test_large_nodes_are_not_run_sixty_times():
    (check,) = checks(Graph(lambda x: np.exp(x), np.zeros(1 << 17)))
    assert (check.status, check.reason) == ("skipped", "more than 65,536 entries")


def test_nothing_is_checked_unless_asked():
    gate = Graph(lambda x: x * x, 3.0).report().gates[0]
    assert gate.check is None and dataclasses.asdict(gate)["check"] is None
