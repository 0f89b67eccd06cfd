"""Zones: one block of a pattern, a set of bounds (and of explicit relations) that hold together.

A zone holds the pairs (output index, input index) whose digits satisfy its bounds. A digit may be
*flipped*: its variable is `size - 1 - digit`, which turns a reversed axis into an equality. Bounds
relate differences only, so flipping all variables of a component at once is an exact change of
variables; it is used to bring two zones to the same orientation.

What static index arrays say is no set of bounds. An explicit relation holds it as a boolean matrix
from a group of input digits to a group of output digits. Invariant: variables of an explicit
relation are not flipped and are bound by their ranges only, so that zones are products of
independent clusters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.patterns import dbm
from gradlab.patterns.dbm import Bounds, Indices, extend
from gradlab.patterns.layout import Axis, Frame, frame, plain
from gradlab.patterns.size import divides, small, valued

Shape: TypeAlias = tuple[int, ...]
Bound: TypeAlias = tuple[int, int] | tuple[int, int | None, int | None, int | None]


@dataclass(frozen=True, eq=False, slots=True)
class Relation:
    """A boolean matrix over two groups of variables, each flattened, its first variable leading."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    matrix: Any  # a boolean scipy.sparse.csr_array

    @property
    def variables(self) -> tuple[int, ...]:
        """All variables, rows first."""
        return self.rows + self.columns

    def points(self, sizes: Sequence[int]) -> Indices:
        """Return the values of the variables, one row per entry; `sizes[v - 1]` is that of v."""
        entries = self.matrix.tocoo()
        parts = []
        for flat, group in ((entries.row, self.rows), (entries.col, self.columns)):
            shape = tuple(sizes[v - 1] for v in group)
            if shape:
                parts += list(np.unravel_index(flat.astype(np.int64), shape))
        return np.stack(parts, axis=1) if parts else np.zeros((entries.nnz, 0), np.int64)

    def moved(self, variable: dict[int, int]) -> "Relation":
        """Return the relation with its variables renamed."""
        rows = tuple(variable[v] for v in self.rows)
        return Relation(rows, tuple(variable[v] for v in self.columns), self.matrix)

    def between(self, outputs: int, sizes: Sequence[int]) -> "Relation":
        """Return the relation with its variables sorted, those up to `outputs` as rows."""
        order = sorted(range(len(self.variables)), key=lambda k: self.variables[k])
        variables = [self.variables[k] for k in order]
        rows = [v for v in variables if v <= outputs]
        return relation(rows, variables[len(rows) :], self.points(sizes)[:, order], sizes)

    def holds(self, values: Sequence[Any], sizes: Sequence[int]) -> Any:
        """Return where the relation holds; `values[v]` is the value, or values, of variable v."""
        flat: list[Any] = []
        for group in (self.rows, self.columns):
            index: Any = 0
            for v in group:
                index = index * sizes[v - 1] + values[v]
            flat.append(index)
        row, column = flat
        return self.matrix[row + 0 * column, column + 0 * row]


def relation(
    rows: Sequence[int], columns: Sequence[int], points: Indices, sizes: Sequence[int]
) -> Relation:
    """Return the relation that holds at these values of the variables (rows, then columns)."""
    flat = []
    for group, values in ((rows, points[:, : len(rows)]), (columns, points[:, len(rows) :])):
        index = np.zeros(len(points), np.int64)
        for k, v in enumerate(group):
            index = index * sizes[v - 1] + values[:, k]
        flat.append(index)
    shape = tuple(prod(sizes[v - 1] for v in group) for group in (rows, columns))
    ones = np.ones(len(points), np.bool_)
    import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

    matrix = sp.coo_array((ones, (flat[0], flat[1])), shape=shape).tocsr()
    matrix.data[:] = True
    return Relation(tuple(rows), tuple(columns), matrix)


def place(d: Bounds, variables: Sequence[int], block: Bounds) -> None:
    """Write `block`, the bounds over (0, variables), into d; other variables become independent."""
    group = list(variables)
    others = [x for x in range(1, len(d)) if x not in set(group)]
    d[group, 0], d[0, group] = block[1:, 0], block[0, 1:]
    d[np.ix_(group, others)] = d[group, :1] + d[:1, others]
    d[np.ix_(others, group)] = d[others, :1] + d[:1, group]
    d[np.ix_(group, group)] = block[1:, 1:]


