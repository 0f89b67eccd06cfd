"""Forward and backward of convolution and attention on NumPy, beside PyTorch, on one thread.

Run it with `python tests/benchmarks/bench_nodes.py`. Times are processor time, the medians of
interleaved runs, so that a busy machine slows both sides alike. A peer that is not installed is
left out.
"""

import importlib.util
import os
import statistics
import sys
import time

import numpy as np

from gradlab import nodes

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ROUNDS, REPEATS = 20, 5
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def conv(batch, channels, size, kernel, out):
    node = nodes.Conv2d(padding=kernel // 2)
    inputs = normal(batch, channels, size, size), normal(out, channels, kernel, kernel), normal(out)
    return node, inputs, lambda t, *x: t.nn.functional.conv2d(*x, padding=kernel // 2)


def attention(node, heads, length, width, **options):
    def peer(t, q, k, v):
        return t.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    return node, tuple(normal(1, heads, length, width) for _ in range(3)), peer


def pool():
    return nodes.MaxPool((2, 2)), (normal(8, 16, 32, 32),), lambda t, x: t.max_pool2d(x, 2)


CASES = {
    "conv2d, 8x16x32x32, 3x3, 16 out": conv(8, 16, 32, 3, 16),
    "conv2d, 8x3x32x32, 5x5, 16 out": conv(8, 3, 32, 5, 16),
    "conv2d, 4x64x16x16, 3x3, 64 out": conv(4, 64, 16, 3, 64),
    "max_pool, 8x16x32x32, 2x2": pool(),
    "attention, 4 heads, 128x32": attention(nodes.Attention(), 4, 128, 32),
    "causal attention, 4 heads, 128x32": attention(
        nodes.CausalAttention(), 4, 128, 32, is_causal=True
    ),
    "attention, 8 heads, 256x64": attention(nodes.Attention(), 8, 256, 64),
}


def ours(node, inputs):
    output, _ = node.forward(*inputs)
    upstream = np.ones_like(output)

    def step():
        _, residuals = node.forward(*inputs)
        return node.backward(upstream, residuals)

    return step


def in_torch(peer, inputs):
    import torch

    torch.set_num_threads(1)
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    upstream = torch.ones_like(peer(torch, *tensors))

    def step():
        return torch.autograd.grad(peer(torch, *tensors), tensors, upstream)

    return step


def interleaved(**steps):
    """Return the median processor time of each step, in milliseconds."""
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(REPEATS):
                step()
            times[name].append((time.process_time() - start) / REPEATS * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    if not ONE_THREAD.items() <= os.environ.items():  # read when NumPy is loaded: start anew
        os.execve(sys.executable, [sys.executable, __file__], {**os.environ, **ONE_THREAD})
    has_torch = importlib.util.find_spec("torch") is not None
    print(f"{'forward and backward':36}{'gradlab':>12}{'torch':>12}{'ratio':>8}")
    for name, (node, inputs, peer) in CASES.items():
        steps = {"gradlab": ours(node, inputs)}
        if has_torch:
            steps["torch"] = in_torch(peer, inputs)
            for a, b in zip(steps["gradlab"](), steps["torch"]()):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-2, atol=1e-2)
        found = interleaved(**steps)
        line = f"{name:36}{found['gradlab']:9.2f} ms"
        if has_torch:
            line += f"{found['torch']:9.2f} ms{found['gradlab'] / found['torch']:7.1f}x"
        print(line)


if __name__ == "__main__":
    main()
