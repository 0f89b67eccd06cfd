"""A forward that cannot be read is called a bounded number of times, and judged all the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlab

pytestmark = pytest.mark.usefixtures("verdict_alone")

RNG = np.random.default_rng(0)


def hidden(y: Any) -> Any:
    """Return a copy, made where nothing that reads NumPy can see it."""
    copy = np.empty_like(y)
    number = complex if np.iscomplexobj(y) else float
    for i, value in enumerate(np.nditer(y)):
        copy.flat[i] = number(value)
    return copy


def checked(forward: Callable[..., Any], backward: Callable[..., Any], *inputs: Any) -> Any:
    """Return the report, once the calls were counted."""
    calls = 0

    def layer(*xs: Any) -> Any:
        nonlocal calls
        calls += 1
        return hidden(forward(*xs))

    report = gradlab.check(layer, *inputs, backward=backward)
    assert calls <= min(2 * sum(map(np.size, inputs)) + 200, 2000)
    return report


def dense(x: Any, w: Any) -> Any:
    return np.tanh(x @ w)


def dense_backward(g: Any, x: Any, w: Any) -> Any:
    d = g * (1 - np.tanh(x @ w) ** 2)
    return d @ w.T, x.T @ d


def one_entry_off(g: Any, x: Any, w: Any) -> Any:
    dx, dw = dense_backward(g, x, w)
    dw = dw.copy()
    dw[-1, 0] *= 1.01
    return dx, dw


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(3, 2, 2), (10, 12, 8)])
def test_a_layer_is_judged_entry_by_entry(shape, dtype):
    n, m, k = shape
    x, w = RNG.normal(size=(n, m)).astype(dtype), RNG.normal(size=(m, k)).astype(dtype)
    report = checked(dense, dense_backward, x, w)
    assert report.ok and [leaf.right for leaf in report.leaves] == [n * m, m * k]
    report = checked(dense, lambda g, x, w: (g @ w.T, x.T @ g), x, w)
    assert [leaf.wrong for leaf in report.leaves] == [n * m, m * k]
    report = checked(dense, one_entry_off, x, w)
    assert report.status == "wrong" and report.worst.index == (m - 1, 0)


def test_of_many_entries_the_largest_are_judged_and_the_rest_said_to_wait():
    x, w = RNG.normal(size=(40, 40)), RNG.normal(size=(40, 30))
    assert checked(dense, dense_backward, x, w).status == "right"
    report = checked(dense, lambda g, x, w: (g @ w.T, x.T @ g), x, w)
    assert report.status == "wrong"
    assert all(0 < leaf.wrong < np.prod(leaf.shape) for leaf in report.leaves)
    assert "no calls left" in [reason.code for reason in report.leaves[0].reasons]
    assert any("calls it at most 2000 times" in note for note in report.notes)


def test_a_gradient_of_a_wrong_shape_is_said_to_have_one():
    x, b = RNG.normal(size=(3, 4)), RNG.normal(size=4)
    report = checked(lambda x, b: np.tanh(x) + b, lambda g, x, b: (g / np.cosh(x) ** 2, g), x, b)
    assert [leaf.status for leaf in report.leaves] == ["right", "wrong"]
    assert "has shape 3x4" in report.failed[0].reason


def test_nan_where_the_forward_has_a_slope_is_wrong():
    x = np.array([0.0, 1.0, -2.0])

    def backward(g: Any, x: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return (g * 2 * x * (x / x),)

    report = checked(np.square, backward, x)
    assert report.leaves[0].wrong == 1 and report.worst.index == (0,)


@pytest.mark.parametrize(("factor", "status"), [(1.0, "right"), (1.1, "wrong")])
def test_real_and_complex_inputs_may_stand_together(factor, status):
    z, x = np.array([1 + 2j, -0.5j, 2.0]), np.array([0.5, -1.2, 2.0])
    report = checked(lambda z, x: z * x, lambda g, z, x: (g * x, factor * np.real(g * z)), z, x)
    assert report.leaves[0].right == 3 and report.leaves[1].status == status


ZEROS = np.array([[0.0, 1.0, -2.0], [3.0, 0.0, 0.5]])
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0], [1.0, 2.0, 3.0]])


def relu(x: Any) -> Any:
    return np.maximum(x, 0)


def largest(x: Any) -> Any:
    return x.max(-1, keepdims=True)


def opposed(x: Any) -> Any:
    """Equal entries that are not tied: each has a kink of its own, and moved together they stay."""
    return np.abs(x[:1]) - np.abs(x[1:])


def both(g: Any, x: Any) -> Any:
    return (g * (x == largest(x)),)


def halves(g: Any, x: Any) -> Any:
    tied = x == largest(x)
    return (g * tied / tied.sum(-1, keepdims=True),)


@pytest.mark.parametrize(
    ("forward", "x", "backward", "ok"),
    [
        (relu, ZEROS, lambda g, x: (g * (x > 0),), True),
        (relu, ZEROS, lambda g, x: (g * (x >= 0),), True),
        (relu, ZEROS, lambda g, x: (g * np.where(x == 0, 2.0, x > 0),), False),
        (largest, TIES, halves, True),
        (largest, TIES, both, False),
        (opposed, np.zeros(2), lambda g, x: (g * [1.0, 0.0],), True),
        (opposed, np.zeros(2), lambda g, x: (g * [1.2, 0.0],), False),
    ],
    ids=["relu", "relu from 0", "twice at 0", "shared", "sent to both", "apart", "too steep"],
)
def test_at_kinks(forward, x, backward, ok):
    assert checked(forward, backward, x).ok == ok


def test_small_terms_beside_large_ones_are_seen():
    x = 10.0 ** np.arange(-8, 12)
    assert checked(np.square, lambda g, x: (2 * g * x,), x).leaves[0].right == 20
    off = np.where(np.arange(20) == 8, 1.01, 1.0)
    report = checked(np.square, lambda g, x: (2 * g * x * off,), x)
    assert report.worst.index == (8,) and report.leaves[0].wrong == 1


def narrow(x: Any) -> Any:
    if x.dtype != np.float32:
        raise TypeError("float32 only")
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def narrow_backward(factor: float) -> Callable[..., Any]:
    def backward(g: Any, x: Any) -> Any:
        y = narrow(x)
        d = y * (g - (g * y).sum(-1, keepdims=True))
        d[0] *= np.float32(factor)
        return (d.astype(np.float32),)

    return backward


@pytest.mark.parametrize("seed", range(4))
def test_outputs_that_move_by_less_than_their_rounding_refute_nothing(seed):
    """A likely class of a softmax hides in its rounding what an unlikely one does to it."""
    x = np.random.default_rng(seed).uniform(-9, 9, (5, 5)).astype(np.float32)
    assert checked(narrow, narrow_backward(1.0), x).ok
    assert checked(narrow, narrow_backward(1.5), x).status == "wrong"


def test_a_constant_of_few_digits_may_be_what_cancelled():
    def tail(x: Any) -> Any:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return np.float32(1) - np.tanh(x)  # 0 in float32, 2 exp(-2 x) in truth

    x = np.array([12.0], np.float32)
    small = checked(tail, lambda g, x: (-4 * g * np.exp(-2 * x),), x)
    assert small.status in ("undecided", "right")
    assert checked(tail, lambda g, x: (-g,), x).status == "wrong"


def test_at_a_jump_nothing_is_called_right():
    report = checked(lambda x: np.floor(x) + x, lambda g, x: (5 * g,), np.arange(6.0) - 2)
    assert report.status == "undecided"


def test_what_is_right_in_float64_is_at_most_warned_about_in_float32():
    def backward(g: Any, x: Any) -> Any:  # 1 - y * y cancels
        y = np.tanh(x)
        return (g * (1 - y * y),)

    x = np.array([0.1, 3.0, 6.0, 8.0], np.float32)
    report = checked(np.tanh, backward, x)
    assert not report.failed and report.leaves[0].wrong == 0


@pytest.mark.parametrize(("size", "at"), [(30, 7), (1500, 1234)])
def test_a_layer_that_refuses_float64_is_judged_in_its_own_dtype(size, at):
    """So is one wrong entry among more than there are calls for: it is searched for."""
    w = np.linspace(0.5, 1.5, size).astype(np.float32)
    x = np.random.default_rng(1).normal(size=size).astype(np.float32)

    def forward(x: Any) -> Any:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return np.tanh(x * w)

    def backward(factor: float) -> Callable[..., Any]:
        factors = np.where(np.arange(size) == at, factor, 1.0)
        return lambda g, x: ((factors * g * (1 - np.tanh(x * w) ** 2) * w).astype(x.dtype),)

    report = checked(forward, backward(1.0), x)
    (leaf,) = report.leaves  # few are so flat that float32 leaves less than half a digit of a slope
    assert report.ok and leaf.right + leaf.inconclusive == size
    assert leaf.inconclusive <= size // 200
    report = checked(forward, backward(1.5), x)
    assert report.worst.index == (at,) and report.leaves[0].wrong == 1
    read = gradlab.check(forward, x, backward=backward(1.0))  # the law of finite differences calls
    assert read.ok and "read from NumPy" in read.oracle


@pytest.mark.parametrize(("factor", "status"), [(1.0, "right"), (1.1, "wrong")])
def test_a_layer_may_give_the_same_memory_at_every_call(factor, status):
    output, gradient = np.zeros(4), np.zeros(4)

    def forward(x: Any) -> Any:
        output[:] = np.sin(x) if isinstance(x, np.ndarray) else np.sin(np.array(x.tolist()))
        return output

    def backward(g: Any, x: Any) -> Any:
        gradient[:] = factor * np.asarray(g) * np.cos(np.asarray(x))
        return (gradient,)

    x = np.random.default_rng(3).normal(size=4)
    report = gradlab.check(forward, x, backward=backward)
    assert report.status == status, report
