"""What a check costs and how fine it sees: cold, beside gradcheck, for many parameters.

python tests/benchmarks/bench_check.py resolution cold located large
"""

import itertools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradlab


def resolution() -> None:
    """The smallest relative error in one entry that is found, in a 128 x 128 layer."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(32, 128)), rng.normal(size=(128, 128)) / 11

    def off_by(delta: float) -> Any:
        layer = jax.custom_vjp(lambda x, w: jnp.tanh(x @ w))

        def backward(residuals: Any, g: Any) -> Any:
            x, w = residuals
            d = g * (1 - jnp.tanh(x @ w)) * (1 + jnp.tanh(x @ w))
            dw = x.T @ d
            return d @ w.T, dw.at[17, 101].multiply(1 + delta)

        layer.defvjp(lambda x, w: (jnp.tanh(x @ w), (x, w)), backward)
        return layer

    for delta in (1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 0.0):
        report = gradlab.check(off_by(delta), x, w)
        print(f"one entry off by {delta:g}: {'found' if report.failed else 'passed'}")

    scale = np.geomspace(1, 1e-6, 128)
    mixed = jax.custom_vjp(lambda x, s: (x * s).sum(axis=0))

    def mixed_backward(residuals: Any, g: Any) -> Any:
        x, s = residuals
        ds = (x * g).sum(axis=0)
        return jnp.broadcast_to(g * s, x.shape).at[0, 127].multiply(1.001), ds

    mixed.defvjp(lambda x, s: ((x * s).sum(axis=0), (x, s)), mixed_backward)
    report = gradlab.check(mixed, jnp.asarray(x, jnp.float32), jnp.asarray(scale, jnp.float32))
    laws = ", ".join(law.name for law in report.failed)
    print(
        f"1e-3 in an entry 1e6 times smaller than the largest, float32: found by {laws or 'none'}"
    )


def cold() -> None:
    """A first check in a fresh process, beside jax.test_util.check_grads."""
    for name in LAYERS:
        for tool in ("check_grads", "gradlab"):
            _in_a_fresh_process(name, tool)


def located() -> None:
    """The wrong entries of a multilayer perceptron, beside torch's full gradcheck of it."""
    for tool in ("gradlab located", "gradlab located, again", "torch gradcheck full"):
        _in_a_fresh_process("mlp", tool)


def _in_a_fresh_process(layer: str, tool: str) -> None:
    script = str(Path(__file__).with_name("bench_check.py"))
    command = [sys.executable, script, "--layer", layer, "--tool", tool]
    print(subprocess.run(command, capture_output=True, text=True).stdout.strip(), flush=True)


def time_one(layer: str, tool: str) -> None:
    """Time one tool on one layer, in this process."""
    function, rule, inputs = LAYERS[layer]()
    jax.block_until_ready(inputs)
    start = time.process_time()
    said = TOOLS[tool](function, rule, inputs)
    print(f"{layer:10} {tool:22} {time.process_time() - start:8.2f} s  {said}")


def _check_grads(function: Any, rule: Any, inputs: Any) -> str:
    from jax.test_util import check_grads

    try:
        check_grads(function, inputs, order=1)
    except AssertionError:
        return "rejected, though it is right"
    return "passed"


def _gradlab(function: Any, rule: Any, inputs: Any) -> str:
    return "passed" if gradlab.check(rule, *inputs) else "not passed"


def _gradlab_located(function: Any, rule: Any, inputs: Any) -> str:
    """Check the rule with one entry of one weight's gradient off by 1e-6."""
    wrong = jax.custom_vjp(function)

    def backward(residuals: Any, g: Any) -> Any:
        _, pull = jax.vjp(rule, *residuals)
        x, w, *rest = pull(g)
        return x, w.at[17, 101].multiply(1 + 1e-6), *rest

    wrong.defvjp(lambda *a: (function(*a), a), backward)
    wide = [np.asarray(a, np.float64) for a in inputs]
    worst = gradlab.check(wrong, *wide).worst
    return f"{worst.path}[{', '.join(map(str, worst.index))}]"


def _gradlab_again(function: Any, rule: Any, inputs: Any) -> str:
    """As in a test session that has met the layer before: everything is compiled."""
    _gradlab_located(function, rule, inputs)
    start = time.perf_counter()
    said = _gradlab_located(function, rule, inputs)
    return f"of which the second check {time.perf_counter() - start:.2f} s  {said}"


def _torch_full(function: Any, rule: Any, inputs: Any) -> str:
    import torch

    def layer(x: Any, w: Any, b: Any, v: Any, c: Any) -> Any:
        return torch.tanh(x @ w + b) @ v + c

    tensors = [torch.tensor(np.array(a, np.float64), requires_grad=True) for a in inputs]
    return f"{torch.autograd.gradcheck(layer, tensors)}"


