"""Colours: how few JVPs (or VJPs) give every entry, and which input goes with which.

Inputs of one colour share no output, so that one JVP with all of them set gives their columns
unmixed (Curtis, Powell and Reid 1974; Coleman and More 1983). For one zone the colours are in
closed form. Given the output index, input digit x lies in an interval of `w = 1 + min(d[x, y] +
d[y, x])` values, over all outputs and earlier inputs y; hence `x mod w` tells the inputs of one
output apart: equal 1, a band its width, a full axis all n, and products over the axes. For a union
it is the best of three: the closed form of the hull, a lattice `sum(a_k x_k) mod M` that no
difference of two inputs with a common output maps to 0 (stencils, periodic ones too), and a greedy
colouring of the listed matrix where that is small.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np

from gradlab.errors import InputError
from gradlab.patterns.compose import compose_many, refined
from gradlab.patterns.dbm import Indices
from gradlab.patterns.layout import Axis, chain
from gradlab.patterns.size import exact, has_number
from gradlab.patterns.union import hull
from gradlab.patterns.zone import Readable, Zone

_Digit: TypeAlias = tuple[int, int, int]  # an axis, its stride along it, its number of values


WORK = 2**21
"""Entries up to which columns are coloured in their order."""

_DIFFERENCES = 2**12
_CONFLICTS = 1 << 10
_MIDDLES = 8
_PERIOD = 128


@dataclass(frozen=True, eq=False)
class Colouring:
    """Which entries go into one pass.

    Attributes:
        mode: "jvp": input entries are coloured, a pass is a JVP; "vjp": output entries, a VJP.
        count: the number of colours, hence of passes.
        closed_form: whether the colour of an entry is a formula of its index.
        shape: the shape of the array whose entries are coloured.
    """

    mode: str
    count: int
    closed_form: bool
    shape: tuple[int, ...]
    _assign: Callable[[], Indices]

    def assignment(self) -> Indices:
        """Return the colour of each entry of the flattened array: integers below `count`."""
        return self._assign()

    def seed(self, colour: int) -> Any:
        """Return a boolean array of `shape`: the entries of one colour."""
        return (self.assignment() == colour).reshape(self.shape)


def colours(pattern: Readable, mode: str) -> Colouring:
    """Return a colouring of the inputs ("jvp") or the outputs ("vjp")."""
    if mode not in ("jvp", "vjp"):
        raise InputError(f"colours: mode is {mode!r}; expected 'jvp' (inputs) or 'vjp' (outputs)")
    p = pattern if mode == "jvp" else pattern.T
    shape = p.input_shape
    if not p.zones:
        return Colouring(mode, 0, True, shape, lambda: np.zeros(prod(shape), np.int64))
    if len(p.zones) == 1:
        return _of_zone(p.zones[0], mode, shape)
    best = _of_zone(hull(p.zones), mode, shape)
    if not has_number(prod(p.shape)):
        return best  # of sizes that have names alone, the closed form is known
    least = _least(p, best.count)
    if best.count > least == 1 and _apart(p):
        return Colouring(mode, 1, True, shape, lambda: np.zeros(prod(shape), np.int64))
    if best.count > least and (lattice := _lattice(p, least, best.count)) is not None:
        best = Colouring(mode, lattice[0], True, shape, lattice[1])
    if best.count > least and (repeated := _repeated(p, best.count)) is not None:
        best = Colouring(
            mode, len(set(repeated)), True, shape, partial(np.resize, repeated, prod(shape))
        )
    if 4 * best.count > 5 * least and prod(shape) <= WORK and p.nnz <= WORK:
        assigned = greedy(p.to_scipy())
        if (count := int(assigned.max()) + 1) < best.count:
            best = Colouring(mode, count, False, shape, lambda: assigned)
    return best


def _apart(p: Readable) -> bool:
    """Return whether no output reads two inputs: as many entries as outputs that read any."""
    reading = p @ p.from_axes(p.input_shape, (), [])
    return bool(reading.exact and reading.nnz == p.nnz)


def _least(p: Readable, most: int) -> int:
    """Return how many inputs some output reads, of a few: no colouring has fewer colours.

    Those few are the first, the middle and the last output, and the middle one of each zone.
    """
    found = 1
    rows = [tuple(share * (n - 1) // 2 for n in p.output_shape) for share in (1, 0, 2)]
    for row in dict.fromkeys([*rows, *map(_middle, p.zones[:_MIDDLES])]):
        bounds = [(~k, None, i, i) for k, i in enumerate(row)]
        one = p.from_axes((), p.output_shape, bounds) @ p
        if one.exact and found < most:
            found = max(found, one.nnz)
    return found


def _middle(zone: Zone) -> tuple[int, ...]:
    """Return the indices of an output in the middle of a zone."""
    f = zone.frame
    digits = ((zone.bounds[1:, 0] - zone.bounds[0, 1:]) // 2).tolist()
    index = [0] * len(f.axes)
    for v, (axis, stride, digit) in enumerate(zip(f.axis_of, f.strides, digits, strict=True), 1):
        index[axis] += stride * (f.sizes[v - 1] - 1 - digit if v in zone.flipped else digit)
    return tuple(index[: len(f.output)])


def _of_zone(zone: Zone, mode: str, shape: tuple[int, ...]) -> Colouring:
    """Colour by residues, variable by variable; explicit relations by their own colouring."""
    f, d = zone.frame, zone.bounds
    known = [0, *range(1, f.outputs + 1)]
    parts: list[tuple[tuple[int, ...], int, Indices | None]] = []
    explicit = zone.explicit
    for v in range(f.outputs + 1, len(d)):
        if v not in explicit:
            width = 1 + min(exact(d[v, y] + d[y, v]) for y in known)
            known.append(v)
            if width > 1:
                parts.append(((v,), width, None))
    for r in zone.relations:
        if r.columns:
            assigned = greedy(r.matrix)
            parts.append((r.columns, int(assigned.max()) + 1, assigned))

    def assign() -> Indices:
        digits = _digits(zone)
        result = np.zeros(shape, np.int64)
        for variables, width, table in parts:
            index: Any = 0
            for v in variables:
                index = index * f.sizes[v - 1] + digits[v]
            result = result * width + (index % width if table is None else table[index])
        return np.broadcast_to(result, shape).reshape(-1)

    return Colouring(
        mode, prod(w for _, w, _ in parts), all(t is None for *_, t in parts), shape, assign
    )


def _digits(zone: Zone) -> dict[int, Indices]:
    """Return each input variable's value along its axis, shaped to broadcast over the input."""
    f = zone.frame
    values: dict[int, Indices] = {}
    for k, axis in enumerate(f.input):
        index = np.arange(axis.size).reshape([-1 if a == k else 1 for a in range(len(f.input))])
        for v, stride, size in zip(
            f.digits(len(f.output) + k), axis.strides, axis.sizes, strict=True
        ):
            digit = index // stride % size
            values[v] = size - 1 - digit if v in zone.flipped else digit
    return values


