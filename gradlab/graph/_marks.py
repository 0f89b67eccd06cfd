"""What is odd about a wire, in words: NaN, infinity, a gradient that vanishes or explodes."""

from collections.abc import Sequence

from gradlab.graph._glance import Glance
from gradlab.graph.report import Gate, WireView

__all__ = ["findings", "marks"]

_FAR = 1e6  # a gradient so many times smaller or larger than 1 is worth a word


def marks(value: Glance, gradient: Glance | None, used: bool) -> tuple[str, ...]:
    """Return what is odd about a wire.

    Example:
        >>> import numpy as np
        >>> from gradlab.graph._glance import glance
        >>> marks(glance(np.array([1.0, np.nan])), glance(np.zeros(2)), used=True)
        ('NaN', 'gradient is zero')
    """
    found = [] if used else ["unused"]
    if not value.finite:
        found.append("NaN" if value.nans else "infinite")
    if gradient is None or not used:
        return tuple(found)
    if not gradient.finite:
        found.append("gradient is NaN" if gradient.nans else "gradient is infinite")
    elif gradient.size == 0 and 0 not in gradient.shape:
        found.append("gradient is zero")
    elif 0 < gradient.size < 1 / _FAR:
        found.append("gradient vanishes")
    elif gradient.size > _FAR:
        found.append("gradient explodes")
    return tuple(found)


def findings(wires: Sequence[WireView], gates: Sequence[Gate]) -> tuple[str, ...]:
    """Return where the first NaN or infinity appears, forward and backward.

    Constants do not count: a mask is often made of infinities.
    """
    views = {wire.name: wire for wire in wires}
    made = {name: gate for gate in gates for name in gate.outputs}
    found = []
    for kind, odd in (("NaN", _has_nan), ("infinity", _has_infinity)):
        seen = (wire for wire in wires if wire.kind != "constant" and odd(wire.value))
        first = next(seen, None)
        if first is not None:
            found.append(f"forward, the first {kind} is {_place(first.name, made)}")
    for gate in reversed(gates):
        if not all(_finite(views[name].gradient) for name in gate.outputs):
            found.append(f"backward, it is not finite from the output {gate.name} on")
            break
        before = [name for name in gate.inputs if not _finite(views[name].gradient)]
        if before:
            kind = "NaN" if _has_nan(views[before[0]].gradient) else "infinity"
            where = f", {gate.line}" if gate.line else ""
            found.append(
                f"backward, the first {kind} is in the gradient of {before[0]}, "
                f"sent by {gate.name} ({gate.node}{where})"
            )
            break
    return tuple(found)


def _finite(glance: Glance | None) -> bool:
    return glance is None or glance.finite


def _has_nan(glance: Glance | None) -> bool:
    return glance is not None and glance.nans > 0


def _has_infinity(glance: Glance | None) -> bool:
    return glance is not None and glance.infinities > 0


def _place(name: str, made: dict[str, Gate]) -> str:
    if name not in made:
        return f"in the input {name}"
    gate = made[name]
    return f"{name} ({gate.node}{f', {gate.line}' if gate.line else ''})"