@dataclass(frozen=True, eq=False)
class Zone:
    """Bounds between digits, with the digits that are flipped, times explicit relations."""

    frame: Frame
    bounds: Bounds
    flipped: frozenset[int] = frozenset()
    relations: tuple[Relation, ...] = ()
    memory: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal keys mean equal sets."""
        if "key" not in self.memory:
            relations = tuple(
                (r.rows, r.columns, r.matrix.indptr.tobytes(), r.matrix.indices.tobytes())
                for r in self.relations
            )
            d = self.bounds
            entries = tuple(d.ravel().tolist()) if d.dtype == object else d.tobytes()
            self.memory["key"] = (self.frame, entries, self.flipped, relations)
        key: tuple[Any, ...] = self.memory["key"]
        return key

    @property
    def explicit(self) -> set[int]:
        """The variables of explicit relations."""
        return {v for r in self.relations for v in r.variables}

    @property
    def symbolic(self) -> bool:
        """Whether bounds alone describe the zone."""
        return not self.relations

    @property
    def simple(self) -> bool:
        """Whether bounds between unflipped digits describe the zone."""
        return not self.relations and not self.flipped

    def clusters(self) -> list[list[int]]:
        """Return the variables in groups that are independent of each other."""
        if "clusters" not in self.memory:
            self.memory["clusters"] = merge_groups(
                dbm.components(self.bounds), (r.variables for r in self.relations)
            )
        clusters: list[list[int]] = self.memory["clusters"]
        return clusters

    def block(self, variables: Sequence[int]) -> Bounds:
        """Return the bounds over (0, variables): their projection."""
        keep = [0, *variables]
        return self.bounds[np.ix_(keep, keep)]

    def contains(self, index: Sequence[Any]) -> Any:
        """Return where the zone holds at these indices of all axes, outputs first."""
        values: list[Any] = [0]
        for i, axis in zip(index, self.frame.axes, strict=True):
            for stride, size in zip(axis.strides, axis.sizes, strict=True):
                digit = i // stride % size
                flip = len(values) in self.flipped
                values.append(size - 1 - digit if flip else digit)
        good: Any = True
        for x, y in np.argwhere(self.bounds < self.frame.free).tolist():
            good = good & (values[x] - values[y] <= self.bounds[x, y])
        for r in self.relations:
            good = good & r.holds(values, self.frame.sizes)
        return good

    def with_bounds(self, d: Bounds) -> "Zone":
        """Return the zone with other bounds."""
        return Zone(self.frame, d, self.flipped, self.relations)

    @property
    def T(self) -> "Zone":
        """The zone with outputs and inputs exchanged."""
        o, i = self.frame.outputs, self.frame.inputs
        order = [0, *range(o + 1, o + i + 1), *range(1, o + 1)]
        new = {old: k for k, old in enumerate(order)}
        relations = []
        for r in self.relations:
            t = r.matrix.T.tocsr()
            t.sort_indices()
            relations.append(
                Relation(tuple(new[v] for v in r.columns), tuple(new[v] for v in r.rows), t)
            )
        return Zone(
            frame(self.frame.input, self.frame.output),
            self.bounds[np.ix_(order, order)],
            frozenset(new[v] for v in self.flipped),
            tuple(relations),
        )

    def sized(self, numbers: Mapping[str, Any]) -> "Zone | None":
        """Return the zone where names of sizes have these values; None if it is empty there."""
        axes, kept = [], [0]
        for k, (size, strides) in enumerate(self.frame.axes):
            size, left = valued(size, numbers), []
            above = size
            for v, stride in zip(self.frame.digits(k), strides):
                if (step := valued(stride, numbers)) < above:  # else the digit has one value
                    kept.append(v)
                    left.append(step)
                    above = step
            axes.append(Axis(size, tuple(left)))
        n = len(self.frame.output)
        made = frame(tuple(axes[:n]), tuple(axes[n:]))
        d = np.array([[valued(c, numbers) for c in row] for row in self.bounds], made.free.dtype)
        closed = dbm.close(d)
        if closed is None:
            return None
        new = {v: k for k, v in enumerate(kept)}
        flipped = frozenset(new[v] for v in self.flipped if v in new)
        relations = tuple(r.moved(new) for r in self.relations)
        return Zone(made, closed[np.ix_(kept, kept)], flipped, relations)

    def flip(self, variables: Iterable[int]) -> "Zone":
        """Return the same set with these variables flipped: whole components, or explicit ones."""
        chosen = set(variables)
        explicit = self.explicit & chosen
        plain_ones = sorted(chosen - explicit)
        sizes = self.frame.sizes
        d = dbm.flip(self.bounds, sizes, sorted(chosen))
        relations = []
        for r in self.relations:
            if explicit & set(r.variables):
                points = r.points(sizes)
                for k, v in enumerate(r.variables):
                    if v in explicit:
                        points[:, k] = sizes[v - 1] - 1 - points[:, k]
                r = relation(r.rows, r.columns, points, sizes)
            relations.append(r)
        flipped = self.flipped ^ frozenset(plain_ones) ^ frozenset(explicit)
        return Zone(self.frame, d, flipped, tuple(relations))

    def oriented(self) -> "Zone":
        """Return the same set with no needless flips: a component's first variable has none."""
        if not self.flipped:
            return self
        explicit = self.explicit
        turn: list[int] = [v for v in explicit if v in self.flipped]
        for group in dbm.components(self.bounds):
            if group[0] in self.flipped and group[0] not in explicit:
                turn += group
        return self.flip(turn) if turn else self

    def forget(self, axes: Iterable[int]) -> "Zone":
        """Return the smallest zone around this one that says nothing about these axes."""
        gone = set(axes)
        axis_of = self.frame.axis_of
        kept_relations = list(self.relations)
        while touched := [
            r for r in kept_relations if any(axis_of[v - 1] in gone for v in r.variables)
        ]:
            kept_relations = [r for r in kept_relations if r not in touched]
            gone |= {axis_of[v - 1] for r in touched for v in r.variables}
        new_frame = self.frame.replaced({k: plain(self.frame.axes[k].size) for k in gone})
        kept = [v for v in range(1, len(self.bounds)) if axis_of[v - 1] not in gone]
        new = dict(
            zip(
                kept,
                (
                    v
                    for v in range(1, len(new_frame.sizes) + 1)
                    if new_frame.axis_of[v - 1] not in gone
                ),
                strict=True,
            )
        )
        d = new_frame.free.copy()
        place(d, [new[v] for v in kept], self.block(kept))
        return Zone(
            new_frame,
            d,
            frozenset(new[v] for v in self.flipped if v in new),
            tuple(r.moved(new) for r in kept_relations),
        )


