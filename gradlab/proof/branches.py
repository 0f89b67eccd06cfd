"""Which sides of a program's conditions its inputs take, and inputs nearby that take the others.

A *site* is an equation whose outcome depends on the inputs: a comparison, a maximum, a clamp, an
absolute value, a branch. What rounds to whole numbers, or chooses entries by their order, is one
too: its other side is any other outcome than at the given inputs. Programs are evaluated at many
inputs in one pass; each pass records which sides were taken, and the margin: how far the numbers
are from the other side.
"""

import ast
import linecache
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice, permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.proof.arithmetic import CHOICES
from gradlab.tracing import Program, walk
from gradlab.tracing.arithmetic import NumPy, convert, widen_dtype
from gradlab.tracing.callbacks import Refused, run_callbacks
from gradlab.tracing.evaluate import Value
from gradlab.tracing.interpreter import TooLong
from gradlab.tracing.jaxprs import (
    NOT_THE_USERS,
    Equation,
    Literal,
    dtype_of,
    source_path,
    written_in,
)
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.lift import Lifter
from gradlab.tracing.program import without_checks

__all__ = ["Outcomes", "Place", "Side", "Walked", "outcomes", "walk_branches"]

Arrays = dict[str, NDArray[Any]]

_LARGEST = 1 << 22  # entries times points of one pass
_TURNS = 1 << 12
_HALVINGS, _DEPTH = 12, 3  # of the way to a boundary, and how many in one pass
_BEYOND = 0.05  # how far past a boundary the judged point stands
_SLOPES = 64  # directions along which margins are followed
_MOST = 8  # points to judge
_APART = 3  # of them where sides are taken together that were not, and the gradients differ
_COMBINED = 64  # sites whose sides are put together
_ENTRIES = 1 << 12  # of each, at most
_COMPARED_MOST = 24  # points at which gradients are compared
_SAME = 1e-7  # relative: gradients that differ by less are taken for the same
_OTHERS = 3  # of them for each input of whole numbers
_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_WITH_NUMBERS = (*_COMPARED, "eq", "ne", "max", "min", "clamp")


@dataclass(frozen=True)
class Side:
    """One side of a condition: "`x > 20` is true", with its line, and the other side's words."""

    line: str
    text: str
    opposite: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text}" if self.line else self.text

    @property
    def other(self) -> str:
        """The other side, as text."""
        return f"{self.line}: {self.opposite}" if self.line else self.opposite


@dataclass(frozen=True, eq=False)
class Place:
    """Inputs that gradlab made, which take sides that the given inputs do not."""

    inputs: Arrays
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class Walked:
    """What walking found: places to judge, sides that nothing took, and what was tried."""

    places: tuple[Place, ...]
    unreached: tuple[Side, ...]
    sites: int
    runs: int
    reason: str = ""  # why nothing was tried


Key = tuple[int, ...]
Target = tuple[Key, int]  # a site and one of its sides; no site: the gradients differ


@dataclass(eq=False)
class _Site:
    """One equation, at one place in the program, over all points of a pass."""

    equation: Equation
    line: str
    taken: dict[int, NDArray[np.bool_]]  # by side: which points take it, in some entry
    margins: NDArray[np.float64] | None  # (points, entries); above zero on side 1
    sides: NDArray[np.bool_] | None  # (points, entries): whether side 1 is taken


@dataclass(frozen=True, eq=False)
class _Pass:
    """Some points: the sites that they met, and the gradients of the program that is judged."""

    points: Sequence[Arrays]
    sites: dict[Key, _Site]
    gradients: list[NDArray[Any]]

    def combinations(self, point: int) -> set[tuple[int, bytes]]:
        """Return which sides one entry takes together, as bits, by how many entries there are."""
        rows: dict[int, list[NDArray[np.bool_]]] = {1: []}
        for site in list(self.sites.values())[:_COMBINED]:
            if site.sides is not None:
                row = site.sides[point, :_ENTRIES]
                rows.setdefault(len(row), []).append(row)
        found = set[tuple[int, bytes]]()
        for n, each in rows.items():
            if each:
                table = np.stack([np.broadcast_to(r, n) for r in (*rows[1], *each)], 1)
                bits = np.packbits(table, 1)
                found |= {(n, column.tobytes()) for column in np.unique(bits, axis=0)}
        return found


