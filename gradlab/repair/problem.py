"""A derivative as someone wrote it: how it is run, and what is right there.

The right gradients are those of autodiff of the forward, traced or read as a program, evaluated in
NumPy.
"""

import contextlib
import functools
import itertools
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any, Literal, Self

import jax
import numpy as np

from gradlab.common.arrays import Function, Tree
from gradlab.common.arrays import NumPyArray as Array
from gradlab.proof import BUDGET, prove
from gradlab.proof.branches import walk_branches
from gradlab.reading import Reading, read
from gradlab.reading.lines import few_lines
from gradlab.references import jvp_program, smallest_normal, vjp_program
from gradlab.repair.pool import Scope
from gradlab.repair.source import Text
from gradlab.repair.standin import numbers
from gradlab.repair.within import Within, gradients_within
from gradlab.repair.world import Failed, World, is_gradlabs, quiet, theirs, written_by_the_user
from gradlab.tracing import (
    Arithmetic,
    Lifter,
    NumPy,
    Program,
    Value,
    rename,
    run_lifted,
    strip,
    trace,
    with_derivative_of,
)
from gradlab.tracing.jaxprs import JAX_FOLDER, ByIdentity, dtype_of
from gradlab.tracing.leaves import flatten, in_numpy, in_words, is_inexact, is_key
from gradlab.tracing.work import work

Errors = tuple[float, float, float]
Kind = Literal["pair", "residuals", "gradients", "vjp", "jvp", "node"]


_LEAST = 8  # candidates, however long the forward takes
OTHER_WAY = 14  # the point at which what is True is False
INSIDE = 100  # points from here on have no value beyond the given ones
_FEW, _MANY = 60, 1 << 20  # edits of a forward, and of one that JAX traces
_CHECK = 120  # evaluations that a check takes
_CANDIDATE, _LINE, _ENTRY = 4.5e-4, 2e-6, 2e-9  # seconds: of any candidate, and of what it runs
_COMPILED = 5e-3  # seconds of an equation that JAX compiles
_STEPS = 1_500  # of a program, above which other sizes are not larger ones
_LARGE = 400  # entries above which the search runs at smaller shapes
_CLOSE = 1e-9
_LARGEST = 1 << 16  # of a place; what is larger may be a key
_SETTINGS = 6
_ROUNDING, _SMALL = 1e-14, 1e-8  # of the largest gradient


@dataclass(frozen=True)
class HandRule:
    """A derivative as someone wrote it, with the inputs at which it is wrong.

    Attributes:
        kind: "pair": `backward(upstream, *inputs)`; "residuals": `backward(upstream, kept)`, where
            the forward returns `output, kept`; "gradients": the forward returns both itself;
            "vjp" and "jvp": the functions of a custom rule of JAX; "node": `backward(upstream,
            *inputs)` returns the outputs, then each gradient as backward and local gradient say.
        forward: the forward, or `fwd` of a custom_vjp; what a node is held against.
        backward: the backward, `bwd`, or the rule of a custom_jvp; unused for "gradients".
        primal: the function that a custom rule decorates; None for the others.
        static: the positions of a custom rule's arguments that are no arrays to it.
        sources: files that may be edited, though they are gradlab's own.
        given: the user's own inputs, where gradlab made others to take another branch.
        meant: a function of the same inputs whose derivative is right; None: the forward's is.
        symmetric: inputs that whoever calls the rule keeps symmetric.
        elsewhere: further inputs of a custom rule, from later calls or other rows of a batch.
    """

    kind: Kind
    forward: Function
    backward: Function
    inputs: tuple[Tree, ...]
    names: tuple[str, ...]
    paths: tuple[str, ...]
    primal: Function | None = None
    static: tuple[int, ...] = ()
    wrt: tuple[int, ...] | None = None
    sources: tuple[str, ...] = ()
    given: tuple[Tree, ...] | None = None
    meant: Function | None = None
    symmetric: tuple[str, ...] = ()
    elsewhere: tuple[tuple[Tree, ...], ...] = ()

    def at(self, values: Mapping[str, Array]) -> "HandRule":
        """Return the rule with inputs that gradlab made, by their paths."""
        given, leaves, tree = flatten(self.inputs, self.names)
        moved = [
            np.asarray(values.get(leaf.path, value), leaf.dtype) if _is_array(value) else value
            for value, leaf in zip(given, leaves)
        ]
        return replace(self, inputs=jax.tree.unflatten(tree, moved), given=self.inputs)

    @property
    def plain(self) -> bool:
        """Whether the forward returns its output alone."""
        return self.primal is not None or self.kind in ("pair", "node")

    @property
    def place(self) -> tuple[str, str]:
        """The name of the function that is differentiated, and its line, as `layers.py:12`."""
        function = self.primal or self.forward
        code = getattr(function, "__code__", None)
        where = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}" if code else ""
        return getattr(function, "__name__", ""), where

    @property
    def files(self) -> set[str]:
        """The files that hold these functions."""
        given = [f for f in (self.forward, self.backward, self.primal) if not _jaxs_method(f)]
        codes = (getattr(getattr(f, "__func__", f), "__code__", None) for f in given)
        return {code.co_filename for code in codes if code is not None} | set(self.sources)


def _jaxs_method(function: Any) -> bool:
    """Whether a function is a method of JAX's, such as the `bind` of a primitive."""
    code = getattr(getattr(function, "__func__", None), "__code__", None)
    return code is not None and code.co_filename.startswith(JAX_FOLDER)


