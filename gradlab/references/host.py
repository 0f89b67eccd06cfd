"""Where a reference is evaluated: in float64, on the CPU, whatever the user's settings are."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from gradlab.tracing import without_checks
from gradlab.tracing.settings import default_device

__all__ = ["is_on_host", "on_host", "options_for"]

_SMALL = 1 << 17  # entries up to which compiling costs more than slow code


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Enter the context in which references are computed."""
    with without_checks(), jax.default_device(_cpu()):
        yield


def is_on_host(value: Any) -> bool:
    """Whether a value lies already where references are computed now."""
    return isinstance(value, jax.Array) and value.devices() == {_cpu()}


def options_for(entries: int) -> Mapping[str, Any] | None:
    """Return the compiler's options for a program with so many entries among its inputs."""
    quick = entries < _SMALL and _cpu() is not None
    return {"xla_backend_optimization_level": 0} if quick else None


def _cpu() -> Any:
    chosen = default_device()
    if getattr(chosen, "platform", None) == "cpu":
        return chosen
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # a machine where JAX was told to use the accelerator alone
        return None