class Outcomes(NamedTuple):
    """What some inputs decide: the sides that they take, and which entries are chosen, as keys."""

    sides: Hashable
    chosen: Hashable


def outcomes(programs: Sequence[Program], inputs: Mapping[str, NDArray[Any]]) -> Outcomes | None:
    """Return what the inputs decide in some programs; None where that cannot be told.

    Example:
        >>> import jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> program = trace(lambda x: jnp.where(x > 20.0, x, 2.0 * x), np.ones(3))
        >>> low, high = (outcomes([program], {"x": np.full(3, x)}) for x in (1.0, 21.0))
        >>> low == outcomes([program], {"x": np.full(3, 2.0)}), low == high
        (True, False)
    """
    start = {name: _wide(np.asarray(array)) for name, array in inputs.items()}
    if sum(array.size for array in start.values()) * 8 > _LARGEST:
        return None
    every = len(programs)
    walk = _Walk(programs, start, (), lambda inputs: True, 0, lambda inputs: True, every, None)
    try:
        with without_checks(), np.errstate(all="ignore"):
            found = walk.tried([start])
    except TooLong:
        return None
    if found is None:
        return None
    sides = [
        (key[0], site.line, *((side, bool(taken[0])) for side, taken in site.taken.items()))
        for key, site in found.sites.items()
    ]
    chosen = [(given.shape, given.tobytes()) for given in walk.given.values()]
    return Outcomes(tuple(sides), tuple(chosen))


def walk_branches(
    programs: Sequence[Program],
    inputs: Mapping[str, NDArray[Any]],
    moved: Sequence[str],
    legal: Callable[[Arrays], bool] = lambda inputs: True,
    seed: int = 0,
    holds: Callable[[Arrays], bool] = lambda inputs: True,
    deciding: int = 0,
    pair: tuple[int, Program, int] | None = None,
) -> Walked:
    """Find inputs near the given ones that take the sides which these do not take.

    Args:
        programs: those whose conditions count; their inputs have the names of `inputs`.
        inputs: where to start from, by name.
        moved: the names of the inputs that may be moved; without any, the sides that the given
            inputs do not take are listed.
        legal: whether inputs lie in the domain that the user stated.
        seed: of the random directions.
        holds: whether the programs are the function at some inputs; where they are not, the last
            ones alone count, which say why.
        deciding: how many these are.
        pair: the number of the program that is judged, the one that is believed, and how many of
            their outputs are no gradients. Where both sides of two nested conditions were taken,
            and not together, inputs are looked for at which these differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> program = trace(lambda x: jnp.where(x > 20.0, x, 2.0 * x), jnp.ones(3))
        >>> found = walk_branches([program], {"x": np.ones(3)}, ["x"])
        >>> round(float(found.places[0].inputs["x"].max()), 1), found.unreached
        (20.1, ())
    """
    start = {name: _wide(np.asarray(array)) for name, array in inputs.items()}
    size = sum(array.size for array in start.values())
    if size * 8 > _LARGEST:
        return Walked((), (), 0, 0, "the inputs are too large to be moved")
    try:
        with without_checks(), np.errstate(all="ignore"):
            always = len(programs) - deciding
            walk = _Walk(programs, start, moved, legal, seed, holds, always, pair)
            return walk.found()
    except TooLong:
        return Walked((), (), 0, 0, "a loop runs too often")


