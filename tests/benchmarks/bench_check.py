"""How `gradlab.check` does, measured: the fault corpus beside other checkers, resolution, cost.

    python tests/benchmarks/bench_check.py [PART ...]

Parts: detection, peers, alarms, resolution, cold, large, audit; all by default. `--seeds 0:20` and
`--scales 1e-3,1,mixed` set how far the false-alarm run goes. torch is used if it is installed.
"""

import argparse
import collections
import contextlib
import importlib.util
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from corpus.index import FAULTS, OPERATIONS, as_custom_vjp, cast
from corpus.model import Draw

import gradlab

DTYPES = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")


def report_of(op: Any, backward: Any, inputs: Any, dtype: str, form: str) -> Any:
    xp = np if form == "numpy" else jnp
    x = cast(inputs, dtype, jax=form != "numpy")
    if form == "rule":
        return gradlab.check(as_custom_vjp(op, backward), *x)
    return gradlab.check(
        lambda *a: op.forward(xp, *a), *x, backward=lambda g, *a: backward(xp, g, *a)
    )


def detection() -> None:
    """Every fault in every dtype: found, and named rightly; then what other checkers find."""
    found, named = collections.Counter(), collections.Counter()
    faults = [fault for fault in FAULTS if not fault.hidden]
    for n, fault in enumerate(faults, 1):
        form = "numpy" if fault.form == "numpy" else "backward" if fault.shape else "rule"
        for dtype in fault.dtypes:
            report = report_of(fault.operation, fault.backward, fault.make(0), dtype, form)
            found[dtype, bool(report.failed)] += 1
            kinds = {finding.kind for finding in report.findings}
            verdict = "right" if kinds and kinds <= set(fault.diagnosis) else "wrong"
            named[bool(fault.diagnosis), verdict if kinds else "none"] += 1
            if not report.failed or (kinds and verdict == "wrong"):
                print(f"  {fault.id} {dtype}: found {bool(report.failed)}, named {kinds}")
        if n % 20 == 0:
            print(f"  {n} of {len(faults)} faults", flush=True)
    for dtype in DTYPES:
        total = found[dtype, True] + found[dtype, False]
        print(f"gradlab.check        {dtype:11} finds {found[dtype, True]:4} of {total:4} faults")
    print("diagnosis (one is listed for the fault, what came):", dict(named))
    peers()


def peers() -> None:
    """What other checkers find at their defaults, and how many right backwards they reject."""
    for name, (peer, dtypes) in PEERS.items():
        for dtype in dtypes:
            wrong = [peer(f.operation, f.backward, f.make(0), dtype) for f in _askable(dtype)]
            right = [
                peer(op, op.backward, op.make(0), dtype)
                for op in OPERATIONS.values()
                if dtype in op.dtypes and op.form == "any"
            ]
            print(
                f"{name:20} {dtype:11} finds {sum(wrong):4} of {len(wrong):4} faults, "
                f"rejects {sum(right):2} of {len(right):2} right backwards",
                flush=True,
            )


def _askable(dtype: str) -> list[Any]:
    """Return the faults of which every checker can be asked: shapes fit, JAX can trace them."""
    return [
        f
        for f in FAULTS
        if not f.hidden and f.form != "numpy" and not f.shape and dtype in f.dtypes
    ]


def alarms(seeds: range, scales: list[float | str]) -> None:
    """Every correct backward in every dtype, at many seeds and scales: false alarms."""
    wrong, undecided, total = 0, 0, 0
    for op in OPERATIONS.values():
        start, before = time.perf_counter(), total
        for dtype in op.dtypes:
            cases = [(f"seed {n} scale {s}", op.make(n, s)) for n in seeds for s in scales]
            if 0 in seeds:
                cases += [(f"special {k}", make(Draw(0))) for k, make in enumerate(op.special)]
            for where, inputs in cases:
                if not _held(inputs, dtype):
                    continue
                report = report_of(op, op.backward, inputs, dtype, "rule")
                total += 1
                undecided += bool(report.undecided) and not report.failed
                wrong += bool(report.failed)
                for law in report.failed:
                    print(f"  {op.name} {dtype} {where}: {law.name}: {law.reason}", flush=True)
        seconds = time.perf_counter() - start
        print(f"{op.name}: {total - before} checks, {wrong} so far, {seconds:.0f} s", flush=True)
    print(f"{wrong} false alarms, {undecided} undecided, in {total} checks of right backwards")


def _held(inputs: Any, dtype: str) -> bool:
    """Whether a dtype holds the inputs: float16 makes zeros of 1e-9 and infinities of 1e5."""
    narrow = [np.asarray(x).astype(np.complex128) for x in cast(inputs, dtype, jax=False)]
    return all(np.all(((a == 0) <= (x == 0)) & np.isfinite(a)) for a, x in zip(narrow, inputs))


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
            command = [sys.executable, __file__, "one", "--layer", name, "--tool", tool]
            print(subprocess.run(command, capture_output=True, text=True).stdout.strip())


def one(layer: str, tool: str) -> None:
    from jax.test_util import check_grads

    function, rule, inputs = LAYERS[layer]()
    jax.block_until_ready(inputs)
    start = time.perf_counter()
    if tool == "gradlab":
        gradlab.check(rule, *inputs)
    else:
        with contextlib.suppress(AssertionError):  # it rejects correct float32 gradients
            check_grads(function, inputs, order=1)
    print(f"{layer:10} {tool:12} {time.perf_counter() - start:.2f} s")


