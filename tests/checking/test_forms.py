"""All the ways to say what is checked: backward=, residuals, losses, nodes, pytrees, NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab import nodes

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2)), RNG.normal(size=2)


def linear(x, w, b):
    return x @ w + b


def linear_backward(g, x, w, b):
    return g @ w.T, x.T @ g, g.sum(0)


def status(report, law):
    return next(each.status for each in report.laws if each.name == law)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_backward_of_the_inputs(array):
    inputs = [array(a) for a in (X, W, B)]
    report = gradlab.check(linear, *inputs, backward=linear_backward)
    assert report.ok
    assert report.oracle.startswith("autodiff of linear")
    assert [leaf.path for leaf in report.leaves] == ["x", "w", "b"]
    assert report.dtypes == (str(inputs[0].dtype),)


def test_one_wrong_gradient_is_named_with_entry_and_output():
    def backward(g, x, w, b):
        dw = np.array(x.T @ g) if isinstance(g, np.ndarray) else x.T @ g
        dw = dw.at[1, 0].multiply(1.001) if hasattr(dw, "at") else _scaled(dw)
        return g @ w.T, dw, g.sum(0)

    def _scaled(dw):
        dw[1, 0] *= 1.001
        return dw

    report = gradlab.check(linear, X, W, B, backward=backward)
    assert (report.worst.path, report.worst.index) == ("w", (1, 0))
    assert report.worst.output.startswith("output[") and report.worst.output.endswith(", 0]")
    assert [(leaf.path, leaf.wrong) for leaf in report.leaves] == [("x", 0), ("w", 1), ("b", 0)]


def test_residuals():
    def forward(x, w):
        y = np.tanh(x @ w)
        return y, (x, w, y)

    def backward(g, cache):
        x, w, y = cache
        g = g * (1 - y * y)
        return g @ w.T, x.T @ g

    assert gradlab.check(forward, X, W, backward=backward, returns="output+residuals").ok


def test_a_loss_that_returns_its_own_gradient():
    """The form of a course's losses; integer labels are not differentiated."""

    def softmax_loss(x, y):
        shifted = x - x.max(axis=1, keepdims=True)
        logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        dx = np.exp(logp)
        dx[np.arange(len(y)), y] -= 1
        return -logp[np.arange(len(y)), y].mean(), dx / len(y)

    def unnormalised(x, y):
        loss, dx = softmax_loss(x, y)
        return loss, dx * len(y)

    y = np.array([0, 3, 2])
    report = gradlab.check(softmax_loss, X, y, returns="output+gradients")
    assert report.ok and report.oracle.endswith("read from NumPy")
    wrong = gradlab.check(unnormalised, X, y, returns="output+gradients")
    assert wrong.failed and wrong.fixes[0].after == ("        return loss, dx",)


def test_gradients_by_name_and_settings_in_dicts():
    """Python numbers in a container are settings; a dict of gradients is read by input name."""

    def forward(x, gamma, param):
        return gamma * x / np.sqrt(x.var(axis=0) + param["eps"]), (x, gamma, param)

    def backward(g, cache):
        x, gamma, param = cache
        s = 1 / np.sqrt(x.var(axis=0) + param["eps"])
        h = g * gamma
        dx = s * h - s**3 * (x - x.mean(axis=0)) * (h * x).sum(axis=0) / len(x)
        return {"x": dx, "gamma": (g * x * s).sum(axis=0)}

    inputs = (RNG.normal(size=(5, 3)), RNG.normal(size=3), {"eps": 1e-5, "mode": "train"})
    report = gradlab.check(forward, *inputs, backward=backward, returns="output+residuals")
    assert report.ok, report


def test_numpy_that_jax_cannot_trace():
    def forward(x):
        y = np.zeros_like(x)
        y[x > 0] = x[x > 0] ** 2
        return y

    report = gradlab.check(forward, X, backward=lambda g, x: 2 * g * np.maximum(x, 0))
    assert report.ok and report.oracle.endswith("read from NumPy")
    wrong = gradlab.check(forward, X, backward=lambda g, x: 2 * g * x)
    assert wrong.failed and "(x > 0)" in wrong.diagnosis


