"""From a wrong gradient to fixes: what ran, where it is tried, and what is right there.

The edit engine searches; here it is told what to run. The right gradients are those of autodiff of
the forward, traced or read as a program and evaluated in NumPy; where that is impossible, fourth
differences of the forward.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal

import jax
import numpy as np

from gradlab.checking.explaining import explained
from gradlab.checking.summary import Repair
from gradlab.errors import GradlabError
from gradlab.reading import read
from gradlab.references import jvp_program, vjp_program
from gradlab.repair import (
    Load,
    Mended,
    Point,
    Task,
    Text,
    World,
    functions_of,
    mend,
    quiet,
    unified,
    written_by_the_user,
)
from gradlab.report import Fix
from gradlab.tracing import Lifter, Program, Value, strip, trace, without_checks
from gradlab.tracing.arithmetic import NumPy
from gradlab.tracing.leaves import flatten, is_inexact

__all__ = ["HandRule", "fixes_for", "fixes_of", "repair", "rules_met"]

Array = np.ndarray[Any, Any]
Kind = Literal["pair", "residuals", "gradients", "vjp", "jvp"]

_LARGE = 400  # entries above which the search runs at smaller shapes
_STEP = 3e-4
_STEPS = (-2 * _STEP, -_STEP, _STEP, 2 * _STEP)


@dataclass(frozen=True)
class HandRule:
    """A derivative as someone wrote it, with the inputs at which it is wrong.

    Attributes:
        kind: "pair": `backward(upstream, *inputs)`; "residuals": `backward(upstream, kept)`, where
            the forward returns `output, kept`; "gradients": the forward returns both itself;
            "vjp" and "jvp": the functions of a custom rule of JAX.
        forward: the forward, or `fwd` of a custom_vjp.
        backward: the backward, `bwd`, or the rule of a custom_jvp; unused for "gradients".
        primal: the function that a custom rule decorates; None for the others.
        static: the positions of a custom rule's arguments that are no arrays to it.
    """

    kind: Kind
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: tuple[Any, ...]
    names: tuple[str, ...]
    paths: tuple[str, ...]
    primal: Callable[..., Any] | None = None
    static: tuple[int, ...] = ()
    wrt: tuple[int, ...] | None = None

    @property
    def place(self) -> tuple[str, str]:
        """The name of the function that is differentiated, and its line, as `layers.py:12`."""
        function = self.primal or self.forward
        code = getattr(function, "__code__", None)
        where = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}" if code else ""
        return getattr(function, "__name__", ""), where


def rules_met(
    function: Callable[..., Any], inputs: tuple[Any, ...], names: tuple[str, ...]
) -> list[HandRule]:
    """Return the custom rules that a JAX function meets, with the values that reach them."""
    met: list[tuple[Any, tuple[Any, ...]]] = []
    found: dict[int, HandRule] = {}
    world = World(_owner(function), met=lambda rule, given: met.append((rule, given)))
    with quiet():
        try:
            world.load(function)(*jax.tree.map(_wide, inputs))
        except Exception:  # the user's code in a world of copies
            return []
    for rule, given in met:
        primal, fwd, bwd, jvp = functions_of(rule)
        code = getattr(primal, "__code__", None)
        labels = code.co_varnames[: len(given)] if code is not None else ()
        called = tuple(labels) if len(labels) == len(given) else names[: len(given)]
        static = tuple(getattr(rule, "nondiff_argnums", ()) or ())
        static = tuple(called.index(s) if isinstance(s, str) else s for s in static)
        values, leaves, _ = flatten(given, called)
        del values
        paths = tuple(
            leaf.path for leaf in leaves if leaf.differentiable and leaf.position not in static
        )
        kind: Kind = "jvp" if jvp is not None else "vjp"
        forward, backward = (primal, jvp) if jvp is not None else (fwd, bwd)
        if callable(forward) and callable(backward) and paths and len(called) == len(given):
            args = (kind, forward, backward, given, called, paths, primal, static)
            found.setdefault(id(rule), HandRule(*args))
    return list(found.values())


def fixes_for(
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    *,
    backward: Callable[..., Any] | None,
    returns: str,
    names: tuple[str, ...],
    paths: tuple[str, ...],
    wrt: tuple[int, ...] | None,
    spent: float,
    seed: int,
) -> Repair:
    """Return the fixes of what a check found wrong.

    Args:
        function: the forward that was checked.
        inputs: its arguments.
        backward: the backward that was given with it.
        returns: what `function` returns, as `check` takes it.
        names: the names of the inputs.
        paths: the inputs whose gradients were judged.
        wrt: the positions of the inputs that were asked for.
        spent: seconds of CPU that the check has taken.
        seed: of the points.
    """
    kinds: dict[str, Kind] = {"output+residuals": "residuals", "output+gradients": "gradients"}
    if backward is None and returns == "output":
        rules = rules_met(function, inputs, names)
    else:
        kind = kinds.get(returns, "pair")
        given = backward or function
        rules = [HandRule(kind, function, given, inputs, names, paths, wrt=wrt)]
    return repair(rules, spent, seed)


def repair(rules: Sequence[HandRule], spent: float, seed: int) -> Repair:
    """Return the fixes of the first of these rules that is wrong and can be mended.

    The search takes twice the CPU that was spent so far and 2.5 seconds, at most eight.
    """
    allowance = min(2.5 + 2.0 * spent, 8.0)
    for rule in rules[:4]:
        try:
            found = fixes_of(rule, allowance / len(rules[:4]), seed)
        except Exception as error:  # a search over code of any kind; the verdict stands without it
            said = f"{type(error).__name__}: {error}".split("\n")[0]
            return Repair((), (f"the search for a fix ended early: {said}",))
        if found:
            return Repair(found)
    return Repair()


def fixes_of(rule: HandRule, allowance: float, seed: int) -> tuple[Fix, ...]:
    """Return the edits of the user's source that make every gradient right, best first."""
    with without_checks():
        found = mend(_Adapter(rule, seed).task(allowance))
    return tuple(fix for each in found if (fix := _fix(each)) is not None)