class _Walk:
    """All passes over some programs from one starting point."""

    def __init__(
        self,
        programs: Sequence[Program],
        start: Arrays,
        moved: Sequence[str],
        legal: Callable[[Arrays], bool],
        seed: int,
        holds: Callable[[Arrays], bool],
        always: int,
        pair: tuple[int, Program, int] | None,
    ) -> None:
        self.programs, self.start, self.legal = programs, start, legal
        self.holds, self.always, self.pair = holds, always, pair
        self.moved = [name for name in moved if start[name].size]
        self.rng = np.random.default_rng([seed, 17])
        self.runs = 0
        self.given: dict[Key, NDArray[Any]] = {}
        self.compared = 0
        size = sum(array.size for array in start.values())
        self.most = max(8, min(64, _LARGEST // max(1, size)))

    def found(self) -> Walked:
        """Return the places to judge, after all ways of moving were tried."""
        here = self.visit([self.start])
        sites, self.together = here.sites, here.combinations(0)
        wanted = {
            (key, side) for key, site in sites.items() for side, taken in site.taken.items()
            if not taken.any()
        }  # fmt: skip
        reached: dict[Target, Arrays] = {}
        self.look(list(self.moves()), wanted, reached)
        for _ in range(2):
            if wanted - reached.keys():
                self.look(list(self.steps(sites, wanted - reached.keys())), wanted, reached)
        if self.pair is not None:
            several = islice(self.joined(list(reached.values())), self.most)
            self.look(list(several), wanted, reached)
        places: dict[bytes, tuple[Arrays, list[Side]]] = {}
        for target, (before, point) in self.nearest(self.first(reached)).items():
            apart = target not in wanted
            new = self.crossed(before, point) if apart else [_side(sites[target[0]], target[1])]
            number = b"".join(array.tobytes() for array in point.values())
            places.setdefault(number, (point, []))[1].extend(new)
        judged = list(places.values())
        for name, others in self.whole_moves().items():
            side = Side("", f"{name} holds other whole numbers", f"{name} is as given")
            others = [p for p in others if not np.array_equal(p[name], self.start[name])]
            judged += [(point, [side]) for point in others[:_OTHERS] if self.legal(point)]
        decided = {
            _side(sites[k], side) for k, side in wanted & reached.keys() if k[0] >= self.always
        }
        unreached = [_side(sites[key], side) for key, side in sorted(wanted - reached.keys())]
        unreached = [side for side in unreached if side not in decided]
        return Walked(
            tuple(Place(p, tuple(dict.fromkeys(s))) for p, s in judged[:_MOST]),
            tuple(dict.fromkeys(unreached)),
            len(sites),
            self.runs,
        )

    def first(self, reached: Mapping[Target, Arrays]) -> dict[Target, Arrays]:
        """Return some of the targets, first those whose gradients differ where they are reached."""
        apart: list[bool] = []
        points = list(reached.values())
        for start in range(0, len(points) if len(points) > _MOST else 0, self.most):
            found = self.tried(points[start : start + self.most])
            count = len(points[start : start + self.most])
            apart += list(self.apart(found, range(count))) if found is not None else [True] * count
        order = sorted(zip(apart or [True] * len(points), reached), key=lambda each: not each[0])
        return {target: reached[target] for _, target in order[: 2 * _MOST]}

    def visit(self, points: Sequence[Arrays]) -> _Pass:
        """Evaluate all programs at some points in one pass."""
        found: dict[Key, _Site] = {}
        self.runs += len(points)
        gradients: list[NDArray[Any]] = []
        for number, program in enumerate(self.programs):
            watcher = _Watcher((number,), len(points), found, self.given)
            outputs = watcher(program.jaxpr, self._columns(program, points))
            if self.pair is not None and self.pair[0] == number:
                every = [output.array for output in outputs[self.pair[2] :]]
                shapes = [aval.shape for aval in program.out_avals[self.pair[2] :]]
                gradients = [np.broadcast_to(a, (len(points), *s)) for a, s in zip(every, shapes)]
        return _Pass(points, found, gradients)

    def apart(self, found: _Pass, which: Sequence[int]) -> NDArray[np.bool_]:
        """Return at which of some points the gradient differs from the one that is believed."""
        if self.pair is None or not which:
            return np.zeros(len(which), bool)
        _, believed, skipped = self.pair
        columns = self._columns(believed, [found.points[k] for k in which])
        others = Lifter(NumPy())(believed.jaxpr, columns)[skipped:]
        differ = np.zeros(len(which), bool)
        for mine, other in zip(found.gradients, others):
            differ |= _differ(mine[list(which)], other.array)
        return differ

    def _columns(self, program: Program, points: Sequence[Arrays]) -> list[Value]:
        return [
            Value(
                convert(np.stack([point[name] for point in points]), widen_dtype(aval.dtype)),
                is_inexact(aval.dtype),
            )
            for name, aval in zip(program.in_names, program.in_avals)
        ]

    def tried(self, points: Sequence[Arrays]) -> _Pass | None:
        """Return what some points meet; None where a callback refuses to run."""
        try:
            return run_callbacks(partial(self.visit, points))
        except Refused:
            return None

    def look(
        self, points: Sequence[Arrays], wanted: set[Target], reached: dict[Target, Arrays]
    ) -> None:
        """Note for each wanted side the first of some points that takes it.

        Note points as well at which an entry takes sides together that none took, and the gradients
        differ.
        """
        points = [point for point in points if self.legal(point)]
        for first in range(0, len(points), self.most):
            some = points[first : first + self.most]
            found = self.tried(some)
            if found is None and len(some) > 1:  # a callback refuses one of them
                for point in some:
                    self.look([point], wanted, reached)
            if found is None:
                continue
            held = np.array([self.always == len(self.programs) or self.holds(p) for p in some])
            for key, site in found.sites.items():
                for side, takes in site.taken.items():
                    taken = takes if key[0] >= self.always else takes & held
                    if (key, side) in wanted and (key, side) not in reached and taken.any():
                        reached[key, side] = some[int(np.argmax(taken))]
            fresh = []
            for k in map(int, np.flatnonzero(held) if self.pair is not None else ()):
                together = found.combinations(k) - self.together
                if together and self.compared < _COMPARED_MOST:
                    self.compared += 1
                    self.together |= together
                    fresh.append(k)
            for k, apart in zip(fresh, self.apart(found, fresh)):
                count = sum(not target[0] for target in reached)
                if apart and count < _APART:
                    reached[(), count] = some[k]

    def nearest(self, reached: Mapping[Target, Arrays]) -> dict[Target, tuple[Arrays, Arrays]]:
        """Return, for each target, the last point before its boundary and one a little beyond.

        Both lie on the way to the point where it was reached. Many points cost what one does, where
        they are small.
        """
        low, high = dict.fromkeys(reached, 0.0), dict.fromkeys(reached, 1.0)
        depth = _DEPTH if len(reached) << _DEPTH <= self.most else 1
        for _ in range(_HALVINGS // depth if reached else 0):
            ways = {t: _between(low[t], high[t], depth) for t in reached}
            found = self.tried([self.between(reached[t], s) for t in reached for s in ways[t]])
            if found is None:
                return {target: (self.start, point) for target, point in reached.items()}
            beyond = self.beyond(found, [t for t in reached for _ in ways[t]])
            for (target, shares), taken in zip(ways.items(), beyond.reshape(len(ways), -1)):
                first = int(np.argmax(taken)) if taken.any() else len(shares)
                ends = [low[target], *shares, high[target]]
                low[target], high[target] = ends[first], ends[first + 1]
        shares_ = [h + _BEYOND * min(h, 1 - h) for h in high.values()]
        points = [self.between(reached[t], share) for t, share in zip(reached, shares_)]
        found = self.tried(points) if points else None
        stand = [False] * len(points) if found is None else self.beyond(found, list(reached))
        nearest: dict[Target, tuple[Arrays, Arrays]] = {}
        for target, point, stands in zip(reached, points, stand):
            stands = stands and (target[0][:1] >= (self.always,) or self.holds(point))
            there = point if stands and self.legal(point) else reached[target]
            nearest[target] = self.between(reached[target], low[target]), there
        return nearest

    def beyond(self, found: _Pass, targets: Sequence[Target]) -> NDArray[np.bool_]:
        """Return, for the target of each point, whether it is on the far side of the boundary."""
        stand = np.zeros(len(targets), bool)
        which = [k for k, target in enumerate(targets) if not target[0]]
        stand[which] = self.apart(found, which)
        for k, (key, side) in enumerate(targets):
            site = found.sites.get(key)
            if site is not None:
                stand[k] = site.taken[side][k]
        return stand

    def crossed(self, before: Arrays, after: Arrays) -> list[Side]:
        """Return the sides that change in some entry between two points."""
        sites = self.visit([before, after]).sites.values()
        found = [
            _side(site, int(site.sides[1][np.argmax(site.sides[0] ^ site.sides[1])]))
            for site in sites
            if site.sides is not None and (site.sides[0] ^ site.sides[1]).any()
        ]
        together = Side("", "conditions hold in another combination", "they hold as they do here")
        return found or [together]

    def between(self, far: Arrays, share: float) -> Arrays:
        """Return the point on the way; whole numbers are those of the far one."""
        return {
            name: self.start[name] + share * (array - self.start[name])
            if is_inexact(array.dtype)
            else array
            for name, array in far.items()
        }

    # ways of moving

    def moves(self) -> Iterator[Arrays]:
        """Yield inputs that are scaled, rearranged, or set beside the program's constants.

        What moves them far comes last: the first that takes a side is kept.
        """
        floats = [name for name in self.moved if is_inexact(self.start[name].dtype)]
        groups = [floats] if len(floats) < 2 else [floats, *([name] for name in floats)]
        for group in groups:
            for factor in (2.0, 0.5, -1.0, 8.0, 0.1):
                yield self.with_(group, partial(np.multiply, factor))
        for name in floats:
            array = self.start[name]
            if array.ndim:
                yield self.with_([name], lambda a: a[..., ::-1])
                yield self.with_([name], lambda a: np.roll(a, 1, -1))
                yield self.with_([name], lambda a: self.rng.permutation(a, axis=-1))
            if array.ndim > 1:
                yield self.with_([name], lambda a: np.concatenate([0 * a[:1], a[1:]]))
        for others in self.whole_moves().values():
            yield from others
        for group in groups:
            for number in self.numbers():
                for shift in (0.05, -0.05):
                    beside = number + shift * max(abs(number), 1e-3)
                    yield self.with_(group, partial(np.full_like, fill_value=beside))
            for factor in (64.0, 1e-3, 1e3, -64.0, 1e6, 1e-6, 0.0):
                yield self.with_(group, partial(np.multiply, factor))

    def joined(self, points: Sequence[Arrays]) -> Iterator[Arrays]:
        """Yield what moves one input as one of the points does, and the others as another."""
        if len(self.moved) > 1:
            for first, second in permutations(points[:_MOST], 2):
                yield from ({**second, name: first[name]} for name in self.moved)

    def whole_moves(self) -> dict[str, list[Arrays]]:
        """Return, for each input of whole numbers, the program's own numbers in their place."""
        found: dict[str, list[Arrays]] = {}
        indexed = any(
            equation.primitive.name in ("gather", "dynamic_slice", "scatter", "scatter-add")
            for program in self.programs
            for equation, _ in walk(program)
        )
        written_over = any(
            equation.primitive.name == "scatter"
            for number, program in enumerate(self.programs)
            if self.pair is None or number != self.pair[0]
            for equation, _ in walk(program)
        )
        for name in self.moved:
            array = self.start[name]
            if written_over and array.size > 1 and np.unique(array).size == array.size:
                continue  # which of two writes to one place stands is nobody's promise
            if array.dtype == bool:
                changes: list[Callable[[Any], Any]] = [_half_flipped, np.logical_not]
                changes += [np.zeros_like, np.ones_like]
            elif np.issubdtype(array.dtype, np.integer):
                top = array.max(initial=0) if indexed else np.inf
                near = {int(n) + d for n in self.numbers(True) for d in (0, -1, 1)}
                meant = map(int, self.numbers(True, ("eq", "ne")))  # as -100 for what is ignored
                inside = sorted({n for n in near if 0 <= n <= top} | set(meant))
                changes = [partial(np.full_like, fill_value=n) for n in inside]
            else:
                continue
            found[name] = [self.with_([name], change) for change in changes]
        return found

    def with_(self, names: Sequence[str], change: Callable[[Any], Any]) -> Arrays:
        """Return the starting point with some inputs changed."""
        return {n: np.asarray(change(a)) if n in names else a for n, a in self.start.items()}

    def numbers(self, whole: bool = False, by: Sequence[str] = _WITH_NUMBERS) -> list[float]:
        """Return the numbers with which the programs compare."""
        found: dict[float, None] = {}
        for program in self.programs:
            for equation, _ in walk(program):
                if equation.primitive.name in by:
                    for atom in equation.invars:
                        scalar = isinstance(atom, Literal) and np.ndim(atom.val) == 0
                        if scalar and is_inexact(dtype_of(atom)) != whole:
                            found[float(atom.val)] = None
        return [number for number in found if np.isfinite(number)][:8]

    def steps(self, sites: Mapping[Key, _Site], wanted: set[tuple[Key, int]]) -> Iterator[Arrays]:
        """Yield Newton steps towards the other side, along measured slopes of the margins."""
        floats = [name for name in self.moved if is_inexact(self.start[name].dtype)]
        count = sum(self.start[name].size for name in floats)
        if not count:
            return
        if count <= _SLOPES:
            directions = np.eye(count)
        else:
            directions = self.rng.choice([-1.0, 1.0], (_SLOPES, count)) / np.sqrt(count)
        size = np.sqrt(np.mean(np.concatenate([self.start[n].real.ravel() ** 2 for n in floats])))
        step = 1e-6 * max(float(size), 1e-3)
        for first in range(0, len(directions), self.most):
            some = directions[first : first + self.most]
            moved = self.visit([self.along(floats, step * d) for d in some]).sites
            for key, _ in wanted:
                if key not in moved:
                    continue
                here, there = sites[key].margins, moved[key].margins
                if here is None or there is None or here.shape[1] != there.shape[1]:
                    continue
                entry = int(np.argmin(np.abs(here[0])))
                slopes = (there[:, entry] - here[0, entry]) / step
                total = float(slopes @ slopes)
                if total > 0 and np.isfinite(total):
                    way = -here[0, entry] / total * (slopes @ some)
                    for share in (1.05, 1.5, 3.0, 10.0):
                        yield self.along(floats, share * way)

    def along(self, names: Sequence[str], way: NDArray[np.float64]) -> Arrays:
        """Return the starting point plus a step in all entries of some inputs."""
        found, first = dict(self.start), 0
        for name in names:
            array = self.start[name]
            found[name] = array + way[first : first + array.size].reshape(array.shape)
            first += array.size
        return found


class _Watcher(Lifter):
    """Evaluates a program at many points, and notes the sides that each takes."""

    turns = _TURNS

    def __init__(
        self, key: Key, points: int, found: dict[Key, _Site], given: dict[Key, NDArray[Any]]
    ) -> None:
        super().__init__(NumPy())
        self._calls: list[tuple[Equation, Any]] = []
        self._key, self._points, self._found, self._given = key, points, found, given
        self._turns: Counter[Key] = Counter()

    def _open(self, step: Any, inputs: list[Value]) -> list[Value]:
        if step.inner is None:
            return super()._open(step, inputs)
        self._calls.append((step.equation, step.inner))
        try:
            return super()._open(step, inputs)
        finally:
            self._calls.pop()

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        """Evaluate one equation, and note what it decides."""
        outputs = super().equation(equation, inputs)
        name = equation.primitive.name
        drawn = any(np.ndim(v.array) > len(a.aval.shape) for v, a in zip(inputs, equation.invars))
        whole = not any(is_inexact(dtype_of(v.array)) for v in inputs)
        if drawn and whole and name in ("eq", "ne", *_COMPARED):
            if not _wraps(equation):
                flat = outputs[0].array.reshape(self._points, -1)
                self._sides(equation, {0: (~flat).any(1), 1: flat.any(1)}, None, flat)
        elif drawn and name in _MARGINS:
            shape = equation.outvars[0].aval.shape
            arrays = [_drawn(v.array, a, shape) for v, a in zip(inputs, equation.invars)]
            margins = _MARGINS[name](*arrays)
            outcome = outputs[0].array > 0 if name in _COMPARED else None
            if np.isfinite(margins).any():  # a maximum with minus infinity decides nothing
                self._note(equation, margins, outcome)
        elif drawn and (name in _ROUNDED or name in _CHOSEN) and not whole:
            found = outputs[0].array if name in _ROUNDED else self._chosen(equation, inputs)
            self._compare(equation, np.reshape(found, (self._points, -1)))
        return outputs

    def _chosen(self, equation: Any, inputs: Sequence[Value]) -> Any:
        """Return which entries are chosen, by running the primitive on their ranks."""
        x, *others = inputs
        flat = np.broadcast_to(x.array, (self._points, *equation.invars[0].aval.shape))
        order = np.argsort(flat.reshape(self._points, -1), 1, kind="stable")
        ranks = np.argsort(order, 1).astype(np.float64).reshape(flat.shape)
        found = super().equation(equation, [Value(ranks, x.depends), *others])[0].array
        inside = np.reshape(found, (self._points, -1)).clip(0, max(order.shape[1] - 1, 0))
        return np.take_along_axis(order, inside.astype(np.intp), 1)

    def _compare(self, equation: Any, outcome: Any) -> None:
        """Note at which points an outcome is another than at the given inputs."""
        key = self._key_of(equation)
        self._turns[key] += 1
        first = self._given.setdefault((*key, self._turns[key]), outcome[0])
        other = (outcome != first).any(1)
        self._sides(equation, {0: ~other, 1: other}, None)

    def cond(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Choose a branch, and note which."""
        index = np.asarray(inputs[0].array)
        if index.ndim:
            count = len(equation.params["branches"])
            sides = index[:, None] > 0 if count == 2 else None
            self._sides(equation, {k: index == k for k in range(count)}, None, sides)
        return super().cond(equation, inputs)

    def _note(self, equation: Any, margins: Any, outcome: Any) -> None:
        flat = np.broadcast_to(margins, (self._points, *margins.shape[1:]))
        flat = flat.reshape(self._points, -1)
        if outcome is None:
            sides = flat > 0
            taken = {0: (flat < 0).any(1), 1: sides.any(1)}
        else:  # at equality a comparison has an outcome, and no margin
            sides = outcome.reshape(self._points, -1)
            taken = {0: (~sides).any(1), 1: sides.any(1)}
        self._sides(equation, taken, flat, sides)

    def _key_of(self, equation: Any) -> Key:
        return (*self._key, *(id(call) for call, _ in self._calls), id(equation))

    def _sides(self, equation: Any, taken: dict[int, Any], margins: Any, sides: Any = None) -> None:
        key = self._key_of(equation)
        known = self._found.get(key)
        if known is None:
            self._found[key] = _Site(equation, self._line(equation), taken, margins, sides)
        else:  # another turn of a loop
            known.sides = None
            known.taken = {k: known.taken[k] | t for k, t in taken.items()}
            if margins is not None and known.margins is not None:
                closer = np.abs(margins).min(1) < np.abs(known.margins).min(1)
                if margins.shape == known.margins.shape and closer[0]:
                    known.margins = margins

    def _line(self, equation: Any) -> str:
        """Return the user's line: that of the call, where a function of JAX's own was called.

        JAX traces its own functions once, and their equations keep the line of the first call.
        """
        for call, inner in self._calls:
            if written_in(inner).startswith(NOT_THE_USERS):
                return source_path(call)
        return source_path(equation)


def _wraps(equation: Any) -> bool:
    """Return whether a comparison only counts negative indices from the end."""
    atom = equation.invars[1]
    zero = isinstance(atom, Literal) and np.ndim(atom.val) == 0 and atom.val == 0
    return equation.primitive.name == "lt" and zero


def _half_flipped(mask: Any) -> Any:
    """Return a mask with every other entry the opposite."""
    return mask ^ (np.arange(mask.size).reshape(mask.shape) % 2 == 0)


_ROUNDED = frozenset(("argmax", "argmin", "ceil", "floor", "round"))
_CHOSEN = CHOICES - {"clamp", "max", "min"}


def _clamped(low: Any, x: Any, high: Any) -> Any:
    return np.stack([x - low, high - x], -1)


_MARGINS: dict[str, Callable[..., Any]] = {
    "abs": lambda x: np.real(x),
    "clamp": _clamped,
    "ge": lambda x, y: _difference(x, y),
    "gt": lambda x, y: _difference(x, y),
    "le": lambda x, y: -_difference(x, y),
    "lt": lambda x, y: -_difference(x, y),
    "max": lambda x, y: _difference(x, y),
    "min": lambda x, y: -_difference(x, y),
    "sign": lambda x: np.real(x),
}


def _difference(x: Any, y: Any) -> Any:
    found = np.real(x).astype(np.float64) - np.real(y)
    return np.where(np.isnan(found), 0.0, found)


def _drawn(array: Any, atom: Any, shape: tuple[int, ...]) -> Any:
    """Return an operand with an axis of points in front, broadcast against the result."""
    drawn = np.ndim(array) > len(atom.aval.shape)
    array = np.asarray(array) if drawn else np.asarray(array)[None]
    return array.reshape(array.shape[0], *(1,) * (len(shape) + 1 - array.ndim), *array.shape[1:])


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    wide: NDArray[Any] = convert(array, widen_dtype(array.dtype))
    return wide


def _between(low: float, high: float, depth: int) -> list[float]:
    """Return shares of the way between two, each half way between others; closer to its ends."""
    if not depth:
        return []
    if low >= 0.5:
        return [1 - share for share in reversed(_between(1 - high, 1 - low, depth))]
    half = (low * high) ** 0.5 if low > 0 else high * 0.1 if high > 1e-3 else high / 2
    return [*_between(low, half, depth - 1), half, *_between(half, high, depth - 1)]


def _differ(mine: Any, other: Any) -> NDArray[np.bool_]:
    """Return at which points two gradients differ, in some entry where both are finite."""
    mine, other = np.broadcast_arrays(mine, other)
    size = np.abs(other)
    largest = size.max(initial=0.0, where=np.isfinite(size))
    far = np.abs(mine - other) > _SAME * (size + 1e-3 * largest)
    found: NDArray[np.bool_] = (far & np.isfinite(mine)).reshape(len(far), -1).any(1)
    return found


def _side(site: _Site, side: int) -> Side:
    """Return a side in the words of the source, where a line has them."""
    name, path = site.equation.primitive.name, site.line
    said = _said(name, path, side)
    return Side(path.rsplit("/", 1)[-1], said, _said(name, path, 1 - side))


def _said(name: str, path: str, side: int) -> str:
    text = _condition(path, name) if name in _COMPARED else ""
    if text:
        return f"`{text}` is {'true' if side == 1 else 'false'}"
    if name == "cond":
        return f"branch {side} is taken" if side >= 0 else "another branch is taken"
    if name in ("abs", "sign"):
        return f"the operand of {name} is {'positive' if side == 1 else 'negative'}"
    if name == "clamp":
        return f"a value is {'inside' if side == 1 else 'outside'} the bounds of a clip"
    if name in _ROUNDED or name in _CHOSEN:
        return (
            f"{name} gives {'another outcome than' if side else 'the outcome'} at the given inputs"
        )
    if name in ("max", "min"):
        return f"the {'first' if side == 1 else 'second'} operand of a {name}imum is taken"
    where = "" if path else " of the rule"  # JAX keeps no line for what it calls later
    return f"a comparison{where} is {'true' if side == 1 else 'false'}"


def _condition(path: str, name: str) -> str:
    """Return the comparison of this kind in a line of source, where it holds one alone."""
    file, _, number = path.rpartition(":")
    sign, mirrored = _COMPARED[name], _COMPARED[_MIRRORED[name]]
    found = {
        text
        for first, last, signs, text in _comparisons("".join(linecache.getlines(file)))
        if first <= int(number or 0) <= last and not {sign, mirrored}.isdisjoint(signs)
    }
    return found.pop() if len(found) == 1 else ""


@lru_cache(64)
def _comparisons(text: str) -> list[tuple[int, int, list[str], str]]:
    """Return the comparisons of a file: first and last line, their signs, and their text."""
    try:
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Compare)]
    except SyntaxError:
        return []
    return [
        (
            n.lineno,
            n.end_lineno or n.lineno,
            [_SIGNS.get(type(o), "") for o in n.ops],
            ast.unparse(n),
        )
        for n in nodes
    ]


_SIGNS: dict[type, str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_MIRRORED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
