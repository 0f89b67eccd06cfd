"""Evaluate one Jacobian in two processes that find each other over the loopback address.

Each process gives its own devices, and `evaluate` spreads the passes over all of them. On several
machines the same text is run on each, with the first one's address: `jax.distributed` does the
rest. Where another process is lost, `evaluate` raises `gradlab.GradlabError`; it does not wait for
ever.

    python examples/two_processes.py
"""

import socket
import subprocess
import sys
import time


def work(rank: int, address: str) -> None:
    import jax
    import numpy as np

    import gradlab

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=rank)

    def layer_norm(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jax.numpy.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)

    x = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)
    report = gradlab.jacobian(layer_norm, x)
    start = time.perf_counter()
    entries = report.evaluate()
    seconds = time.perf_counter() - start
    print(
        f"process {rank} of {jax.process_count()}, {len(jax.local_devices())} of "
        f"{len(jax.devices())} devices: {report.passes} {report.structure} passes in "
        f"{seconds:.1f} s, {entries.nbytes / 1e6:.1f} MB, sum {entries.block.data.sum():.6f}",
        flush=True,
    )


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "worker", str(rank), address],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        print(*worker.communicate(timeout=120)[0].splitlines()[-1:])
    if any(worker.returncode for worker in workers):
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(int(sys.argv[2]), sys.argv[3])
    else:
        main()
