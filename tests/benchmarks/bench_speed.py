"""How much CPU time a check of a small layer costs, beside the checkers that it replaces.

Run it from the root of a clone: `python tests/benchmarks/bench_speed.py [LAYERS]`. Every figure is
measured in a process of its own, after `import jax`, autograd or torch, on one thread, with byte
code, as an installed package has it:

* first: the first check of the process;
* warm: the first check of this layer, in a process that has checked another one;
* again: the same layer at other values, the mean of four checks.

`python tests/benchmarks/bench_speed.py threshold` measures from which amount of work on compiling
pays: what `pays_to_compile` is made of.
"""

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
LAYERS = (
    *("layer_norm vjp", "softmax vjp", "gelu_erf vjp", "rms_norm vjp", "causal_attention vjp"),
    *("convolution vjp", "linear vjp", "cross_entropy vjp", "batch_norm vjp", "logsumexp vjp"),
    *("masked_recurrence vjp", "max_pool vjp", "tanh jvp", "silu jvp", "softplus jvp"),
    *("sinc jvp", "rms_norm numpy", "unit_rows numpy", "variance numpy", "layer_norm object"),
)
OTHER = "log_softmax vjp"
TOOLS = {
    "gradlab": "jax",
    "check_grads": "jax",
    "autograd check_grads": "autograd",
    "torch gradcheck fast": "torch",
    "torch gradcheck full": "torch",
}
FIGURES = ("first", "warm", "again")


