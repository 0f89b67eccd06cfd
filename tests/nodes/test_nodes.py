"""Every node of the registry, on NumPy and on JAX; the comparison with JAX is `gradlab.verify`."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gradlab import InputError, InputTypeError, nodes
from gradlab.nodes import Node, registry
from gradlab.nodes._pages import node_pages
from gradlab.operators import Slice

ALL = sorted(registry())


def first_case(name: str, dtype=np.float64):
    case = registry()[name].cases()[0]
    return case.node, case.draw(0, dtype)


@pytest.mark.parametrize("name", ALL)
def test_a_node_says_what_it_is(name):
    cls = registry()[name]
    (page,) = node_pages([name]).pages
    assert cls.__doc__
    assert "ackward" in page.text, "the page says what the backward is"
    assert "ocal gradient" in page.text, "the page says what the local gradient is"
    for field in dataclasses.fields(cls):
        assert re.search(rf"^ +{field.name}: ", page.text, re.M), "the page explains each parameter"
    assert len(cls.cases()) >= 3
    assert sum(case.generic for case in cls.cases()) >= 3
    assert cls.name() == name
    assert isinstance(hash(cls.cases()[0].node), int)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_gradients_keep_the_shape_and_dtype_of_their_inputs(name, dtype):
    node, inputs = first_case(name, dtype)
    with np.errstate(all="ignore"):
        try:
            output, residuals = node.forward(*inputs)
        except (TypeError, np.linalg.LinAlgError) as error:
            if dtype == np.float32:
                raise
            pytest.skip(f"NumPy has no such operation in {np.dtype(dtype)}: {error}")
        several = isinstance(output, tuple)
        upstream = tuple(np.ones_like(y) for y in (output if several else (output,)))
        gradients = node.backward(upstream if several else upstream[0], residuals)
        assert node.local_gradient(residuals), "every local gradient is built in this dtype"
    assert len(gradients) == len(inputs)
    for i, (gradient, x) in enumerate(zip(gradients, inputs)):
        if node.domain(i).differentiable:
            assert np.shape(gradient) == x.shape
            assert gradient.dtype == x.dtype
        else:
            assert gradient is None


@pytest.mark.parametrize("name", ALL)
def test_inputs_and_upstream_are_not_modified(name):
    node, inputs = first_case(name)
    before = [x.copy() for x in inputs]
    for x in inputs:
        x.flags.writeable = False
    output, residuals = node.forward(*inputs)
    several = isinstance(output, tuple)
    upstream = tuple(np.asarray(np.ones_like(y)) for y in (output if several else (output,)))
    for u in upstream:
        u.flags.writeable = False
    once = node.backward(upstream if several else upstream[0], residuals)
    twice = node.backward(upstream if several else upstream[0], residuals)
    for a, b in zip(once, twice):
        np.testing.assert_array_equal(a, b)
    for x, y in zip(inputs, before):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("mode", ["vjp", "jvp"])
@pytest.mark.parametrize("name", ["multiply", "softmax", "take", "copy", "affine", "max"])
def test_as_jax_carries_the_hand_written_gradient(name, mode):
    node, inputs = first_case(name, np.float32)
    wrt = tuple(i for i in range(len(inputs)) if node.domain(i).differentiable)

    def total(function):
        def loss(*xs):
            y = function(*xs)
            return sum(jnp.sum(jnp.sin(yi)) for yi in (y if isinstance(y, tuple) else (y,)))

        return jax.jit(jax.grad(loss, argnums=wrt))

    inputs = [jnp.asarray(x) for x in inputs]
    ours, theirs = total(node.as_jax(mode))(*inputs), total(node.reference)(*inputs)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_node_is_called_by_its_function_or_its_class():
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    np.testing.assert_array_equal(nodes.softmax(x, axis=0), nodes.Softmax(axis=0)(x))
    assert isinstance(nodes.Softmax(axis=0), Node)
    assert nodes.softmax.__name__ == "softmax"


def test_python_numbers_are_inputs_too():
    y, residuals = nodes.Multiply().forward(3, -4.0)
    assert y == -12.0
    assert nodes.Multiply().backward(1.0, residuals) == (-4.0, 3.0)


def test_a_node_without_pull_sends_back_by_its_operators():
    class Halves(Node):
        def apply(self, xp, x):
            return (x[:2], 3.0 * x[2:]), (x.shape, x.dtype)

        def gradients(self, xp, shape, dtype):
            first, second = (Slice(shape, [part], dtype) for part in (slice(0, 2), slice(2, 4)))
            return (first,), (3.0 * second,)

    _, residuals = Halves().forward(np.arange(4.0))
    (dx,) = Halves().backward((np.ones(2), np.array([1.0, 2.0])), residuals)
    np.testing.assert_array_equal(dx, [1.0, 1.0, 3.0, 6.0])


def test_nan_is_computed_not_hidden():
    y, residuals = nodes.Tanh().forward(np.array([np.nan, 0.0]))
    assert np.isnan(y[0])
    (dx,) = nodes.Tanh().backward(np.ones(2), residuals)
    assert np.isnan(dx[0])
    assert dx[1] == 1.0


WRONG = [
    (lambda: nodes.Add().forward(np.ones((3, 4)), np.ones(5)), "3x4 and 5 do not broadcast"),
    (lambda: nodes.Matmul().forward(np.ones((3, 4)), np.ones((5, 2))), "3x4 and 5x2"),
    (lambda: nodes.Affine().forward(np.ones((3, 4)), np.ones((4, 2)), np.ones(3)), "b has 3"),
    (lambda: nodes.Sum(axis=2).forward(np.ones((3, 4))), "axis 2 is out of range for shape 3x4"),
    (lambda: nodes.Sum(axis=(0, -2)).forward(np.ones((3, 4))), "names an axis twice"),
    (lambda: nodes.Tanh().forward(np.arange(3)), "int64.*astype"),
    (lambda: nodes.Tanh().forward(np.ones(3, bool)), "bool"),
    (lambda: nodes.Take().forward(np.ones(3), np.ones(2)), "indices.*float64"),
    (lambda: nodes.Reshape((5,)).forward(np.ones((2, 3))), "2x3 has 6 entries"),
    (lambda: nodes.Transpose((0, 0)).forward(np.ones((2, 3))), "name each axis"),
    (lambda: nodes.Concatenate().forward(np.ones((2, 3)), np.ones((2, 4))), "cannot be joined"),
    (lambda: nodes.Tanh().backward(np.ones(4), nodes.Tanh().forward(np.ones(3))[1]), "upstream"),
    (lambda: nodes.Tanh().as_jax("forward"), "'vjp'"),
    (lambda: nodes.find("sigmod"), "did you mean 'sigmoid'"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m for _, m in WRONG])
def test_a_wrong_call_says_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nodes.Add().forward(np.ones(3)), r"takes 2 input\(s\) \(x, y\), but 1 came"),
        (lambda: nodes.Concatenate().forward(), "1 or more"),
        (lambda: nodes.Tanh().forward("three"), "input 0 .x. is str"),
        (lambda: nodes.Tanh().forward(None), "NoneType"),
        (lambda: nodes.find(3), "got int"),
    ],
    ids=["arity", "open arity", "string", "none", "no node"],
)
def test_a_thing_of_the_wrong_kind_says_so(call, message):
    with pytest.raises(InputTypeError, match=message):
        call()


def test_no_family_file_hides_a_node_function():
    families = {cls.family() for cls in registry().values()}
    assert not families & set(registry()), "gradlab.nodes.NAME would be the file, not the node"


def test_the_gradient_of_atan2_survives_large_points_compiled():
    """XLA makes x / (r r) of x / r / r, and r r overflows; the closed form is x / r^2."""
    x = np.float32([1e30, -3e30, 2.0])
    y = np.float32([-1e30, 4e30, 1.0])
    found = jax.jit(jax.grad(lambda y, x: nodes.Atan2().as_jax()(y, x).sum(), (0, 1)))(y, x)
    wide, square = np.float64([x, -y]), np.float64(x) ** 2 + np.float64(y) ** 2
    np.testing.assert_allclose(found, wide / square, rtol=1e-6)