def test_numpy_that_writes_into_its_arguments():
    def backward(g, x):
        g *= 2
        return g

    report = gradlab.check(lambda x: np.multiply(2, x), X, backward=backward)
    assert [law.name for law in report.failed] == ["pure"]
    assert "modifies its upstream in place" in report.diagnosis


def test_numpy_that_assumes_a_contiguous_upstream():
    def backward(g, x):
        return 2 * g.ravel(order="K").reshape(g.shape)

    report = gradlab.check(lambda x: np.multiply(2, x), X, backward=backward)
    assert [law.name for law in report.failed] == ["reuse"]


def test_pytrees():
    def layer(params, x):
        return jnp.tanh(x @ params["w"][0] + params["b"])

    params = {"w": [jnp.asarray(W)], "b": jnp.asarray(B)}
    report = gradlab.check(layer, params, jnp.asarray(X), reference=layer)
    assert report.ok
    assert [leaf.path for leaf in report.leaves] == ["params['b']", "params['w'][0]", "x"]

    def backward(g, params, x):
        g = g * (1 - layer(params, x) ** 2)
        return {"w": [x.T @ g], "b": g.mean(0)}, g @ params["w"][0].T

    wrong = gradlab.check(layer, params, jnp.asarray(X), backward=backward)
    assert {leaf.path for leaf in wrong.leaves if leaf.wrong} == {"params['b']"}


def test_leaves_that_have_no_gradient():
    def layer(x, index, mask, key, nothing, mode):
        noise = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.where(mask & noise, jnp.sin(x), x)[index] if mode == "train" else x

    inputs = (
        jnp.asarray(X),
        jnp.array([0, 2]),
        jnp.asarray(X) > 0,
        jax.random.key(0),
        None,
        "train",
    )
    report = gradlab.check(layer, *inputs)
    assert report.ok, report
    assert [leaf.path for leaf in report.leaves] == ["x"]


@pytest.mark.parametrize("wrt", ["w", 1, ("w",), [-2]])
def test_wrt_picks_by_name_and_position(wrt):
    report = gradlab.check(linear, X, W, B, backward=lambda g, x, w, b: x.T @ g, wrt=wrt)
    assert report.ok and [leaf.path for leaf in report.leaves] == ["w"]


def test_a_python_number_is_differentiated_as_a_whole_input():
    report = gradlab.check(
        lambda x, a: a * x, X, 2.5, backward=lambda g, x, a: (a * g, (g * x).sum())
    )
    assert report.ok
    assert [leaf.path for leaf in report.leaves] == ["x", "a"]


@pytest.mark.parametrize("node", [nodes.Tanh(), nodes.Multiply()])
def test_nodes(node):
    inputs = [X, RNG.normal(size=(3, 4))][: len(node.input_names())]
    report = gradlab.check(node, *inputs)
    assert report.ok, report


def test_a_node_with_a_mistake():
    class Wrong(nodes.Tanh):
        def backward(self, upstream, residuals):
            (y,), *_ = residuals
            return (upstream * (1 - y),)

    assert gradlab.check(Wrong(), X).failed


def test_a_fused_function_against_plain_code():
    def fused(x):
        return jnp.where(x > 0, x, jnp.expm1(x))

    assert gradlab.check(fused, jnp.asarray(X), reference=jax.nn.elu).ok
    report = gradlab.check(lambda x: 2 * x, jnp.asarray(X), reference=lambda x: x)
    assert {"value", "formula"} <= {law.name for law in report.failed}


def test_several_outputs_and_one_that_is_ignored():
    def both(x):
        return jnp.sin(x), {"square": x * x}

    def backward(g, x):
        return g[0] * jnp.cos(x)

    x = jnp.asarray(X)
    report = gradlab.check(both, x, backward=backward)
    assert report.failed
    assert 'the term `2 * x * g[1]["square"]` is missing' in report.diagnosis


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes(dtype):
    report = gradlab.check(linear, X, W, B, backward=linear_backward, dtypes=dtype)
    assert report.ok and report.dtypes == (dtype,)
    wrong = gradlab.check(
        linear, X, W, B, backward=lambda g, x, w, b: (g @ w.T, x.T @ g, g.mean(0)), dtypes=dtype
    )
    assert {leaf.path for leaf in wrong.leaves if leaf.wrong} == {"b"}


