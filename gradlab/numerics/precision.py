"""The public call: every dtype, every device, every precision of matrix products."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.arguments import (
    argument_names,
    refuse_numbers,
    require_callable,
    require_inputs,
    several,
)
from gradlab.checking.inputs import require_arrays, require_memory
from gradlab.checking.probes import Calls, Spent
from gradlab.common.arrays import Array, DType, DTypeLike, Function, Tree
from gradlab.errors import InputError, InputTypeError
from gradlab.numerics.measure import Subject, errors_of, floors_of, measure, prepare
from gradlab.numerics.report import Measurement, PrecisionReport
from gradlab.progress import tracked
from gradlab.references import LIMIT
from gradlab.tracing.callbacks import counted
from gradlab.tracing.settings import require_platform, undisturbed

_WIDE = ("float64", "float32", "bfloat16", "float16")
_NARROW = ("float8_e4m3fn", "float8_e5m2")
_MATMUL = ("default", "high", "highest")
_UNSUPPORTED = (TypeError, ValueError, NotImplementedError, jax.errors.JaxRuntimeError)


@undisturbed()
@counted()
def precision(
    function: Function,
    *inputs: Tree,
    dtypes: Sequence[DTypeLike] | None = None,
    devices: Sequence[str] | None = None,
    seed: int = 0,
) -> PrecisionReport:
    """Measure a function's gradient in every dtype and on every device against float64 on the CPU.

    For each dtype, device and precision of matrix products, the report tells the error in floors
    and digits, its bias and scatter, and how many entries are lost. It also says whether three runs
    agree bit by bit, and whether they agree with the eager program.

    Memory: some 40 float64 copies of the inputs of an elementwise function, and the memory of its
    own gradient. A call that cannot fit is refused.

    Args:
        function: a JAX function.
        *inputs: arrays of any shape, Python numbers, or pytrees of them; the inexact leaves are
            cast to each dtype.
        dtypes: floating-point dtypes; by default float64, float32, bfloat16, float16 and, where
            this JAX has them, float8_e4m3fn and float8_e5m2. What cannot run in one is noted.
        devices: platforms such as "cpu", "gpu", "tpu" (default: all that JAX has).
        seed: seed of the random upstreams.

    Returns:
        A report that is true if no gradient overflows or loses more than rounding explains.

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
    require_callable("function", function)
    refuse_numbers(seed=seed)
    require_platform()
    require_inputs(function, inputs)
    require_arrays(inputs, argument_names(function, len(inputs)))
    require_memory("precision", inputs)
    platforms = _devices(devices)
    chosen = _dtypes(dtypes)
    measurements: list[Measurement] = []
    advice: list[str] = []
    notes: list[str] = []
    calls = Calls.for_entries(sum(np.size(leaf) for leaf in jax.tree.leaves(inputs)))
    for dtype in tracked(chosen, str):
        try:
            subject = prepare(function, inputs, dtype, seed, calls)
        except Spent:
            notes.append(f"{dtype}: {_spent(calls)}")
            continue
        except InputTypeError:
            raise
        except _UNSUPPORTED as error:
            if not inputs or dtype == np.float64:
                raise
            notes.append(f"{dtype}: not supported here: {_first_line(error)}")
            continue
        for device in platforms:
            for matmul in _MATMUL if device.platform != "cpu" else _MATMUL[:1]:
                try:
                    found = measure(subject, device, matmul)
                except Spent:
                    notes.append(f"{dtype} on {device.platform}: {_spent(calls)}")
                    continue
                except _UNSUPPORTED as error:
                    where = f"{dtype} on {device.platform}"
                    notes.append(f"{where}: not supported here: {_first_line(error)}")
                    continue
                measurements += found
                try:
                    for said in advise(subject, found, device, matmul):
                        advice += [said] if said not in advice else []
                except Spent:
                    notes.append(f"{dtype} on {device.platform}: {_spent(calls)}")
    name = getattr(function, "__name__", type(function).__name__)
    if not measurements:
        raise InputError(f"{name} runs in none of the dtypes; " + "; ".join(notes))
    ran = {m.dtype for m in measurements}
    judged = (str(d) for d in chosen if dtypes is not None or (str(d) in ran.intersection(_WIDE)))
    return PrecisionReport(
        name, tuple(measurements), tuple(judged), tuple(advice), tuple(notes), seed
    )


