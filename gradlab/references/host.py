"""Where a reference is evaluated: in float64, on the CPU, whatever the user's settings are."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array, DTypeLike
from gradlab.tracing import widen_dtype, without_checks
from gradlab.tracing.compiling import quickest, steady
from gradlab.tracing.leaves import is_key
from gradlab.tracing.settings import default_device

_SMALL = 1 << 17  # entries up to which compiling costs more than slow code


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Enter the context in which references are computed."""
    with without_checks(), jax.default_device(_cpu()):
        yield


def as_read(value: Array, dtype: DTypeLike) -> Any:
    """Return a value as a lifted program reads it, copied only if it is not so already."""
    if is_key(dtype):
        return value
    wanted = widen_dtype(dtype)
    here = isinstance(value, jax.Array) and value.devices() == {_cpu()}
    return value if here and value.dtype == wanted else np.asarray(value).astype(wanted)


def options_for(entries: int) -> Mapping[str, Any] | None:
    """Return the compiler's options for a program with so many entries among its inputs."""
    if _cpu() is None:
        return None
    return quickest() if entries < _SMALL else steady()


def _cpu() -> Any:
    chosen = default_device()
    if getattr(chosen, "platform", None) == "cpu":
        return chosen
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # a machine where JAX was told to use the accelerator alone
        return None
