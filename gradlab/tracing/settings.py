"""JAX's settings belong to a thread; work that is handed to another thread takes them along."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

__all__ = ["default_device", "platform_here", "settings", "undisturbed"]

_CONTEXTS: dict[str, Callable[[Any], Any]] = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_default_prng_impl": jax.default_prng_impl,
    "jax_threefry_partitionable": jax.threefry_partitionable,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
    "jax_debug_nans": jax.debug_nans,
    "jax_debug_infs": jax.debug_infs,
    "jax_disable_jit": jax.disable_jit,
}


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Enter the context in which gradlab works: the user's debugging switches are off in it.

    Probes overflow, copy between host and device, and stage programs out on purpose. Everything is
    a context of this thread; nothing global changes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> with jax.debug_nans(True), undisturbed():
        ...     print(jnp.log(-1.0))
        nan
    """
    with contextlib.ExitStack() as stack:
        for context in (
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.disable_jit(False),
            jax.transfer_guard("allow"),
            jax.check_tracer_leaks(False),
            np.errstate(all="ignore"),
        ):
            stack.enter_context(context)
        yield


def default_device() -> Any:
    """Return the device, or the platform's name, that `jax.default_device` names here; None: none.

    Example:
        >>> import jax
        >>> with jax.default_device(jax.devices("cpu")[0]):
        ...     print(default_device().platform)
        cpu
    """
    # JAX makes the attributes of its configuration while it is imported; no type is declared
    return jax.config.jax_default_device  # type: ignore[attr-defined]  # made at run time


def platform_here() -> str:
    """Return the platform on which JAX computes here what no device was named for.

    Example:
        >>> import jax
        >>> with jax.default_device("cpu"):
        ...     platform_here()
        'cpu'
    """
    chosen = default_device()
    if chosen is None:
        return jax.default_backend()
    return chosen if isinstance(chosen, str) else chosen.platform


def settings() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return a context that has this thread's settings, to be entered in another thread.

    Example:
        >>> import threading, jax
        >>> with jax.enable_x64(True):
        ...     carried = settings()
        >>> def work():
        ...     with carried():
        ...         print(jax.config.jax_enable_x64)
        >>> thread = threading.Thread(target=work)
        >>> thread.start(); thread.join()
        True
    """
    values = {name: getattr(jax.config, name) for name in _CONTEXTS}

    @contextlib.contextmanager
    def carried() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name, value in values.items():
                stack.enter_context(_CONTEXTS[name](value))
            yield

    return carried