def _spent(calls: Calls) -> str:
    return (
        f"not measured: the function calls the host, and gradlab runs it at most "
        f"{calls.allowed:.0f} times; pass fewer dtypes= or devices="
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _dtypes(dtypes: Sequence[DTypeLike] | None) -> list[DType]:
    if dtypes is None:
        dtypes = [*_WIDE, *(name for name in _NARROW if hasattr(jnp, name))]
    found = []
    for dtype in several(dtypes):
        try:
            known = np.dtype(getattr(jnp, dtype).dtype if isinstance(dtype, str) else dtype)
        except (AttributeError, TypeError, ValueError):
            known = np.dtype(bool)
        if not jnp.issubdtype(known, jnp.floating):
            raise InputError(
                f"dtypes: {dtype!r} is no floating-point dtype; expected some of "
                f"{', '.join((*_WIDE, *_NARROW))}",
                (str(dtype), "float32"),
            )
        found.append(known)
    return found


def _devices(devices: Sequence[str] | None) -> list[jax.Device]:
    """Return the first device of each platform that is asked for, or of each that is here."""
    if devices is None:
        here = {device.platform: device for device in reversed(jax.local_devices())}
        with contextlib.suppress(RuntimeError):  # JAX may have been told to use the GPU alone
            here.setdefault("cpu", jax.local_devices(backend="cpu")[0])
        return [*here.values()]
    found = []
    for platform in several(devices):
        try:
            found.append(jax.devices(str(platform))[0])
        except RuntimeError:
            here_names = ", ".join(sorted({d.platform for d in jax.devices()}))
            raise InputError(
                f"devices: JAX has no {platform!r} here; it has {here_names}",
                (str(platform), "cpu"),
            ) from None
    return found


_SCALES = tuple(range(1, 25))  # exponents of the loss scales that are tried
_NOTABLE = 0.002  # the share of entries lost to underflow that is worth a word
_SURE = 4.0  # standard errors beyond which a bias is no chance


def advise(
    subject: Subject, measurements: Sequence[Measurement], device: jax.Device, matmul: str
) -> Iterator[str]:
    """Yield what to do about one dtype on one device, in sentences."""
    where = f"{subject.dtype} on {device.platform}"
    for i, m in enumerate(measurements):
        if m.overflow or m.nan:
            yield _about_overflow(subject, i, m, device, matmul, where)
        elif m.underflow > _NOTABLE * m.entries:
            yield _about_underflow(subject, i, m, device, matmul, where)
        if abs(m.bias_sigmas) > _SURE and abs(m.bias) > 1e-3:
            yield _about_bias(subject, i, m, device, matmul, where)
        if m.floors > LIMIT:
            yield _about_products(subject, i, m, device, matmul, where)
        if not m.deterministic:
            yield f"{where}: d{m.path} differs from run to run: compare it by floors, not by bits"


def _about_underflow(
    subject: Subject, i: int, m: Measurement, device: jax.Device, matmul: str, where: str
) -> str:
    lost = f"{where} loses {m.underflow / m.entries:.1%} of d{m.path} to underflow"
    run = subject.runner(device, matmul)
    for exponent in _SCALES:
        left, broken = _count(run(2.0**exponent), subject, i)
        if broken:
            break
        if left <= m.underflow / 20:
            return f"{lost}: scale the loss by 2^{exponent} (tried: {left / m.entries:.1%} left)"
    return f"{lost}, and no loss scale mends it (tried 2^1 to 2^{exponent}): use a wider dtype"


def _about_bias(
    subject: Subject, i: int, m: Measurement, device: jax.Device, matmul: str, where: str
) -> str:
    word = "large" if m.bias > 0 else "small"
    told = (
        f"{where}: d{m.path} is too {word} by {abs(m.bias):.2%} on average "
        f"({abs(m.bias_sigmas):.0f} standard errors)"
    )
    if np.dtype(subject.dtype).itemsize >= 4:
        return f"{told}: rounding is biased there"
    wide = subject.in_float32
    gradient = wide.runner(device, matmul)()[i].astype(subject.dtype)
    left = abs(errors_of(gradient, wide.exact[i])["bias"])
    if left < abs(m.bias) / 4:
        return f"{told}: compute in float32 and round at the end (tried: {left:.2%} left)"
    return f"{told}, and computing in float32 does not mend it (tried: {left:.2%} left)"


def _about_products(
    subject: Subject, i: int, m: Measurement, device: jax.Device, matmul: str, where: str
) -> str:
    told = f"{where}: d{m.path} is off by {m.floors:.0f} floors"
    if matmul != "highest" and device.platform != "cpu":
        left = floors_of(subject.runner(device, "highest")()[i], subject.exact[i])
        if left <= LIMIT:
            return (
                f"{told}: its products keep few digits of their factors; "
                f"jax.default_matmul_precision('highest') mends it (tried: {left:.1f} floors)"
            )
    return f"{told}: more than rounding explains"


def _about_overflow(
    subject: Subject, i: int, m: Measurement, device: jax.Device, matmul: str, where: str
) -> str:
    bad = m.overflow + m.nan
    lost = f"{where}: {bad} of {m.entries} entries of d{m.path} are Inf or NaN"
    run = subject.runner(device, matmul)
    if _count(run(2.0 ** -_SCALES[-1]), subject, i)[1]:
        return f"{lost}, even with the loss scaled by 2^-{_SCALES[-1]} (tried): use a wider range"
    exponent = next(e for e in _SCALES if not _count(run(2.0**-e), subject, i)[1])
    return f"{lost}: scale the loss by 2^-{exponent} (tried: all are finite)"


def _count(gradients: list[Array], subject: Subject, i: int) -> tuple[int, int]:
    """Return how many entries are lost to zero in input i, and how many are broken in any."""
    lost = int(((gradients[i] == 0) & (subject.exact[i].value != 0)).sum())
    broken = sum(
        int((~np.isfinite(g.astype(np.float64)) & np.isfinite(q.value)).sum())
        for g, q in zip(gradients, subject.exact)
    )
    return lost, broken
