"""How far a gradient is off: in floors, in digits, on average, and lost altogether."""

import math

import numpy as np

from gradlab.common.arrays import Array
from gradlab.references import Estimate, judge


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