@dataclass(frozen=True)
class Point:
    """Inputs and upstreams at which gradients are compared, and the right gradients there.

    `label` says it in words: "x 5x4, gamma 4, seed 0". `others` are settings, by name and value,
    that are other numbers there.
    """

    inputs: tuple[Tree, ...]
    upstream: Any
    expected: tuple[Array, ...]
    label: str
    others: Mapping[tuple[str, float], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Mended:
    """A function's text before and after, and the points at which every gradient is right."""

    code: CodeType
    old: Text
    new: Text
    points: tuple[Point, ...]
    other_sizes: bool
    scope: Callable[[int], Scope | None] | None = None  # locals before a statement, once mended
    bound: str = ""  # the settings for whose values alone it is right: "only for c = 4.0"


@dataclass(frozen=True)
class Half:
    """An edit that makes some gradients right, where none was found for the others."""

    mended: Mended
    right: tuple[str, ...]
    wrong: tuple[str, ...]


class Problem:
    """Runs a rule in copies of the user's functions, and knows the right gradients."""

    def __init__(self, rule: HandRule, seed: int, share: float = 1.0) -> None:
        self.rule, self.seed, self._share = rule, seed, share
        self.forwards = _MANY if rule.primal is not None else _FEW
        self._files = rule.files
        self._called = rule.forward if rule.kind == "gradients" else rule.backward
        self.entry = getattr(self._called, "__func__", self._called)
        self.world = World(self.owned)
        leaves = jax.tree.leaves(rule.inputs)
        self._jax = rule.primal is not None or any(isinstance(x, jax.Array) for x in leaves)
        self.given = tuple(jax.tree.map(wide, rule.inputs))
        self._programs: dict[Any, Program] = {}
        self._primals: dict[Any, tuple[Program, bool]] = {}
        self._last: tuple[Any, Program | None] = None, None  # a mended rule as a program
        self.walked = 0  # places on other branches at which a mended rule was judged
        self._refuses = False  # tracers, as NumPy does in many ways
        self._others: Mapping[tuple[str, float], float] = {}  # settings that are other numbers
        entries = sum(np.size(x) for x in jax.tree.leaves(self.given))
        self._sizes = list(_lengths(self.given, entries > _LARGE))
        self._noise: list[float] = []
        self._small = self._usable(self._sizes) if entries > _LARGE else {}
        if rule.symmetric and not self._takes_the_symmetric_part():
            self.rule = rule = replace(rule, symmetric=())
        self._noise = [] if rule.kind in ("jvp", "node") else self._sizes_of_noise()
        self._last_within: tuple[Point | None, Within | None] = None, None
        self.long = False  # whether each program that is made takes long
        with contextlib.suppress(Failed):
            self.long = work(self._program(self._drawn(0, self._small)).jaxpr).steps > _STEPS
        self._sizes[:0] = [_exchanged(self._drawn(0, self._small))] * self.long

    def owned(self, path: str) -> bool:
        """Return whether a file's functions are the user's, so that they are copied."""
        return path in self._files or written_by_the_user(path)

    def edits(self, path: str) -> bool:
        """Return whether a file's functions may be edited."""
        ours = is_gradlabs(path) and path not in self.rule.sources
        return self.owned(path) and not ours and not path.startswith(JAX_FOLDER)

    def _usable(self, choices: list[dict[int, int]]) -> dict[int, int]:
        """Return the first lengths that the forward and the backward take."""
        for lengths in choices:
            point = self._point(20, lengths)
            if point is None:
                continue
            with contextlib.suppress(Failed), quiet():
                self.world.call(self.world.load(self.entry), *self.arguments(self.world, point))
                self._sizes = list(_lengths(self._drawn(20, lengths), False))
                return lengths
        return {}

    @property
    def forward(self) -> CodeType | None:
        """The code of the forward that keeps something for the backward."""
        function = getattr(self.rule.forward, "__func__", self.rule.forward)
        return getattr(function, "__code__", None)

    @property
    def differentiated(self) -> set[CodeType]:
        """The code of what is differentiated, where it returns its output alone."""
        root = self.rule.primal or self.rule.forward
        code = getattr(root, "__code__", None)
        return {code} if code is not None and self.rule.plain else set()

    @property
    def upstream_name(self) -> str:
        """The parameter of the backward that takes the upstream; "" where none does."""
        code = getattr(self.entry, "__code__", None)
        if code is None or self.rule.kind in ("gradients", "jvp", "node"):
            return ""
        taken = code.co_varnames[self.entry is not self._called : code.co_argcount]
        return str(taken[-1 if self.rule.kind == "vjp" else 0]) if taken else ""

    # how it is run

    def value(self, world: World, point: Point, jvp: bool = True) -> list[Tree]:
        """Return the outputs at a point, of `fwd` and a `jvp` as well: no edit may change them."""
        found = list(jax.tree.leaves(self._value(world, point.inputs)))
        if self.rule.kind == "vjp":
            ran, given = world.ran, self._arrays(world, point.inputs)
            output, _ = _pair(world.call(world.load(self.rule.forward), *given))
            found += jax.tree.leaves(output)
            world.ran |= ran
        if jvp and self.rule.kind == "jvp":
            ran, given = world.ran, self.arguments(world, point)
            found += jax.tree.leaves(_pair(world.call(world.load(self.entry), *given))[0])
            world.ran |= ran
        return list(map(in_words, found))

    def _value(self, world: World, inputs: tuple[Tree, ...]) -> Tree:
        given = self._arrays(world, inputs)
        result = world.call(world.load(self.rule.primal or self.rule.forward), *given)
        return (
            result if self.rule.primal or self.rule.kind in ("pair", "node") else _pair(result)[0]
        )

    def arguments(self, world: World, point: Point) -> tuple[Tree, ...]:
        """Return the entry's arguments at a point."""
        rule = self.rule
        inputs, upstream = self._arrays(world, (point.inputs, point.upstream))
        method = hasattr(self._called, "__func__")
        before = (world.load(self._called.__self__),) if method else ()  # type: ignore[attr-defined]
        held = (*before, *(inputs[i] for i in rule.static))
        if rule.kind == "gradients":
            return (*held, *inputs)
        if rule.kind == "jvp":
            return (*held, self._moving(inputs), upstream)
        if rule.kind in ("pair", "node"):
            return (*held, upstream, *inputs)
        kept = _pair(world.call(world.load(rule.forward), *inputs))[1]
        return (*held, kept, upstream) if rule.kind == "vjp" else (*held, upstream, kept)

    def upstream_of(self, arguments: Sequence[Tree]) -> Tree:
        """Return the upstream among the entry's arguments; nothing where there is none."""
        if self.rule.kind not in ("pair", "residuals", "vjp"):
            return ()
        place = -1 if self.rule.kind == "vjp" else int(hasattr(self._called, "__func__"))
        return arguments[place]

    def _arrays(self, world: World, inputs: Tree) -> Any:
        """Return copies of arrays, as the user's code takes them in this world."""

        def one(x: Any) -> Any:
            if not isinstance(x, np.ndarray):
                return x
            if not self._jax:
                return x.copy()
            return numbers(x.copy()) if world.numpy else jax.numpy.asarray(x)

        return jax.tree.map(one, inputs)

    def _moving(self, inputs: Sequence[Tree]) -> tuple[Any, ...]:
        return tuple(x for i, x in enumerate(inputs) if i not in self.rule.static)

    def gradients(self, result: Tree) -> list[Any]:
        """Read the gradients out of what the entry returned; None where it gives none."""
        return self._without_noise(self._gradients(result))

    def _gradients(self, result: Tree) -> list[Any]:
        rule = self.rule
        if rule.kind == "node":
            return list(result)
        if rule.kind == "jvp":
            return list(jax.tree.leaves(_pair(result)[1]))
        by_name = self._by_name(_pair(result)[1] if rule.kind == "gradients" else result)
        roots = dict.fromkeys(self._roots)  # an input of many leaves is read once
        parts = {root: _parts(root, by_name[root]) for root in roots if root in by_name}
        return [parts.get(root, {}).get(path) for root, path in zip(self._roots, rule.paths)]

    def _without_noise(self, gradients: Sequence[Any]) -> list[Any]:
        """Return gradients in which what rounding leaves of terms that cancel is zero.

        Of a symmetric input, only the symmetric part of a gradient says anything.
        """
        paths = self.rule.paths if self.rule.symmetric and self.rule.kind == "vjp" else ()
        gradients = [
            _even(each) if path in self.rule.symmetric and np.ndim(each) > 1 else each
            for each, path in itertools.zip_longest(gradients, paths)
        ]
        return [
            np.where(np.abs(each) <= noise, 0.0, each) if noise and _is_number(each) else each
            for each, noise in itertools.zip_longest(gradients, self._noise)
        ]

    def _sizes_of_noise(self) -> list[float]:
        """Return the size up to which each gradient is rounding noise; 0 where that is not known.

        A gradient far smaller than the others counts as noise only if rounding the inputs changes
        it.
        """
        given = self._drawn(0, self._small)
        moved = jax.tree.map(lambda x: x * (1 + 1e-15) if _is_number(x) else x, given)
        try:
            with quiet():
                upstream = self._upstream(given, np.random.default_rng([self.seed, 7]), 0)
                first = self._exactly(given, upstream)
                sizes = [float(np.max(np.abs(one), initial=0.0)) for one in first]
                most = max((size for size in sizes if np.isfinite(size)), default=0.0)
                if all(size > _SMALL * most for size in sizes):
                    return [_ROUNDING * most] * len(sizes)
                second = self._exactly(moved, upstream)
        except Failed:
            return []
        apart = [float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(first, second)]
        return [
            _ROUNDING * most * (size > _SMALL * most or off > 1e-3 * size)
            for size, off in zip(sizes, apart)
        ]

    @functools.cached_property
    def _roots(self) -> tuple[str, ...]:
        """The input that each leaf belongs to; `xs[0]` may be a name or a leaf of `xs`."""
        names = self.rule.names
        paths = self.rule.paths
        return tuple(max((n for n in names if path.startswith(n)), key=len) for path in paths)

    def _by_name(self, result: Tree) -> dict[str, Any]:
        """Return gradients by the name of their input, however they were gathered."""
        rule = self.rule
        every = [n for i, n in enumerate(rule.names) if i not in rule.static]
        chosen = [rule.names[i] for i in rule.wrt] if rule.wrt is not None else every
        choices = [chosen, list(dict.fromkeys(self._roots)), every]
        if isinstance(result, dict) and any(set(result) & set(names) for names in choices):
            return result
        whole = result if isinstance(result, tuple | list) else (result,)
        names = next((names for names in choices if len(names) == len(whole)), [])
        return dict(zip(names, whole))

    def right(self, near: bool = False) -> tuple[bool, ...]:
        """Say of each gradient whether it is right, at all points where the rule runs.

        `near`: at the given inputs and beside them alone.
        """
        entry, seen = self.world.load(self.entry), list[tuple[bool, ...]]()
        points = [self.point(0, 0)]
        if near:
            points.append(self.point(-1, 0))
        else:
            points += [self.point(11, 0, vary=True), *itertools.islice(self.points(13), 1)]
        for point in filter(None, points):
            with contextlib.suppress(Failed), quiet():
                result = self.world.call(entry, *self.arguments(self.world, point))
                seen.append(judged(self.gradients(result), point.expected)[0])
        return tuple(map(all, zip(*seen))) or (False,) * len(self.rule.paths)

    # points

    def points(self, k: int, bare: bool = False) -> Iterator[Point]:
        """Yield the k-th point: of each choice of other sizes, and last of the given ones.

        What is right at `bare` points is not computed.
        """
        for size in (*range(1, len(self._sizes) + 1), 0):
            for each in (k, INSIDE + k):
                if (point := self.point(each, size, bare=bare)) is not None:
                    yield point

    def shapes(self, inputs: tuple[Tree, ...]) -> list[tuple[int, ...]] | None:
        """Return the shapes of the right gradients at inputs, where these are the inputs' own."""
        if self.rule.kind in ("jvp", "node"):
            return None
        values, leaves, _ = flatten(inputs, self.rule.names)
        shape = {leaf.path: np.shape(v) for v, leaf in zip(values, leaves)}
        return [shape[path] for path in self.rule.paths]

    def point(self, k: int, size: int, vary: bool = False, bare: bool = False) -> Point | None:
        """Make the k-th point: of the given sizes, or of a choice of others, from 1.

        The first one, 0, is near the given inputs; -1 is at them. `vary`: numbers that are no
        arrays are others, too. None where the function refuses it.
        """
        if size > len(self._sizes):
            return None
        lengths = dict(self._small)
        if size:
            change = self._sizes[size - 1]
            found = {n for x in jax.tree.leaves(self.given) for n in np.shape(x)}
            lengths = {n: change.get(lengths.get(n, n), lengths.get(n, n)) for n in found}
        return self._point(k, lengths, vary, bare=bare)

    def uneven(self) -> Iterator[Point]:
        """Yield points at which one axis of an array is longer than those it is as long as."""
        rng = np.random.default_rng([self.seed, 15])
        flat, tree = jax.tree.flatten(self._drawn(15, dict(self._small)))
        for k, x in enumerate(flat):
            shape = np.shape(x) if isinstance(x, np.ndarray) else ()
            for axis in range(len(shape) - 1, -1, -1):
                n = shape[axis]
                if n > 1 and shape.count(n) > 1:
                    longer = np.take(x, np.arange(n + 1) % n, axis=axis)
                    made = [*flat[:k], _drawn(longer, {}, rng, None), *flat[k + 1 :]]
                    if (point := self._made(jax.tree.unflatten(tree, made), 15, {})) is not None:
                        yield point

    def still(self, point: Point) -> Point:
        """Return a point with an upstream of zero, where every gradient is zero."""
        return self.along(point, jax.tree.map(lambda u: 0 * u, point.upstream), "upstream 0")

    def along(self, point: Point, upstream: Tree, said: str) -> Point:
        """Return a point with another upstream, or another tangent."""
        expected = self._expected(point.inputs, upstream)
        return Point(point.inputs, upstream, expected, f"{point.label}, {said}")

    def times(self, point: Point, factors: Sequence[float]) -> Iterator[Point]:
        """Yield a point with each input times each factor, as far as it is known.

        For a factor of 0, with all of them too. What is right there is not computed.
        """
        leaves, tree = jax.tree.flatten(point.inputs)
        chosen = {k for k, x in enumerate(leaves) if _is_array(x) and is_inexact(x.dtype)}
        for factor, some in itertools.product(factors, [*({k} for k in chosen), chosen]):
            if factor and len(some) > 1:
                continue  # products of large values overflow, those of tiny ones vanish
            made = [factor * x if k in some else x for k, x in enumerate(leaves)]
            inputs = jax.tree.unflatten(tree, made)
            yield Point(inputs, point.upstream, (), f"{point.label}, {some} times {factor}")

    def completed(self, point: Point) -> Point | None:
        """Return a point with the right gradients; None where there are none."""
        with contextlib.suppress(Failed), quiet():
            expected = self._expected(point.inputs, point.upstream)
            return replace(point, expected=expected) if _has_numbers(expected) else None
        return None

    def of_settings(
        self, rule: World
    ) -> Iterator[tuple[dict[tuple[str, float], float], Iterator[Point]]]:
        """Yield settings that forward and rule read, and points at which they are other numbers.

        All of the forward that are no whole numbers come first, then each alone. Where a whole
        number is one more, lengths may have to be multiples of that.
        """
        with contextlib.suppress(Failed), quiet():
            self._value(self.world, self.given)
        names = self.world.read_by(self.world.ran)
        known = {s[:2]: _other_setting(*s[:2]) for s in self.world.settings if s.root in names}
        floats = {k: v for k, v in known.items() if k[1] and not isinstance(k[1], int)}
        names = rule.read_by()
        known |= {s[:2]: _other_setting(*s[:2]) for s in rule.settings if s.root in names}
        known = {(name, value): other for (name, value), other in known.items() if value}
        whole = [k for k in known if isinstance(k[1], int)]
        zeros: list[dict[tuple[str, float], float]] = [{k: 0} for k in whole[:_SETTINGS]]
        chosen = [floats] * bool(floats) + [{k: v} for k, v in known.items()]
        for others in (*chosen[:_SETTINGS], *zeros):  # a padding may be 0: `x[p:-p]` forgets that
            points = (self._point(11, each, False, others) for each in self._multiples(others))
            yield others, filter(None, points)

    def _multiples(self, others: Mapping[tuple[str, float], float]) -> Iterator[dict[int, int]]:
        """Yield lengths that may go with other settings."""
        yield dict(self._small)
        for (_, value), other in others.items():
            if len(others) == 1 and isinstance(value, int) and value > 1 <= other:
                found = {n for x in jax.tree.leaves(self.given) for n in np.shape(x)}
                made = {n: n // value * int(other) for n in sorted(found) if n % value == 0 < n}
                yield from ({n: made[n]} for n in sorted(made, reverse=True))
                yield made

    def _drawn(self, k: int, lengths: dict[int, int]) -> tuple[Any, ...]:
        rng = np.random.default_rng([self.seed, max(k, 0), sum(lengths.values())])
        near = 0.0 if k < 0 or k >= INSIDE else 1e-3 if k == 0 and not lengths else None
        drawn = jax.tree.map(lambda x: _drawn(x, lengths, rng, near), self.given)
        drawn = jax.tree.map(lambda x: _mixed(x, rng), drawn) if k >= INSIDE else drawn
        drawn = jax.tree.map(lambda x, g: np.sort(x) if _rises(g) else x, drawn, self.given)
        return tuple(self._evened(drawn, self.given))

    def _takes_the_symmetric_part(self) -> bool:
        """Whether the function reads the symmetric part alone: a gradient has no other then."""
        known, self.rule = self.rule, replace(self.rule, symmetric=())
        given, rng = self._drawn(0, self._small), np.random.default_rng([self.seed, 7])
        self.rule = known
        with contextlib.suppress(Failed), quiet():
            if known.kind == "vjp":
                pairs = zip(known.paths, self._exactly(given, self._upstream(given, rng, 0)))
                return all(is_symmetric(each) for path, each in pairs if path in known.symmetric)
            tangents = jax.tree.map(lambda x: _upstream(x, rng), given)
            both = (self._moving(each) for each in (tangents, self._evened(tangents)))
            return all(judged(*(self._exactly(given, each) for each in both))[0])
        return False

    def _evened(self, inputs: Tree, like: Tree | None = None) -> Any:
        """Return inputs, or their tangents, with those symmetric that the rule never sees else."""
        if not self.rule.symmetric:
            return inputs
        _, leaves, tree = flatten(self.given, self.rule.names)
        given = jax.tree.leaves(like) if like is not None else itertools.repeat(None)
        pairs = zip(leaves, jax.tree.leaves(inputs), given)
        even = [_even(x, g) if e.path in self.rule.symmetric else x for e, x, g in pairs]
        return jax.tree.unflatten(tree, even)

    def _point(
        self,
        k: int,
        lengths: dict[int, int],
        vary: bool = False,
        others: Mapping[tuple[str, float], float] | None = None,
        bare: bool = False,
    ) -> Point | None:
        inputs: tuple[Any, ...] = self._drawn(k, lengths)
        others = others or {}
        if vary:
            inputs = jax.tree.map(lambda x: _other_number(x, k), inputs)
        inputs = jax.tree.map(lambda x: _marked(x, others), inputs)
        made = self._made(inputs, k, others, bare)
        if made is None and any(map(_is_definite, jax.tree.leaves(self.given))):
            definite = jax.tree.map(
                lambda x, like: _even(x, like) if _is_definite(like) else x, inputs, self.given
            )
            made = self._made(definite, k, others, bare)
        return made

    def _made(
        self,
        inputs: tuple[Any, ...],
        k: int,
        others: Mapping[tuple[str, float], float],
        bare: bool = False,
    ) -> Point | None:
        self._others = others
        try:
            with quiet(), self.world.varied(others):
                upstream = self._upstream(
                    inputs, np.random.default_rng([self.seed, max(k, 0), 7]), k
                )
                expected = () if bare else self._expected(inputs, upstream)
        except Failed:  # the function refuses a point that was made for it
            return None
        finally:
            self._others = {}
        if not _has_numbers(expected):
            return None
        label = f"{_label(self.rule.names, inputs)}, seed {self.seed + k % INSIDE}"
        label += "".join(f", {name} {other:g}" for (name, _), other in others.items())
        return Point(inputs, upstream, expected, label, others)

    def _upstream(self, inputs: tuple[Tree, ...], rng: np.random.Generator, k: int) -> Any:
        if self.rule.kind == "jvp":
            return self._moving(self._evened(jax.tree.map(lambda x: _upstream(x, rng), inputs)))
        output = self._value(self.world, inputs)
        if self.rule.kind == "gradients":
            return jax.tree.map(lambda x: np.ones_like(np.asarray(x)), output)
        upstream = jax.tree.map(lambda x: _upstream(x, rng), output)
        if k % INSIDE == 12:  # where a part of the upstream is zero, a fix may not divide by it
            upstream = jax.tree.map(
                lambda u: u * (np.arange(u.size) % 2).reshape(u.shape), upstream
            )
        return upstream

    # how long it may take

    def allowed(self, lines: int, numpy: bool) -> tuple[int, float]:
        """Return how many candidates may be tried, and about how many seconds they take.

        That depends on the program, never on a clock: the same on every machine. A search takes
        about twice as long as a check, and 1.2 s.

        Args:
            lines: how many the backward runs.
            numpy: whether NumPy takes JAX's place.
        """
        size = work(self._program(self._drawn(0, self._small)).jaxpr)
        seconds = min(1.2 + 2 * _CHECK * size.seconds, 8.0) * self._share
        each = _CANDIDATE + _LINE * (lines + size.steps) + _ENTRY * size.entries
        return max(_LEAST, int(seconds / (each if numpy else _COMPILED * size.steps))), seconds

    # the right gradients

    def _program(self, inputs: tuple[Tree, ...]) -> Program:
        """Return the derivative of the forward as a program."""
        key = self._key(inputs)
        if key in self._programs:
            return self._programs[key]
        program, decided = self._primal(inputs)
        positions = [program.in_names.index(path) for path in self.rule.paths]
        derive = jvp_program if self.rule.kind == "jvp" else vjp_program
        found: Program = theirs(derive, program, positions)
        if not decided:  # values decide what is read
            self._programs[key] = found
        return found

    def _primal(self, inputs: tuple[Tree, ...]) -> tuple[Program, bool]:
        """Return the forward as a program, and whether that depends on values."""
        if self._others:
            return self._primal_anew(inputs)
        key = self._key(inputs)
        if key not in self._primals or self._primals[key][1]:
            self._primals[key] = self._primal_anew(inputs)
        return self._primals[key]

    def _key(self, inputs: tuple[Tree, ...]) -> Any:
        values, _, tree = flatten(inputs, self.rule.names)
        shapes = tuple((np.shape(v), str(getattr(v, "dtype", v))) for v in values)
        return tree, shapes, *self._others.items()

    def _primal_anew(self, inputs: tuple[Tree, ...]) -> tuple[Program, bool]:
        root, meant = self.rule.primal or self.rule.forward, self.rule.meant
        if self._others:
            world = self._in_jax[0]
            root, meant = world.load(root), world.load(meant)
            with world.varied(self._others):
                return self._traced(inputs, root, meant)
        return self._traced(inputs, root, meant)

    def _traced(
        self, inputs: tuple[Tree, ...], root: Function, meant: Function | None
    ) -> tuple[Program, bool]:
        program, decided = self._read(self._forward(inputs, root), self._moving(inputs), (root,))
        if meant is not None:
            other, too = self._read(meant, self._moving(inputs), (meant,))
            program = theirs(with_derivative_of, program, rename(other, program.in_names))
            decided |= too
        return program, decided

    def within(self, point: Point) -> Within:
        """Return the values within the forward, and their right gradients or tangents."""
        last, found = self._last_within
        if last is not point or found is None:
            program = self._primal(point.inputs)[0]
            found = gradients_within(program, *self._flat(point), self.rule.kind == "jvp")
            self._last_within = point, found
        return found

    def computed(self, point: Point) -> list[Array]:
        """Return every value that the right derivative computes on its way."""
        lifter = _Noting(NumPy())
        arrays = [in_numpy(each) for each in itertools.chain(*self._flat(point))]
        given = [Value(each, is_inexact(each.dtype)) for each in arrays]
        theirs(lifter, self._program(point.inputs).jaxpr, given)
        return lifter.seen

    def _flat(self, point: Point) -> tuple[list[Any], list[Any]]:
        """Return a point's flat inputs, and its upstreams or tangents."""
        values, leaves, _ = flatten(self._moving(point.inputs), self.rule.names)
        more = [u for u in jax.tree.leaves(point.upstream) if is_inexact(np.asarray(u).dtype)]
        return [v for v, leaf in zip(values, leaves) if leaf.traced], more

    def _forward(self, inputs: tuple[Tree, ...], root: Function) -> Function:
        rule = self.rule

        def forward(*moving: Any) -> Any:
            supply = iter(moving)
            merged = [inputs[i] if i in rule.static else next(supply) for i in range(len(inputs))]
            result = root(*merged)
            return result if rule.plain else _pair(result)[0]

        return forward

    def _read(
        self, function: Function, inputs: tuple[Tree, ...], roots: tuple[Any, ...]
    ) -> tuple[Program, bool]:
        """Return a function as a program, and whether that depends on values."""
        names = [n for i, n in enumerate(self.rule.names) if i not in self.rule.static]
        names += [f"upstream {k}" for k in range(len(inputs) - len(names))]
        if not self._refuses:
            with contextlib.suppress(Failed):
                traced: Program = theirs(functools.partial(trace, names=names), function, *inputs)
                return theirs(strip, traced), False
        with few_lines():
            reader = functools.partial(read, names=names, roots=roots)
            reading: Reading = theirs(reader, function, *inputs)
        self._refuses = True
        return reading.program, bool(reading.decisions)

    def _expected(self, inputs: tuple[Tree, ...], more: Any) -> tuple[Array, ...]:
        """Return the right gradients; of a node the outputs before them, and each of them twice."""
        return tuple(self._without_noise(self._exactly(inputs, more)))

    def _exactly(self, inputs: tuple[Tree, ...], more: Any) -> tuple[Array, ...]:
        program = self._program(inputs)
        values, more = self._flat(Point(inputs, more, (), ""))
        results = theirs(run_lifted, program.jaxpr, [*values, *more])
        if self.rule.kind == "jvp":
            return tuple(results[len(results) // 2 :])
        gradients = results[-len(self.rule.paths) :]
        if self.rule.kind != "node":
            return tuple(gradients)
        return (*results[: len(results) - len(gradients)], *gradients, *gradients)

    # the last word

    @functools.cached_property
    def _in_jax(self) -> tuple[World, Any]:
        """The user's functions in JAX itself, and the one that returns the gradients."""
        world = World(self.owned, numpy=False)
        world.load(self.rule.forward)
        return world, world.load(self.entry)

    def confirmed(self, code: CodeType, new: Text, point: Point) -> bool:
        """Run the mended rule once in JAX itself, where it is JAX's."""
        if self.rule.primal is None:
            return True
        world, entry = self._in_jax
        try:
            program = self._mended(code, new, point)
            if program is not None:  # evaluated in NumPy: compiling takes longer than the search
                flat = itertools.chain(*self._flat(point))
                came = theirs(run_lifted, program.jaxpr, flat)[-len(point.expected) :]
                return all(judged(self._without_noise(came), point.expected)[0])
            with world.exchanged(code, new):
                came = self.gradients(world.call(entry, *self.arguments(world, point)))
        except Failed:  # JAX refuses what NumPy takes
            return False
        arrays = [each if each is None else np.asarray(each) for each in came]
        return all(judged(self._without_noise(arrays), point.expected)[0])

    def lost(self, name: str, code: CodeType | None = None, new: Text | None = None) -> float:
        """Return the largest relative error at the given inputs, in the dtype of this name.

        Infinite where an entry is not finite that should be, or where the user's code fails. With
        a function's text, it is the mended rule that runs.
        """
        world, entry = self._in_jax
        dtype = jax.numpy.dtype(name)

        def narrow(x: Any) -> Any:
            return x.astype(dtype) if _is_array(x) and is_inexact(x.dtype) else x

        try:
            upstream = self._upstream(self.given, np.random.default_rng([self.seed, 0, 7]), 0)
            inputs, upstream = jax.tree.map(narrow, (self.given, upstream))
            expected = self._exactly(*jax.tree.map(wide, (inputs, upstream)))
            mended = world.exchanged(code, new) if code and new else contextlib.nullcontext()
            with mended, jax.enable_x64(dtype == np.float64):
                there = Point(inputs, upstream, expected, "")
                came = self.gradients(world.call(entry, *self.arguments(world, there)))
        except Failed:
            return np.inf
        least = smallest_normal(dtype)
        worst = 0.0
        for mine, true in zip(came, expected, strict=True):
            known, mine = np.isfinite(true), np.zeros_like(true) if mine is None else mine
            off = np.abs(wide(mine)[known] - true[known]) / np.maximum(np.abs(true[known]), least)
            worst = max(worst, float(np.max(np.nan_to_num(off, nan=np.inf), initial=0.0)))
        return worst

    def _mended(self, code: CodeType, new: Text, point: Point) -> Program | None:
        """Return the forward's values and the gradients of a mended rule as a program."""
        values, _, tree = flatten(point.inputs, self.rule.names)
        shapes = tuple((np.shape(v), str(getattr(v, "dtype", v))) for v in values)
        key = code, new, tree, shapes
        if self._last[0] != key:
            program, decided = self._mended_anew(code, new, point)
            self._last = None if decided else key, program  # or values decide what is read
        return self._last[1]

    def _mended_anew(self, code: CodeType, new: Text, point: Point) -> tuple[Program | None, bool]:
        world, entry = self._in_jax
        tree = jax.tree.structure(point.upstream)
        moving, upstreams = self._moving(point.inputs), jax.tree.leaves(point.upstream)
        if code not in world.copies or not all(is_inexact(np.asarray(u).dtype) for u in upstreams):
            return None, False

        def rule(*arrays: Any) -> list[Any]:
            given, more = iter(arrays[: len(moving)]), arrays[len(moving) :]
            static = enumerate(point.inputs)
            inputs = tuple(x if i in self.rule.static else next(given) for i, x in static)
            there = Point(inputs, jax.tree.unflatten(tree, more), (), "")
            came = self._gradients(entry(*self.arguments(world, there)))
            return [*jax.tree.leaves(self._value(world, there.inputs)), *came]

        try:
            with world.exchanged(code, new):
                roots = (entry, world.load(self.rule.forward))
                return self._read(rule, (*moving, *upstreams), roots)
        except Failed:
            return None, False

    def refuted(self, code: CodeType, new: Text) -> tuple[bool, Point | None]:
        """Return whether a mended rule is wrong on another branch, or not seen there, and where.

        The branches are those of the function, and those of the rule itself. A rule that is wrong
        at inputs that gradlab made must be seen there.
        """
        made = self.rule.given is not None
        own = [self.rule.given] * (made and not self._small)  # large inputs take long
        for start in [*own, self._drawn(0, self._small)]:
            try:
                seen, where = self._walked(code, new, jax.tree.map(wide, start))
            except Failed:
                seen, where = False, None
            if where is not None or (made and not seen):
                return True, where
        return False, None

    def _walked(
        self, code: CodeType, new: Text, inputs: tuple[Tree, ...]
    ) -> tuple[bool, Point | None]:
        """Return whether other branches could be seen, and where the mended rule is wrong."""
        with quiet():
            upstream = self._upstream(inputs, np.random.default_rng([self.seed, 7]), 0)
            reference = self._program(inputs)
        point = Point(inputs, upstream, (), "")
        program = None if self.rule.kind == "node" else self._mended(code, new, point)
        if program is None:
            return False, None
        names, count = reference.in_names, len(reference.out_names)
        skipped = count // 2 if self.rule.kind == "jvp" else count - len(self.rule.paths)
        values, more = self._flat(point)
        if any(_is_array(x) and is_key(x.dtype) for x in values):
            return False, None
        start = dict(zip(names, map(np.asarray, (*values, *more))))
        walk = functools.partial(walk_branches, pair=(0, reference, skipped), seed=self.seed)
        programs = rename(program, names), reference
        walked = theirs(walk, programs, start, names[: len(values)])
        self.walked = max(self.walked, len(walked.places))
        for place in walked.places:
            given = [place.inputs[name] for name in names]
            ours, right = (theirs(run_lifted, each.jaxpr, given) for each in programs)
            kept = all(is_symmetric(place.inputs[path]) for path in self.rule.symmetric)
            if kept and not all(judged(ours[skipped:], right[skipped:])[0]):
                there = jax.tree.map(wide, self.rule.at(place.inputs).inputs)
                expected = self._expected(there, upstream)
                at = Point(there, upstream, expected, f"{place.sides}")
                if self._is_wrong(code, new, at, reference, given, right, skipped):
                    return True, at
        return not walked.reason, None

    def _is_wrong(
        self,
        code: CodeType,
        new: Text,
        point: Point,
        reference: Program,
        given: Sequence[Array],
        right: Sequence[Array],
        skipped: int,
    ) -> bool:
        """Whether a mended rule is wrong at a place where its program is, as it was read.

        The function must be itself there, the rule must be wrong where it runs, and no gradient
        right that lies between those on both sides of a kink.
        """
        world, entry = self._in_jax
        sides, value = [], None
        with contextlib.suppress(Failed), quiet():
            value = jax.tree.leaves(self._value(self.world, point.inputs))
        if value is None or not all(map(_alike, value, right[:skipped])):
            return False
        if any(_is_number(each) and np.isnan(each).any() for each in value):
            return False  # the function has no value there
        with contextlib.suppress(Failed), quiet():
            count, apart = len(given) - len(self._flat(point)[1]), True

            def gradients(inputs: tuple[Any, ...]) -> list[Any]:
                there = replace(point, inputs=inputs)
                with world.exchanged(code, new):
                    return self.gradients(world.call(entry, *self.arguments(world, there)))

            for one in (None, *range(count)):  # all by noise, then each as a whole
                for sign in (1e-7, -1e-7):
                    rng = np.random.default_rng(self.seed) if one is None else None
                    moved = [
                        _nudged(x, sign * (one in (None, k)), rng) for k, x in enumerate(given)
                    ]
                    moved[count:] = given[count:]
                    sides.append(theirs(run_lifted, reference.jaxpr, moved)[skipped:])
                    if one is None and apart:
                        values = self.rule.at(dict(zip(reference.in_names, moved))).inputs
                        apart = all(judged(gradients(jax.tree.map(wide, values)), sides[-1])[0])
            largest = max(np.max(np.abs(e), initial=0.0) for e in point.expected)
            # what terms that cancel may leave; a sum may take each side of several kinks
            near = functools.partial(_between, 1e-14 * largest, 2.0 * apart)
            return not all(map(near, gradients(point.inputs), point.expected, *sides))
        return True  # it fails where the function runs

    def proved(self, mended: Mended) -> bool:
        """Whether every gradient of the mended rule is proved one formula with the reference."""
        point = mended.points[0]
        if self.rule.kind not in ("pair", "residuals", "vjp"):
            return False
        program, reference = (
            self._mended(mended.code, mended.new, point),
            self._program(point.inputs),
        )
        flat = map(in_numpy, itertools.chain(*self._flat(point)))
        inputs = dict(zip(reference.in_names, flat))
        if any(is_key(each.dtype) for each in inputs.values()):
            return False
        if program is None or len(program.in_names) != len(inputs):
            return False
        outputs = range(len(reference.out_names) - len(self.rule.paths), len(reference.out_names))
        aligned = rename(program, reference.in_names)
        return all(proof.proved for proof in prove(aligned, reference, inputs, outputs, 0, BUDGET))


class _Noting(Lifter):
    """Evaluates, and notes what every equation makes."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        super().__init__(arithmetic)
        self.seen: list[Array] = []

    def enter(self, turn: Any = None) -> Self:
        return self

    def equation(self, equation: Any, inputs: Sequence[Value]) -> list[Value]:
        outputs = super().equation(equation, inputs)
        arrays = [in_numpy(each.array) for each in outputs if is_inexact(dtype_of(each.array))]
        self.seen += [each.copy() for each in arrays if each.dtype.kind == "f" and each.size > 1]
        return outputs


def _pair(result: Tree) -> tuple[Any, Any]:
    """Return the two things that a function returns; more than one behind the first are one."""
    if not isinstance(result, tuple | list) or len(result) < 2:
        raise Failed("it returns no pair")
    return result[0], result[1] if len(result) == 2 else result[1:]


def _parts(root: str, gradient: Any) -> dict[str, Any]:
    """Return the gradients of the leaves of an input, by path, and the whole by its name."""
    if isinstance(gradient, np.ndarray):
        return {root: gradient}
    found, _ = jax.tree_util.tree_flatten_with_path(gradient, is_leaf=lambda x: x is None)
    return {root + jax.tree_util.keystr(keys): v for keys, v in found} | {root: gradient}


def _has_numbers(gradients: Sequence[Array]) -> bool:
    return all(np.isfinite(each).any() for each in gradients if np.size(each))


def _upstream(x: Any, rng: np.random.Generator) -> Any:
    array = np.zeros(x.shape, int) if _is_array(x) and is_key(x.dtype) else np.asarray(x)
    if array.dtype.kind == "c":
        return rng.normal(size=array.shape) + 1j * rng.normal(size=array.shape)
    return rng.normal(size=array.shape) if array.dtype.kind == "f" else np.zeros_like(array)


def _is_number(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic | float) and np.asarray(x).dtype.kind in "fc"


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype")


def wide(x: Any) -> Any:
    """Return an array in NumPy with wide floats; what is no array as it is."""
    if not _is_array(x) or is_key(x.dtype):
        return x
    array = np.asarray(x)
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.float64) if is_inexact(array.dtype) else np.array(array)


def _drawn(x: Any, lengths: dict[int, int], rng: np.random.Generator, near: float | None) -> Any:
    """Return an input like the given one, of other lengths; its values are as `near` as said."""
    if not isinstance(x, np.ndarray):
        return x
    if x.ndim and x.size and x.dtype.kind in "fiu" and (x >= 0).all():
        whole = x.sum(axis=-1, keepdims=True)
        if np.allclose(whole, 1) and x.shape[-1] > 1:  # probabilities, or classes as 0 and 1
            return _distribution(x, lengths, rng, near)
    if near is None and _is_places(x):
        length, least = lengths.get(len(x), len(x)), int(x.min() > 0)  # lengths are never zero
        drawn = least + rng.permutation(max(int(x.max()) + 1 - least, length))
        return drawn[:length].astype(x.dtype)
    array = x
    for axis, length in enumerate(array.shape):
        array = np.take(array, np.arange(lengths.get(length, length)) % length, axis=axis)
    if not array.size:
        return array
    kind = array.dtype.kind
    mask = kind in "fc" and np.isin(array, (0, 1)).all() and np.ptp(array) > 0
    if kind not in "fc" or mask:
        if lengths and kind in "iu" and min(lengths.values()) < min(lengths):
            array = np.maximum(array % min(lengths.values()), (array > 0).all())
        shuffled = array.ndim and len(array) > 1 and near is None
        return array[rng.permutation(len(array))] if shuffled else array
    noise = rng.normal(size=array.shape)
    spread = float(np.std(array)) or float(np.abs(array).max()) or 1.0
    if near is not None:
        return array + near * noise * np.minimum(np.abs(array) + 1e-2 * spread, spread)
    drawn = rng.permutation(array.ravel()).reshape(array.shape)
    positive = kind == "f" and (array > 0).all()
    return drawn * np.exp(0.2 * noise) if positive else drawn + 0.3 * spread * noise


def _even(x: Any, like: Any = None) -> Any:
    """Return the symmetric part of matrices; positive definite where those like it are so."""
    turned = np.swapaxes(x, -1, -2)
    if turned.shape != np.shape(x):
        return x
    even = (np.asarray(x) + turned) / 2
    least = np.linalg.eigvalsh(like).min() if like is not None else 0.0
    if least > 0:
        lacking = np.maximum(least - np.linalg.eigvalsh(even)[..., :1, None], 0.0)
        even = even + lacking * np.eye(even.shape[-1])
    return even


def is_symmetric(x: Any) -> bool:
    """Whether a value holds symmetric matrices of more than one row."""
    if not _is_number(x) or np.ndim(x) < 2 or np.shape(x)[-1] != np.shape(x)[-2]:
        return False
    turned = np.swapaxes(x, -1, -2)
    return np.shape(x)[-1] > 1 and bool(np.allclose(x, turned, 1e-6, 1e-6 * np.abs(x).max()))


def _is_definite(x: Any) -> bool:
    """Whether a value is a positive definite matrix, or several, as covariances are."""
    return is_symmetric(x) and np.isrealobj(x) and bool(np.linalg.eigvalsh(x).min() > 0)


def _rises(x: Any) -> bool:
    """Whether an array is in order, as what is searched must be."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and len(x) > 2 and bool((np.diff(x) > 0).all())


def _mixed(x: Any, rng: np.random.Generator) -> Any:
    """Return an array whose rows lie between two of the given ones."""
    if not isinstance(x, np.ndarray) or not x.ndim:
        return x
    one, two = x[rng.permutation(len(x))], x[rng.permutation(len(x))]
    part = rng.uniform(0.2, 0.8)
    between = x.dtype.kind in "fc" and not np.isin(x, (0, 1)).all()
    return part * one + (1 - part) * two if between else one


def _other_number(x: Any, k: int) -> Any:
    """Return another setting: a fix may not hold for one value alone."""
    if type(x) is bool:
        return x is (k != OTHER_WAY)
    if type(x) is float:
        return x * (0.75 if k % 2 else 1.5)
    return x + 1 if type(x) is int and k % 2 else x


def _other_setting(name: str, value: float) -> float:
    """Return another number for a setting, on the same side of 0 and of 1.

    It depends on the name, so that settings of one value get different numbers.
    """
    if isinstance(value, int):
        return value - 1 if value < 0 else value + 1
    share = 0.6 + 0.3 * (zlib.crc32(name.encode()) % 97) / 97
    size = abs(value)
    return (share * size if size <= 1 else 1 + share * (size - 1)) * (1 if value > 0 else -1)


def _marked(x: Any, others: Mapping[tuple[str, float], float]) -> Any:
    """Return integers where what equals a negative setting, as a label to be ignored, moves too."""
    marks = {v: other for (_, v), other in others.items() if isinstance(v, int) and v < 0}
    if not marks or not _is_array(x) or x.dtype.kind != "i":
        return x
    found = x
    for mark, other in marks.items():
        found = np.where(x == mark, other, found).astype(x.dtype)
    return found


def _is_places(x: Array) -> bool:
    """Whether an array holds places, none of them twice."""
    known = x.ndim == 1 and x.dtype.kind in "iu" and len(x) > 1
    return known and 0 <= x.min() <= x.max() < _LARGEST and len(set(x.tolist())) == len(x)


def _distribution(
    x: Array, lengths: dict[int, int], rng: np.random.Generator, near: float | None
) -> Array:
    """Return an array like the given one, whose last axis sums to 1 as well."""
    if np.isin(x, (0, 1)).all():
        last = lengths.get(x.shape[-1], x.shape[-1])
        classes = _drawn(np.argmax(x, axis=-1) + 2, lengths, rng, near) - 2
        return np.asarray(np.eye(last, dtype=x.dtype)[classes % last])
    drawn = np.abs(_drawn(x * 2, lengths, rng, near))
    return np.asarray(drawn / drawn.sum(axis=-1, keepdims=True))


def _lengths(inputs: Tree, smaller: bool) -> Iterator[dict[int, int]]:
    """Yield choices of other lengths; equal ones change together, and 1 stays."""
    found = sorted({n for x in jax.tree.leaves(inputs) for n in np.shape(x) if n > 1})
    if not found:
        return
    if smaller:
        for divisor in (64, 32, 16, 8, 4, 2):
            lengths = {n: max(2, n // divisor) for n in found}
            if len(set(lengths.values())) == len(found):
                yield lengths
        yield {n: 3 + i for i, n in enumerate(found)}
        yield {n: 2 + 2 * i for i, n in enumerate(found)}
    else:
        if len(found) > 1:  # or `n - 1` for `m` may hold for both
            yield {n: n + 2 + i for i, n in enumerate(found)}
        yield {n: n + 1 for n in found}
        yield {n: (2 + i % 2) * n for i, n in enumerate(found)}  # what is no multiple stays none
        yield {n: 2 * n for n in found}
        if len(found) > 1:  # a function may ask for one of them
            yield from ({n: 2 * n} for n in found)


def _exchanged(inputs: Tree) -> dict[int, int]:
    """Return other lengths that take no longer: those next to each other stand for each other."""
    found = sorted({n for x in jax.tree.leaves(inputs) for n in np.shape(x) if n > 1})
    pairs = zip(found[::2], found[1::2])
    made = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return made | {n: max(n - 1, 2) for n in found if n not in made}


def _label(names: Sequence[str], inputs: Tree) -> str:
    arrays = ((n, x) for n, x in zip(names, inputs) if _is_array(x) or isinstance(x, int | float))
    shapes = ((n, "x".join(map(str, np.shape(x)))) for n, x in arrays)
    plain = (f"{n} {s or 'scalar'}" for n, s in shapes)
    return ", ".join(itertools.islice(plain, 4))


@functools.lru_cache(maxsize=32)
def _facts(
    expected: ByIdentity[Sequence[Array]],
) -> list[tuple[tuple[int, ...], Array, Array | None, Array, float]]:
    """Return of each right gradient: shape, finite entries and where, what is near, the norm."""
    found = []
    for each in expected.thing:
        true, known = np.ravel(each), np.isfinite(np.ravel(each))
        true = true if known.all() else true[known]
        size = np.abs(true)
        near = _CLOSE * (size + np.max(size, initial=0.0))
        where = None if known.all() else known
        found.append((np.shape(each), true, where, near, _norm(true) or 1.0))
    return found


def judged(came: Sequence[Any], expected: Sequence[Array]) -> tuple[tuple[bool, ...], Errors]:
    """Say of each gradient whether it is right; how far off all are, by three measures.

    The measures: the relative error, that up to a common factor, the share of wrong entries.
    """
    right, measures = [], []
    for mine, (shape, true, known, near, norm) in zip(
        came, _facts(ByIdentity(expected)), strict=True
    ):
        try:
            array = np.zeros(shape) if mine is None else np.asarray(mine)
        except ValueError:  # a ragged list
            array = np.asarray(None)
        if array.shape != shape or array.dtype.kind not in "fciub":
            right.append(False)
            measures.append((4.0, 4.0, 1.0))
            continue
        array = array.ravel() if known is None else array.ravel()[known]
        off = np.abs(array - true)
        close = off <= near
        count = np.count_nonzero(close)
        right.append(bool(count == close.size))
        other = _norm(array) or 1.0
        turn = 1.0 - float(abs(np.vdot(true, array)) / (norm * other)) ** 2
        angle = math.sqrt(max(turn, 0.0))
        wrong = (close.size - count) / max(math.prod(shape), 1)
        measures.append((min(_norm(off) / norm, 4.0), angle, wrong))
    sums = [float(sum(each)) for each in zip(*measures)] or [0.0] * 3
    first, second, third = (9.0 if math.isnan(each) else each for each in sums)
    return tuple(right), (first, second, third)


def _alike(value: Any, right: Any) -> bool:
    return np.shape(value) == np.shape(right) and np.allclose(value, right, 1e-9, equal_nan=True)


def _nudged(x: Array, size: float, rng: np.random.Generator | None) -> Array:
    """Return an array of floats a little off, always by the same noise, or as a whole."""
    if not _is_number(x) or np.iscomplexobj(x):
        return x
    noise = rng.normal(size=np.shape(x)) if rng is not None else 1.0
    return np.asarray(x + size * noise * (np.abs(x) + 1))


def _between(noise: float, beyond: float, mine: Any, right: Any, *sides: Any) -> bool:
    """Whether each entry is right, or lies between those on all sides, or `beyond` by so much."""
    if np.shape(mine) != np.shape(right):
        return False
    low, high = np.minimum.reduce(sides), np.maximum.reduce(sides)
    slack = 1e-6 * (np.abs(low) + np.abs(high)) + noise + beyond * (high - low)
    inside = (low - slack <= mine) & (mine <= high + slack)
    size = np.abs(right)
    close = np.abs(mine - right) <= _CLOSE * (size + np.max(size, initial=0.0)) + noise
    return bool(np.all(close | inside))


def _norm(array: Array) -> float:
    return float(np.sqrt(np.vdot(array, array).real))