def _fix(mended: Mended) -> Fix | None:
    old, new = mended.old, mended.new
    here = os.path.relpath(old.path)
    shown = os.path.basename(old.path) if here.startswith("..") else here
    if not os.access(old.path, os.W_OK):
        return None
    diff = unified(old, new, shown)
    before = tuple(line[1:] for line in diff.split("\n")[2:] if line.startswith("-"))
    after = tuple(line[1:] for line in diff.split("\n")[2:] if line.startswith("+"))
    first = next(line for line in diff.split("\n") if line.startswith("@@"))
    line = int(first.split()[1].lstrip("-").split(",")[0])
    code, sentence = explained(mended)
    return Fix(
        diff=diff,
        file=here,
        line=max(line, 1),
        before=before,
        after=after,
        explanation=sentence,
        kind=code,
        edits=len(new.edits),
        verified_at=tuple(point.label for point in mended.points),
        reaches="" if mended.other_sizes else "tried at these shapes alone",
    )


def _owner(*functions: Any) -> Callable[[str], bool]:
    """Return what says whether a file is the user's: those of these functions are."""
    codes = (getattr(getattr(f, "__func__", f), "__code__", None) for f in functions)
    files = {code.co_filename for code in codes if code is not None}
    return lambda path: path in files or written_by_the_user(path)


