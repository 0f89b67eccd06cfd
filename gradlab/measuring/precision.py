"""The public call: every dtype, every device, every precision of matrix products."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.errors import InputError, InputTypeError
from gradlab.measuring.advice import advise
from gradlab.measuring.measure import measure, prepare
from gradlab.measuring.report import Measurement, PrecisionReport
from gradlab.progress import tracked

__all__ = ["precision"]

_DTYPES = ("float64", "float32", "bfloat16", "float16")
_MATMUL = ("default", "high", "highest")


def precision(
    function: Callable[..., Any],
    *inputs: Any,
    dtypes: Sequence[Any] | None = None,
    devices: Sequence[str] | None = None,
    seed: int = 0,
) -> PrecisionReport:
    """Measure a function's gradient in every dtype and on every device against float64 on the CPU.

    Memory stays under about 12 gradients in float64.

    Args:
        function: a JAX function.
        *inputs: arrays or pytrees; the inexact leaves are cast to each dtype.
        dtypes: floating-point dtypes; by default float64, float32, bfloat16 and float16.
        devices: platforms ("cpu", "gpu", "tpu"); by default every one that JAX has here.
        seed: of the upstreams, which are signed and generic.

    Raises:
        InputError: a dtype is not floating point, or JAX has no such platform here.
        InputTypeError: `function` cannot be called, or no input can be differentiated.

    Example:
        >>> import gradlab, jax, jax.numpy as jnp
        >>> x = jnp.linspace(-3.0, 3.0, 8)
        >>> report = gradlab.precision(jax.nn.softmax, x, dtypes=["float32", "bfloat16"])
        >>> [m.dtype for m in report.measurements]
        ['float32', 'bfloat16']
    """
    if not callable(function):
        raise InputTypeError(f"function: expected a function, got {type(function).__name__}")
    platforms = _devices(devices)
    measurements: list[Measurement] = []
    advice: list[str] = []
    notes: list[str] = []
    for dtype in tracked(_dtypes(dtypes), str):
        try:
            subject = prepare(function, inputs, dtype, seed)
        except (TypeError, ValueError, NotImplementedError) as error:
            if not inputs or dtype == np.float64:
                raise
            notes.append(f"{dtype}: JAX cannot run the function in it ({_first_line(error)})")
            continue
        if not subject.paths:
            raise InputTypeError(
                "inputs: none of them can be differentiated; pass floating-point arrays"
            )
        for device in platforms:
            for matmul in _MATMUL if device.platform != "cpu" else _MATMUL[:1]:
                found = measure(subject, device, matmul)
                measurements += found
                advice += advise(subject, found, device, matmul)
    name = getattr(function, "__name__", type(function).__name__)
    return PrecisionReport(name, tuple(measurements), tuple(advice), tuple(notes), seed)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]


def _dtypes(dtypes: Sequence[Any] | None) -> list[np.dtype[Any]]:
    if isinstance(dtypes, str):
        dtypes = (dtypes,)
    found = []
    for dtype in _DTYPES if dtypes is None else dtypes:
        try:
            known = np.dtype(getattr(jnp, dtype).dtype if isinstance(dtype, str) else dtype)
        except (AttributeError, TypeError):
            known = np.dtype(bool)
        if not jnp.issubdtype(known, jnp.floating):
            raise InputError(
                f"dtypes: {dtype!r} is no floating-point dtype; expected some of "
                f"{', '.join(_DTYPES)}, float8_e4m3fn, float8_e5m2"
            )
        found.append(known)
    return found


def _devices(devices: Sequence[str] | None) -> list[Any]:
    """Return the first device of each platform that is asked for, or of each that is here."""
    if devices is None:
        here = {device.platform: device for device in reversed(jax.devices())}
        return [*here.values()] if "cpu" in here else [*here.values(), jax.devices("cpu")[0]]
    found = []
    for platform in (devices,) if isinstance(devices, str) else devices:
        try:
            found.append(jax.devices(platform)[0])
        except RuntimeError:
            here_names = ", ".join(sorted({d.platform for d in jax.devices()}))
            raise InputError(
                f"devices: JAX has no {platform!r} here; it has {here_names}"
            ) from None
    return found
