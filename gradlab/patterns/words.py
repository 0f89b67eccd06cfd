"""Patterns in words: relations as plain data, and the notation `out[b, t, :] <- in[b, <=t, :]`.

A letter is an index that something else refers to; `:` is a whole axis; `<=t`, `t-1`, `t-2..t+2`
are bounds to a letter; `0..3` is a range, `4*i+j` an axis read in digits, `index(i)` a static index
array. Output axes that are read in order are called t, a leading axis that stays apart b, others i,
j, k.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

from gradlab.errors import InputError
from gradlab.patterns.size import exact, rank, same
from gradlab.patterns.union import coarse
from gradlab.patterns.zone import Readable, Zone, row_major

_P = TypeVar("_P", bound=Readable)

_LETTERS = "ijklmnopqruvwxyzacdefgh"
_SHOWN = 4


@dataclass(frozen=True)
class AxisRelation:
    """A bound between two axes, or on one: `low <= a - b <= high`.

    Attributes:
        a: an axis; k is output axis k, ~k is input axis k.
        b: another axis, or None for a range of a.
        kind: "equal", "band", "order" (one side only), "range", or "explicit" (an index array).
        low: the least a - b, None if nothing but the ranges bounds it.
        high: the largest a - b, likewise.
    """

    a: int
    b: int | None
    kind: str
    low: int | None
    high: int | None


def relations(zone: Zone) -> tuple[AxisRelation, ...]:
    """Return the bounds of a zone between whole axes, as plain data."""
    f, wide = zone.frame, coarse(zone.forget({zone.frame.axis_of[v - 1] for v in zone.explicit}))
    n = len(f.output)
    label = [k if k < n else ~(k - n) for k in range(len(f.axes))]
    found = [
        AxisRelation(label[k], None, "range", -exact(wide.bounds[0, v]), exact(wide.bounds[v, 0]))
        for k, axis in enumerate(wide.frame.axes)
        for v in wide.frame.digits(k)
        if wide.bounds[v, 0] < axis.size - 1 or wide.bounds[0, v] < 0
    ]
    for k in range(len(f.axes)):
        for other in range(k + 1, len(f.axes)):
            kind, low, high = _between(wide, k, other)
            if kind != "full":
                found.append(AxisRelation(label[k], label[other], kind, low, high))
    for r in zone.relations:
        rows = sorted({f.axis_of[v - 1] for v in r.rows})
        columns = sorted({f.axis_of[v - 1] for v in r.columns})
        found += [
            AxisRelation(label[x], label[y], "explicit", None, None) for x in rows for y in columns
        ]
    return tuple(found)


def _between(wide: Zone, k: int, other: int) -> tuple[str, int | None, int | None]:
    """Return how two axes of a zone over whole axes are related."""
    if not wide.frame.digits(k) or not wide.frame.digits(other):
        return "full", None, None
    d, x, y = wide.bounds, wide.frame.starts[k], wide.frame.starts[other]
    above = exact(d[x, y]) if d[x, y] < d[x, 0] + d[0, y] else None
    below = -exact(d[y, x]) if d[y, x] < d[y, 0] + d[0, x] else None
    return _kind(below, above), below, above


def _kind(low: int | None, high: int | None) -> str:
    """Return what bounds of a difference are called."""
    if low is None or high is None:
        return "full" if low is high else "order"
    return "equal" if low == high == 0 else "band"


def axis_relation(
    pattern: Readable, output_axis: int, input_axis: int
) -> tuple[str, int | None, int | None]:
    """Return (kind, low, high) of low <= out - in <= high over all zones."""
    if pattern.is_zero:
        return "zero", None, None
    n = len(pattern.output_shape)
    lows, highs = [], []
    for zone in pattern.zones:
        _, low, high = _between(coarse(zone), output_axis, n + input_axis)
        lows.append(low)
        highs.append(high)
    low = None if None in lows else min(v for v in lows if v is not None)
    high = None if None in highs else max(v for v in highs if v is not None)
    return _kind(low, high), low, high


def describe(
    pattern: Readable,
    output: str = "out",
    input: str = "in",
    output_axes: Sequence[str] | None = None,
    input_axes: Sequence[str] | None = None,
) -> str:
    """Return the notation with these names; zones with the same output side come together."""
    if pattern.is_zero:
        return f"{_array(output, [':'] * len(pattern.output_shape))} <- nothing"
    apart = _stays_apart(pattern)
    sides: dict[str, list[str]] = {}
    for zone in pattern.zones:
        texts = _axis_texts(zone, apart, output_axes, input_axes)
        n = len(pattern.output_shape)
        sides.setdefault(_array(output, texts[:n]), []).append(_array(input, texts[n:]))
    parts = [f"{left} <- {' | '.join(rights[:_SHOWN])}" for left, rights in sides.items()]
    hidden = len(pattern.zones) - sum(min(len(r), _SHOWN) for r in list(sides.values())[:_SHOWN])
    return "; ".join(parts[:_SHOWN]) + (f"; and {hidden} more" if hidden > 0 else "")


def _array(name: str, axes: Sequence[str]) -> str:
    return f"{name}[{', '.join(axes)}]" if axes else name


def _stays_apart(pattern: Readable) -> bool:
    """Whether the leading axis is equal on both sides while something else is not."""
    if not pattern.output_shape or not pattern.input_shape:
        return False
    if axis_relation(pattern, 0, 0)[0] != "equal":
        return False
    outputs, inputs = range(len(pattern.output_shape)), range(len(pattern.input_shape))
    equal = [(k, i) for k in outputs for i in inputs if axis_relation(pattern, k, i)[0] == "equal"]
    lonely = {k for k in outputs if pattern.output_shape[k] > 1} - {k for k, _ in equal}
    return bool(lonely or {i for i in inputs if pattern.input_shape[i] > 1} - {i for _, i in equal})


def _axis_texts(
    zone: Zone, apart: bool, output_axes: Sequence[str] | None, input_axes: Sequence[str] | None
) -> list[str]:
    """Return what stands for each axis."""
    f = zone.frame
    reference = _references(zone)
    used = set(reference.values()) | {v for r in zone.relations for v in r.rows}
    ordered = {y for x, y in reference.items() if _ties(zone, x, y) == "order"}
    given = [*(output_axes or [""] * len(f.output)), *(input_axes or [""] * len(f.input))]
    letters: dict[int, str] = {}
    pool = [c for c in _LETTERS if c not in given]
    for v in sorted(used):
        k = f.axis_of[v - 1]
        if given[k] and len(f.axes[k].strides) == 1:
            letters[v] = given[k]
        elif v in ordered and "t" not in letters.values():
            letters[v] = "t"
        elif apart and k == 0 and v == f.starts[0] and "b" not in letters.values():
            letters[v] = "b"
        else:
            letters[v] = pool.pop(0) if pool else f"i{v}"
    explicit = {
        v: f"index({', '.join(letters[w] for w in r.rows)})" if r.rows else "index"
        for r in zone.relations
        for v in r.columns
    }
    digits = {v: _digit(zone, v, reference, letters, explicit) for v in range(1, len(zone.bounds))}
    return [
        _joined(f.axes[k].strides, [digits[v] for v in f.digits(k)]) for k in range(len(f.axes))
    ]


def _references(zone: Zone) -> dict[int, int]:
    """Return for each variable the earlier one that says most about it, if any does."""
    d, result = zone.bounds, {}
    for x in range(1, len(d)):
        found = [y for y in range(1, x) if _ties(zone, x, y) and y not in result]
        if found and d[x, 0] + d[0, x]:
            result[x] = min(found, key=lambda y: rank(d[x, y] + d[y, x]))
    return result


def _ties(zone: Zone, x: int, y: int) -> str:
    d = zone.bounds
    above, below = d[x, y] < d[x, 0] + d[0, y], d[y, x] < d[y, 0] + d[0, x]
    return "both" if above and below else "order" if above or below else ""


def _digit(
    zone: Zone,
    v: int,
    reference: dict[int, int],
    letters: dict[int, str],
    explicit: dict[int, str],
) -> str:
    """Return what stands for one digit."""
    d, size = zone.bounds, zone.frame.sizes[v - 1]
    if v in explicit:
        return explicit[v]
    if v in reference:
        return _relative(zone, v, reference[v], letters[reference[v]])
    if v in letters:
        return letters[v]
    low, high = -exact(d[0, v]), exact(d[v, 0])
    if v in zone.flipped:
        low, high = size - 1 - high, size - 1 - low
    if (low, high) == (0, size - 1):
        return ":"
    return str(low) if low == high else f"{low}..{high}"


def _relative(zone: Zone, x: int, y: int, letter: str) -> str:
    """Return digit x relative to the letter that stands for digit y."""
    d, sizes = zone.bounds, zone.frame.sizes
    low, high = -exact(d[y, x]), exact(d[x, y])
    ties = _ties(zone, x, y)
    x_turned, y_turned = x in zone.flipped, y in zone.flipped
    if x_turned:
        low, high = sizes[x - 1] - 1 - high, sizes[x - 1] - 1 - low
    minus = x_turned != y_turned
    if y_turned:
        shift = (sizes[y - 1] - 1) * (-1 if x_turned else 1)
        low, high = low + shift, high + shift

    def text(offset: int) -> str:
        number = "" if same(offset, 0) else str(offset).replace(" ", "")
        if minus:
            return f"{number}-{letter}"
        return f"{letter}{'+' if number[:1] not in ('', '-') else ''}{number}"

    if low == high:
        return text(low)
    if ties == "both":
        return f"{text(low)}..{text(high)}"
    upper = (d[x, y] < d[x, 0] + d[0, y]) != x_turned
    if upper:
        return f"<{letter}" if high == -1 and not minus else f"<={text(high)}"
    return f">{letter}" if low == 1 and not minus else f">={text(low)}"


def _joined(strides: Sequence[int], digits: Sequence[str]) -> str:
    """Return an axis from its digits."""
    if len(digits) == 1:
        return digits[0]
    if not digits:
        return "0"
    if all(digit == ":" for digit in digits):
        return ":"
    if all(digit.isdigit() for digit in digits):
        return str(sum(s * int(d) for s, d in zip(strides, digits, strict=True)))
    plain, ratios = (
        [d if d.isalnum() else f"({d})" for d in map(str, values)] for values in (digits, strides)
    )
    ratios = [*(f"{s}*" for s in ratios[:-1]), ""]
    return "+".join(r + d for r, d in zip(ratios, plain, strict=True) if d != "0")


_COMPARED = 32


def _is_zero(p: Readable) -> bool:
    return p.is_zero


def _is_diagonal(p: Readable) -> bool:
    if p.shape[0] != p.shape[1]:
        return False
    zones, _ = row_major(p.input_shape, p.output_shape)
    return not prod(p.shape) or p.of_zones(p.output_shape, p.input_shape, zones).covers(p)


def _is_partial_permutation(p: Readable) -> bool:
    return p.shape[0] == p.shape[1] and _is_selection(p) and _is_sum(p)


def _is_selection(p: Readable) -> bool:
    """Inputs that share an output are the same input."""
    if len(p.zones) > _COMPARED:
        return False
    return _identity(p).covers(p.T @ p)


def _is_sum(p: Readable) -> bool:
    return _is_selection(p.T)


def _is_banded(p: Readable) -> bool:
    if p.output_shape != p.input_shape or not p.output_shape:
        return False
    return all(n == 1 or _within_band(p, k, k) for k, n in enumerate(p.output_shape))


def _within_band(p: Readable, k: int, i: int) -> bool:
    kind, low, high = axis_relation(p, k, i)
    if kind in ("zero", "equal"):
        return True
    return low is not None and high is not None and high - low + 1 < p.output_shape[k]


def _is_lower(p: Readable) -> bool:
    return p.output_shape == p.input_shape and _triangle(p).covers(p)


def _is_upper(p: Readable) -> bool:
    return p.output_shape == p.input_shape and _triangle(p).covers(p.T)


def _identity(p: _P) -> _P:
    shape = p.input_shape
    return p.from_axes(shape, shape, [(k, ~k) for k in range(len(shape))])


def _triangle(p: _P) -> _P:
    """Return the lower triangle over flat indices: equal up to an axis, and smaller there."""
    make, shape = p.from_axes, p.output_shape
    parts = [make(shape, shape, [(k, ~k) for k in range(len(shape))])]
    for last in range(len(shape)):
        equal = [(k, ~k, 0, 0) for k in range(last)]
        parts.append(make(shape, shape, [*equal, (last, ~last, 1, None)]))
    return p.union(parts)


def _some_axes(p: Readable, good: Callable[[int, int], bool]) -> bool:
    return any(
        same(n, m) and n > 1 and good(k, i)
        for k, n in enumerate(p.output_shape)
        for i, m in enumerate(p.input_shape)
    )


def _is_block_diagonal(p: Readable) -> bool:
    return _some_axes(p, lambda k, i: axis_relation(p, k, i)[0] in ("zero", "equal"))


def _is_block_banded(p: Readable) -> bool:
    return _some_axes(p, lambda k, i: _within_band(p, k, i))


def _is_block_lower(p: Readable) -> bool:
    def good(k: int, i: int) -> bool:
        kind, low, _ = axis_relation(p, k, i)
        return kind == "zero" or (low is not None and low >= 0)

    return _some_axes(p, good)


def _is_block_upper(p: Readable) -> bool:
    return _is_block_lower(p.T)


NAMES: dict[str, Callable[[Readable], bool]] = {
    "zero": _is_zero,
    "diagonal": _is_diagonal,
    "permutation": _is_partial_permutation,
    "selection": _is_selection,
    "sum": _is_sum,
    "banded": _is_banded,
    "lower-triangular": _is_lower,
    "upper-triangular": _is_upper,
    "block-banded": _is_block_banded,
    "block-lower-triangular": _is_block_lower,
    "block-upper-triangular": _is_block_upper,
    "block-diagonal": _is_block_diagonal,
    "dense": lambda p: True,
    "sparse": lambda p: True,
}


def holds(pattern: Readable, name: str) -> bool:
    """Return whether the pattern is contained in a structure of this name."""
    if name not in NAMES:
        raise InputError(f"there is no structure named {name!r}; known are {', '.join(NAMES)}")
    return pattern.is_zero or NAMES[name](pattern)


def names(pattern: Readable) -> tuple[str, ...]:
    """Return the names that hold and say something, the most telling first."""
    if pattern.is_zero:
        return ("zero",)
    full = pattern.nnz == pattern.shape[0] == pattern.shape[1] and pattern.exact
    pairs = [
        axis_relation(pattern, k, i)
        for k, n in enumerate(pattern.output_shape)
        for i, m in enumerate(pattern.input_shape)
        if same(n, m) and n > 1
    ]
    found: list[str] = []
    for name, good in NAMES.items():
        says = {
            "permutation": full,
            "block-lower-triangular": any(k == "order" and low is not None for k, low, _ in pairs),
            "block-upper-triangular": any(k == "order" and low is None for k, low, _ in pairs),
            "block-banded": any(k == "band" for k, _, _ in pairs),
            "dense": pattern.is_dense,
            "zero": False,
            "sparse": not found,
        }.get(name, True)
        if says and good(pattern):
            found.append(name)
    if pattern.is_dense and found[0] != "diagonal":
        found = ["dense", *(name for name in found if name != "dense")]
    return tuple(found)