def greedy(matrix: Any) -> Indices:
    """Return the colour of each column: the least that no column with a common row has yet."""
    rows = matrix.tocsr()
    assigned = np.zeros(matrix.shape[1], np.int64)
    sizes = np.diff(rows.indptr)
    if sizes.max(initial=0) <= 1:
        return assigned
    if np.bincount(rows.indices).max() <= 1:  # columns meet in one row alone
        assigned[rows.indices] = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], sizes)
        return assigned
    columns = matrix.tocsc()
    touched, starts = columns.indices.tolist(), columns.indptr.tolist()
    taken = [0] * matrix.shape[0]  # the colours in a row, as bits
    for j in range(matrix.shape[1]):
        here = touched[starts[j] : starts[j + 1]]
        used = functools.reduce(operator.or_, map(taken.__getitem__, here), 0)
        colour = ~used & (used + 1)
        assigned[j] = colour.bit_length() - 1
        for i in here:
            taken[i] |= colour
    return assigned


def _residues(
    shape: tuple[int, ...], digits: Sequence[_Digit], factors: Indices, modulus: int
) -> Indices:
    """Return the sum of digits times factors, modulo a number, over the flattened array."""
    index = np.indices(shape, sparse=True)
    total: Any = np.zeros((), np.int64)
    for (axis, stride, size), factor in zip(digits, factors.tolist(), strict=True):
        total = total + factor * (index[axis] // stride % size)
    return np.broadcast_to(total % modulus, shape).reshape(-1)


def _lattice(p: Readable, least: int, limit: int) -> tuple[int, Callable[[], Indices]] | None:
    """Return the smallest modulus from `least` on that separates all conflicts, and the colours."""
    found = _differences(p)
    if found is None:
        return None
    digits, differences = found
    rank = differences.shape[1]
    for modulus in range(max(least, 2), min(limit, 65)):
        if modulus**rank * len(differences) > 2 * WORK:
            return None
        factors = np.array(list(product(range(modulus), repeat=rank)), np.int64)
        good = ((factors @ differences.T) % modulus != 0).all(axis=1)
        if good.any():
            chosen = factors[int(np.argmax(good))]
            return modulus, partial(_residues, p.input_shape, digits, chosen, modulus)
    return None


def _repeated(p: Readable, limit: int) -> Indices | None:
    """Return colours, fewer than the limit, that repeat along the one axis; greedy, all around."""
    found = _differences(p)
    if found is None or len(found[0]) != 1:
        return None
    best = None
    for period in range(2, _PERIOD):
        near = {*(found[1][:, 0] % period).tolist(), *(-found[1][:, 0] % period).tolist()}
        if 0 in near or len(near) == period - 1 >= limit - 1:
            continue
        table = [-1] * period
        for j in range(period):
            used = {table[(j + step) % period] for step in near}
            table[j] = next(colour for colour in range(period) if colour not in used)
        if max(table) + 1 < limit:
            limit, best = max(table) + 1, np.array(table)
    return best


def _differences(p: Readable) -> tuple[list[_Digit], Indices] | None:
    """Return all nonzero differences of inputs that share an output, digit by digit.

    Up to sign, or a superset. A flattened grid is read in the digits that its zones are written in.
    """
    if len(p.zones) > 24 or not all(zone.simple for zone in p.zones):
        return None
    conflicts = list({zone.key: zone for zone in compose_many(p.T.zones, p.zones, [])}.values())
    n = len(p.input_shape)
    if len(conflicts) > _CONFLICTS or not all(zone.simple for zone in conflicts):
        return None
    strides = []
    for k in range(n):
        axes = [zone.frame.axes[a] for zone in conflicts for a in (k, n + k)]
        common = chain(s for axis in axes for s in axis.strides)
        if common is None:
            return None
        strides.append(common)
    found: set[tuple[int, ...]] = set()
    for zone in conflicts:
        pieces = [zone]
        for k in range(2 * n):
            if (finer := refined(pieces, k, strides[k % n], _DIFFERENCES)) is None:
                return None
            pieces = finer
        for piece in pieces:
            if any(axis.strides != strides[k % n] for k, axis in enumerate(piece.frame.axes)):
                return None  # digits tied to one another were refined further
            ranges = []
            for k in range(n):
                for x, y in zip(piece.frame.digits(k), piece.frame.digits(n + k), strict=True):
                    low, high = -exact(piece.bounds[y, x]), exact(piece.bounds[x, y])
                    ranges.append(range(low, high + 1))
            if prod(map(len, ranges)) > _DIFFERENCES:
                return None
            found |= {max(v, tuple(-c for c in v)) for v in product(*ranges)}
    digits = [
        (k, stride, size)
        for k, common in enumerate(strides)
        for stride, size in zip(common, Axis(p.input_shape[k], common).sizes, strict=True)
    ]
    found.discard((0,) * len(digits))
    return digits, np.array(sorted(found), np.int64).reshape(-1, len(digits))
