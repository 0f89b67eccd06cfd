"""Which sides of a program's conditions its inputs take, and inputs nearby that take the others.

A *site* is an equation whose outcome depends on the inputs: a comparison, a maximum, a clamp, an
absolute value, a branch. What rounds to whole numbers, or chooses entries by their order, is one
too: its other side is any other outcome than at the given inputs. Programs are evaluated at many
inputs in one pass; each pass says which sides were taken, how far the numbers are from the other
side, and where the gradient that is judged differs from the one that is believed.
"""

import ast
import linecache
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
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
    holds,
    source_path,
    written_in,
)
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.lift import Lifter
from gradlab.tracing.program import without_checks
from gradlab.tracing.work import work

Arrays = dict[str, NDArray[Any]]
Key = tuple[int, ...]
Target = tuple[Key, int]  # a site and one of its sides; no site: the gradients differ

_LARGEST = 1 << 22  # entries times points of one pass
_TURNS = 1 << 12  # of the loops of all programs, in the first pass
_FURTHER = 12  # times as many, in all passes after it; a pass may take a sixth of them
_ENTRIES = 1 << 30  # numbers that a walk may compute in all: some seconds
_MOVES = 192  # points that are tried without a direction
_SLOPES = 64  # directions along which margins are followed
_LADDERS, _DEPTH = 2, 3  # passes that look for a boundary, and halvings of the way in each
_FOLLOWED = 16  # sides whose boundaries are looked for
_MOST = 8  # points to judge
_APART = 3  # of them where sides are taken together that were not, and the gradients differ
_SAME = 1e-7  # relative: gradients that differ by less are taken for the same
_MASK = -1e4  # or less: a number that hides an entry of a softmax
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
    """What walking found: places to judge, sides that nothing took, or why nothing was tried."""

    places: tuple[Place, ...] = ()
    unreached: tuple[Side, ...] = ()
    reason: str = ""


@dataclass(eq=False)
class _Site:
    """One equation, at one place in the program, over all points of a pass."""

    equation: Equation
    calls: tuple[tuple[Equation, Any], ...]  # that lead to it
    taken: NDArray[np.bool_]  # (sides, points): which points take it, in some entry
    margins: NDArray[np.float64] | None  # (points, entries); above zero on side 1


@dataclass(frozen=True, eq=False)
class _Pass:
    """Some points: the sites that they met, and what is known of each point."""

    sites: dict[Key, _Site]
    apart: NDArray[np.bool_]  # the gradient differs from the one that is believed
    held: NDArray[np.bool_]  # what was read decides as at the given inputs
    always: int  # programs from this one on tell what it decides, wherever it does

    def takes(self, target: Target) -> NDArray[np.bool_]:
        """Return which points are on a side of the function itself, or where it is wrong."""
        key, side = target
        if key and key not in self.sites:
            return np.zeros_like(self.apart)
        taken = self.sites[key].taken[side] if key else self.apart
        return taken if key[:1] >= (self.always,) else taken & self.held

    def sides(self, point: int) -> frozenset[Target]:
        """Return all sides that a point takes."""
        every = ((key, side) for key, site in self.sites.items() for side in range(len(site.taken)))
        return frozenset(target for target in every if self.takes(target)[point])


class Outcomes(NamedTuple):
    """What some inputs decide: the sides that they take, and which entries are chosen, as keys."""

    sides: Hashable
    chosen: Hashable


def outcomes(programs: Sequence[Program], inputs: Mapping[str, NDArray[Any]]) -> Outcomes | None:
    """Return what the inputs decide in some programs; None where that cannot be told."""
    if not any(holds(program.jaxpr, _decides) for program in programs):
        return Outcomes((), ())
    walk = _Walk(programs, inputs)
    if walk.size * 8 > _LARGEST:
        return None
    with without_checks(), np.errstate(all="ignore"):
        found = walk.tried([walk.start])
    if found is None:
        return None
    sides = [(key[0], _line(s), *map(bool, s.taken[:, 0])) for key, s in found.sites.items()]
    chosen = [(given.shape, given.tobytes()) for given in walk.given.values()]
    return Outcomes(tuple(sides), tuple(chosen))