def large(entries: int = 10_000_000) -> None:
    """A check of a layer of many parameters, in plain gradients' times; and peak memory."""
    import resource

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
        start = time.perf_counter()
        jax.block_until_ready(plain(*wide))
        gradient = time.perf_counter() - start
    start = time.perf_counter()
    report = gradlab.check(layer, x, w)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"{n * n:,} parameters: check {seconds:.1f} s, float64 gradient {gradient:.2f} s "
        f"(ratio {seconds / gradient:.0f}), peak {peak:.1f} GiB, ok {report.ok}"
    )


RANGES = {
    "ordinary": (0.3, 0.7, 0.45),
    "negative": (-0.3, -1.7, -2.45),
    "large": (30.0, 80.5, 12.25),
    "small": (1e-3, 2e-5, 3e-4),
    "around 1": (0.999, 1.001, 1.02),
}


def audit() -> None:
    """Every public function of jax.nn and jax.scipy.special, on several ranges of its inputs."""
    for module in (jax.nn, jax.scipy.special):
        for name in sorted(n for n in dir(module) if not n.startswith("_")):
            function = getattr(module, name)
            for label, numbers in RANGES.items():
                x = jnp.array(numbers, jnp.float32)
                fits = [a for a in ((x,), (x, x + 0.2), (x, x + 0.2, x / 2)) if _takes(function, a)]
                if not fits:
                    break
                where = f"{module.__name__}.{name} ({label})"
                try:
                    found = gradlab.audit(function, *fits[0])
                except gradlab.GradlabError as error:
                    print(f"{where}: {error}", flush=True)
                    continue
                if found.rules:
                    words = "all right" if found.ok else str(found)
                    print(f"{where}: {len(found.rules)} rules, {words}", flush=True)


def _takes(function: Any, arguments: Any) -> bool:
    """Whether a function can be called with these arrays."""
    try:
        jax.eval_shape(function, *arguments)
    except Exception:
        return False
    return True


def check_grads_rejects(op: Any, backward: Any, inputs: Any, dtype: str) -> bool:
    """Whether jax.test_util.check_grads rejects a backward at its defaults."""
    from jax.test_util import check_grads

    with jax.enable_x64(dtype == "float64"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = cast(inputs, dtype, jax=True)
        floats = [i for i, x in enumerate(full) if jnp.issubdtype(x.dtype, np.inexact)]
        rule = as_custom_vjp(op, backward)

        def of_floats(*values: Any) -> Any:
            return rule(*_with(full, floats, values))

        try:
            check_grads(of_floats, [full[i] for i in floats], order=1, modes=["rev"])
        except Exception:
            return True
        return False


def gradcheck_rejects(fast: bool) -> Any:
    """Return whether torch.autograd.gradcheck rejects a backward at its defaults."""

    def rejects(op: Any, backward: Any, inputs: Any, dtype: str) -> bool:
        import torch

        full = cast(inputs, dtype, jax=False)
        floats = [i for i, x in enumerate(full) if np.issubdtype(x.dtype, np.inexact)]

        class Rule(torch.autograd.Function):
            @staticmethod
            def forward(context: Any, *values: Any) -> Any:
                context.save_for_backward(*values)
                output = op.forward(np, *_with(full, floats, [v.numpy() for v in values]))
                outputs = [torch.from_numpy(np.array(o)) for o in _tuple(output)]
                return tuple(outputs) if isinstance(output, tuple) else outputs[0]

            @staticmethod
            def backward(context: Any, *upstreams: Any) -> Any:
                values = [v.detach().numpy() for v in context.saved_tensors]
                # torch's gradients are the conjugates of JAX's
                g = [np.asarray(u.detach().resolve_conj().numpy().conj()) for u in upstreams]
                upstream = tuple(g) if len(g) > 1 else g[0]
                made = _tuple(backward(np, upstream, *_with(full, floats, values)))
                return tuple(torch.from_numpy(np.array(made[i]).conj()) for i in floats)

        tensors = [torch.from_numpy(np.array(full[i])).requires_grad_() for i in floats]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return not torch.autograd.gradcheck(Rule.apply, tensors, fast_mode=fast)
            except Exception:
                return True

    return rejects


def _with(full: Any, positions: list[int], values: Any) -> list[Any]:
    """Return a list of inputs with some of them replaced."""
    changed = dict(zip(positions, values))
    return [changed.get(i, x) for i, x in enumerate(full)]


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


PEERS: dict[str, Any] = {
    "jax check_grads": (check_grads_rejects, ("float64", "float32", "bfloat16", "float16"))
}
if importlib.util.find_spec("torch"):
    PEERS["torch gradcheck fast"] = (gradcheck_rejects(True), ("float64", "float32", "complex128"))
    PEERS["torch gradcheck full"] = (gradcheck_rejects(False), ("float64", "float32", "complex128"))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--seeds", default="0:20")
    parser.add_argument("--scales", default="1e-9,1e-3,1,1e3,mixed")
    parser.add_argument("--layer")
    parser.add_argument("--tool")
    options = parser.parse_args()
    if options.layer:
        one(options.layer, options.tool)
        return
    seeds = range(*map(int, options.seeds.split(":")))
    scales = [s if s == "mixed" else float(s) for s in options.scales.split(",")]
    parts = {
        "detection": detection,
        "peers": peers,
        "alarms": lambda: alarms(seeds, scales),
        "resolution": resolution,
        "cold": cold,
        "large": large,
        "audit": audit,
    }
    for name in options.parts or [part for part in parts if part != "peers"]:
        print(f"--- {name}", flush=True)
        parts[name]()


if __name__ == "__main__":
    main()
