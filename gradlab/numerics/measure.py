"""Run one gradient in one dtype on one device, and hold it against float64 on the CPU.

The reference is the same function lifted to float64 (`gradlab.tracing`), at the very inputs that
the dtype can hold: what is measured is the error of computing, not of writing the inputs down.
"""

import contextvars
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np

from gradlab.checking.probes import Calls, Spent
from gradlab.common.arrays import Array, DTypeLike, Function, Tree
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.numerics.report import Measurement
from gradlab.reading import ported
from gradlab.references import Estimate, Evaluation, judge, on_host, upstream_names, vjp_program
from gradlab.tracing import Program, calls_outside, require_closed, trace


def errors_of(gradient: Array, exact: Estimate) -> dict[str, Array]:
    """Return the numbers of a `Measurement`, for one gradient against the exact one."""
    q, g = exact.value, gradient.astype(np.float64)
    with np.errstate(all="ignore"):
        known = np.isfinite(q) & np.isfinite(g)
        error, size = (g - q)[known], np.abs(q[known])
        signed = error * np.sign(q[known])
        mean, spread = (float(signed.mean()), float(signed.std())) if signed.size else (0.0, 0.0)
        sigma = spread / max(error.size, 1) ** 0.5
        typical = float(size.mean()) if size.size else 0.0
    return {
        "floors": floors_of(gradient, exact),
        "digits": _digits(error, size, whole=True),
        "worst_digits": _digits(error, size, whole=False),
        "bias": mean / typical if typical else 0.0,
        "bias_sigmas": mean / sigma if sigma else 0.0,
        "scatter": spread / typical if typical else 0.0,
        "overflow": int((np.isinf(g) & np.isfinite(q)).sum()),
        "underflow": int(((g == 0) & (q != 0)).sum()),
        "nan": int((np.isnan(g) & ~np.isnan(q)).sum()),
    }


def floors_of(gradient: Array, exact: Estimate) -> float:
    """Return the largest error of a finite entry, in units of what rounding explains there."""
    verdict = judge(gradient, exact, None, gradient.dtype)
    return float(np.nan_to_num(verdict.error, posinf=0.0).max(initial=0.0))


def same_bits(one: Array, other: Array) -> bool:
    """Whether two gradients are the same to the bit; what is not a number is not told apart."""
    return _bits(one) == _bits(other)


def _bits(gradient: Array) -> bytes:
    wide = gradient.astype(np.float64)
    wide[np.isnan(wide)] = np.nan
    return bytes(wide.tobytes())


def _digits(error: Array, size: Array, *, whole: bool) -> float:
    """Return correct decimal digits, of the whole or of the worst entry; 17 is float64's most."""
    if not error.size:
        return math.nan
    if whole:
        off, of = float(np.linalg.norm(error)), float(np.linalg.norm(size))
    else:
        kept = size > 0  # zeros have no relative error
        if not kept.any():
            return 17.0
        i = int(np.argmax(np.abs(error[kept]) / size[kept]))
        off, of = float(np.abs(error[kept])[i]), float(size[kept][i])
    if off == 0.0:
        return 17.0
    return max(0.0, min(17.0, -math.log10(off / of))) if of else 0.0


@dataclass(frozen=True, eq=False)
class Subject:
    """A gradient in one dtype: how to run it, and what it should be."""

    dtype: str
    forward: Program
    trace: Callable[[], Program]
    values: dict[str, Array]
    exact: tuple[Estimate, ...]
    function: Function
    inputs: tuple[Tree, ...]
    calls: Calls

    @property
    def paths(self) -> tuple[str, ...]:
        """The inputs that are differentiated."""
        return tuple(self.forward.in_names[i] for i in self.forward.differentiable)

    @property
    def upstreams(self) -> list[str]:
        """The names of the upstreams."""
        return upstream_names(self.forward)

    @functools.cached_property
    def in_float32(self) -> "Subject":
        """The same gradient at the same inputs, computed in float32."""
        return prepare(self.function, self.inputs, np.float32, 0, self.calls)

    @functools.cached_property
    def _runners(self) -> dict[tuple[jax.Device, str, bool], Callable[..., list[Array]]]:
        return {}

    def runner(
        self, device: jax.Device, matmul: str, *, eager: bool = False
    ) -> Callable[..., list[Array]]:
        """Return the function of a loss scale, and values, that computes the gradients there."""
        key = device, matmul, eager
        if key not in self._runners:
            self._runners[key] = self._runner(*key)
        return self._runners[key]

    def _runner(self, device: jax.Device, matmul: str, eager: bool) -> Callable[..., list[Array]]:
        with jax.default_matmul_precision(matmul):
            program = vjp_program(self.trace())
        first = len(program.out_names) - len(self.paths)
        compiled = program.flat if eager else jax.jit(program.flat)
        each = math.ceil(sum(calls_outside(program.jaxpr)) / self.calls.each)

        def run(scale: float = 1.0, values: dict[str, Array] = self.values) -> list[Array]:
            self.calls.spend(each)
            arrays = [
                _scaled(values[name], scale) if name in self.upstreams else values[name]
                for name in program.in_names
            ]
            with jax.enable_x64(program.x64), jax.default_device(device):
                placed = [jax.device_put(array, device) for array in arrays]
                return [np.asarray(g) for g in compiled(*placed)[first:]]

        return run