def merge_groups(groups: Iterable[Iterable[int]], more: Iterable[Iterable[int]]) -> list[list[int]]:
    """Return the finest grouping in which each of the given groups lies within one group."""
    merged: list[set[int]] = []
    for group in (*groups, *more):
        joined = set(group)
        if not joined:
            continue
        apart = [g for g in merged if g.isdisjoint(joined)]
        for g in merged:
            if not g.isdisjoint(joined):
                joined |= g
        merged = [*apart, joined]
    return sorted((sorted(g) for g in merged), key=lambda g: g[0])


def full(output_shape: Sequence[int], input_shape: Sequence[int]) -> Zone:
    """Return the zone of all pairs; no axis may be empty."""
    axes: list[tuple[Axis, ...]] = [tuple(map(plain, s)) for s in (output_shape, input_shape)]
    whole = frame(axes[0], axes[1])
    return Zone(whole, whole.free)


LIMIT = 2**24
"""The most entries of one explicit relation."""


def points(zone: Zone, variables: Sequence[int], limit: int = LIMIT) -> Indices | None:
    """Return all values of a union of clusters, one row each, or None beyond the limit."""
    chosen = set(variables)
    relations = [r for r in zone.relations if chosen & set(r.variables)]
    known: list[int] = []
    values = np.zeros((1, 0), np.int64)
    for r in relations:
        if len(values) * r.matrix.nnz > 64 * limit:
            return None
        sizes = zone.frame.sizes
        values = _joined(values, known, r, sizes) if known else r.points(sizes)
        known += [v for v in r.variables if v not in known]
        values = values[_inside(values, known, zone.bounds)]
        if len(values) > limit:
            return None
    for v in variables:
        if v not in known:
            extended = extend(values, known, v, zone.bounds, limit)
            if extended is None:
                return None
            values = extended
            known.append(v)
    return values[:, [known.index(v) for v in variables]]


