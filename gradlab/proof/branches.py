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
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from gradlab.proof.arithmetic import CHOICES
from gradlab.tracing import Program, walk
from gradlab.tracing.arithmetic import NumPy, convert, widen_dtype
from gradlab.tracing.callbacks import Refused, run_callbacks
from gradlab.tracing.evaluate import Value
from gradlab.tracing.interpreter import TooLong
from gradlab.tracing.jaxprs import Equation, Literal, dtype_of, source_path
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.lift import Lifter
from gradlab.tracing.program import without_checks

__all__ = ["Outcomes", "Place", "Side", "Walked", "outcomes", "walk_branches"]

Arrays = dict[str, NDArray[Any]]

_LARGEST = 1 << 22  # entries times points of one pass
_TURNS = 1 << 12
_HALVINGS = 12
_BEYOND = 0.05  # how far past a boundary the judged point stands
_SLOPES = 64  # directions along which margins are followed
_MOST = 8  # points to judge
_OTHERS = 3  # of them for each input of whole numbers
_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@dataclass(frozen=True)
class Side:
    """One side of a condition: "`x > 20` is true", with its line, and the other side's words."""

    line: str
    text: str
    opposite: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text}" if self.line else self.text


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


@dataclass(eq=False)
class _Site:
    """One equation, at one place in the program, over all points of a pass."""

    equation: Equation
    line: str
    taken: dict[int, NDArray[np.bool_]]  # by side: which points take it, in some entry
    margins: NDArray[np.float64] | None  # (points, entries); above zero on side 1


class Outcomes(NamedTuple):
    """What some inputs decide: the sides that they take, and which entries are chosen, as keys."""

    sides: Hashable
    chosen: Hashable


