"""What JAX sees on this machine: versions, devices, and which of its numbers not to trust."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.common.arrays import Array, Function
from gradlab.formatting import shape_text
from gradlab.references import product_digits
from gradlab.report import Report
from gradlab.tracing import missing_kinds
from gradlab.tracing.settings import require_platform

_PACKAGES = ("gradlab", "jax", "jaxlib", "numpy", "scipy", "pytest", "hypothesis")
_FLAGS = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")


@dataclass(frozen=True)
class DeviceFacts:
    """Devices of one kind.

    Attributes:
        platform: cpu, gpu or tpu.
        kind: the model.
        count: how many there are.
        memory: bytes of memory, where the device tells.
        product: the precision of float32 matrix products, measured: "float32", "tensorfloat32" or
            "bfloat16" by how many digits survive.
    """

    platform: str
    kind: str
    count: int
    memory: int | None
    product: str


@dataclass(frozen=True)
class DoctorReport(Report):
    """Versions, platforms, devices and the switches that change a gradient's digits.

    Attributes:
        python: the version of Python.
        versions: those of JAX, NumPy and whatever else computes.
        devices: what JAX sees, a kind each.
        x64: whether JAX computes in float64 where nothing is said.
        matmul_precision: what JAX is asked for in matrix products.
        deterministic_flags: the switches that make a GPU repeat its bits.
        compilation_cache: the folder in which JAX keeps compiled programs, if any.
        missing_kinds: the ways to write a rule that this JAX does not have.
        compilations: programs that this JAX compiles wrongly, of a few that were tried.

    Example:
        >>> from gradlab.numerics import doctor
        >>> doctor().ok
        True
    """

    kind: ClassVar[str] = "doctor"

    python: str
    versions: dict[str, str]
    devices: tuple[DeviceFacts, ...]
    x64: bool
    matmul_precision: str
    deterministic_flags: tuple[str, ...]
    compilation_cache: str
    missing_kinds: tuple[str, ...] = ()
    compilations: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether JAX has a device."""
        return bool(self.devices)


def doctor() -> DoctorReport:
    """Look at this machine as JAX sees it.

    Raises:
        InputError: JAX cannot start the platform that was asked for.

    Example:
        >>> report = doctor()
        >>> report.ok, "jax" in report.versions
        (True, True)
    """
    require_platform()
    devices = jax.devices()
    kinds = {(d.platform, d.device_kind): d for d in reversed(devices)}
    counts = {key: sum((d.platform, d.device_kind) == key for d in devices) for key in kinds}
    flags = os.environ.get("XLA_FLAGS", "")
    config: Any = jax.config
    return DoctorReport(
        python=platform.python_version(),
        versions={name: metadata.version(name) for name in _PACKAGES},
        devices=tuple(_facts(device, counts[key]) for key, device in kinds.items()),
        x64=bool(config.jax_enable_x64),
        matmul_precision=str(config.jax_default_matmul_precision or "default"),
        deterministic_flags=tuple(flag for flag in _FLAGS if f"{flag}=true" in flags),
        compilation_cache=str(config.jax_compilation_cache_dir or ""),
        missing_kinds=missing_kinds(),
        compilations=tuple(_wrong_compilations()),
    )


def _rms_norm(x: Array) -> Array:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def _layer_norm(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)


_TRIED: tuple[tuple[str, Function, tuple[int, ...]], ...] = (
    ("x * x.sum(-1, keepdims=True)", lambda x: x * x.sum(-1, keepdims=True), (3, 8, 8)),
    ("an RMS norm", _rms_norm, (24, 8)),
    ("a layer norm", _layer_norm, (3, 8, 8)),
)


def _wrong_compilations() -> Iterator[str]:
    """Yield the Jacobians that `jit(jacrev(f))` gets wrong: eager autodiff gives other numbers."""
    for name, function, shape in _TRIED:
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        compiled, eager = jax.jit(jax.jacrev(function))(x), jax.jacrev(function)(x)
        if not np.allclose(compiled, eager, rtol=1e-3, atol=1e-3):
            yield f"jit(jacrev(f)) of {name} at {shape_text(shape)}"


def _facts(device: jax.Device, count: int) -> DeviceFacts:
    stats = device.memory_stats() or {}
    memory = stats.get("bytes_limit")
    asked = getattr(jax.config, "jax_default_matmul_precision", None)
    product = product_digits(device, asked)
    return DeviceFacts(device.platform, device.device_kind, count, memory, product)
