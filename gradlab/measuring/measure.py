"""Run one gradient in one dtype on one device, and hold it against float64 on the CPU.

The reference is the same function lifted to float64 (`gradlab.tracing`), at the very inputs that
the dtype can hold: what is measured is the error of computing, not of writing the inputs down.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np

from gradlab.measuring.report import Measurement
from gradlab.references import Estimate, Evaluation, judge, upstream_names, vjp_program
from gradlab.tracing import Program, trace

__all__ = ["Subject", "measure", "prepare"]

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A gradient in one dtype: how to run it, and what it should be.

    Args:
        dtype: the dtype of the differentiable inputs.
        forward: the function, traced at that dtype.
        values: its flat inputs and upstreams by name.
        exact: the gradient of each differentiable input, in float64.
    """

    dtype: str
    forward: Program
    values: dict[str, Any]
    exact: tuple[Estimate, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The inputs that are differentiated."""
        return tuple(self.forward.in_names[i] for i in self.forward.differentiable)

    @property
    def upstreams(self) -> list[str]:
        """The names of the upstreams."""
        return upstream_names(self.forward)

    def runner(
        self, device: Any, matmul: str, *, eager: bool = False
    ) -> Callable[..., list[Array]]:
        """Return the function of a loss scale that computes the gradients on a device."""
        with jax.default_matmul_precision(matmul):
            program = vjp_program(self.forward)
        first = len(program.out_names) - len(self.paths)
        compiled = program.flat if eager else jax.jit(program.flat)

        def run(scale: float = 1.0) -> list[Array]:
            arrays = [
                _scaled(self.values[name], scale) if name in self.upstreams else self.values[name]
                for name in program.in_names
            ]
            with jax.enable_x64(program.x64), jax.default_device(device):
                placed = [jax.device_put(array, device) for array in arrays]
                return [np.asarray(g) for g in compiled(*placed)[first:]]

        return run


def _scaled(upstream: Any, scale: float) -> Any:
    with np.errstate(over="ignore"):  # a scale that is too large is one of the things to find out
        return (upstream.astype(np.float64) * scale).astype(upstream.dtype)


def prepare(function: Callable[..., Any], inputs: Sequence[Any], dtype: Any, seed: int) -> Subject:
    """Trace a function at one dtype and evaluate its gradient in float64.

    Args:
        function: a JAX function.
        inputs: its inputs; the inexact leaves are cast.
        dtype: what to cast them to.
        seed: of the upstreams, which are signed and generic.
    """
    cast = jax.tree.map(lambda x: _cast(x, dtype), tuple(inputs))
    forward = trace(function, *cast)
    program = vjp_program(forward)
    rng = np.random.default_rng(seed)
    upstreams = [
        np.asarray(rng.standard_normal(aval.shape), aval.dtype)
        for name, aval in zip(program.in_names, program.in_avals)
        if name in upstream_names(forward)
    ]
    values = dict(zip(program.in_names, [*forward.flatten(cast), *upstreams]))
    estimates = Evaluation(reference=program).estimates(values, law="accuracy", seed=seed)
    exact = estimates["reference"][-len(forward.differentiable) :]
    return Subject(str(np.dtype(dtype)), forward, values, tuple(exact))


def _cast(leaf: Any, dtype: Any) -> Any:
    dtype_of_leaf = getattr(leaf, "dtype", None)
    if isinstance(leaf, float):
        return np.asarray(leaf, dtype)
    if dtype_of_leaf is not None and jax.numpy.issubdtype(dtype_of_leaf, jax.numpy.floating):
        return np.asarray(leaf).astype(dtype)
    return leaf


def measure(subject: Subject, device: Any, matmul: str) -> list[Measurement]:
    """Return what each input's gradient is worth on a device."""
    run = subject.runner(device, matmul)
    runs = [run() for _ in range(3)]
    eager = _eagerly(subject, device, matmul)
    measurements = []
    for i, (path, exact) in enumerate(zip(subject.paths, subject.exact)):
        first = runs[0][i]
        measurements.append(
            Measurement(
                subject.dtype,
                device.platform,
                matmul,
                path,
                int(exact.value.size),
                **_errors(first, exact),
                deterministic=all(_same_bits(first, other[i]) for other in runs[1:]),
                eager_agrees=None if eager is None else _same_bits(first, eager[i]),
            )
        )
    return measurements


def _eagerly(subject: Subject, device: Any, matmul: str) -> list[Array] | None:
    """Return the gradients run operation by operation, or None where that is not possible."""
    try:
        return subject.runner(device, matmul, eager=True)()
    except Exception:  # some programs run only compiled; the report says that this was not seen
        return None


def _same_bits(one: Array, other: Array) -> bool:
    return one.tobytes() == other.tobytes()


def _errors(gradient: Array, exact: Estimate) -> dict[str, Any]:
    q, g = exact.value, gradient.astype(np.float64)
    verdict = judge(gradient, exact, None, gradient.dtype)
    with np.errstate(all="ignore"):
        known = np.isfinite(q) & np.isfinite(g)
        error, size = (g - q)[known], np.abs(q[known])
        signed = error * np.sign(q[known])
        mean, spread = (float(signed.mean()), float(signed.std())) if signed.size else (0.0, 0.0)
        sigma = spread / max(error.size, 1) ** 0.5
        typical = float(size.mean()) if size.size else 0.0
    return {
        "floors": float(np.nan_to_num(verdict.error, posinf=0.0).max(initial=0.0)),
        "digits": _digits(float(np.linalg.norm(error)), float(np.linalg.norm(size))),
        "worst_digits": _digits(*_worst(np.abs(error), size)),
        "bias": mean / typical if typical else 0.0,
        "bias_sigmas": mean / sigma if sigma else 0.0,
        "overflow": int((np.isinf(g) & np.isfinite(q)).sum()),
        "underflow": int(((g == 0) & (q != 0)).sum()),
        "nan": int((np.isnan(g) & ~np.isnan(q)).sum()),
    }


def _worst(error: Array, size: Array) -> tuple[float, float]:
    """Return the entry with the largest relative error, as error and size; zeros do not count."""
    kept = size > 0
    if not kept.any():
        return 0.0, 1.0
    i = int(np.argmax(error[kept] / size[kept]))
    return float(error[kept][i]), float(size[kept][i])


def _digits(error: float, size: float) -> float:
    """Return correct decimal digits; 17 is what float64 can tell."""
    if error == 0.0:
        return 17.0
    return max(0.0, min(17.0, -math.log10(error / size))) if size else 0.0
