"""The platform that JAX was asked for, started or refused in plain words."""

import functools
import os

import jax

from gradlab.errors import InputError


@functools.cache
def require_platform() -> None:
    """Start JAX's platform.

    Example:
        >>> require_platform()
    """
    try:
        jax.devices()
    except Exception as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).partition("\n")[0] or "it has no such platform here"
        raise InputError(
            f"JAX cannot start the platform {wanted or 'that it chose'!r} ({reason}); unset "
            "JAX_PLATFORMS, or install JAX for that platform"
        ) from None