def checker(tool: str, layer: str) -> Any:
    """Return a function of a seed that checks a layer at the inputs of that seed."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from corpus.index import OPERATIONS, as_custom_vjp, cast

    name, form = layer.split()
    op = OPERATIONS[name]

    @jax.custom_jvp
    def forward(x: Any) -> Any:
        return op.forward(jnp, x)

    @forward.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        return forward(x), t * op.backward(jnp, jnp.ones_like(x), x)

    rule = forward if form == "jvp" else as_custom_vjp(op, op.backward)

    class Layer:
        def forward(self, *inputs: Any) -> Any:
            self.inputs = inputs
            return op.forward(np, *inputs)

        def backward(self, upstream: Any) -> Any:
            return op.backward(np, upstream, *self.inputs)

    def inputs(seed: int) -> list[Any]:
        return cast(op.make(seed), "float32", jax=True)

    def in_numpy(*values: Any) -> Any:
        return op.forward(np, *values)

    def gradient(upstream: Any, *values: Any) -> Any:
        return op.backward(np, upstream, *values)

    if tool == "gradlab":
        import gradlab

        def check(seed: int) -> None:
            values = inputs(seed)
            if form == "numpy":
                values = [np.asarray(value) for value in values]
                report = gradlab.check(in_numpy, *values, backward=gradient, seed=seed)
            elif form == "object":
                report = gradlab.check(Layer(), *map(np.asarray, values), seed=seed)
            else:
                report = gradlab.check(rule, *values, seed=seed)
            assert report.ok, report

        return check
    if tool == "check_grads":
        from jax.test_util import check_grads

        def check_in_jax(seed: int) -> None:
            full = inputs(seed)
            floats = [i for i, x in enumerate(full) if jnp.issubdtype(x.dtype, np.inexact)]

            def of_floats(*values: Any) -> Any:
                changed = dict(zip(floats, values))
                return rule(*(changed.get(i, x) for i, x in enumerate(full)))

            check_grads(of_floats, [full[i] for i in floats], 1, ("rev",), rtol=1.0, atol=1.0)

        return check_in_jax
    if tool == "autograd check_grads":
        return in_autograd(op)
    from bench_check_peers import PEERS

    rejects = PEERS[tool][0]
    return lambda seed: rejects(op, op.backward, op.make(seed), "float64")


def in_autograd(op: Any) -> Any:
    """Return a function of a seed that checks a layer with HIPS autograd, in float64."""
    import numpy as np
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    def check(seed: int) -> None:
        full = [np.asarray(x) for x in op.make(seed)]
        floats = [i for i, x in enumerate(full) if x.dtype.kind == "f"]

        def at(values: Any) -> list[Any]:
            changed = dict(zip(floats, values))
            return [changed.get(i, x) for i, x in enumerate(full)]

        rule = primitive(lambda *values: op.forward(np, *at(values)))

        def gradients(g: Any, values: Any) -> Any:
            made = op.backward(np, g, *at(values))
            return made if isinstance(made, tuple) else (made,)

        def pulled(k: int) -> Any:
            return lambda y, *values: lambda g: gradients(g, values)[floats[k]]

        defvjp(rule, *map(pulled, range(len(floats))))
        check_grads(rule, modes=["rev"], order=1)(*(full[i] for i in floats))

    return check


def measure(tool: str, layer: str) -> dict[str, float]:
    """Return the figures of one tool and layer, from two processes."""
    figures: dict[str, float] = {}
    for before in ("", OTHER):
        command = [sys.executable, __file__, "worker", tool, layer, before]
        paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{tool}, {layer}: {done.stderr}")
        first, again = json.loads(done.stdout.splitlines()[-1])
        figures |= {"warm": first} if before else {"first": first, "again": again}
    return figures


def worker(tool: str, layer: str, before: str) -> None:
    """Print the CPU seconds of the first check and of one at other values."""
    for module in ("jax", "corpus.index", TOOLS[tool]):
        importlib.import_module(module)
    start = time.process_time()
    if before:
        checker(tool, before)(0)
        start = time.process_time()
    check = checker(tool, layer)
    check(0)
    middle = time.process_time()
    for seed in range(1, 5):
        check(seed)
    print(json.dumps([middle - start, (time.process_time() - middle) / 4]))


def threshold() -> None:
    """Print what one equation and one entry cost in NumPy, and one equation in XLA."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from gradlab.references import evaluation, vjp_program
    from gradlab.tracing import trace
    from gradlab.tracing.work import work

    def chain(x: Any, length: int) -> Any:
        for _ in range(length):
            x = jnp.sin(x) * x
        return x

    print("equations  entries  NumPy us/equation  XLA ms/equation")
    for length, size in ((20, 16), (100, 16), (20, 1 << 16)):
        x = np.linspace(0.1, 1.0, size)
        program = vjp_program(trace(lambda x, n=length: chain(x, n), x))
        given = dict(zip(program.in_names, (x, x)))
        taken = []
        for compiles in (False, True):
            evaluation.pays_to_compile = lambda work, c=compiles: c  # type: ignore[assignment]
            lab = evaluation.Evaluation(program=program)
            start = time.process_time()
            lab.values(given)
            middle = time.process_time()
            lab.values(given)
            again = time.process_time() - middle
            taken.append((middle - start, again))
        equations = work(program.jaxpr).equations
        numpy, xla = 1e6 * taken[0][1] / equations, 1e3 * taken[1][0] / equations
        print(f"{equations:9,}  {size:7,}  {numpy:17.1f}  {xla:15.2f}")
    jax.clear_caches()


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    elif sys.argv[1:2] == ["threshold"]:
        threshold()
    else:
        table(int(sys.argv[1]) if len(sys.argv) > 1 else len(LAYERS))


def table(count: int) -> None:
    """Print the figures of so many layers, and their medians."""
    layers = LAYERS[:count]
    tools = [tool for tool, module in TOOLS.items() if importlib.util.find_spec(module)]
    found: dict[tuple[str, str], list[float]] = {}
    print("CPU seconds", *(f"{tool}: {', '.join(FIGURES)}" for tool in tools), sep=" | ")
    for layer in layers:
        row = []
        for tool in tools:
            figures = measure(tool, layer)
            row.append("  ".join(f"{figures[name]:.3f}" for name in FIGURES))
            for name in FIGURES:
                found.setdefault((tool, name), []).append(figures[name])
        print(f"{layer:24}", *row, sep=" | ", flush=True)
    medians = {key: statistics.median(values) for key, values in found.items()}
    for tool in tools:
        print(tool, *(f"{name} {medians[tool, name]:.3f}" for name in FIGURES), sep="  ")
    for name in ("first", "warm"):
        pairs = zip(found["gradlab", name], found["check_grads", name])
        ratios = [ours / theirs for ours, theirs in pairs]
        print(f"{name}: gradlab / check_grads, median {statistics.median(ratios):.2f},", end=" ")
        print(f"largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