def _scaled(upstream: Array, scale: float) -> Array:
    with np.errstate(over="ignore"):  # a scale that is too large is one of the things to find out
        return (upstream.astype(np.float64) * scale).astype(upstream.dtype)


def prepare(
    function: Function,
    inputs: Sequence[Tree],
    dtype: DTypeLike,
    seed: int,
    calls: Calls | None = None,
) -> Subject:
    """Trace a function at one dtype and evaluate its gradient in float64."""
    cast = jax.tree.map(lambda x: _cast(x, dtype), tuple(inputs))
    again = functools.partial(trace, function, *cast)
    try:
        forward = again()
    except GradlabError as error:
        again = functools.partial(trace, ported(function, cast, error), *cast)
        forward = again()
    require_closed(forward)
    if not forward.differentiable:
        raise InputTypeError("inputs: none can be differentiated; pass floating-point arrays")
    if not upstream_names(forward):
        raise InputError(f"{forward.name}: returns no float array, so it has no gradient")
    program = vjp_program(forward)
    rng = np.random.default_rng(seed)
    upstreams = [
        np.asarray(rng.standard_normal(aval.shape), aval.dtype)
        for name, aval in zip(program.in_names, program.in_avals)
        if name in upstream_names(forward)
    ]
    values = dict(zip(program.in_names, [*forward.flatten(cast), *upstreams]))
    calls = calls or Calls()
    calls.each = sum(calls_outside(forward.jaxpr)) or sum(calls_outside(program.jaxpr)) or 1
    evaluation = Evaluation(reference=program)
    if calls_outside(program.jaxpr):
        calls.require(1 + evaluation.draws[0] * evaluation.roundings)
    with on_host():  # what a device's own products cost is measured, and not excused
        estimates = evaluation.estimates(values, law="accuracy", seed=seed)
    exact = tuple(estimates["reference"][-len(forward.differentiable) :])
    name = str(np.dtype(dtype))
    return Subject(name, forward, again, values, exact, function, cast, calls)


def _cast(leaf: Tree, dtype: DTypeLike) -> Tree:
    dtype_of_leaf = getattr(leaf, "dtype", None)
    if isinstance(leaf, float):
        return np.asarray(leaf, dtype)
    if dtype_of_leaf is not None and jax.numpy.issubdtype(dtype_of_leaf, jax.numpy.floating):
        return np.asarray(leaf).astype(dtype)
    return leaf


def measure(subject: Subject, device: jax.Device, matmul: str) -> list[Measurement]:
    """Return what each input's gradient is worth on a device."""
    with ThreadPoolExecutor(1) as beside:  # compiling takes most of the time, and leaves Python
        eagerly = beside.submit(contextvars.copy_context().run, _eagerly, subject, device, matmul)
        run = subject.runner(device, matmul)
        runs = [run() for _ in range(3)]
        eager = eagerly.result()
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
                **errors_of(first, exact),
                deterministic=all(same_bits(first, other[i]) for other in runs[1:]),
                eager_agrees=None if eager is None else same_bits(first, eager[i]),
            )
        )
    return measurements


def _eagerly(subject: Subject, device: jax.Device, matmul: str) -> list[Array] | None:
    """Return the gradients run operation by operation, or None where that is not possible."""
    try:
        return subject.runner(device, matmul, eager=True)()
    except Spent:
        raise
    except Exception:  # some programs run only compiled; the report says that this was not seen
        return None
