"""Hold the GPU's gradients against the CPU's, and write what was found as a page of Markdown.

Where JAX sees no GPU the page says so, and holds the CPU's figures for small sizes alone.

    python examples/gpu_report.py > examples/gpu_report.md
"""

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import numpy as np

import gradlab
from gradlab.numerics import doctor

PLATFORMS = list(dict.fromkeys([device.platform for device in jax.devices()] + ["cpu"]))
GPU = "gpu" in PLATFORMS
COMMAND = "python examples/gpu_report.py > examples/gpu_report.md"
DTYPES = None if GPU else ("float32",)
FULL_SIZE = (100, 4096)


def layer_norm(x, scale):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / jnp.sqrt(variance + jnp.asarray(1e-5, x.dtype)) * scale


def attention(q, k, v):
    scores = jnp.einsum("htd,hsd->hts", q, k) / q.shape[-1] ** 0.5
    past = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return jnp.einsum("hts,hsd->htd", jax.nn.softmax(jnp.where(past, scores, -jnp.inf)), v)


def matmul(x, w):
    return x @ w


def lookup(table, rows):
    return table[rows]  # its gradient adds what comes for one row in any order: a scatter-add


def layers():
    """Yield each layer with its inputs; without a GPU only two, and small."""
    draw = np.random.default_rng(0).standard_normal
    heads, length, width = (8, 128, 64) if GPU else (2, 16, 8)
    yield layer_norm, [draw((length, width)), draw(width)]
    yield matmul, [draw((length, width)), draw((width, width))]
    if GPU:
        yield attention, [draw((heads, length, width)) for _ in range(3)]
        yield lookup, [draw((length, width)), np.arange(2 * length) % 5]


def machine() -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{when}, {platform.system()} {platform.machine()}\n\n```text\n{doctor()}\n```"


def precision() -> str:
    pages = [gradlab.precision(f, *inputs, dtypes=DTYPES) for f, inputs in layers()]
    return "\n\n".join(f"```text\n{page}\n```" for page in pages)


def check_times() -> str:
    """Time one check of each layer on each platform, compilation included."""
    lines = ["| layer | " + " | ".join(PLATFORMS) + " |", "| --- |" + " --- |" * len(PLATFORMS)]
    for function, inputs in layers():
        cells = []
        for name in PLATFORMS:
            given = [jnp.asarray(x, jnp.float32) if x.dtype == float else x for x in inputs]
            start = time.perf_counter()
            report = gradlab.check(function, *given, device=name)
            cells.append(f"{time.perf_counter() - start:.2f} s, {'ok' if report.ok else 'NOT OK'}")
        lines.append(f"| {function.__name__} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def jacobian_times() -> str:
    size = FULL_SIZE if GPU else (4, 256)
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    scale = np.ones(size[1], np.float32)
    seconds = {}
    for name in PLATFORMS:
        with jax.default_device(jax.devices(name)[0]):
            report = gradlab.jacobian(layer_norm, x, scale, wrt="x")
            for _ in range(2):  # the first compiles
                start = time.perf_counter()
                report.evaluate(max_bytes=2**34, probes=False)
                seconds[name] = time.perf_counter() - start
    told = ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items())
    faster = f"; the GPU is {seconds['cpu'] / seconds['gpu']:.1f}x faster" if GPU else ""
    return f"layer_norm {size[0]}x{size[1]}, {report.passes} passes: {told}{faster}"


def started() -> list[subprocess.Popen[str]]:
    """Start what takes longest: all nodes, the tests marked `gpu`, right and wrong layers."""
    commands = (
        [sys.executable, "-m", "gradlab", "verify"],
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"],
        [sys.executable, "-m", "pytest", "-q", "--on-gpu", "tests/checking/test_corpus.py"],
    )
    share = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the memory of one GPU
    options = {"stdout": subprocess.PIPE, "text": True, "env": share}
    return [subprocess.Popen(command, **options) for command in commands]


def finished(runs: list[subprocess.Popen[str]]) -> str:
    parts = []
    for run in runs:
        told = "\n".join(run.communicate()[0].strip().splitlines()[-4:])
        command = " ".join(run.args[1:])
        parts.append(f"`python {command}`: exit {run.returncode}\n\n```text\n{told}\n```")
    return "\n\n".join(parts)


def main() -> None:
    runs = started() if GPU else []
    print("# Gradients on a GPU, compared with the CPU\n")
    if GPU:
        print(f"Made by `{COMMAND}` on the machine below.\n")
    else:
        print(
            f"**Not run on a GPU.** `{COMMAND}` was run where JAX sees none: what is below are the "
            "CPU's own figures for two small layers, to show what the page holds. On a machine "
            "with a GPU the same command measures both, more layers at full size, the whole node "
            "verification and the fault corpus.\n"
        )
    print(f"## Machine\n\n{machine()}\n")
    print(f"## Precision, dtype by dtype\n\n{precision()}\n")
    print(f"## Time of a check\n\n{check_times()}\n")
    print(f"## Entries of a Jacobian\n\n{jacobian_times()}\n")
    print("## Nodes and faults\n")
    print(finished(runs) if GPU else "Not run on a GPU: the CPU's are in the test suite.")


if __name__ == "__main__":
    main()
