"""What was measured of a gradient in each dtype, on each device."""

import math
from dataclasses import dataclass
from typing import ClassVar

from gradlab.references import LIMIT
from gradlab.report import Report


@dataclass(frozen=True)
class Measurement:
    """One input's gradient in one dtype on one device, held against float64 on the CPU.

    Attributes:
        dtype: the dtype of the inputs.
        device: the platform that computed it.
        matmul: the matrix product precision that JAX was asked for.
        path: the input.
        entries: how many entries its gradient has.
        floors: the largest error, in units of what rounding alone explains at that entry.
        digits: correct decimal digits of the gradient as a whole, -log10(|error| / |gradient|);
            not a number where no entry is finite in both.
        worst_digits: correct digits of its worst entry.
        bias: mean signed error, relative to the mean size of an entry; positive is too large.
        bias_sigmas: the bias in standard errors of that mean; beyond 4 it is no chance.
        scatter: the spread of signed errors about their mean, relative to the same size.
        overflow: entries that are infinite although the dtype can hold the exact value or not.
        underflow: entries that are 0 although the exact value is not.
        nan: entries that are not a number although the exact value is.
        deterministic: three runs gave the same bits.
        eager_agrees: operation by operation gives the same bits; None: it cannot run so.
    """

    dtype: str
    device: str
    matmul: str
    path: str
    entries: int
    floors: float
    digits: float
    worst_digits: float
    bias: float
    bias_sigmas: float
    scatter: float
    overflow: int
    underflow: int
    nan: int
    deterministic: bool
    eager_agrees: bool | None

    @property
    def finite(self) -> bool:
        """Whether nothing overflowed."""
        return self.overflow == self.nan == 0

    @property
    def ok(self) -> bool:
        """Whether nothing overflowed, and no more was lost than rounding explains."""
        return self.finite and self.floors <= LIMIT and not math.isnan(self.digits)


@dataclass(frozen=True)
class PrecisionReport(Report):
    """How good a function's gradient is in each dtype and on each device, and what to do.

    Attributes:
        function: its name.
        measurements: one for each dtype, device, matrix product precision and input.
        judged: the dtypes that `ok` depends on: those asked for; by default all that the function
            runs in, except 8-bit ones, in which few do well.
        advice: what to do, each sentence tried.
        notes: what could not be measured, and why.
        seed: of the upstreams.

    Example:
        >>> import gradlab, jax.numpy as jnp
        >>> report = gradlab.precision(jnp.tanh, jnp.linspace(-1.0, 1.0, 5), dtypes=["float32"])
        >>> report.measurements[0].digits > 6
        True
    """

    kind: ClassVar[str] = "precision"
    version: ClassVar[int] = 2

    function: str
    measurements: tuple[Measurement, ...]
    judged: tuple[str, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    seed: int

    @property
    def ok(self) -> bool:
        """Whether no gradient overflowed, turned NaN, or lost more than rounding explains."""
        measured = {m.dtype for m in self.measurements}
        return set(self.judged) <= measured and all(
            m.ok for m in self.measurements if m.dtype in self.judged
        )
