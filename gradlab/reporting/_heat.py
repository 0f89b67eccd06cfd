"""An array as a small heat map: blue below zero, orange above, nothing where it is zero.

Two hues that people tell apart whatever their colour vision, each deeper the larger the entry, over
paper of any colour: the same marks serve in light and dark. Source: Brewer, Color use guidelines
for mapping and visualization (1994), diverging schemes.
"""

import html
import itertools
import math
from collections.abc import Iterator, Sequence

from gradlab.reporting._glance import short

Heat = Sequence[Sequence[float]]

STYLE = """
.below,.above,.nan{shape-rendering:crispEdges}.cells{fill:#8b949e;fill-opacity:.12}
.below{fill:#0a5fc4}.above{fill:#d9650b}.nan{fill:#c026d3}
@media (prefers-color-scheme:dark){.below{fill:#58a6ff}.above{fill:#ff9a3c}.nan{fill:#f0abfc}}
"""
_LEVELS = 8
_WIDE, _HIGH = 96.0, 60.0  # no heat map is larger
_CELL = 7.0  # nor is a cell


def heat_size(heat: Heat, highest: float = _HIGH) -> tuple[float, float]:
    """Return the width and the height of an array's heat map; zeros where there is none."""
    if not heat or not heat[0]:
        return 0.0, 0.0
    across, down = len(heat[0]), len(heat)
    wide = across * min(_CELL, _WIDE / across)
    return wide, down * min(max(_CELL, wide / 24), highest / down)


def heat_map(heat: Heat, x: float, y: float, what: str, highest: float = _HIGH) -> str:
    """Return an array's heat map as SVG, its upper left corner at x and y."""
    wide, high = heat_size(heat, highest)
    if not wide:
        return ""
    top = max((abs(v) for row in heat for v in row if math.isfinite(v)), default=0.0)
    words = f"heat map of {what}, {len(heat)} x {len(heat[0])} cells up to {short(top, 3)} in size"
    across, down = wide / len(heat[0]), high / len(heat)
    cells = "".join(
        f'<rect class="{kind}" x="{x + start * across:.1f}" y="{y + row * down:.1f}" '
        f'width="{number * across:.2f}" height="{down:.2f}"{opacity}/>'
        for row, values in enumerate(heat)
        for kind, opacity, start, number in _runs(values, top)
    )
    return (
        f'<g role="img"><title>{html.escape(words)}</title>'
        f'<rect class="cells" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'
        f"{cells}</g>"
    )


def _runs(values: Sequence[float], top: float) -> Iterator[tuple[str, str, int, int]]:
    """Yield neighbours of one colour as kind, opacity, first cell and number; no zeros."""
    start = 0
    for (kind, level), same in itertools.groupby(values, lambda value: _colour(value, top)):
        number = len(list(same))
        if level:
            opacity = "" if level == _LEVELS else f' opacity="{level / _LEVELS:g}"'
            yield kind, opacity, start, number
        start += number


def _colour(value: float, top: float) -> tuple[str, int]:
    """Return the hue of a value and its depth; the smallest number that is not zero is seen too."""
    if value != value:
        return "nan", _LEVELS
    kind = "below" if value < 0 else "above"
    if math.isinf(value):
        return kind, _LEVELS
    share = abs(value) / top if top else 0.0
    return kind, math.ceil(share * _LEVELS) if share else 0
