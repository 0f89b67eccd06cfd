"""The settings of JAX that gradlab reads, and those that it switches off while it works."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gradlab.errors import InputError


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Enter the context in which gradlab works: the user's debugging switches are off in it.

    Probes overflow, copy between host and device, and stage programs out on purpose. Everything is
    a context of this thread; nothing global changes.
    """
    with contextlib.ExitStack() as stack:
        for context in (
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.disable_jit(False),
            jax.transfer_guard("allow"),
            jax.check_tracer_leaks(False),
            jax.enable_checks(False),
            np.errstate(all="ignore"),
        ):
            stack.enter_context(context)
        yield


def default_device() -> Any:
    """Return the device or platform that `jax.default_device` names here; None: none."""
    # JAX makes the attributes of its configuration while it is imported; no type is declared
    return jax.config.jax_default_device  # type: ignore[attr-defined]  # made at run time


def platform_here() -> str:
    """Return the platform on which JAX computes here what no device was named for."""
    chosen = default_device()
    if chosen is None:
        return jax.default_backend()
    return chosen if isinstance(chosen, str) else chosen.platform


@functools.cache
def require_platform() -> None:
    """Start JAX's platform."""
    try:
        jax.devices()
    except Exception as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).partition("\n")[0] or "it has no such platform here"
        raise InputError(
            f"JAX cannot start the platform {wanted or 'that it chose'!r} ({reason}); unset "
            "JAX_PLATFORMS, or install JAX for that platform"
        ) from None