def test_several_dtypes_are_reported_each():
    report = gradlab.check(
        jnp.sin, jnp.asarray(X), reference=jnp.sin, dtypes=("float32", "float16")
    )
    assert report.ok and report.dtypes == ("float32", "float16")
    assert {law.dtype for law in report.laws} == {"float32", "float16"}


def test_complex_gradients():
    z = RNG.normal(size=3) + 1j * RNG.normal(size=3)

    def forward(z):
        return (z * z.conj()).real

    assert gradlab.check(forward, z, backward=lambda g, z: 2 * g * z.conj()).ok
    assert "z.conj()" in gradlab.check(forward, z, backward=lambda g, z: 2 * g * z).diagnosis
    assert gradlab.check(jnp.abs, jnp.asarray(z)).ok


def test_an_accelerator_may_add_in_another_order_at_every_call(monkeypatch):
    calls = itertools.count()

    def sums(off):
        def backward(upstream, x):
            order = np.random.default_rng(next(calls))
            float(x[0])  # cannot be traced
            orders = order.permuted(np.tile(np.arange(len(x)), (len(x), 1)), axis=1)
            totals = np.cumsum(x[orders] * upstream, axis=1)[:, -1]  # each in its own order
            return (totals * np.float32(1 + off * order.standard_normal())).astype(x.dtype)

        return backward

    def check(off):
        x = np.random.default_rng(1).standard_normal(300).astype(np.float32)
        return gradlab.check(lambda x: x.sum() ** 2 / 2, x, backward=sums(off))

    def pure(report):
        return next(law.status for law in report.laws if law.name == "pure")

    assert pure(check(0.0)) == "failed"
    monkeypatch.setattr("gradlab.checking.evidence.Evidence.accelerated", True)
    assert pure(check(0.0)) == "warned"
    assert pure(check(1e-3)) == "failed"


@pytest.mark.one_in(3)
@pytest.mark.parametrize("seed", range(3))
def test_what_jax_cannot_trace_is_run_in_float64_too(seed):
    rng = np.random.default_rng(seed)
    x, w = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((48, 256), (256, 24)))

    def rule(factor):
        def backward(upstream, x, w):
            if float(upstream[0, 0]) > 1e9:  # reads a value: only to be called
                raise ValueError
            return factor * upstream @ w.T, x.T @ upstream

        return backward

    right, wrong = (
        gradlab.check(lambda x, w: x @ w, x, w, backward=rule(factor), seed=seed)
        for factor in (1.0, 1.00001)
    )
    assert right.ok, right
    assert wrong.failed[0].name == "formula"


@pytest.mark.one_in(2)
@pytest.mark.parametrize("seed", range(2))
def test_numpy_that_rounds_to_float32_inside(seed):
    rng = np.random.default_rng(seed)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((24, 128), (128, 12)))

    def rule(factor):
        def backward(upstream, x, w):
            dw = np.zeros(w.shape, np.float32)
            for row, u in zip(x, upstream):
                dw += (factor * np.outer(row, u)).astype(np.float32)
            return upstream @ w.T, dw.astype(w.dtype)

        return backward

    right, wrong = (
        gradlab.check(lambda x, w: x @ w, x, w, backward=rule(factor), seed=seed)
        for factor in (1.0, 1.001)
    )
    assert right.ok, right
    assert "factor" in wrong.diagnosis and "should not be there" in wrong.diagnosis


def test_a_reference_in_numpy_is_read():
    def reference(x):
        return x + x if np.sum(x) > 0 else np.maximum(-x, 0)

    def function(x):
        return 2 * x if x.sum() > 0 else -x

    x = np.array([0.5, 0.2, 0.9])
    for slope, status in ((-1, "right"), (1, "wrong")):
        rule = lambda g, x, slope=slope: g * (2 if x.sum() > 0 else slope)  # noqa: E731
        assert gradlab.check(function, x, backward=rule, reference=reference).status == status
    other = gradlab.check(lambda x: 2.5 * x, x, backward=lambda g, x: 2.5 * g, reference=reference)
    assert not other.ok
