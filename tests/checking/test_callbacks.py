"""Programs that call the host: it is called as seldom as NumPy that cannot be read, and judged."""

import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import gradlab

RNG = np.random.default_rng(0)
Function = Callable[..., Any]


class Host:
    """Functions of NumPy that programs call, and how often they did."""

    def __init__(self, **options: Any) -> None:
        self.calls, self.options = 0, options

    def __call__(self, function: Function, *arrays: Any) -> Any:
        like = arrays[0]

        def run(*given: Any) -> Any:
            self.calls += 1
            return np.asarray(function(*map(np.asarray, given)), like.dtype)

        return jax.pure_callback(
            run, jax.ShapeDtypeStruct(like.shape, like.dtype), *arrays, **self.options
        )


def wave(x: Any) -> Any:
    return jnp.sin(x) * x


def rule(host: Host, factor: Any = 1.0, where: str = "forward") -> Function:
    """Return a rule for x sin(x) that calls the host in its forward, its backward, or both."""

    def slope(x: Any, g: Any) -> Any:
        return factor * g * (np.cos(x) * x + np.sin(x))

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return wave(x) if where == "backward" else host(lambda x: np.sin(x) * x, x)

    def backward(x: Any, g: Any) -> Any:
        if where != "forward":
            return (host(slope, x, g),)
        return (jnp.asarray(factor, x.dtype) * g * (jnp.cos(x) * x + jnp.sin(x)),)

    f.defvjp(lambda x: (f(x), x), backward)
    return f


def pushed(host: Host, factor: float) -> Function:
    """Return the same rule in forward mode."""
    f = jax.custom_jvp(lambda x: host(lambda x: np.sin(x) * x, x))
    f.defjvp(lambda p, t: (f(*p), t[0] * (jnp.cos(p[0]) * p[0] + factor * jnp.sin(p[0]))))
    return f


def test_checks_in_two_threads_count_their_own_calls():
    """One waits inside its first call of the host until the other has made hundreds."""
    many = RNG.normal(size=300).astype("float32")
    few = RNG.normal(size=5).astype("float32")
    finished, other = threading.Event(), Host()
    threads = []

    def elsewhere() -> None:
        try:
            report = gradlab.check(rule(other, 1.01), many)
            assert report.status == "wrong", report
        finally:
            finished.set()

    def waiting(x: Any) -> Any:
        if not threads:
            threads.append(threading.Thread(target=elsewhere))
            threads[0].start()
            assert finished.wait(120)
        return np.sin(x) * x

    alone, together = Host(), Host()
    expected = gradlab.check(rule(alone), few)

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return together(waiting, x)

    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * (jnp.cos(x) * x + jnp.sin(x)),))
    report = gradlab.check(f, few)
    threads[0].join()
    assert other.calls > 300
    assert report.status == expected.status == "right"
    assert report.notes == expected.notes
    assert together.calls == alone.calls


@pytest.mark.parametrize("size", [3, 40])
def test_precision_calls_the_host_a_bounded_number_of_times(size):
    """Asked for one device again and again, it stops, and says what was not measured."""
    host, x = Host(), np.linspace(0.1, 1.0, size)
    report = gradlab.precision(rule(host), x, devices=["cpu"] * 12)
    assert host.calls <= 2 * size + 200
    assert report.measurements
    said = f"runs it at most {2 * size + 200} times; pass fewer dtypes= or devices="
    assert any(said in note for note in report.notes), report.notes


METHODS = [{"vmap_method": m} for m in ("sequential", "expand_dims", "broadcast_all")]