def _joined(values: Indices, known: list[int], r: Relation, sizes: Sequence[int]) -> Indices:
    """Return the rows of values combined with the points of r that agree with them."""
    more = r.points(sizes)
    left = np.repeat(np.arange(len(values)), len(more))
    right = np.tile(np.arange(len(more)), len(values))
    agree = np.ones(len(left), np.bool_)
    fresh = []
    for k, v in enumerate(r.variables):
        if v in known:
            agree &= values[left, known.index(v)] == more[right, k]
        else:
            fresh.append(k)
    return np.hstack([values[left[agree]], more[right[agree]][:, fresh]])


def _inside(values: Indices, known: list[int], d: Bounds) -> Any:
    """Return which rows satisfy the bounds between the known variables."""
    good = np.ones(len(values), np.bool_)
    for a, x in enumerate(known):
        good &= (values[:, a] <= d[x, 0]) & (-values[:, a] <= d[0, x])
        for b, y in enumerate(known):
            if d[x, y] < d[x, 0] + d[0, y]:
                good &= values[:, a] - values[:, b] <= d[x, y]
    return good


def flat_entries(zone: Zone, limit: int) -> tuple[Indices, Indices] | None:
    """Return the flat output and the flat input index of every entry, or None beyond the limit."""
    f = zone.frame
    steps = f.flat_strides()
    rows, columns = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for cluster in zone.clusters():
        values = points(zone, cluster, limit)
        if values is None or len(rows) * len(values) > limit:
            return None
        row, column = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
        for k, v in enumerate(cluster):
            digit = f.sizes[v - 1] - 1 - values[:, k] if v in zone.flipped else values[:, k]
            (row if v <= f.outputs else column)[:] += steps[v - 1] * digit
        rows = (rows[:, None] + row).ravel()
        columns = (columns[:, None] + column).ravel()
    return rows, columns


def matrix(zones: Sequence[Zone], shape: tuple[int, int], limit: int) -> Any | None:
    """Return the boolean CSR matrix of a union of zones, or None beyond `limit` listed entries."""
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for zone in zones:
        entries = flat_entries(zone, limit)
        if entries is None:
            return None
        limit -= len(entries[0])
        rows.append(entries[0])
        columns.append(entries[1])
    index = np.concatenate(rows), np.concatenate(columns)
    import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

    result = sp.coo_array((np.ones(len(index[0]), np.bool_), index), shape=shape).tocsr()
    result.data[:] = True  # entries of several zones stay True: OR, never a sum
    return result


def embedded(
    zone: Zone, places: Sequence[int], shape: tuple[tuple[int, ...], tuple[int, ...]]
) -> Zone:
    """Return a region's zone within a pattern's shape: axis k at `places[k]`, others free."""
    axes = [plain(size) for side in shape for size in side]
    for k, axis in zip(places, zone.frame.output, strict=True):
        axes[k] = axis
    n = len(shape[0])
    whole = frame(tuple(axes[:n]), tuple(axes[n:]))
    moved = {
        v: w
        for k, position in enumerate(places)
        for v, w in zip(zone.frame.digits(k), whole.digits(position), strict=True)
    }
    d = whole.free.copy()
    place(d, list(moved.values()), zone.block(list(moved)))
    relations = (r.moved(moved).between(whole.outputs, whole.sizes) for r in zone.relations)
    return Zone(whole, d, frozenset(moved[v] for v in zone.flipped), tuple(relations))