TOOLS = {
    "check_grads": _check_grads,
    "gradlab": _gradlab,
    "gradlab located": _gradlab_located,
    "gradlab located, again": _gradlab_again,
    "torch gradcheck full": _torch_full,
}


def large(entries: int = 10_000_000) -> None:
    """A check of a layer of many parameters, in plain gradients' times; and peak memory."""
    n = int(entries**0.5)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, n)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(n, n)) / n**0.5, jnp.float32)
    layer = jax.custom_vjp(lambda x, w: jnp.tanh(x @ w))

    def backward(residuals: Any, g: Any) -> Any:
        x, w, y = residuals
        d = g * (1 - y * y)
        return d @ w.T, x.T @ d

    def forward(x: Any, w: Any) -> Any:
        y = jnp.tanh(x @ w)
        return y, (x, w, y)

    layer.defvjp(forward, backward)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(a), jnp.float64) for a in (x, w)]
        plain = jax.jit(jax.grad(lambda x, w: jnp.tanh(x @ w).sum(), argnums=(0, 1)))
        jax.block_until_ready(plain(*wide))

    def gradient() -> float:
        with jax.enable_x64(True):
            runs = [_seconds(lambda: jax.block_until_ready(plain(*wide))) for _ in range(7)]
        return statistics.median(runs)

    report = gradlab.check(layer, x, w)  # what it compiles, the others remember
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    checks, gradients = [], [gradient()]
    for _ in range(7):
        checks.append(_seconds(lambda: gradlab.check(layer, x, w)))
        gradients.append(gradient())
    beside = [(a + b) / 2 for a, b in itertools.pairwise(gradients)]
    ratios = sorted(check / mean for check, mean in zip(checks, beside, strict=True))
    print(
        f"{n * n:,} parameters: check, compiled, {statistics.median(checks):.1f} s, float64 "
        f"gradient {statistics.median(gradients):.3f} s (ratio {statistics.median(ratios):.0f}, "
        f"of seven {ratios[0]:.0f} to {ratios[-1]:.0f}), peak {peak:.1f} GiB, ok {report.ok}"
    )


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _layer_norm() -> Any:
    def normal(x: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        r = jax.lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
        return (x - mean) * r, r

    def f(x: Any, w: Any, b: Any) -> Any:
        return normal(x)[0] * w + b

    def backward(inputs: Any, g: Any) -> Any:
        x, w, _ = inputs
        y, r = normal(x)
        d = g * w
        dx = r * (d - d.mean(-1, keepdims=True) - y * (d * y).mean(-1, keepdims=True))
        return dx, (g * y).sum(0), g.sum(0)

    return f, backward, (_normal(32, 64), _normal(64), _normal(64))


def _attention() -> Any:
    mask = np.tril(np.ones((64, 64), bool))

    def weights(q: Any, k: Any) -> Any:
        return jax.nn.softmax(jnp.where(mask, q @ k.T / 32**0.5, -1e9), -1)

    def f(q: Any, k: Any, v: Any) -> Any:
        return weights(q, k) @ v

    def backward(inputs: Any, g: Any) -> Any:
        q, k, v = inputs
        p = weights(q, k)
        d = g @ v.T
        s = p * (d - (d * p).sum(-1, keepdims=True)) / 32**0.5
        return s @ k, s.T @ q, p.T @ g

    return f, backward, (_normal(64, 32), _normal(64, 32), _normal(64, 32))


def _mlp() -> Any:
    def f(x: Any, w: Any, b: Any, v: Any, c: Any) -> Any:
        return jnp.tanh(x @ w + b) @ v + c

    def backward(inputs: Any, g: Any) -> Any:
        x, w, b, v, _ = inputs
        h = jnp.tanh(x @ w + b)
        d = (g @ v.T) * (1 - h * h)
        return d @ w.T, x.T @ d, d.sum(0), h.T @ g, g.sum(0)

    sizes = ((64, 128), (128, 256), (256,), (256, 10), (10,))
    return f, backward, tuple(_normal(*size) / 4 for size in sizes)


def _normal(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def _with_rule(make: Any) -> Any:
    def layer() -> Any:
        function, backward, inputs = make()
        rule = jax.custom_vjp(function)
        rule.defvjp(lambda *a: (function(*a), a), backward)
        return function, rule, inputs

    return layer


LAYERS = {
    "layer norm": _with_rule(_layer_norm),
    "attention": _with_rule(_attention),
    "mlp": _with_rule(_mlp),
}
