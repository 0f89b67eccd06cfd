"""What JAX sees, on one screen."""

from typing import TYPE_CHECKING

from gradlab.formatting import size_text
from gradlab.reporting._markup import Markup, head, join, section, top
from gradlab.reporting._markup import table as columns
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.numerics import DoctorReport


_HEADERS = ("platform", "count", "device", "memory", "float32 products")


def text(report: "DoctorReport") -> str:
    """Return versions, devices and switches."""
    switches = "\n".join(f"{name}: {value}" for name, value in _switches(report))
    return "\n\n".join([_versions(report), table(_HEADERS, _devices(report)), switches])


def html(report: "DoctorReport") -> Markup:
    """Return the body of the page."""
    return join(
        top("doctor", f"Python {report.python}"),
        head("this machine", "link", "What JAX sees on this machine", _versions(report)),
        section("Devices", columns(_HEADERS, _devices(report), ("count",))),
        section("Switches", columns(("switch", "value"), _switches(report))),
    )


def _versions(report: "DoctorReport") -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return f"Python {report.python}; {versions}"


def _devices(report: "DoctorReport") -> list[tuple[str, ...]]:
    return [
        (
            d.platform,
            str(d.count),
            d.kind,
            size_text(d.memory) if d.memory else "shared with the host",
            d.product,
        )
        for d in report.devices
    ]


def _switches(report: "DoctorReport") -> list[tuple[str, str]]:
    wrong = "; ".join(report.compilations)
    return [
        ("x64", "on" if report.x64 else "off (gradlab turns it on where it needs it)"),
        ("matmul precision", report.matmul_precision),
        ("determinism flags of XLA", ", ".join(report.deterministic_flags) or "none set"),
        ("compilation cache", report.compilation_cache or "none"),
        ("rules that this JAX lacks", ", ".join(report.missing_kinds) or "none"),
        (
            "compiled wrongly",
            f"{wrong}; call jacrev without jit" if wrong else "nothing of what was tried",
        ),
    ]