def walk_branches(
    programs: Sequence[Program],
    inputs: Mapping[str, NDArray[Any]],
    moved: Sequence[str],
    legal: Callable[[Arrays], bool] = lambda inputs: True,
    kept: Callable[[Arrays], Arrays] = lambda inputs: inputs,
    seed: int = 0,
    deciding: int = 0,
    pair: tuple[int, Program, int] | None = None,
) -> Walked:
    """Find inputs near the given ones that take the sides which these do not take.

    Without names that may be `moved`, the sides that the given inputs do not take are listed. The
    last `deciding` programs compute the values by which a function decided when it was read: where
    these are others, the programs before are not that function. `pair`: the numbers of the program
    that is judged and of the one that is believed, and how many outputs are no gradients. `kept`
    restores a form that inputs must keep, where moving them has broken it.
    """
    walk = _Walk(programs, inputs, moved, legal, kept, seed, deciding, pair)
    if walk.size * 8 > _LARGEST:
        return Walked(reason="the inputs are too large to be moved")
    try:
        with without_checks(), np.errstate(all="ignore"):
            return walk.found()
    except TooLong:
        return Walked(reason="a loop runs too often")


class _Walk:
    """All passes over some programs from one starting point."""

    def __init__(
        self,
        programs: Sequence[Program],
        inputs: Mapping[str, NDArray[Any]],
        moved: Sequence[str] = (),
        legal: Callable[[Arrays], bool] = lambda inputs: True,
        kept: Callable[[Arrays], Arrays] = lambda inputs: inputs,
        seed: int = 0,
        deciding: int = 0,
        pair: tuple[int, Program, int] | None = None,
    ) -> None:
        self.start = {name: _wide(np.asarray(array)) for name, array in inputs.items()}
        self.size = sum(array.size for array in self.start.values())
        self.programs, self.legal, self.kept, self.pair = programs, legal, kept, pair
        self.always = len(programs) - deciding
        self.turns = self.at_once = _TURNS * len(programs)  # that are left, and for one pass
        self.moved = [name for name in moved if self.start[name].size]
        self.floats = [name for name in self.moved if is_inexact(self.start[name].dtype)]
        self.rng = np.random.default_rng([seed, 17])
        self.given: dict[Key, NDArray[Any]] = {}
        self.decided: dict[Key, NDArray[Any]] = {}
        read = [*programs, *([pair[1]] if pair else [])]
        self.left = _ENTRIES // sum(work(program.jaxpr).entries + 1 for program in read)
        largest = max(1, self.size, *(work(program.jaxpr).largest for program in read))
        self.most = max(8, min(64, _LARGEST // largest))
        self.wanted: set[Target] = set()
        self.reached: dict[Target, Arrays] = {}
        self.known: set[frozenset[Target]] = set()  # sides that are taken together
        self.largest: dict[int, float] = {}  # of each gradient at the given inputs

    def found(self) -> Walked:
        """Return the places to judge, after all ways of moving were tried."""
        here = self.visit([self.start])
        self.turns = max(_TURNS, _FURTHER * (self.at_once - self.turns))
        self.at_once = self.turns // 6
        every = {(key, side) for key, site in here.sites.items() for side in range(len(site.taken))}
        self.known = {here.sides(0)}
        self.wanted = every - here.sides(0)
        places = list[tuple[Arrays, Iterable[Side]]]()
        if self.moved and here.sites:
            self.look(list(islice(self.moves(), min(_MOVES, self.left // 2))))
            if self.wanted - self.reached.keys():
                self.look(list(self.steps(here)))
            self.look(list(islice(self.joined(), self.most)))
            for point, targets in self.covering(self.nearest()):
                sides = [_side(here.sites[k], s) for k, s in sorted(targets & self.wanted)]
                other = Side("", "conditions hold in another combination", "they hold as they do")
                places.append((point, sides or [other]))
        for name, points in self.whole_moves().items():
            side = Side("", f"{name} holds other whole numbers", f"{name} is as given")
            places += [(point, [side]) for point in self.worst(points)]
        missed = sorted(self.wanted - self.reached.keys())
        said = {_side(here.sites[k], s) for k, s in self.reached if k and k[0] >= self.always}
        unreached = dict.fromkeys(_side(here.sites[key], side) for key, side in missed)
        return Walked(
            tuple(Place(point, tuple(dict.fromkeys(sides))) for point, sides in places[:_MOST]),
            tuple(side for side in unreached if side not in said),
        )

    def visit(self, points: Sequence[Arrays]) -> _Pass:
        """Evaluate all programs at some points in one pass."""
        self.left = max(0, self.left - len(points))
        sites: dict[Key, _Site] = {}
        apart, held = np.zeros(len(points), bool), np.ones(len(points), bool)
        for number, program in enumerate(self.programs):
            watcher = _Watcher((number,), len(points), sites, self.given)
            watcher.turns = allowed = min(self.turns, self.at_once)
            try:
                outputs = watcher(program.jaxpr, _columns(program, points))
            finally:
                self.turns -= allowed - max(watcher.turns, 0)
            if self.pair is not None and self.pair[0] == number:
                _, believed, skipped = self.pair
                others = Lifter(NumPy())(believed.jaxpr, _columns(believed, points))
                for k in range(skipped, len(outputs)):
                    shape = len(points), *program.out_avals[k].shape
                    mine, other = (
                        np.broadcast_to(values[k].array, shape).reshape(len(points), -1)
                        for values in (outputs, others)
                    )
                    size = np.where(np.isfinite(other), np.abs(other), 0.0)
                    floor = self.largest.setdefault(k, size.max(initial=0.0))
                    floor = 1e-3 * np.maximum(floor, size.max(1, initial=0.0, keepdims=True))
                    far = np.abs(mine - other) > _SAME * (np.abs(other) + floor)
                    apart |= (far & np.isfinite(mine)).any(1)
            for k, output in enumerate(outputs if number >= self.always else ()):
                found = np.broadcast_to(output.array, (len(points), *program.out_avals[k].shape))
                first = self.decided.setdefault((number, k), found[0])
                same = (found == first) | ((found != found) & (first != first))
                held &= same.reshape(len(points), -1).all(1)
        return _Pass(sites, apart & held, held, self.always)

    def tried(self, points: Sequence[Arrays]) -> _Pass | None:
        """Return what some points meet; None where a callback refuses, or loops run too often."""
        try:
            return run_callbacks(partial(self.visit, points))
        except (Refused, TooLong):
            return None

    def look(self, points: Sequence[Arrays]) -> None:
        """Note for each wanted side one of some points that takes it.

        Note points as well where sides are taken together as none took them, and gradients differ.
        """
        points = [point for point in map(self.kept, points) if self.legal(point)][: self.left]
        for first in range(0, len(points), self.most):
            some = points[first : first + self.most]
            found = self.tried(some)
            if found is None and len(some) > 1:  # a callback refuses one of them
                for point in some:
                    self.look([point])
            if found is None:
                continue
            for target in self.wanted - self.reached.keys():
                if found.takes(target).any():
                    self.reached[target] = some[int(np.argmax(found.takes(target)))]
            for k in map(int, np.flatnonzero(found.apart)):
                count = sum(not key for key, _ in self.reached)
                if count < _APART and found.sides(k) not in self.known:
                    self.known.add(found.sides(k))
                    self.reached[(), count] = some[k]

    def nearest(self) -> dict[Target, Arrays]:
        """Return for each target a point a little beyond its boundary, on the way to it."""
        order = sorted(self.reached, key=lambda target: target[0] != ())[:_FOLLOWED]
        near = {target: self.reached[target] for target in order}
        some = order[: min(self.most, self.left) >> _DEPTH]
        low, high = dict.fromkeys(some, 0.0), dict.fromkeys(some, 1.0)
        for _ in range(_LADDERS if some else 0):
            ways = [(t, _between(low[t], high[t], _DEPTH)) for t in some]
            points = [self.between(self.reached[t], s) for t, shares in ways for s in shares]
            found = self.tried(points)
            if found is None:
                return near
            legal, place = np.array([self.legal(point) for point in points]), 0
            for target, shares in ways:
                here = slice(place, place := place + len(shares))
                taken = found.takes(target)[here] & legal[here]
                index = int(np.argmax(taken)) if taken.any() else len(shares)
                ends = [low[target], *shares, high[target]]
                low[target], high[target] = ends[index], ends[index + 1]
        return near | {target: self.between(near[target], high[target]) for target in some}

    def covering(self, near: Mapping[Target, Arrays]) -> list[tuple[Arrays, frozenset[Target]]]:
        """Return few points that together take all sides that some points take.

        An entry of one point beside an entry of another often takes both their sides.
        """
        points = list(near.values())
        mixed = [p for p in (_mixed(points, 1), _mixed(points, 0)) if p and self.legal(p)]
        found = self.tried([*mixed, *points]) if points else None
        if found is None:
            return [(point, frozenset([target])) for target, point in near.items()]
        rows = [(point, found.sides(k)) for k, point in enumerate([*mixed, *points])]
        chosen = [rows[len(mixed) + k] for k, target in enumerate(near) if not target[0]]
        missing = {t for t in near if t[0]}.difference(*(sides for _, sides in chosen))
        while missing:
            best = max(rows, key=lambda row: len(row[1] & missing))
            if not best[1] & missing:
                break
            chosen.append(best)
            missing -= best[1]
        return list({_bytes(point): (point, sides) for point, sides in chosen}.values())

    def worst(self, points: Sequence[Arrays]) -> list[Arrays]:
        """Return one of some points, where the gradients differ if they do, and one a decision."""
        legal = [point for point in points if self.legal(point)]
        found = self.tried(legal) if legal else None
        if found is None:
            return legal[:1]
        other = {found.sides(int(k)): legal[k] for k in np.flatnonzero(~found.held)}
        first = legal[int(np.argmax(found.apart if found.apart.any() else found.held))]
        return [*([first] if found.held.any() else []), *other.values()][:_APART]

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
        """Yield inputs that are scaled, rearranged, or set beside the program's constants."""
        for others in self.whole_moves().values():
            yield from others
        several = [self.floats] if len(self.floats) > 1 else []
        for group in [*several, *([name] for name in self.floats)]:
            for factor in (2.0, 0.5, -1.0, 8.0, 0.1):
                yield self.with_(group, partial(np.multiply, factor))
            for number in self.numbers():
                for shift in (0.05, -0.05):
                    beside = number + shift * max(abs(number), 1e-3)
                    yield self.with_(group, partial(np.full_like, fill_value=beside))
            alone = len(group) == 1
            most = self.mask**0.5 if alone else min(64.0, self.mask**0.25)
            for factor in (64.0, 1e-3, 1e3, -64.0, 1e6, 1e-6, 1e-9):
                if abs(factor) <= most:  # else products of inputs would grow beyond a mask
                    yield self.with_(group, partial(np.multiply, factor))
            array = self.start[group[0]]
            if alone and array.ndim:
                yield self.with_(group, lambda a: a[..., ::-1])
                yield self.with_(group, lambda a: np.roll(a, 1, -1))
                yield self.with_(group, lambda a: self.rng.permutation(a, axis=-1))
            if alone and array.ndim > 1:
                yield self.with_(group, lambda a: np.concatenate([1e-9 * a[:1], a[1:]]))

    def joined(self) -> Iterator[Arrays]:
        """Yield what moves one input as one of the points does, and the others as another."""
        if len(self.moved) > 1 and self.pair is not None:
            for first, second in permutations(list(self.reached.values())[:_MOST], 2):
                yield from ({**second, name: first[name]} for name in self.moved)

    def whole_moves(self) -> dict[str, list[Arrays]]:
        """Return, for each input of whole numbers, the program's own numbers in their place."""
        found: dict[str, list[Arrays]] = {}
        judged = None if self.pair is None else self.pair[0]
        met = {(e.primitive.name, k) for k, p in enumerate(self.programs) for e, _ in walk(p)}
        names = {name for name, _ in met}
        indexed = not names.isdisjoint(("gather", "dynamic_slice", "scatter", "scatter-add"))
        written_over = any(name == "scatter" and k != judged for name, k in met)
        for name in self.moved:
            array = self.start[name]
            if written_over and array.size > 1 and np.unique(array).size == array.size:
                continue  # which of two writes to one place stands is nobody's promise
            if self.is_order(array):  # another order is legal; a place that is met twice is not
                found[name] = [{**self.start, name: array[::-1].copy()}]
                continue
            if array.dtype == bool:
                half = np.arange(array.size).reshape(array.shape) % 2 == 0
                others: list[Any] = [array ^ half, ~array, array & False, array | True]
            elif np.issubdtype(array.dtype, np.integer):
                top = array.max(initial=0) if indexed else np.inf
                near = {int(n) + d for n in self.numbers(True) for d in (0, -1, 1)}
                meant = {int(n) for n in self.numbers(True, ("eq", "ne"))}  # -100: to be ignored
                meant |= {int(n) - 1 for n in self.numbers(True, ("ge",))}  # so is what is below 0
                inside = sorted({n for n in near if 0 <= n <= top} | meant)
                several = np.sort(np.resize(inside, array.size)) if inside else array
                others = [several.astype(array.dtype).reshape(array.shape)]
                others += [np.full_like(array, n) for n in inside]
            else:
                continue
            differ = [other for other in others if not np.array_equal(other, array)]
            found[name] = [{**self.start, name: other} for other in differ]
        return found

    def is_order(self, array: NDArray[Any]) -> bool:
        """Whether an input says in which order all entries along an axis of another one stand."""
        several = array.ndim == 1 and array.size > 2 and np.issubdtype(array.dtype, np.integer)
        if not several or not np.array_equal(np.sort(array), np.arange(array.size)):
            return False
        moved = not np.array_equal(array, np.arange(array.size))
        return moved and any(array.size in self.start[name].shape for name in self.floats)

    def with_(self, names: Sequence[str], change: Callable[[Any], Any]) -> Arrays:
        """Return the starting point with some inputs changed."""
        return {n: np.asarray(change(a)) if n in names else a for n, a in self.start.items()}

    @cached_property
    def mask(self) -> float:
        """The size of the large negative numbers that stand for -inf in the programs, if any."""
        atoms = [a for p in self.programs for e, _ in walk(p) for a in e.invars]
        held: list[Any] = [atom.val for atom in atoms if isinstance(atom, Literal)]
        held += [constant for p in self.programs for constant in p.jaxpr.consts]
        real = [a for a in held if is_inexact(dtype_of(a)) and np.isrealobj(a) and np.size(a)]
        return min((-low for low in map(float, map(np.min, real)) if low <= _MASK), default=np.inf)

    def numbers(self, whole: bool = False, by: Sequence[str] = _WITH_NUMBERS) -> list[float]:
        """Return the numbers with which the programs compare."""
        equations = (e for p in self.programs for e, _ in walk(p) if e.primitive.name in by)
        scalars = (
            atom
            for equation in equations
            for atom in equation.invars
            if isinstance(atom, Literal) and np.ndim(atom.val) == 0 and np.isrealobj(atom.val)
        )
        found = dict.fromkeys(float(a.val) for a in scalars if is_inexact(dtype_of(a)) != whole)
        return [number for number in found if np.isfinite(number)][:8]

    def steps(self, here: _Pass) -> Iterator[Arrays]:
        """Yield Newton steps towards the other sides, along measured slopes of the margins."""
        count = sum(self.start[name].size for name in self.floats)
        if not count:
            return
        if count <= _SLOPES:
            directions = np.eye(count)
        else:
            directions = self.rng.choice([-1.0, 1.0], (_SLOPES, count)) / np.sqrt(count)
        flat = np.concatenate([self.start[n].real.ravel() for n in self.floats])
        step = 1e-6 * max(float(np.sqrt(np.mean(flat**2))), 1e-3)
        missing = {key for key, _ in self.wanted - self.reached.keys()}
        for first in range(0, min(len(directions), self.left), self.most):
            some = directions[first : first + self.most]
            moved = self.tried([self.along(step * d) for d in some])
            if moved is None:
                return
            for key in missing & moved.sites.keys():
                now, then = here.sites[key].margins, moved.sites[key].margins
                if now is None or then is None or now.shape[1] != then.shape[1]:
                    continue
                entry = int(np.argmin(np.abs(now[0])))
                slopes = (then[:, entry] - now[0, entry]) / step
                total = float(slopes @ slopes)
                if total > 0 and np.isfinite(total):
                    way = -now[0, entry] / total * (slopes @ some)
                    yield from (self.along(share * way) for share in (1.05, 1.5, 3.0, 10.0))

    def along(self, way: NDArray[np.float64]) -> Arrays:
        """Return the starting point plus a step in all entries of the float inputs."""
        found, first = dict(self.start), 0
        for name in self.floats:
            array = self.start[name]
            found[name] = array + way[first : first + array.size].reshape(array.shape)
            first += array.size
        return found


class _Watcher(Lifter):
    """Evaluates a program at many points, and notes the sides that each takes."""

    turns: int

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
        if name not in _DECIDES or any(0 in atom.aval.shape for atom in equation.invars):
            return outputs
        ranks = [len(atom.aval.shape) for atom in equation.invars]
        if not any(np.ndim(v.array) > rank for v, rank in zip(inputs, ranks)):
            return outputs  # it does not depend on the inputs
        whole = not any(is_inexact(dtype_of(v.array)) for v in inputs)
        rank = len(equation.outvars[0].aval.shape)
        if name in ("eq", "ne") or (whole and name in _COMPARED):
            if whole and not _wraps(equation):
                self._note(equation, outputs[0].array, None)
        elif name in _MARGINS:
            shapes = [((1,) * (rank - r), a.aval.shape) for r, a in zip(ranks, equation.invars)]
            arrays = [np.reshape(v.array, (-1, *one, *s)) for v, (one, s) in zip(inputs, shapes)]
            margins = _MARGINS[name](*map(np.real, arrays))
            margins = np.where(np.isnan(margins), 0.0, margins)
            if np.isfinite(margins).any():  # a maximum with minus infinity decides nothing
                self._note(equation, outputs[0].array if name in _COMPARED else None, margins)
        elif not whole:
            outcome = outputs[0].array if name in _ROUNDED else self._chosen(equation, inputs)
            key = self._key_of(equation)
            self._turns[key] += 1
            outcome = np.reshape(outcome, (self._points, -1))
            first = self._given.setdefault((*key, self._turns[key]), outcome[0])
            other = (outcome != first).any(1)
            self._take(equation, np.stack([~other, other]), None)
        return outputs

    def _chosen(self, equation: Any, inputs: Sequence[Value]) -> Any:
        """Return which entries are chosen, by running the primitive on their ranks."""
        x, *others = inputs
        flat = np.broadcast_to(x.array, (self._points, *equation.invars[0].aval.shape))
        best = _BEST.get(equation.primitive.name)
        if best is not None:  # no ranks are needed, which cost ten times as much
            axes = tuple(axis + 1 for axis in equation.params["axes"])
            kept = [axis for axis in range(flat.ndim) if axis not in axes]
            rows = flat.transpose(*kept, *axes)
            return best(rows.reshape(*rows.shape[: len(kept)], -1), -1)
        order = np.argsort(flat.reshape(self._points, -1), 1, kind="stable")
        ranks = np.empty(order.shape)
        np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], 1)
        ranks = ranks.reshape(flat.shape)
        found = super().equation(equation, [Value(ranks, x.depends), *others])[0].array
        inside = np.reshape(found, (self._points, -1)).clip(0, max(order.shape[1] - 1, 0))
        return np.take_along_axis(order, inside.astype(np.intp), 1)

    def cond(self, equation: Any, inputs: list[Value]) -> list[Value]:
        """Choose a branch, and note which."""
        index = np.asarray(inputs[0].array)
        if index.ndim:
            branches = np.arange(len(equation.params["branches"]))
            self._take(equation, index == branches[:, None], None)
        return super().cond(equation, inputs)

    def _note(self, equation: Any, outcome: Any, margins: Any) -> None:
        """Note the sides of a comparison, which has one at equality too, or of margins."""
        if margins is not None:
            margins = np.broadcast_to(margins, (self._points, *margins.shape[1:]))
            margins = margins.reshape(self._points, -1)
        if outcome is None:
            sides = np.stack([(margins < 0).any(1), (margins > 0).any(1)])
        else:
            flat = outcome.reshape(self._points, -1)
            sides = np.stack([(~flat).any(1), flat.any(1)])
        self._take(equation, sides, margins)

    def _key_of(self, equation: Any) -> Key:
        return (*self._key, *(id(call) for call, _ in self._calls), id(equation))

    def _take(self, equation: Any, taken: Any, margins: Any) -> None:
        key = self._key_of(equation)
        known = self._found.get(key)
        if known is None:
            self._found[key] = _Site(equation, tuple(self._calls), taken, margins)
            return
        known.taken = known.taken | taken  # another turn of a loop
        if (
            margins is not None
            and known.margins is not None
            and margins.shape == known.margins.shape
            and np.abs(margins[0]).min() < np.abs(known.margins[0]).min()
        ):
            known.margins = margins


def _wraps(equation: Any) -> bool:
    """Return whether a comparison only counts negative indices from the end."""
    atom = equation.invars[1]
    zero = isinstance(atom, Literal) and np.ndim(atom.val) == 0 and atom.val == 0
    return equation.primitive.name == "lt" and zero


_ROUNDED = frozenset(("argmax", "argmin", "ceil", "floor", "round"))
_CHOSEN = CHOICES - {"clamp", "max", "min"}
_BEST: dict[str, Callable[..., Any]] = {"reduce_max": np.argmax, "reduce_min": np.argmin}
_MARGINS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("abs", "sign"), lambda x: x),
    **dict.fromkeys(("ge", "gt", "max"), lambda x, y: np.subtract(x, y, dtype=np.float64)),
    **dict.fromkeys(("le", "lt", "min"), lambda x, y: np.subtract(y, x, dtype=np.float64)),
    "clamp": lambda low, x, high: np.minimum(x - low, high - x),
}
_DECIDES = _ROUNDED | _CHOSEN | _MARGINS.keys() | {"eq", "ne"}


def _decides(equation: Any) -> bool:
    """Whether an equation may be a site."""
    return equation.primitive.name in _DECIDES or equation.primitive.name == "cond"


def _columns(program: Program, points: Sequence[Arrays]) -> list[Value]:
    return [
        Value(
            convert(np.stack([point[name] for point in points]), widen_dtype(aval.dtype)),
            is_inexact(aval.dtype),
        )
        for name, aval in zip(program.in_names, program.in_avals)
    ]


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    wide: NDArray[Any] = convert(array, widen_dtype(array.dtype))
    return wide


def _bytes(point: Arrays) -> bytes:
    return b"".join(array.tobytes() for array in point.values())


def _mixed(points: Sequence[Arrays], axis: int) -> Arrays:
    """Return a point with entries of all points in turn, or rows of all; nothing of one point."""
    distinct = list({_bytes(point): point for point in points}.values())
    if len(distinct) < 2:
        return {}
    mixed = {}
    for name, first in distinct[0].items():
        each = np.stack([point[name] for point in distinct])
        turns = np.arange(first.size if axis else len(first) if first.ndim else 1) % len(each)
        shape = first.shape if axis else (-1, *(1,) * (first.ndim - 1)) if first.ndim else ()
        which = np.broadcast_to(turns.reshape(shape), first.shape)
        mixed[name] = np.take_along_axis(each, which[None], 0)[0]
    return mixed


def _between(low: float, high: float, depth: int) -> list[float]:
    """Return shares of the way between two, each half way between others; closer to its ends."""
    if not depth:
        return []
    if low >= 0.5:
        return [1 - share for share in reversed(_between(1 - high, 1 - low, depth))]
    half = (low * high) ** 0.5 if low > 0 else high * 0.1 if high > 1e-3 else high / 2
    return [*_between(low, half, depth - 1), half, *_between(half, high, depth - 1)]


def _line(site: _Site) -> str:
    """Return the user's line: that of the call, where a function of JAX's own was called.

    JAX traces its own functions once, and their equations keep the line of the first call.
    """
    theirs = (call for call, inner in site.calls if written_in(inner).startswith(NOT_THE_USERS))
    return source_path(next(theirs, site.equation))


def _side(site: _Site, side: int) -> Side:
    """Return a side in the words of the source, where a line has them."""
    name, path = site.equation.primitive.name, _line(site)
    said = [_said(name, path, each) for each in (side, 1 - side)]
    return Side(path.rsplit("/", 1)[-1], *said)


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
    signs = {_COMPARED[name], _COMPARED[name].translate(_MIRROR)}
    found = {
        text
        for first, last, theirs, text in _comparisons("".join(linecache.getlines(file)))
        if first <= int(number or 0) <= last and not signs.isdisjoint(theirs)
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
        (n.lineno, n.end_lineno or 0, [_SIGNS.get(type(o), "") for o in n.ops], ast.unparse(n))
        for n in nodes
    ]


_SIGNS: dict[type, str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_MIRROR = str.maketrans("<>", "><")
