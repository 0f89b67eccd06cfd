"""Which passes give every entry of a whole Jacobian, over all of its inputs and outputs.

Columns of one colour share no row, so that one JVP gives them all (Curtis, Powell and Reid, On the
estimation of sparse Jacobian matrices, 1974); rows of one colour take one VJP. Closed forms come
from the patterns; where the matrix can be listed, greedy colourings in three orders compete with
them (Coleman and More, Estimation of sparse Jacobian matrices and graph coloring problems, 1983),
a few rows may be read by VJPs and the rest by JVPs (Coleman and Verma, The efficient computation
of sparse Jacobian matrices using automatic differentiation, 1998), and a symmetric matrix may be
read by columns and rows (star colourings: Coleman and More, Estimation of sparse Hessian matrices
and graph coloring problems, 1984). The fewest passes win.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from gradlab.errors import InputError
from gradlab.patterns import Pattern
from gradlab.patterns.colouring import WORK, greedy
from gradlab.patterns.size import has_number, rank

Indices = np.ndarray[Any, np.dtype[np.int64]]
Mode = Literal["jvp", "vjp"]
Block = tuple[int, int]
"""Numbers of an output leaf and of an input leaf."""

_LISTED = 1 << 22
_ORDERED = 1 << 17  # entries up to which columns are coloured one by one
_STAR = 1 << 15
_NEIGHBOURS = 1 << 22
_HEADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True, eq=False)
class Plan:
    """The passes that give every entry of a matrix.

    Attributes:
        shape: of the matrix: entries of all outputs, entries of all inputs.
        jvps: how many JVPs.
        vjps: how many VJPs.
        columns: the JVP that each column is in, -1 for none.
        rows: the VJP that each row is in, -1 for none.
        preferred: the mode from which an entry is read whose row and column are both in a pass.
        mirrors: where the matrix is symmetric once its rows are reordered, the column that
            mirrors each row. An entry may then be read from the column of its row.
    """

    shape: tuple[int, int]
    jvps: int = 0
    vjps: int = 0
    columns: Indices | None = None
    rows: Indices | None = None
    preferred: Mode = "vjp"
    mirrors: Indices | None = None

    @property
    def count(self) -> int:
        """The number of passes."""
        return self.jvps + self.vjps

    def places(self, rows: Indices, columns: Indices) -> Indices:
        """Return where entries stand in what the passes give, the JVPs' first, each flattened.

        Args:
            rows: of all entries of the matrix, or of some if it is not symmetric.
            columns: of the same entries.
        """
        m, n = self.shape
        found = np.zeros(len(rows), np.int64)
        if self.columns is not None:
            found = self.columns[columns] * m + rows
            if self.mirrors is not None:
                alone = np.bincount(found, minlength=self.jvps * m)[found] == 1
                mirrored = self.columns[self.mirrors[rows]] * m + np.argsort(self.mirrors)[columns]
                found = np.where(alone, found, mirrored)
        if self.rows is not None:
            backward = self.jvps * m + self.rows[rows] * n + columns
            chosen = self.rows[rows] >= 0
            if self.columns is not None and self.preferred == "jvp":
                chosen = self.columns[columns] < 0
            found = np.where(chosen, backward, found)
        return found


def plan_for(
    patterns: Mapping[Block, Pattern],
    outputs: Sequence[int],
    inputs: Sequence[int],
    modes: Sequence[str],
    mirrors: Sequence[int],
) -> Plan:
    """Return the passes for a matrix of blocks, as few as are found.

    Args:
        patterns: of each block, by the numbers of its output and its input.
        outputs: the number of entries of each output.
        inputs: the same of each input.
        modes: what AD can run: "jvp", "vjp" or both.
        mirrors: for each output the input that mirrors it; empty if no symmetry is known.
    """
    shape = sum(outputs), sum(inputs)
    if not all(map(has_number, shape)):  # block by block, in closed form
        found = [
            min((p.colours(mode) for mode in modes), key=lambda c: rank(c.count))
            for p in patterns.values()
        ]
        jvps, vjps = (sum(c.count for c in found if c.mode == mode) for mode in ("jvp", "vjp"))
        return Plan(shape, jvps, vjps)
    options: list[Plan] = []
    tried = modes
    if "jvp" in modes:
        count, colours = _closed(patterns, inputs)
        options.append(Plan(shape, jvps=count, columns=colours))
        if count <= 1:
            return options[0]
        if _mirrored(patterns):  # rows are coloured as columns are
            tried = ("jvp",)
    if "vjp" in tried:
        flipped = {(i, o): pattern.T for (o, i), pattern in patterns.items()}
        count, colours = _closed(flipped, outputs)
        options.append(Plan(shape, vjps=count, rows=colours))
    best = _fewest(options)
    entries = sum(pattern.nnz for pattern in patterns.values())
    if best.count <= 1 or entries > _LISTED or entries == math.prod(shape):
        return best
    matrix = listed(patterns, outputs, inputs)
    options.append(best)
    for mode in tried:
        here = matrix if mode == "jvp" else matrix.T.tocsr()
        least = _widest(here)
        count = _fewest(options).count
        if least < count and (entries <= _ORDERED or 4 * count > 5 * least):
            colours = _greedy(here, least, len(patterns) > 1)
            count = int(colours.max(initial=-1)) + 1
            options.append(
                Plan(shape, jvps=count, columns=colours)
                if mode == "jvp"
                else Plan(shape, vjps=count, rows=colours)
            )
    if mirrors and "jvp" in modes and _fewest(options).count > 2:
        starts = np.cumsum([0, *inputs])
        equal = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in mirrors])
        options += _by_symmetry(matrix, equal)
    if len(modes) == 2 and _fewest(options).count > 2:
        options += _both_ways(matrix, _fewest(options).count)
    return _fewest(options)


def listed(patterns: Mapping[Block, Pattern], outputs: Sequence[int], inputs: Sequence[int]) -> Any:
    """Return the boolean CSR matrix of all blocks, its columns sorted within each row.

    Raises:
        InputError: listing its entries takes too much memory.
    """
    if len(patterns) == 1:
        matrix = next(iter(patterns.values())).to_scipy().tocsr()
    else:
        blocks = [
            [
                patterns[o, i].to_scipy() if patterns[o, i].nnz else sp.coo_array((m, n), dtype="?")
                for i, n in enumerate(inputs)
            ]
            for o, m in enumerate(outputs)
        ]
        matrix = sp.block_array(blocks, format="csr")
    matrix.sort_indices()
    return matrix


def _mirrored(patterns: Mapping[Block, Pattern]) -> bool:
    """Return whether the matrix has an entry wherever its transpose has one."""
    pattern, *others = patterns.values()
    same = not others and pattern.input_shape == pattern.output_shape
    return same and pattern.covers(pattern.T)


def _fewest(options: Sequence[Plan]) -> Plan:
    if not options:
        raise InputError("modes: AD can run neither JVPs nor VJPs")
    return min(options, key=lambda plan: plan.count)


def _closed(patterns: Mapping[Block, Pattern], inputs: Sequence[int]) -> tuple[int, Indices]:
    """Return a colouring of the columns, leaf by leaf; leaves that share no output share colours.

    The colours of a leaf that several outputs read are those of all blocks in one number.
    """
    found: list[tuple[int, Indices]] = []
    for i, size in enumerate(inputs):
        colours, count = np.zeros(size, np.int64), 1
        blocks = [p for (_, k), p in patterns.items() if k == i and not p.is_zero]
        for pattern in dict.fromkeys(blocks):
            if count >= size:
                break
            own = pattern.colours("jvp")
            colours, count = colours * own.count + own.assignment(), count * own.count
        if count > size or (count > 1 and len(blocks) > 1):
            used, colours = np.unique(colours, return_inverse=True)
            count = len(used)
        found.append((count if blocks else 0, colours))
    reads = [{o for (o, k), p in patterns.items() if k == i and p.nnz} for i in range(len(inputs))]
    starts = [0] * len(inputs)
    placed: list[int] = []
    for i in sorted(range(len(inputs)), key=lambda i: -found[i][0]):
        for k in sorted(placed, key=lambda k: starts[k]):
            meets = starts[i] < starts[k] + found[k][0] and starts[k] < starts[i] + found[i][0]
            if meets and reads[i] & reads[k]:
                starts[i] = starts[k] + found[k][0]
        placed.append(i)
    total = max((start + count for start, (count, _) in zip(starts, found)), default=0)
    parts = [
        colours + start if count else np.full(len(colours), -1)
        for start, (count, colours) in zip(starts, found)
    ]
    return total, np.concatenate([np.zeros(0, np.int64), *parts])


def _widest(matrix: Any) -> int:
    """Return the most entries of a row: no colouring of the columns has fewer colours."""
    return int(np.diff(matrix.indptr).max(initial=0))


def _greedy(matrix: Any, least: int, joined: bool) -> Indices:
    """Return the best greedy colouring of the columns, of three orders.

    A block that is the matrix has been coloured in the order of its columns already.
    """
    best: Indices = np.arange(matrix.shape[1])
    for order in _orders(matrix, joined):
        if int(best.max(initial=-1)) + 1 == least:
            break
        colours = np.empty(matrix.shape[1], np.int64)
        colours[order] = greedy(matrix[:, order])
        best = min(best, colours, key=lambda c: int(c.max(initial=-1)))
    return best


def _orders(matrix: Any, joined: bool) -> Iterator[Indices]:
    """Yield orders of the columns: first to last, most neighbours first, then last to first."""
    if joined or matrix.nnz > WORK:
        yield np.arange(matrix.shape[1])
    if matrix.nnz > _ORDERED:
        return
    rows = np.diff(matrix.indptr).astype(np.float64)
    if float(rows @ rows) <= _NEIGHBOURS:
        wide = matrix.astype(np.int32)
        yield np.argsort(-np.diff((wide.T @ wide).tocsc().indptr), kind="stable")
    yield np.arange(matrix.shape[1])[::-1]


def _both_ways(matrix: Any, most: int) -> list[Plan]:
    """Return plans that read the fullest rows by VJPs and the rest by JVPs, or the reverse."""
    plans = []
    for turned in (False, True):
        here = matrix.T.tocsr() if turned else matrix
        sizes = np.diff(here.indptr)
        fullest = np.argsort(-sizes, kind="stable")
        ordered = sizes[fullest]
        heads = [k for k in _HEADS if k < min(most, len(ordered))]
        if not heads:
            continue
        number = min(heads, key=lambda k: k + int(ordered[k]))
        least = number + int(ordered[number])
        if 5 * least > 4 * most or least > ordered[0]:  # two programs to compile, for little
            continue
        rows = np.full(here.shape[0], -1, np.int64)
        taken = np.sort(fullest[:number])
        rows[taken] = greedy(here[taken].T.tocsr())
        rest = np.setdiff1d(np.arange(here.shape[0]), taken)
        colours = _greedy(here[rest], int(ordered[number]), True)
        across, along = int(colours.max(initial=-1)) + 1, int(rows.max()) + 1
        plans.append(
            Plan(matrix.shape, along, across, rows, colours, preferred="jvp")
            if turned
            else Plan(matrix.shape, across, along, colours, rows)
        )
    return plans


def _by_symmetry(matrix: Any, mirrors: Indices) -> list[Plan]:
    """Return plans for a symmetric matrix that read some entries from the column of their row."""
    matrix = matrix[np.argsort(mirrors)]
    if (matrix != matrix.T).nnz:
        return []
    options = []
    neighbours = np.diff(matrix.indptr) - matrix.diagonal()
    fullest = np.argsort(-neighbours, kind="stable")
    ordered = np.sort(fullest)
    heads = [k for k in _HEADS if k < matrix.shape[0]]
    bounds = {k: k + _widest(_without(matrix, fullest[:k])) for k in heads}
    if bounds:
        number = min(heads, key=lambda k: bounds[k])
        others = np.setdiff1d(ordered, fullest[:number])
        colours = np.empty(matrix.shape[0], np.int64)
        colours[fullest[:number]] = np.arange(number)
        rest = _without(matrix, fullest[:number])
        colours[others] = number + _greedy(rest, _widest(rest), True)
        options.append(colours)
    if matrix.nnz <= _STAR:
        orders = np.arange(matrix.shape[0]), fullest
        options += [_star(matrix, order, ahead) for order in orders for ahead in (True, False)]
    plans = [
        Plan(matrix.shape, int(colours.max()) + 1, 0, colours, mirrors=mirrors)
        for colours in options
    ]
    return [plan for plan in plans if _told_apart(plan, matrix)]


def _without(matrix: Any, taken: Indices) -> Any:
    others = np.setdiff1d(np.arange(matrix.shape[0]), taken)
    return matrix[others][:, others]


def _told_apart(plan: Plan, matrix: Any) -> bool:
    """Return whether each entry, or its mirror image, is alone where it is read."""
    assert plan.columns is not None
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    place = plan.columns[matrix.indices] * matrix.shape[0] + row
    mirrored = plan.columns[row] * matrix.shape[0] + matrix.indices
    number = np.bincount(place, minlength=plan.jvps * matrix.shape[0])
    return bool(((number[place] == 1) | (number[mirrored] == 1)).all())


def _star(matrix: Any, order: Indices, ahead: bool) -> Indices:
    """Return a star colouring: no path of four vertices has two colours alone.

    Greedy, vertex by vertex: Gebremedhin, Tarafdar, Manne and Pothen, New acyclic and star coloring
    algorithms with application to computing Hessians, 2007, algorithm 4.1.

    Args:
        matrix: whose entries join two vertices.
        order: of the vertices.
        ahead: whether all neighbours of a vertex without a colour get different ones.
    """
    near = [
        [k for k in row.tolist() if k != j]
        for j, row in enumerate(np.split(matrix.indices, matrix.indptr[1:-1]))
    ]
    colours = [-1] * matrix.shape[0]
    for v in order.tolist():
        taken: set[int] = set()
        beside = [colours[w] for w in near[v]]
        for w, own in zip(near[v], beside):
            if own < 0:
                taken.update(colours[x] for x in near[w] if ahead and x != v)
                continue
            taken.add(own)
            middle = not ahead and beside.count(own) > 1  # v would join two paths
            for x in near[w]:
                path = x != v and colours[x] >= 0 and colours[x] not in taken
                if path and (middle or any(colours[y] == own for y in near[x] if y != w)):
                    taken.add(colours[x])
        colour = 0
        while colour in taken:
            colour += 1
        colours[v] = colour
    return np.array(colours, np.int64)
