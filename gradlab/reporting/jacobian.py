"""How a Jacobian report looks: one screen of text, and a picture of its blocks as SVG."""

import html as _html
import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from gradlab.formatting import count, shape_text, size_text
from gradlab.patterns import Pattern
from gradlab.patterns.drawing import draw, occupied
from gradlab.reporting import page
from gradlab.reporting._junit import Case, junit_document
from gradlab.reporting._style import scoped

if TYPE_CHECKING:
    from gradlab.structure.report import JacobianReport

__all__ = ["html", "junit", "svg", "text"]

_CELLS = 64
_SIDE = 320
_STYLE = (
    "text{fill:#1f2328}.paper{fill:#fff}.frame{fill:#f4f4f4;stroke:#999}.entry{fill:#1f4e9c;"
    "shape-rendering:crispEdges}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}"
    ".frame{fill:#161b22;stroke:#6e7681}.entry{fill:#79a7ff}}"
)
_RUNGS = {
    "symbolic": "followed as formulas",
    "explicit": "followed as formulas, with index arrays listed on some",
    "widened": "some taken as wider than they may be, see below",
    "unknown": "dense where a primitive has no rule",
}


def text(report: "JacobianReport") -> str:
    """Return the report as a person reads it in a terminal."""
    lines = [f"{report.name}: {report.structure}", *report.notation.splitlines(), ""]
    lines += _picture(report)
    bound = "" if report.exact else "at most "
    m, n = report.shape
    rows = [
        ("shape", f"{m:,} x {n:,}  ({_sides(report)})"),
        ("entries", f"{bound}{report.nnz:,}  (density {report.density:.3g})"),
        ("dense", size_text(report.dense_bytes)),
        ("stored", size_text(report.stored_bytes)),
        ("passes", _passes(report)),
        ("evidence", report.evidence),
        ("axes", _RUNGS[report.rung]),
    ]
    if report.unknown:
        rows.append(("unknown", f"{', '.join(report.unknown)}: taken as dense"))
    lines += [f"{name:<9} {value}" for name, value in rows]
    lines += ["", "why", *(f"  {line}" for line in report.why().splitlines())]
    return "\n".join(lines)


def html(report: "JacobianReport") -> str:
    """Return the picture and the text as a page."""
    body = f"{svg(report)}<pre>{_html.escape(text(report))}</pre>"
    return page(f"{report.name}: {report.structure}", body)


def junit(report: "JacobianReport") -> str:
    """Return the report as a JUnit suite with one case per block, skipped where it is a bound."""
    cases = [
        Case(
            report.name,
            f"d {out} / d {given}",
            "passed" if pattern.exact else "skipped",
            f"{pattern.structure}: {pattern.describe(*report.labels((out, given)))}",
        )
        for (out, given), pattern in report.patterns.items()
    ]
    return junit_document((f"gradlab jacobian {report.name}", cases))


def svg(report: "JacobianReport") -> str:
    """Return a picture of each block, at any size: blue where entries may be nonzero."""
    title = f"{report.name}: {report.structure}, {count(report.nnz, 'entry', 'entries')}"
    labels = {
        pair: textwrap.wrap(pattern.describe(*report.labels(pair)), _SIDE // 7)
        for pair, pattern in report.patterns.items()
    }
    step = _SIDE + 24 + 17 * max(map(len, labels.values()), default=0)
    wide = max(60 + len(report.inputs) * (_SIDE + 20), 70 + 8 * len(title))
    high = 50 + len(report.outputs) * step
    title = _html.escape(title)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
        f'height="{high}" role="img" class="gradlab-jacobian" font-family="system-ui, sans-serif" '
        'font-size="13">',
        f"<title>{title}</title><style>{scoped(_STYLE, 'gradlab-jacobian')}</style>",
        f'<rect class="paper" width="{wide}" height="{high}"/>',
        f'<text x="50" y="24" font-weight="600">{title}</text>',
    ]
    for row, out in enumerate(report.outputs):
        for column, given in enumerate(report.inputs):
            pair = out.path, given.path
            x, y = 50 + column * (_SIDE + 20), 44 + row * step
            parts.append(f'<g transform="translate({x} {y})">{_block(report.patterns[pair])}')
            for i, line in enumerate(labels[pair]):
                parts.append(f'<text y="{_SIDE + 18 + 17 * i}">{_html.escape(line)}</text>')
            parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _block(pattern: Pattern) -> str:
    """Draw one block over a grid of cells: filled where the cell holds an entry."""
    frame = f'<rect class="frame" width="{_SIDE}" height="{_SIDE}"/>'
    if not math.prod(pattern.shape):
        return frame
    cells = occupied(pattern, _CELLS, _CELLS)
    high, wide = (_SIDE / n for n in cells.shape)
    parts = [frame]
    for i, row in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]])))
        for start, end in edges.reshape(-1, 2):
            parts.append(
                f'<rect class="entry" x="{start * wide:.2f}" y="{i * high:.2f}" '
                f'width="{(end - start) * wide:.2f}" height="{high:.2f}"/>'
            )
    return "".join(parts)


def _picture(report: "JacobianReport") -> list[str]:
    if len(report.patterns) != 1 or not math.prod(report.shape):
        return []
    return [*draw(report.pattern, 8, 32).splitlines(), ""]


def _sides(report: "JacobianReport") -> str:
    made = ", ".join(
        f"{side.path}: {shape_text(side.shape)} {side.dtype}" for side in report.outputs
    )
    given = ", ".join(
        f"{side.path}: {shape_text(side.shape)} {side.dtype}" for side in report.inputs
    )
    return f"{_clipped(made)} by {_clipped(given)}"


def _passes(report: "JacobianReport") -> str:
    plan = report.plan
    modes = [mode for mode, n in (("JVP", plan.jvps), ("VJP", plan.vjps)) if n]
    if len(modes) == 2:
        told = f"{count(plan.jvps, 'JVP')} and {count(plan.vjps, 'VJP')}"
    else:
        told = count(plan.count, modes[0] if modes else "JVP")
    mirrored = " of this symmetric matrix" if plan.symmetric else ""
    return f"{told} for every entry{mirrored}"


def _clipped(label: str, width: int = 100) -> str:
    return label if len(label) <= width else label[: width - 3] + "..."
