"""What the float64 side of a check costs cold, against jax.test_util.check_grads.

    python tests/benchmarks/bench_floors_cost.py [layer-norm attention mlp]

Each figure is a fresh process, after `import jax`: tracing, both gradients, the pushforward, one
compiled program, the draws of both laws and the values for finite differences.
"""

import contextlib
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@jax.custom_vjp
def layer_norm(x: Any, w: Any, b: Any) -> Any:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * w + b


def _layer_norm_forward(x: Any, w: Any, b: Any) -> Any:
    return layer_norm(x, w, b), (x, w)


def _layer_norm_backward(saved: Any, g: Any) -> Any:
    x, w = saved
    r = 1 / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    n = (x - x.mean(-1, keepdims=True)) * r
    h = g * w
    dx = r * (h - h.mean(-1, keepdims=True) - n * (h * n).mean(-1, keepdims=True))
    return dx, (g * n).sum(0), g.sum(0)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def attention(q: Any, k: Any, v: Any) -> Any:
    s = q @ k.T * (1 / np.sqrt(q.shape[-1])).astype(q.dtype)
    return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(s.shape, bool)), s, -jnp.inf)) @ v


def _attention_forward(q: Any, k: Any, v: Any) -> Any:
    return attention(q, k, v), (q, k, v)


def _attention_backward(saved: Any, g: Any) -> Any:
    q, k, v = saved
    scale = (1 / np.sqrt(q.shape[-1])).astype(q.dtype)
    mask = jnp.tril(jnp.ones((q.shape[0], k.shape[0]), bool))
    p = jax.nn.softmax(jnp.where(mask, q @ k.T * scale, -jnp.inf))
    ds = p * (g @ v.T - (g * (p @ v)).sum(-1, keepdims=True)) * scale
    return ds @ k, ds.T @ q, p.T @ g


attention.defvjp(_attention_forward, _attention_backward)


def mlp(x: Any, w: Any, b: Any, v: Any, c: Any) -> Any:
    return jnp.tanh(x @ w + b) @ v + c


LAYERS = {
    "layer-norm": (layer_norm, ((32, 64), (64,), (64,))),
    "attention": (attention, ((64, 32), (64, 32), (64, 32))),
    "mlp": (mlp, ((64, 128), (128, 256), (256,), (256, 10), (10,))),
}


def peer(name: str) -> None:
    from jax.test_util import check_grads

    function, shapes = LAYERS[name]
    inputs = [normal(*shape) for shape in shapes]
    modes = ["rev"] if isinstance(function, jax.custom_vjp) else ["fwd", "rev"]
    start = time.perf_counter()
    with contextlib.suppress(AssertionError):  # it rejects some correct gradients in float32
        check_grads(function, inputs, order=1, modes=modes)
    print(time.perf_counter() - start)


def ours(name: str) -> None:
    function, shapes = LAYERS[name]
    inputs = [normal(*shape) for shape in shapes]
    start = time.perf_counter()
    from gradlab.references import Evaluation, finite_differences, judge, jvp_program, vjp_program
    from gradlab.tracing import strip, trace

    program = trace(function, *inputs)
    stripped = strip(program)
    lab = Evaluation(
        rule=vjp_program(program),
        reference=vjp_program(stripped),
        pushforward=jvp_program(stripped),
    )
    values = dict(zip(program.in_names, inputs))
    for name, aval in lab.inputs.items():
        if name not in values:
            values[name] = RNG.normal(size=aval.shape).astype(aval.dtype)
    formula, _ = lab.both(values)
    count = len(inputs)
    for rule, reference in zip(formula["rule"][-count:], formula["reference"][-count:]):
        assert judge(rule.value, reference, rule, "float64").ok
    way = {name: RNG.normal(size=np.shape(values[name])) for name in program.in_names}
    at = lab.along(values, way)
    slopes = finite_differences(lambda steps: [[row] for row in at(steps)["reference"][0]])
    assert np.isfinite(slopes[0].error).all()
    print(time.perf_counter() - start)


def main() -> None:
    if sys.argv[1:2] in (["peer"], ["ours"]):
        (peer if sys.argv[1] == "peer" else ours)(sys.argv[2])
        return
    print("layer        check_grads  float64 side  ratio")
    for name in sys.argv[1:] or LAYERS:
        runs = [_fresh(kind, name) for _ in range(2) for kind in ("peer", "ours")]
        theirs, own = min(runs[::2]), min(runs[1::2])
        print(f"{name:12} {theirs:9.2f} s {own:11.2f} s {own / theirs:6.2f}")


def _fresh(kind: str, name: str) -> float:
    command = [sys.executable, __file__, kind, name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
