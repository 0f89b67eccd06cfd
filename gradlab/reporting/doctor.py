"""What JAX sees, on one screen."""

from typing import TYPE_CHECKING

from gradlab.formatting import size_text
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.numerics import DoctorReport

__all__ = ["text"]


def text(report: "DoctorReport") -> str:
    """Return versions, devices and switches."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    devices = [
        (
            d.platform,
            str(d.count),
            d.kind,
            size_text(d.memory) if d.memory else "shared with the host",
            d.product,
        )
        for d in report.devices
    ]
    flags = ", ".join(report.deterministic_flags) or "none set"
    return "\n\n".join(
        [
            f"Python {report.python}; {versions}",
            table(("platform", "count", "device", "memory", "float32 products"), devices),
            f"x64: {'on' if report.x64 else 'off (gradlab turns it on where it needs it)'}\n"
            f"matmul precision: {report.matmul_precision}\n"
            f"determinism flags of XLA: {flags}\n"
            f"compilation cache: {report.compilation_cache or 'none'}",
        ]
    )
