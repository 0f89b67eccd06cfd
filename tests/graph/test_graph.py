"""Graphs against closed forms and against JAX: values, gradients, names, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import Graph, check, nodes
from gradlab.errors import InputError, InputTypeError

RNG = np.random.default_rng(0)


def neuron(w0, x0, w1, x1, w2):
    return 1 / (1 + np.exp(-(w0 * x0 + w1 * x1 + w2)))


def test_the_simplest_graph() -> None:
    g = Graph(lambda x, y, z: (x + y) * z, -2, 5, -4).label(add="q", multiply="f")
    assert g.forward() == -12
    assert g.backward() == (-4, -4, 3)
    assert g.values["q"] == 3 and g.gradients["q"] == -4 and g.gradients["f"] == 1
    assert g.local_gradients["f", "z"].to_dense() == [[3]]
    assert g.local_gradients["q", "x"].name == "Identity"


def test_the_neuron_gate_by_gate() -> None:
    inputs = (2.0, -1.0, -3.0, -2.0, -3.0)
    g = Graph(neuron, *inputs)
    gradients = g.backward()
    assert round(float(g.values["reciprocal"]), 2) == 0.73
    assert [round(float(x), 2) for x in gradients] == [-0.20, 0.39, -0.39, -0.59, 0.20]
    # the course's numbers on the way back, to two digits
    assert round(float(g.gradients["add_2"]), 2) == -0.53
    assert round(float(g.gradients["negate"]), 2) == -0.20
    whole = Graph(lambda a, b, c, d, e: nodes.sigmoid(a * b + c * d + e), *inputs)
    np.testing.assert_allclose(whole.backward(), gradients, rtol=1e-15)


def test_the_vector_graph() -> None:
    w, x = np.array([[0.1, 0.5], [-0.3, 0.8]]), np.array([0.2, 0.4])
    g = Graph(lambda w, x: nodes.l2_loss(w @ x), w, x).label(matmul="q")
    dw, dx = g.backward()
    np.testing.assert_allclose(g.values["q"], [0.22, 0.26])
    np.testing.assert_allclose(g.forward(), 0.116)
    np.testing.assert_allclose(dw, [[0.088, 0.176], [0.104, 0.208]])
    np.testing.assert_allclose(dx, [-0.112, 0.636])
    g.backward()
    np.testing.assert_allclose(g.gradients["q"], [0.44, 0.52])


def everything(x, w, b, labels):
    """Diamonds, reuse, constants, broadcasting, a reduction and a loss."""
    h = np.tanh(x @ w + b)
    u = h * h + 2.0 * h - h / (1.0 + np.exp(h))
    v = np.maximum(u, h.mean(axis=1, keepdims=True)) ** 2
    s = nodes.concatenate(u, v.reshape(5, 4), axis=1)
    return nodes.softmax_cross_entropy(s, labels), v.T.sum(axis=0)


def everything_in_jax(x, w, b, labels):
    h = jnp.tanh(x @ w + b)
    u = h * h + 2.0 * h - h / (1.0 + jnp.exp(h))
    v = jnp.maximum(u, h.mean(axis=1, keepdims=True)) ** 2
    s = jnp.concatenate([u, v.reshape(5, 4)], axis=1)
    picked = jnp.take_along_axis(jax.nn.log_softmax(s, axis=1), labels[:, None], axis=1)
    return -picked.mean(), v.T.sum(axis=0)


@pytest.mark.parametrize("how", ["numpy", "jax", "jit"])
def test_gradients_agree_with_jax(how: str) -> None:
    inputs = (
        RNG.standard_normal((5, 3)),
        RNG.standard_normal((3, 4)),
        RNG.standard_normal(4),
        np.array([0, 7, 3, 3, 5]),
    )
    upstream = (0.7, RNG.standard_normal(5))
    with jax.enable_x64(True):
        expected, pull = jax.vjp(lambda *p: everything_in_jax(*p, inputs[3]), *inputs[:3])
        gradients = pull((jnp.float64(0.7), jnp.asarray(upstream[1])))
        g = Graph(everything, *inputs)
        run = g.value_and_gradient
        if how != "numpy":
            inputs = tuple(map(jnp.asarray, inputs))
        if how == "jit":
            run = jax.jit(run)
        value, found = run(*inputs, upstream=upstream)
        for a, b in zip((*value, *found[:3]), (*expected, *gradients), strict=True):
            assert isinstance(a, np.ndarray | np.generic) == (how == "numpy")
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-12)
        assert found[3] is None
        if how == "numpy":
            reference = g.reference(*inputs)
            np.testing.assert_allclose(reference[0], expected[0], rtol=1e-12)


def test_float32_stays_float32_beside_numbers() -> None:
    x = np.ones(3, np.float32)
    g = Graph(lambda x: 2.0 * x + 1, x)
    assert g.forward().dtype == np.float32
    assert g.backward(np.ones(3, np.float32)).dtype == np.float32


def test_reuse_adds_and_unused_is_zero() -> None:
    g = Graph(lambda x, y, n: x * x * x, 2.0, np.ones((2, 3)), np.arange(3))
    dx, dy, dn = g.backward()
    assert dx == 12
    np.testing.assert_array_equal(dy, np.zeros((2, 3)))
    assert dn is None
    assert g.local_gradients["multiply", "x"].to_dense() == [[4]]
    assert g.local_gradients["multiply", 0].to_dense() == [[2]]


def test_powers_by_a_number_take_negative_bases() -> None:
    g = Graph(lambda x: x**3 + x**2 + x**-1, -2.0)
    assert g.backward() == 12 - 4 - 0.25
    assert "square" in g.values and "reciprocal" in g.values


def test_only_what_is_wanted_is_computed() -> None:
    g = Graph(lambda x, w: (np.exp(x) * w).sum(), np.ones(3), np.ones(3))
    np.testing.assert_allclose(g.backward(wrt="w"), np.full(3, np.e))
    assert "x" in g.gradients
    with pytest.raises(InputError, match=r"gradients\['x'\].*backward\(wrt='x'\)"):
        g.gradients["x"]
    (only,) = g.backward(wrt=["exp"])
    np.testing.assert_array_equal(only, np.ones(3))


class _Doubled(nodes.Tanh):
    def backward(self, upstream, residuals):
        (gradient,) = super().backward(upstream, residuals)
        return (2 * gradient,)


def test_a_subclass_that_overrides_backward_alone_is_run_as_written() -> None:
    x = RNG.normal(size=3)
    graph = Graph(_Doubled(), x)
    graph.forward(x)
    gradient = graph.backward(np.ones(3))
    np.testing.assert_allclose(gradient, 2 / np.cosh(x) ** 2)
    assert not check(graph, x).ok


def test_containers_and_static_leaves() -> None:
    def layer(parameters, x, mode):
        assert mode == "train"
        return {"y": (x * parameters["w"] + parameters["b"][0]).sum() * parameters["scale"]}

    parameters = {"w": np.full(2, 3.0), "b": [np.zeros(2), None], "scale": 2}
    g = Graph(layer, parameters, np.ones(2), "train")
    assert "parameters['b'][0]" in g.values
    assert g.forward() == {"y": 12.0}
    gradients, dx, none = g.backward({"y": 1.0})
    np.testing.assert_array_equal(gradients["w"], [2.0, 2.0])
    np.testing.assert_array_equal(dx, [6.0, 6.0])
    assert gradients["scale"] is None and gradients["b"][1] is None and none is None
    with pytest.raises(InputError, match="recorded with 'train', but you gave 'test'"):
        g.forward(parameters, np.ones(2), "test")


def test_several_outputs_of_one_node() -> None:
    def f(x):
        a, b = nodes.copy(x)
        return a * a + 3.0 * b

    g = Graph(f, 5.0)
    assert g.backward() == 13
    assert g.local_gradients["copy[1]", "x"].to_dense() == [[1]]
    assert Graph(lambda x: nodes.copy(x)[1], 5.0).backward() == 1


def test_names() -> None:
    g = Graph(lambda x, *rest: (x + rest[0]) + (x + rest[1]), 1.0, 2.0, 3.0)
    assert g.names == ["x", "rest[0]", "rest[1]", "add", "add_1", "add_2"]
    assert list(g.label(add="left").values)[3] == "left"
    assert dict(g.values)["left"] == 3
    assert repr(g) == "Graph(function: 3 inputs, 3 nodes, 1 output)"
    assert Graph(nodes.Multiply(), 2.0, 3.0).names == ["x", "y", "multiply"]


def test_a_graph_of_ten_thousand_nodes() -> None:
    def chain(x):
        for _ in range(5_000):
            x = (x + x) * 0.5
        return x

    g = Graph(chain, 3.0)
    assert g.forward() == 3 and g.backward() == 1
    assert g.table().count("\n") > 10_000


def test_nan_is_computed_and_shown() -> None:
    with np.errstate(invalid="ignore"):
        g = Graph(lambda x: np.log(x) * x, np.array([-1.0, 1.0]))
    assert np.isnan(g.values["multiply"][0])
    g.backward(np.ones(2))
    assert not g.report().ok


WRONG = {
    "shapes": (lambda: Graph(lambda x, y: x + y, np.ones(3), np.ones(4)), "3 and 4"),
    "integers": (lambda: Graph(lambda x: np.exp(x), np.arange(3)), "int64"),
    "axis": (lambda: Graph(lambda x: x.sum(axis=2), np.ones(3)), "axis 2"),
    "not callable": (lambda: Graph(3, 1.0), "expected a function, got int"),
    "returned": (lambda: Graph(lambda x: None, 1.0), "NoneType"),
    "truth": (lambda: Graph(lambda x: x if x else -x, 1.0), "truth value"),
    "string": (lambda: Graph(lambda x: x + "a", 1.0), "'a'"),
    "upstream": (lambda: Graph(np.exp, np.ones(3)).backward(np.ones(2)), "upstream has shape 2"),
    "one": (lambda: Graph(np.exp, np.ones(3)).backward(), "ones for the gradient of the sum"),
    "upstreams": (lambda: Graph(lambda x: (x, x), 1.0).backward(), "2 arrays"),
    "name": (lambda: Graph(np.exp, 1.0).values["ecp"], "'exp'"),
    "before": (lambda: Graph(np.exp, 1.0).gradients["exp"], "call backward first"),
    "constant": (lambda: _run(Graph(lambda x: x + 1.0, 1.0)).gradients["constant"], "depend"),
    "labels": (lambda: Graph(lambda x: nodes.exp(x), 1.0).label(exp="x", x="y"), "taken"),
    "too many": (lambda: Graph(lambda x: -x, 1.0).forward(1.0, 2.0), "but 2 came"),
    "form": (lambda: Graph(lambda x: -x, 1.0).forward([1.0]), "another graph"),
    "later": (lambda: Graph(lambda x, y: x @ y, *TWO).forward(TWO[0], TWO[0]), "2x3 and 2x3"),
    "no node": (lambda: Graph(lambda x: nodes.exp(x), 1.0).local_gradients["x", 0], "not a node"),
    "no input": (lambda: Graph(np.exp, 1.0).local_gradients["exp", "y"], "does not enter"),
}
TWO = (np.ones((2, 3)), np.ones((3, 2)))


def _run(graph: Graph) -> Graph:
    graph.backward()
    return graph


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises((InputError, InputTypeError), match=message):
        call()


def test_a_graph_can_be_checked() -> None:
    report = check(Graph(neuron, 2.0, -1.0, -3.0, -2.0, -3.0), 2.0, -1.0, -3.0, -2.0, -3.0)
    assert report.ok and [leaf.path for leaf in report.leaves] == ["w0", "x0", "w1", "x1", "w2"]


def test_variables_do_not_mix() -> None:
    kept = []
    Graph(lambda x: kept.append(x) or -x, 1.0)
    with pytest.raises(InputError, match="another graph"):
        Graph(lambda y: y + kept[0], 1.0)


def test_a_failing_run_names_the_wire_and_the_line() -> None:
    g = Graph(lambda x, y: np.exp(x) + y, np.ones(3), np.ones(3))
    with pytest.raises(InputError) as caught:
        g.forward(np.ones(3), np.ones(4))
    assert "at wire 'add', test_graph.py:" in caught.value.__notes__[0]