@pytest.mark.one_in(5)
@pytest.mark.parametrize("reference", [None, wave])
@pytest.mark.parametrize("where", ["forward", "backward", "both"])
@pytest.mark.parametrize("options", [{}, *METHODS], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_host_is_called_a_bounded_number_of_times(dtype, options, where, reference):
    x = RNG.normal(size=5).astype(dtype)
    for factor, status in ((1.0, "right"), (1.01, "wrong")):
        host = Host(**options)
        report = gradlab.check(rule(host, factor, where), x, reference=reference)
        assert report.status == status, report
        assert host.calls <= 2 * x.size + 200


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [30, 300, 3000])
def test_one_wrong_entry_among_many_is_found(size, dtype):
    """In float32 no direction over all entries tells of one: small groups do."""
    x = np.random.default_rng(size).normal(size=size).astype(dtype)
    factors = np.where(np.arange(size) == size // 2, 1.1, 1.0)
    for factor, status in ((1.0, "right"), (factors, "wrong")):
        host = Host(vmap_method="sequential")
        report = gradlab.check(rule(host, factor), x)
        assert report.status == status, report
        assert host.calls <= min(2 * size + 200, 2000)
    assert report.worst.index == (size // 2,) and report.leaves[0].wrong == 1


CURVES = {
    "sin": (np.sin, jnp.cos),
    "cube": (lambda x: x**3, lambda x: 3 * x * x),
    "tanh": (np.tanh, lambda x: 1 - jnp.tanh(x) ** 2),
    "exp": (np.exp, jnp.exp),
}


def curve(name: str, host: Host, factor: Any) -> Function:
    """Return a rule for one of the curves, entry by entry."""
    function, slope = CURVES[name]
    f = jax.custom_vjp(lambda x: host(function, x))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (factor * g * slope(x),))
    return f


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("name", "seed"), [("sin", 0), ("cube", 1), ("tanh", 3), ("exp", 3)])
def test_a_wrong_entry_does_not_hide_among_thousands(name, seed):
    """Where all are right, none is accused, and those that could not be judged are counted."""
    rng = np.random.default_rng(seed)
    x, wrong = rng.normal(size=3000).astype("float32"), int(rng.integers(3000))
    host = Host(vmap_method="sequential")
    report = gradlab.check(curve(name, host, 1.0), x)
    (leaf,) = report.leaves
    assert report.ok and leaf.inconclusive < 1500 and host.calls <= 2000, report
    assert (f"judged    {leaf.right:,} of 3,000" in str(report)) == (leaf.right < 3000)
    factors = np.where(np.arange(3000) == wrong, 1.06, 1.0).astype("float32")
    host = Host(vmap_method="sequential")
    report = gradlab.check(curve(name, host, factors), x)
    assert report.status == "wrong" and host.calls <= 2000, report
    assert report.worst.index == (wrong,) and report.leaves[0].wrong == 1, report


def test_slopes_say_what_a_gradient_should_be():
    """A callback of 64 bits had a derivative of zero, which was taken for the reference."""
    report = gradlab.check(rule(Host(vmap_method="sequential"), 1.01), np.array([0.5, 1.2]))
    assert np.isclose(report.worst.actual, 1.01 * report.worst.expected, rtol=1e-6)
    assert report.oracle.startswith("finite differences")


def test_a_reference_that_calls_the_host_has_no_gradient_of_zero():
    host = Host(vmap_method="sequential")
    x = np.array([0.5, 1.2, -2.0])
    for factor, status in ((1.0, "right"), (1.01, "wrong")):
        report = gradlab.check(
            rule(Host(), factor, "backward"),
            x,
            reference=lambda x: host(lambda x: np.sin(x) * x, x),
        )
        assert report.status == status, report


@pytest.mark.parametrize("both", [False, True])
def test_a_tie_that_sends_the_whole_upstream_both_ways_is_wrong(both):
    host = Host(vmap_method="sequential")

    @jax.custom_vjp
    def largest(x: Any) -> Any:
        return host(lambda _, x: x.max(), jnp.zeros((), x.dtype), x)

    def backward(x: Any, g: Any) -> Any:
        tied = x == x.max()
        return (g * tied / (1 if both else tied.sum()),)

    largest.defvjp(lambda x: (largest(x), x), backward)
    report = gradlab.check(largest, np.array([1.0, 3.0, 0.0, 3.0, 2.0]))
    assert report.status == ("wrong" if both else "right"), report
    assert host.calls <= 210