def outcomes(programs: Sequence[Program], inputs: Mapping[str, NDArray[Any]]) -> Outcomes | None:
    """Return what the inputs decide in some programs; None where that cannot be told.

    Example:
        >>> from gradlab.tracing import trace
        >>> program = trace(lambda x: jax.numpy.where(x > 20.0, x, 2.0 * x), np.ones(3))
        >>> low, high = (outcomes([program], {"x": np.full(3, x)}) for x in (1.0, 21.0))
        >>> low == outcomes([program], {"x": np.full(3, 2.0)}), low == high
        (True, False)
    """
    start = {name: _wide(np.asarray(array)) for name, array in inputs.items()}
    if sum(array.size for array in start.values()) * 8 > _LARGEST:
        return None
    walk = _Walk(programs, start, (), lambda inputs: True, 0, lambda inputs: True, len(programs))
    try:
        with without_checks(), np.errstate(all="ignore"):
            sites = walk.tried([start])
    except TooLong:
        return None
    if sites is None:
        return None
    sides = [
        (key[0], site.line, *((side, bool(taken[0])) for side, taken in site.taken.items()))
        for key, site in sites.items()
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

    Example:
        >>> import jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> program = trace(lambda x: jnp.where(x > 20.0, x, 2.0 * x), jnp.ones(3))
        >>> found = walk_branches([program], {"x": np.ones(3)}, ["x"])
        >>> round(float(found.places[0].inputs["x"].max()), 1), found.unreached
        (21.0, ())
    """
    start = {name: _wide(np.asarray(array)) for name, array in inputs.items()}
    size = sum(array.size for array in start.values())
    if size * 8 > _LARGEST:
        return Walked((), (), 0, 0, "the inputs are too large to be moved")
    try:
        with without_checks(), np.errstate(all="ignore"):
            walk = _Walk(programs, start, moved, legal, seed, holds, len(programs) - deciding)
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
    ) -> None:
        self.programs, self.start, self.legal = programs, start, legal
        self.holds, self.always = holds, always
        self.moved = [name for name in moved if start[name].size]
        self.rng = np.random.default_rng([seed, 17])
        self.runs = 0
        self.given: dict[Key, NDArray[Any]] = {}
        size = sum(array.size for array in start.values())
        self.most = max(8, min(64, _LARGEST // max(1, size)))

    def found(self) -> Walked:
        """Return the places to judge, after all ways of moving were tried."""
        sites = self.visit([self.start])
        wanted = {
            (key, side) for key, site in sites.items() for side, taken in site.taken.items()
            if not taken.any()
        }  # fmt: skip
        reached: dict[tuple[Key, int], Arrays] = {}
        self.look(list(self.moves()), wanted, reached)
        for _ in range(2):
            if wanted - reached.keys():
                self.look(list(self.steps(sites, wanted - reached.keys())), wanted, reached)
        nearest = self.nearest(reached)
        places: list[tuple[Arrays, list[Side]]] = []
        for target, point in nearest.items():
            side = _side(sites[target[0]], target[1])
            for known, sides in places:
                if known is point:
                    sides.append(side)
                    break
            else:
                places.append((point, [side]))
        for name, others in self.whole_moves().items():
            side = Side("", f"{name} holds other whole numbers", f"{name} is as given")
            others = [p for p in others if not np.array_equal(p[name], self.start[name])]
            places += [(point, [side]) for point in others[:_OTHERS] if self.legal(point)]
        decided = {_side(sites[k], side) for k, side in reached if k[0] >= self.always}
        unreached = [_side(sites[key], side) for key, side in sorted(wanted - reached.keys())]
        unreached = [side for side in unreached if side not in decided]
        return Walked(
            tuple(Place(p, tuple(dict.fromkeys(s))) for p, s in places[:_MOST]),
            tuple(dict.fromkeys(unreached)),
            len(sites),
            self.runs,
        )

    def visit(self, points: Sequence[Arrays]) -> dict[Key, _Site]:
        """Evaluate all programs at some points in one pass, and return their sites."""
        found: dict[Key, _Site] = {}
        self.runs += len(points)
        for number, program in enumerate(self.programs):
            watcher = _Watcher((number,), len(points), found, self.given)
            values = []
            for name, aval in zip(program.in_names, program.in_avals):
                column = np.stack([point[name] for point in points])
                values.append(
                    Value(convert(column, widen_dtype(aval.dtype)), is_inexact(aval.dtype))
                )
            watcher(program.jaxpr, values)
        return found

    def tried(self, points: Sequence[Arrays]) -> dict[Key, _Site] | None:
        """Return the sites at some points; None where a callback refuses to run."""
        try:
            return run_callbacks(partial(self.visit, points))
        except Refused:
            return None

    def look(
        self,
        points: Sequence[Arrays],
        wanted: set[tuple[Key, int]],
        reached: dict[tuple[Key, int], Arrays],
    ) -> None:
        """Note for each wanted side the first of some points that takes it."""
        points = [point for point in points if self.legal(point)]
        for first in range(0, len(points), self.most):
            some = points[first : first + self.most]
            sites = self.tried(some)
            if sites is None and len(some) > 1:  # a callback refuses one of them
                for point in some:
                    self.look([point], wanted, reached)
            held = np.array([self.always == len(self.programs) or self.holds(p) for p in some])
            for key, site in (sites or {}).items():
                for side, takes in site.taken.items():
                    taken = takes if key[0] >= self.always else takes & held
                    if (key, side) in wanted and (key, side) not in reached and taken.any():
                        reached[key, side] = some[int(np.argmax(taken))]

    def nearest(self, reached: Mapping[tuple[Key, int], Arrays]) -> dict[tuple[Key, int], Arrays]:
        """Return, for each side, a point a little beyond its boundary on the way to a far one."""
        low = dict.fromkeys(reached, 0.0)
        high = dict.fromkeys(reached, 1.0)
        for _ in range(_HALVINGS if reached else 0):
            middle = {t: _geometric(low[t], high[t]) for t in reached}
            points = [self.between(reached[t], middle[t]) for t in reached]
            tried = self.tried(points)
            if tried is None:
                return _shared(dict(reached))
            sites = tried
            for index, target in enumerate(reached):
                site = sites.get(target[0])
                taken = site is not None and site.taken[target[1]][index]
                (high if taken else low)[target] = middle[target]
        beyond = {t: min(1.0, high[t] * (1 + _BEYOND)) for t in reached}
        points = [self.between(reached[t], beyond[t]) for t in reached]
        sites = (self.tried(points) or {}) if points else {}
        found: dict[tuple[Key, int], Arrays] = {}
        for index, target in enumerate(reached):
            site = sites.get(target[0])
            stands = site is not None and site.taken[target[1]][index]
            stands = stands and (target[0][0] >= self.always or self.holds(points[index]))
            found[target] = (
                points[index] if stands and self.legal(points[index]) else reached[target]
            )
        return _shared(found)

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

    def whole_moves(self) -> dict[str, list[Arrays]]:
        """Return, for each input of whole numbers, the program's own numbers in their place."""
        found: dict[str, list[Arrays]] = {}
        indexed = any(
            equation.primitive.name in ("gather", "dynamic_slice", "scatter", "scatter-add")
            for program in self.programs
            for equation, _ in walk(program)
        )
        for name in self.moved:
            array = self.start[name]
            if array.dtype == bool:
                changes: list[Callable[[Any], Any]] = [_half_flipped, np.logical_not]
                changes += [np.zeros_like, np.ones_like]
            elif np.issubdtype(array.dtype, np.integer):
                top = array.max(initial=0) if indexed else np.inf
                numbers = sorted({int(n) + d for n in self.numbers(True) for d in (0, -1, 1)})
                inside = [n for n in numbers if 0 <= n <= top]
                changes = [partial(np.full_like, fill_value=n) for n in inside]
            else:
                continue
            found[name] = [self.with_([name], change) for change in changes]
        return found

    def with_(self, names: Sequence[str], change: Callable[[Any], Any]) -> Arrays:
        """Return the starting point with some inputs changed."""
        return {n: np.asarray(change(a)) if n in names else a for n, a in self.start.items()}

    def numbers(self, whole: bool = False) -> list[float]:
        """Return the numbers with which the programs compare."""
        found: dict[float, None] = {}
        for program in self.programs:
            for equation, _ in walk(program):
                if equation.primitive.name in (*_COMPARED, "eq", "ne", "max", "min", "clamp"):
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
            moved = self.visit([self.along(floats, step * d) for d in some])
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
        self._calls: list[Equation] = []
        self._key, self._points, self._found, self._given = key, points, found, given
        self._turns: Counter[Key] = Counter()

    def _open(self, step: Any, inputs: list[Value]) -> list[Value]:
        if step.inner is None:
            return super()._open(step, inputs)
        self._calls.append(step.equation)
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
                self._sides(equation, {0: (~flat).any(1), 1: flat.any(1)}, None)
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
            self._sides(equation, {k: index == k for k in range(count)}, None)
        return super().cond(equation, inputs)

    def _note(self, equation: Any, margins: Any, outcome: Any) -> None:
        flat = np.broadcast_to(margins, (self._points, *margins.shape[1:]))
        flat = flat.reshape(self._points, -1)
        if outcome is None:
            taken = {0: (flat < 0).any(1), 1: (flat > 0).any(1)}
        else:  # at equality a comparison has an outcome, and no margin
            sides = outcome.reshape(self._points, -1)
            taken = {0: (~sides).any(1), 1: sides.any(1)}
        self._sides(equation, taken, flat)

    def _key_of(self, equation: Any) -> Key:
        return (*self._key, *map(id, self._calls), id(equation))

    def _sides(self, equation: Any, taken: dict[int, Any], margins: Any) -> None:
        key = self._key_of(equation)
        known = self._found.get(key)
        if known is None:
            self._found[key] = _Site(equation, self._line(equation), taken, margins)
        else:  # another turn of a loop
            known.taken = {k: known.taken[k] | t for k, t in taken.items()}
            if margins is not None and known.margins is not None:
                closer = np.abs(margins).min(1) < np.abs(known.margins).min(1)
                if margins.shape == known.margins.shape and closer[0]:
                    known.margins = margins

    def _line(self, equation: Any) -> str:
        """Return the user's line: that of the call, where a function of JAX's own was called."""
        for call in self._calls:
            name = str(call.params.get("name", "")).lstrip("_")
            if hasattr(jax.numpy, name) or hasattr(jax.nn, name):
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


def _geometric(low: float, high: float) -> float:
    return (low * high) ** 0.5 if low > 0 else high * 0.1 if high > 1e-3 else high / 2


def _shared(found: dict[tuple[Key, int], Arrays]) -> dict[tuple[Key, int], Arrays]:
    """Return equal points as one."""
    known: dict[bytes, Arrays] = {}
    return {
        target: known.setdefault(b"".join(a.tobytes() for a in point.values()), point)
        for target, point in found.items()
    }


def _side(site: _Site, side: int) -> Side:
    """Return a side in the words of the source, where a line has them."""
    name, path = site.equation.primitive.name, site.line
    said = _said(name, path, side)
    return Side(path.rsplit("/", 1)[-1], said, _said(name, path, 1 - side))


def _said(name: str, path: str, side: int) -> str:
    text = _condition(path) if name in _COMPARED else ""
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
    return f"a comparison is {'true' if side == 1 else 'false'}"


def _condition(path: str) -> str:
    """Return the comparison that a line of source holds, if it holds one alone."""
    file, _, number = path.rpartition(":")
    line = linecache.getline(file, int(number)).strip() if number.isdigit() else ""
    for text in (line, f"{line} pass", line.removeprefix("el") + " pass", line.rstrip(",")):
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        found = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Compare)]
        return found[0] if len(found) == 1 else ""
    return ""
