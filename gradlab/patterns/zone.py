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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from gradlab.patterns import bounds as dbm
from gradlab.patterns.bounds import Bounds, Indices
from gradlab.patterns.digits import Axis, Frame, frame, plain

__all__ = ["Relation", "Zone", "full", "place", "relation"]


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
            self.memory["key"] = (self.frame, self.bounds.tobytes(), self.flipped, relations)
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