@pytest.mark.parametrize(("slope", "status"), [(0.0, "right"), (1.0, "wrong")])
def test_a_step_on_the_host_has_no_slope(slope, status):
    host = Host(vmap_method="sequential")
    f = jax.custom_vjp(lambda x: host(lambda x: np.round(4 * x) / 4, x))
    f.defvjp(lambda x: (f(x), None), lambda _, g: (slope * g,))
    assert gradlab.check(f, np.array([0.3, 1.2, -2.2])).status == status
    assert host.calls <= 206
    assert gradlab.check(f, np.array([0.3, 1.2]), intended=lambda x: slope * x).ok


@pytest.mark.parametrize(("factor", "status"), [(1.0, "right"), (0.99, "wrong")])
def test_a_forward_that_calls_in_every_turn_is_called_as_often_as_another(factor, status):
    host = Host(vmap_method="sequential")
    turns = 20

    @jax.custom_vjp
    def flow(x: Any) -> Any:
        step = lambda c, _: (host(lambda c: c + 0.1 * np.sin(c), c), None)  # noqa: E731
        return jax.lax.scan(step, x, None, length=turns)[0]

    def forward(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (c + 0.1 * jnp.sin(c), c), x, None, length=turns)

    def backward(kept: Any, g: Any) -> Any:
        step = lambda g, c: (g * (1 + 0.1 * factor * jnp.cos(c)), None)  # noqa: E731
        return (jax.lax.scan(step, g, kept, reverse=True)[0],)

    flow.defvjp(forward, backward)
    report = gradlab.check(flow, RNG.normal(size=6))
    assert report.status == status, report
    assert host.calls <= turns * 212


@pytest.mark.parametrize(("factor", "status"), [(1.0, "right"), (1.01, "wrong")])
def test_other_forms_and_options_call_as_seldom(factor, status):
    x = RNG.normal(size=6)
    for options, times in (
        ({"samples": 3}, 1),
        ({"order": 2}, 1),
        ({"dtypes": ["float32", "float64"]}, 2),
    ):
        host = Host(vmap_method="sequential")
        f = pushed(host, factor)
        assert gradlab.check(f, x, **options).status == status, options
        assert host.calls <= times * 212, options
    host = Host(vmap_method="sequential")
    forward = lambda x: host(lambda x: np.sin(x) * x, x)  # noqa: E731
    report = gradlab.check(
        forward,
        jnp.asarray(x, jnp.float32),
        backward=lambda g, x: factor * g * (jnp.cos(x) * x + jnp.sin(x)),
    )
    assert report.status == status and host.calls <= 212, report
    host = Host(vmap_method="sequential")
    assert gradlab.audit(lambda x: rule(host, factor)(x).sum(), x).ok == (status == "right")
    assert host.calls <= 212


@pytest.mark.parametrize(("factor", "status"), [(1.0, "right"), (1.01, "wrong")])
def test_io_callbacks_are_called_as_seldom(factor, status):
    calls = []

    @jax.custom_vjp
    def f(x: Any) -> Any:
        def run(x: Any) -> Any:
            calls.append(x)
            return np.exp(np.asarray(x))

        return io_callback(run, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    f.defvjp(lambda x: (f(x),) * 2, lambda y, g: (factor * g * y,))
    assert gradlab.check(f, RNG.normal(size=6)).status == status
    assert len(calls) <= 212


def test_a_fix_is_found_within_the_calls():
    host = Host(vmap_method="sequential")
    f = jax.custom_vjp(lambda x: host(lambda x: np.sin(x), x))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * jnp.sin(x),))
    report = gradlab.check(f, RNG.normal(size=6), reference=jnp.sin)
    assert report.fixes and "jnp.cos(x)" in report.fixes[0].diff
    assert host.calls <= 212
