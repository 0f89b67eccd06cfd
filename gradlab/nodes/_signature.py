"""The shapes that a node takes, written as one line: `x (*rows, n), scale (n) -> (*rows, n)`.

A letter or word stands for the size of one axis, `*word` for any number of axes, a number for
itself. What has the same name has the same size. The line is checked at every call and printed on
the node's page.
"""

import functools
import re

from gradlab.common.arrays import Shape
from gradlab.formatting import count, shape_text


@functools.lru_cache(maxsize=4096)
def misfit(line: str, shapes: tuple[Shape, ...]) -> str:
    """Return what of these shapes does not fit a line, in words; an empty text if all fit.

    Example:
        >>> misfit("x (*rows, n), scale (n) -> (*rows, n)", ((3, 4), (4,)))
        ''
        >>> misfit("x (*rows, n), scale (n) -> (*rows, n)", ((3, 4), (5,)))
        'x has shape 3x4, scale has 5; expected x (*rows, n), scale (n); n is 4 and 5'
    """
    inputs, _, _ = line.partition(" ->")
    sizes: dict[str, int | Shape] = {}
    names, reason = [], ""
    for (name, inside), shape in zip(re.findall(r"(\w+) \(([^)]*)\)", inputs), shapes):
        names.append(name)
        reason = reason or _bind(name, re.findall(r"\*?\w+", inside), shape, sizes)
    if not reason:
        return ""
    came = [f"{name} has {shape_text(shape)}" for name, shape in zip(names, shapes)]
    return f"{', '.join(came)}; expected {inputs}; {reason}".replace(" has ", " has shape ", 1)


def _bind(name: str, axes: list[str], shape: Shape, sizes: dict[str, int | Shape]) -> str:
    """Enter the sizes of one input's axes, and return what contradicts, in words."""
    star = next((i for i, word in enumerate(axes) if word[0] == "*"), None)
    fixed = len(axes) - (star is not None)
    if len(shape) < fixed or (star is None and len(shape) > fixed):
        more = " or more" if star is not None else ""
        return f"{name} needs {count(fixed, 'axis', 'axes')}{more}"
    parts: list[int | Shape] = list(shape)
    if star is not None:
        end = len(shape) - (len(axes) - star - 1)
        parts[star:end] = [tuple(shape[star:end])]
    for word, size in zip(axes, parts):
        known = int(word) if word.isdigit() else sizes.setdefault(word, size)
        if known != size:
            one, other = (shape_text(s) if isinstance(s, tuple) else str(s) for s in (known, size))
            return f"{word} is {one} and {other}"
    return ""
