"""Advice that follows from what was measured, each sentence tried before it is said."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from gradlab.common.arrays import Array
from gradlab.numerics.measure import Subject, errors_of, floors_of
from gradlab.numerics.report import Measurement
from gradlab.references import LIMIT

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