def row_major(input_shape: Shape, output_shape: Shape) -> tuple[tuple[Zone, ...], tuple[str, ...]]:
    """Return the zones of a reshape, and what had to be left out of them."""
    if not prod(input_shape):
        return (), ()
    flat = [_flat_strides(shape) for shape in (output_shape, input_shape)]
    ends = {1, prod(input_shape)}
    breaks = {s for side in flat for s in side} | ends
    even = {b for b in breaks if all(divides(c, b) or divides(b, c) for c in breaks)}
    common = sorted(even | ends)
    axes: list[list[Axis]] = []
    strides: list[list[int]] = []
    for shape, side in zip((output_shape, input_shape), flat):
        axes.append([])
        strides.append([])
        for n, s in zip(shape, side):
            inner = sorted(
                {s, *(b for b in common if s < b < s * n and divides(s, b))}, reverse=True
            )
            axes[-1].append(Axis(n, tuple(b // s for b in inner)) if n > 1 else plain(1))
            strides[-1] += inner if n > 1 else []
    f = frame(tuple(axes[0]), tuple(axes[1]))
    d = f.free.copy()
    relations = []
    notes = []
    for low, high in pairwise(common):
        rows = [v for v, s in enumerate(strides[0], 1) if low <= s < high]
        columns = [v for v, s in enumerate(strides[1], f.outputs + 1) if low <= s < high]
        if len(rows) == len(columns) == 1:
            d[rows[0], columns[0]] = d[columns[0], rows[0]] = 0
        elif small(size := high // low, LIMIT):
            import scipy.sparse as sp  # a fifth of a second, for explicit entries alone

            same = sp.eye_array(size, dtype=np.bool_, format="csr")
            relations.append(Relation(tuple(rows), tuple(columns), same))
        else:
            notes.append(
                f"reshape {shape_text(input_shape)} to {shape_text(output_shape)}: "
                "strides that do not divide each other"
            )
    closed = dbm.close(d)
    zones = () if closed is None else (Zone(f, closed, frozenset(), tuple(relations)),)
    return zones, tuple(notes)


def _flat_strides(shape: Shape) -> list[int]:
    """Return the step of each axis in the flat index."""
    return [prod(shape[k + 1 :]) for k in range(len(shape))]


class Readable(Protocol):
    """What words and colours need of a pattern: its zones, and the algebra of patterns."""

    @property
    def output_shape(self) -> Shape:
        """The shape of the output."""

    @property
    def input_shape(self) -> Shape:
        """The shape of the input."""

    @property
    def zones(self) -> tuple[Zone, ...]:
        """The zones whose union it is."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix."""

    @property
    def nnz(self) -> int:
        """The number of entries, at most."""

    @property
    def exact(self) -> bool:
        """Whether that is the number of entries."""

    @property
    def is_zero(self) -> bool:
        """Whether there is no entry."""

    @property
    def is_dense(self) -> bool:
        """Whether every entry may be nonzero."""

    @property
    def T(self) -> Self:
        """The transpose."""

    def __matmul__(self, other: Self) -> Self: ...

    def covers(self, other: Self) -> bool:
        """Return whether all entries of the other are entries here."""

    def to_scipy(self) -> Any:
        """Return the boolean matrix as a `scipy.sparse.csr_array`."""

    @classmethod
    def of_zones(cls, output_shape: Shape, input_shape: Shape, zones: Iterable[Zone]) -> Self:
        """Return the union of zones."""

    @classmethod
    def from_axes(cls, output_shape: Shape, input_shape: Shape, bounds: Iterable[Bound]) -> Self:
        """Return the entries whose axes satisfy all bounds."""

    @classmethod
    def union(cls, patterns: Iterable[Self]) -> Self:
        """Return the union of patterns."""


def axis_place(axis: int, output_shape: Shape, input_shape: Shape) -> int:
    """Return the position of axis k or ~k among all axes."""
    k = axis if axis >= 0 else len(output_shape) + ~axis
    side = output_shape if axis >= 0 else input_shape
    if (axis if axis >= 0 else ~axis) >= len(side):
        which = f"output axis {axis}" if axis >= 0 else f"input axis {~axis} (written ~{~axis})"
        raise InputError(f"there is no {which}; the shape there is {side}")
    return k