class _Adapter:
    """Runs a rule in copies of the user's functions, and knows the right gradients."""

    def __init__(self, rule: HandRule, seed: int) -> None:
        self.rule, self.seed = rule, seed
        self.owned = _owner(rule.forward, rule.backward, rule.primal)
        self.world = World(self.owned)
        self.given = tuple(jax.tree.map(_wide, rule.inputs))
        self._programs: dict[Any, Program | None] = {}
        self._reread: set[Any] = set()  # shapes at which values decide what is read
        entries = sum(np.size(x) for x in jax.tree.leaves(self.given))
        self._sizes = list(_lengths(self.given, entries > _LARGE))
        self._small = self._usable(self._sizes) if entries > _LARGE else {}

    def _usable(self, choices: list[dict[int, int]]) -> dict[int, int]:
        for lengths in choices:
            if self._point(20, lengths) is not None:
                self._sizes = list(_lengths(self._drawn(20, lengths), False))
                return lengths
        return {}

    def task(self, allowance: float) -> Task:
        """Return what the engine is asked."""
        return Task(
            entry=getattr(self._called, "__func__", self._called),
            value=lambda load, p: jax.tree.leaves(self.value(load, _copies(p.inputs))),
            arguments=self.arguments,
            gradients=self.gradients,
            point=self.point,
            owned=self.owned,
            allowance=allowance,
            confirmed=self.confirmed,
        )

    def value(self, load: Load, inputs: tuple[Any, ...]) -> Any:
        """Return the forward's output."""
        rule = self.rule
        if rule.primal is not None:
            return load(rule.primal)(*inputs)
        result = load(rule.forward)(*inputs)
        return result if rule.kind == "pair" else result[0]

    @property
    def _called(self) -> Callable[..., Any]:
        return self.rule.forward if self.rule.kind == "gradients" else self.rule.backward

    def arguments(self, load: Load, point: Point) -> tuple[Any, ...]:
        """Return what the entry is called with: a method's object first."""
        method = hasattr(self._called, "__func__")
        before = (load(self._called.__self__),) if method else ()  # type: ignore[attr-defined]
        return (*before, *self._given(load, point))

    def _given(self, load: Load, point: Point) -> tuple[Any, ...]:
        rule = self.rule
        inputs: tuple[Any, ...] = _copies(point.inputs)
        held = tuple(inputs[i] for i in rule.static)
        if rule.kind == "gradients":
            return inputs
        if rule.kind == "jvp":
            return (*held, self._moving(inputs), point.upstream)
        if rule.kind == "pair":
            return (point.upstream, *inputs)
        result = load(rule.forward)(*inputs)
        kept = result[1] if len(result) == 2 else result[1:]
        return (*held, kept, point.upstream) if rule.kind == "vjp" else (point.upstream, kept)

    def _moving(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(x for i, x in enumerate(inputs) if i not in self.rule.static)

    def gradients(self, result: Any) -> Sequence[Any]:
        """Return one gradient per path, out of what the backward returned."""
        rule = self.rule
        if rule.kind == "jvp":
            return list(jax.tree.leaves(result[1]))
        if rule.kind == "gradients":
            result = result[1] if len(result) == 2 else result[1:]
        by_name = _by_name(result, self._labels)
        return [_part(by_name, path) for path in rule.paths]

    @property
    def _labels(self) -> list[Sequence[str]]:
        """The names that a backward may return gradients for, by how many it returns."""
        rule = self.rule
        every = [n for i, n in enumerate(rule.names) if i not in rule.static]
        roots = list(dict.fromkeys(_root(p) for p in rule.paths))
        chosen = [rule.names[i] for i in rule.wrt] if rule.wrt is not None else every
        return [chosen, roots, every]

    def point(self, k: int, size: int) -> Point | None:
        if size > len(self._sizes):
            return None
        lengths = dict(self._small)
        if size:
            change = self._sizes[size - 1]
            found = {n for x in jax.tree.leaves(self.given) for n in np.shape(x)}
            lengths = {n: change.get(lengths.get(n, n), lengths.get(n, n)) for n in found}
        return self._point(k, lengths)

    def _drawn(self, k: int, lengths: dict[int, int]) -> tuple[Any, ...]:
        rng = np.random.default_rng([self.seed, k, sum(lengths.values())])
        near = k == 0 and not lengths
        return tuple(jax.tree.map(lambda x: _drawn(x, lengths, rng, near), self.given))

    def _point(self, k: int, lengths: dict[int, int]) -> Point | None:
        inputs = self._drawn(k, lengths)
        try:
            with quiet():
                output = self.value(self.world.load, _copies(inputs))
                return self._made(inputs, output, k)
        except Exception:  # the function refuses a point that was made for it
            return None

    def _made(self, inputs: tuple[Any, ...], output: Any, k: int) -> Point:
        rule, rng = self.rule, np.random.default_rng([self.seed, k, 7])
        label = f"{_label(rule.names, inputs)}, seed {self.seed + k}"
        if rule.kind == "jvp":
            moving = self._moving(inputs)
            tangents = jax.tree.map(lambda x: _upstream(x, rng), moving)
            return Point(inputs, tangents, self._pushed(inputs, tangents), label)
        upstream = jax.tree.map(lambda x: _upstream(x, rng), output)
        if rule.kind == "gradients":
            upstream = jax.tree.map(lambda x: np.ones_like(np.asarray(x)), output)
        if k == 12:  # a gradient is linear in the upstream: where that is zero, nothing divides
            upstream = jax.tree.map(
                lambda u: u * (np.arange(u.size) % 2).reshape(u.shape), upstream
            )
        expected = self._pulled(inputs, upstream)
        if not all(np.isfinite(e).any() for e in expected if np.size(e)):
            raise ValueError("no gradient is known here")
        return Point(inputs, upstream, expected, label)

    # the right gradients

    def _program(self, inputs: tuple[Any, ...]) -> Program | None:
        """Return the derivative of the forward as a program; None where it is none."""
        values, _, tree = flatten(inputs, self.rule.names)
        key = (tree, tuple((np.shape(v), str(getattr(v, "dtype", v))) for v in values))
        if key not in self._programs or key in self._reread:
            self._programs[key] = self._traced(inputs, key)
        return self._programs[key]

    def _traced(self, inputs: tuple[Any, ...], key: Any) -> Program | None:
        rule = self.rule
        root = rule.primal or rule.forward

        def forward(*moving: Any) -> Any:
            supply = iter(moving)
            merged = [inputs[i] if i in rule.static else next(supply) for i in range(len(inputs))]
            result = root(*merged)
            whole = rule.primal is not None or rule.kind == "pair"
            return result if whole else result[0]

        names = [n for i, n in enumerate(rule.names) if i not in rule.static]
        try:
            program = strip(trace(forward, *self._moving(inputs), names=names))
        except Exception:  # NumPy refuses tracers in many ways
            try:
                reading = read(forward, *self._moving(inputs), names=names, roots=(root,))
            except (GradlabError, TypeError, ValueError):
                return None
            program = reading.program
            if reading.decisions:
                self._reread.add(key)
        try:
            positions = [program.in_names.index(path) for path in rule.paths]
            return (jvp_program if rule.kind == "jvp" else vjp_program)(program, positions)
        except Exception:  # JAX cannot differentiate it
            return None

    def _evaluated(self, inputs: tuple[Any, ...], more: Any) -> list[Array] | None:
        program = self._program(inputs)
        if program is None:
            return None
        values, leaves, _ = flatten(self._moving(inputs), self.rule.names)
        flat = [v for v, leaf in zip(values, leaves) if leaf.traced]
        flat += [u for u in jax.tree.leaves(more) if is_inexact(np.asarray(u).dtype)]
        lifter = Lifter(NumPy())
        wide = [Value(np.asarray(a), is_inexact(np.asarray(a).dtype)) for a in flat]
        with jax.enable_x64(True):
            return [np.asarray(lifter.wide(v)) for v in lifter(program.jaxpr, wide)]

    def _pulled(self, inputs: tuple[Any, ...], upstream: Any) -> tuple[Array, ...]:
        paths = self.rule.paths
        results = self._evaluated(inputs, upstream)
        if results is not None:
            return tuple(results[-len(paths) :])
        values, leaves, tree = flatten(inputs, self.rule.names)
        if sum(np.size(v) for v in values) > _LARGE:
            raise ValueError("too large for differences")
        weights = jax.tree.leaves(upstream)
        found = []
        for path in paths:
            i = next(k for k, leaf in enumerate(leaves) if leaf.path == path)
            gradient = np.zeros(np.shape(values[i]))
            for at in np.ndindex(gradient.shape):
                ends = []
                for step in _STEPS:
                    moved = np.array(values[i], np.float64)
                    moved[at] += step
                    arrays = [*values[:i], moved, *values[i + 1 :]]
                    given = _copies(jax.tree_util.tree_unflatten(tree, arrays))
                    out = jax.tree.leaves(self.value(self.world.load, given))
                    ends.append(sum(float(np.sum(w * y)) for w, y in zip(weights, out)))
                gradient[at] = _fourth(*map(np.asarray, ends))
            found.append(gradient)
        return tuple(found)

    def _pushed(self, inputs: tuple[Any, ...], tangents: Any) -> tuple[Array, ...]:
        results = self._evaluated(inputs, tangents)
        if results is None:
            raise ValueError("no forward derivative is known")
        return tuple(results[len(results) // 2 :])

    def confirmed(self, code: CodeType, new: Text) -> bool:
        """Run the mended rule once in JAX itself, where it is JAX's."""
        if self.rule.primal is None:
            return True
        world = World(self.owned, numpy=False)
        point = self.point(11, 0)
        entry = world.load(self.rule.backward)
        if point is None:
            return False
        try:
            world.load(self.rule.forward)
            world.exchange(code, world.compiled(new, code))
            with jax.enable_x64(True):
                given = (point.inputs, point.upstream)
                inputs, upstream = jax.tree.map(_to_jax, given)
                there = Point(inputs, upstream, point.expected, point.label)
                came = self.gradients(entry(*self.arguments(world.load, there)))
        except Exception:  # JAX refuses what NumPy takes
            return False
        return all(
            np.allclose(np.zeros(np.shape(e)) if c is None else c, e, rtol=1e-6, atol=1e-9)
            for c, e in zip(came, point.expected)
        )


def _by_name(result: Any, choices: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return gradients by the name of their input, however they were gathered."""
    if isinstance(result, dict) and any(set(result) & set(names) for names in choices):
        return result
    if not isinstance(result, tuple | list):
        result = (result,)
    for names in choices:
        if len(names) == len(result):
            return dict(zip(names, result))
    return {}


def _part(by_name: dict[str, Any], path: str) -> Any:
    """Return the gradient of one leaf of an input."""
    root = _root(path)
    gradient = by_name.get(root)
    if root == path or gradient is None:
        return gradient
    found, _ = jax.tree_util.tree_flatten_with_path(gradient, is_leaf=lambda x: x is None)
    return next((v for keys, v in found if root + jax.tree_util.keystr(keys) == path), None)


def _root(path: str) -> str:
    return path.split("[")[0].split(".")[0]


def _fourth(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Return the slope from four values; NaN where a kink lies between them."""
    inner, outer = (c - b) / (2 * _STEP), (d - a) / (4 * _STEP)
    found: Array = (4 * inner - outer) / 3
    apart = np.abs(inner - outer) > 1e-5 * (np.abs(found) + 1e-2)
    return np.where(apart, np.nan, found)


def _upstream(x: Any, rng: np.random.Generator) -> Any:
    array = np.asarray(x)
    if array.dtype.kind == "c":
        return rng.normal(size=array.shape) + 1j * rng.normal(size=array.shape)
    return rng.normal(size=array.shape) if array.dtype.kind == "f" else np.zeros_like(array)


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype")


def _to_jax(x: Any) -> Any:
    return jax.numpy.asarray(x) if isinstance(x, np.ndarray) else x


def _wide(x: Any) -> Any:
    if not _is_array(x) or jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    array = np.asarray(x)
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.float64) if is_inexact(array.dtype) else np.array(array)


def _copies(inputs: Any) -> Any:
    return jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, inputs)


def _drawn(x: Any, lengths: dict[int, int], rng: np.random.Generator, near: bool) -> Any:
    """Return an input like the given one, with other values and lengths; `near` it, or not."""
    if not isinstance(x, np.ndarray):
        return x
    array = x
    for axis, length in enumerate(array.shape):
        array = np.take(array, np.arange(lengths.get(length, length)) % length, axis=axis)
    kind = array.dtype.kind
    if kind not in "fc" or np.isin(array, (0, 1)).all():
        if lengths and kind in "iu" and min(lengths.values()) < min(lengths):
            array = array % min(lengths.values())
        shuffled = array.ndim and len(array) > 1 and not near
        return array[rng.permutation(len(array))] if shuffled else array
    noise = rng.normal(size=array.shape)
    spread = float(np.std(array)) or float(np.abs(array).max()) or 1.0
    if near:
        return array + 1e-3 * noise * np.minimum(np.abs(array) + 1e-2 * spread, spread)
    drawn = rng.permutation(array.ravel()).reshape(array.shape)
    positive = kind == "f" and (array > 0).all()
    return drawn * np.exp(0.2 * noise) if positive else drawn + 0.3 * spread * noise


def _lengths(inputs: Any, smaller: bool) -> Iterator[dict[int, int]]:
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
        yield {n: n + 1 for n in found}
        yield {n: 2 * n for n in found}


def _label(names: Sequence[str], inputs: Any) -> str:
    shapes = ("x".join(map(str, np.shape(x))) or "scalar" for x in inputs)
    return ", ".join(f"{n} {s}" for n, s in itertools.islice(zip(names, shapes), 4))
