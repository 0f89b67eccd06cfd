"""From a derivative as someone wrote it to its fixes: how it is run, and what is right there.

Every door comes here with a `HandRule`: a check, an audit, a node, a gate of a graph. The right
gradients are those of autodiff of the forward, traced or read as a program, evaluated in NumPy.
"""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from gradlab.common.arrays import Array, Function, Tree
from gradlab.common.faults import forgiven
from gradlab.formatting import listed
from gradlab.repair.first_line import WrongLine
from gradlab.repair.problem import Half, HandRule, Kind, Mended, Problem, is_symmetric, wide
from gradlab.repair.search import mend
from gradlab.repair.source import unified
from gradlab.repair.words import explained
from gradlab.repair.world import (
    Failed,
    World,
    functions_of,
    is_gradlabs,
    quiet,
    written_by_the_user,
)
from gradlab.report import Fix
from gradlab.tracing import without_checks
from gradlab.tracing.leaves import flatten, in_numpy, is_inexact, is_key

T = TypeVar("T")
_ROWS = 8  # inputs that a rule was met with


@dataclasses.dataclass(frozen=True)
class Cause:
    """What is known of a mistake that no edit mends: one sentence, its line and its code.

    `right` are the gradients that it mends; `whole` says that nothing else is worth a search.
    """

    told: str
    place: str
    code: str = "GL900"
    right: tuple[str, ...] = ()
    whole: bool = False


Repaired = tuple[tuple[Fix, ...], Cause | None]


def rules_met(
    function: Function, inputs: tuple[Tree, ...], names: tuple[str, ...], wanted: Sequence[str] = ()
) -> list[HandRule]:
    """Return the custom rules that a JAX function meets, with the values that reach them.

    Where some are wanted, a rule with these very inputs is judged by those gradients, another by
    those of what depends on the inputs.
    """
    met: list[tuple[Any, tuple[Any, ...]]] = []
    found: dict[int, HandRule] = {}
    mine = HandRule("pair", function, function, inputs, names, ()).files
    # where NumPy cannot take JAX's place, what runs is JAX; a kernel may ask for the user's dtypes
    count, moving, even = 0, None, set[tuple[int, int]]()
    for numpy, widened in ((True, wide), (False, wide), (False, lambda array: array)):
        world = World(
            lambda path: path in mine or written_by_the_user(path),
            numpy,
            lambda rule, given: met.append((rule, given)),
        )
        with quiet(), contextlib.suppress(Failed):
            start, values = len(met), jax.tree.map(widened, inputs)
            world.call(world.load(function), *values)
            count = len(met)
            if wanted:
                world.call(world.load(function), *jax.tree.map(_moved, values))
                moving = _moving(met[start:count], met[count:])
                even = _even(met[start:count], met[count:]) if moving else even
            break
    elsewhere: dict[int, list[tuple[Tree, ...]]] = {}
    for rule, given in [(r, row) for r, all_ in met[: count or None] for row in _rows(all_)]:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
            continue
        if id(rule) in found:
            elsewhere.setdefault(id(rule), []).append(given)
            continue
        primal, fwd, bwd, jvp = functions_of(rule)
        code = getattr(primal, "__code__", None)
        labels = code.co_varnames[: len(given)] if code is not None else ()
        called = tuple(labels) if len(labels) == len(given) else names[: len(given)]
        static = tuple(getattr(rule, "nondiff_argnums", ()) or ())
        static = tuple(called.index(s) if isinstance(s, str) else s for s in static)
        _, leaves, _ = flatten(given, called)
        paths = tuple(
            leaf.path for leaf in leaves if leaf.differentiable and leaf.position not in static
        )
        if called == names and jvp is None:
            paths = tuple(path for path in paths if path in wanted) or paths
        elif moving is not None and jvp is None:
            moves = [leaf.path for k, leaf in enumerate(leaves) if (id(rule), k) in moving]
            paths = tuple(path for path in paths if path in moves) or paths
        kind: Kind = "jvp" if jvp is not None else "vjp"
        forward, backward = (primal, jvp) if jvp is not None else (fwd, bwd)
        if callable(forward) and callable(backward) and paths and len(called) == len(given):
            args = (kind, forward, backward, given, called, paths, primal, static)
            evens = [e.path for k, e in enumerate(leaves) if (id(rule), k) in even]
            found[id(rule)] = HandRule(*args, symmetric=tuple(evens))
    others = {key: _spread(rest) for key, rest in elsewhere.items()}
    return [dataclasses.replace(r, elsewhere=others.get(key, ())) for key, r in found.items()]


def _moved(x: Any) -> Any:
    """Return an array of floats a little off, each entry by itself; others as they are."""
    if not is_inexact(x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype):
        return x
    return 0.99 * x + 0.005 * (1.5 + np.cos(np.arange(np.size(x)))).reshape(np.shape(x))


def _even(before: Sequence[Any], after: Sequence[Any]) -> set[tuple[int, int]]:
    """Return the leaves, by rule and number, that are symmetric whatever a function is given."""
    even = set()
    for (rule, given), (_, other) in zip(before, after):
        leaves = (jax.tree.leaves(each, is_leaf=lambda x: x is None) for each in (given, other))
        even |= {(id(rule), k) for k, pair in enumerate(zip(*leaves)) if all(map(_is_even, pair))}
    return even


def _is_even(x: Any) -> bool:
    known = not (x is None or isinstance(x, jax.core.Tracer) or is_key(getattr(x, "dtype", float)))
    return known and is_symmetric(np.asarray(x))


def _moving(before: Sequence[Any], after: Sequence[Any]) -> set[tuple[int, int]] | None:
    """Return the leaves, by rule and number, that are others when a function runs again."""
    moving = set()
    if [rule for rule, _ in before] != [rule for rule, _ in after]:
        return None
    for (rule, given), (_, other) in zip(before, after):
        pairs = zip(
            *(jax.tree.leaves(each, is_leaf=lambda x: x is None) for each in (given, other))
        )
        moving |= {(id(rule), k) for k, pair in enumerate(pairs) if not _same(*pair)}
    return moving


def _same(one: Any, other: Any) -> bool:
    return one is other or (not isinstance(one, jax.core.Tracer) and np.array_equal(one, other))


def _rows(given: tuple[Tree, ...]) -> Iterator[tuple[Tree, ...]]:
    """Yield the arguments of a rule, one row after the other where `vmap` made them several."""
    leaves = jax.tree.leaves(given)
    batched = (x for x in leaves if isinstance(x, jax.core.Tracer) and hasattr(x, "batch_dim"))
    sizes = [x.val.shape[x.batch_dim] for x in batched if x.batch_dim is not None]
    for k in _spread(range(max(sizes, default=1))):
        yield jax.tree.map(lambda leaf, k=k: _row(leaf, k), given)


def _row(leaf: Any, k: int) -> Any:
    """Return a row of a value under `vmap`, where JAX maps it; others as they are."""
    if not isinstance(leaf, jax.core.Tracer) or not hasattr(leaf, "batch_dim"):
        return leaf
    whole, axis = _row(leaf.val, k), leaf.batch_dim
    if axis is None or isinstance(whole, jax.core.Tracer):
        return whole
    return in_numpy(whole)[(slice(None),) * axis + (k % whole.shape[axis],)]


def _spread(several: Sequence[T]) -> tuple[T, ...]:
    """Return a few, evenly spaced."""
    places = np.linspace(0, len(several) - 1, min(len(several), _ROWS)).round().astype(int)
    return tuple(several[k] for k in places)


def rule_of_node(
    node: Any, believed: Function, inputs: tuple[Tree, ...], wrt: tuple[int, ...]
) -> HandRule:
    """Return a node's backward and its local gradients as one rule.

    Args:
        node: what is mended; gradlab's own nodes too.
        believed: a function of its inputs with the right derivatives.
        inputs: at which it is wrong.
        wrt: the positions of the inputs that have gradients.
    """

    def forward(*inputs: Tree) -> Any:
        return believed(*inputs)

    def backward(upstream: Array, *inputs: Tree) -> list[Any]:
        output, residuals = node.forward(*inputs)
        pulled, local = node.backward(upstream, residuals), node.local_gradient(residuals)
        if len(pulled) != len(inputs):
            pulled = (None,) * len(inputs)
        if not isinstance(output, tuple):
            output, upstream, local = (output,), (upstream,), (local,)
        products = [[row[i].T @ u for row, u in zip(local, upstream)] for i in wrt]
        sums = [sum(terms[1:], start=terms[0]) for terms in products]
        return [*output, *(pulled[i] for i in wrt), *sums]

    modules = (sys.modules.get(kind.__module__) for kind in type(node).__mro__)
    files = (getattr(module, "__file__", None) or "<" for module in modules)
    mine = (f for f in files if is_gradlabs(f) and not os.path.basename(f).startswith("_"))
    names = tuple(node.input_name(i) for i in range(len(inputs)))
    paths = tuple(names[i] for i in wrt)
    return HandRule("node", forward, backward, inputs, names, paths, sources=tuple(mine))


def repair(rules: Sequence[HandRule], seed: int, lost: str = "") -> Repaired:
    """Return the fixes of the first of these rules that is wrong and can be mended.

    Where another is wrong, too, both are mended in one fix, or the first is told as half of it.
    Where none can be mended, the first wrong line may be known. Where a right formula loses digits,
    `lost` is their dtype, and the fixes are safe forms.
    """
    line, tried = None, rules[:4]
    for rule in tried:
        with forgiven("search for a fix"):
            fixes, first = fixes_of(_where_wrong(rule, seed), seed, lost, 1 / len(tried))
            others = [] if lost or not fixes else [other for other in tried if other is not rule]
            wrong = [other for other in others if not all(Problem(other, seed).right())]
            if len(wrong) == 1:
                more, _ = fixes_of(wrong[0], seed, lost, 1 / len(tried))
                both = _joined(fixes[0], more[0]) if more else None
                if both is not None:
                    return (both,), first
            if wrong:
                return (), _half(fixes[0], rule, wrong)
            if fixes:
                return fixes, first
            line = line or first
    return (), line


def _where_wrong(rule: HandRule, seed: int) -> HandRule:
    """Return a rule at the first of the inputs that it was met with where it is wrong."""
    places = (dataclasses.replace(rule, inputs=inputs) for inputs in rule.elsewhere)
    every = (rule, *places) if rule.elsewhere else ()
    return next((each for each in every if not all(Problem(each, seed).right(near=True))), rule)


def _half(fix: Fix, rule: HandRule, wrong: Sequence[HandRule]) -> Cause:
    names = [getattr(r.primal or r.forward, "__name__", "the rule") for r in (rule, *wrong)]
    stays = "stays wrong" if len(wrong) == 1 else "stay wrong"
    told = f"{fix.explanation}. That mends {names[0]}, but {listed(names[1:])} {stays}"
    return Cause(told, f"{os.path.basename(fix.file)}:{fix.line}", fix.kind)


_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n", re.MULTILINE)


def _joined(one: Fix, other: Fix) -> Fix | None:
    """Return one fix of two rules in one file; None where it has more than two edits."""
    if one.file != other.file or one.edits + other.edits > 2 or one.line == other.line:
        return None
    first, second = sorted((one, other), key=lambda fix: fix.line)
    grown = len(first.after) - len(first.before)
    head, start, _ = first.diff.partition("@@")

    def later(hunk: re.Match[str]) -> str:
        old, olds, new, news = hunk.groups()
        counts = ["" if count is None else f",{count}" for count in (olds, news)]
        return f"@@ -{old}{counts[0]} +{int(new) + grown}{counts[1]} @@\n"

    hunks = _HUNK.sub(later, "@@" + second.diff.partition("@@")[2])
    return dataclasses.replace(
        first,
        diff=head + start + first.diff.partition("@@")[2] + hunks,
        before=(*first.before, *second.before),
        after=(*first.after, *second.after),
        explanation=f"{first.explanation}; {second.explanation}",
        edits=one.edits + other.edits,
        evidence="proved" if one.evidence == other.evidence == "proved" else "observed",
        reaches=", ".join(filter(None, (first.reaches, second.reaches))),
    )


def fixes_of(rule: HandRule, seed: int, lost: str = "", share: float = 1.0) -> Repaired:
    """Return the edits of the user's source that make every gradient right, best first."""
    with without_checks():
        problem = Problem(_held(rule, seed), seed, share)
        edits, known = mend(problem, lost)
        first = _cause(known, problem.upstream_name) if known is not None else None
        found = [
            (each, fix) for each in edits if (fix := _fix(each, problem.upstream_name)) is not None
        ]
        fixes = [fix for _, fix in found]
        if found and problem.proved(found[0][0]):
            fixes[0] = dataclasses.replace(fixes[0], evidence="proved")
    return tuple(fixes), first


def _held(rule: HandRule, seed: int) -> HandRule:
    """Return a rule that is judged by its other gradients too, where these are right.

    What nobody asked for, or nothing in the checked function reads, must not become wrong.
    """
    _, leaves, _ = flatten(rule.inputs, rule.names)
    every = (leaf for leaf in leaves if leaf.position not in rule.static)
    others = [e.path for e in every if e.differentiable and e.path not in rule.paths]
    if not others or rule.kind in ("jvp", "node"):
        return rule
    whole = dataclasses.replace(rule, paths=(*rule.paths, *others))
    right = Problem(whole, seed).right()[len(rule.paths) :]
    held = (path for path, ok in zip(others, right) if ok)
    return dataclasses.replace(rule, paths=(*rule.paths, *held))


def _cause(known: WrongLine | Half, upstream: str) -> Cause:
    if isinstance(known, WrongLine):
        return Cause(known.told, known.place if known.whole else "", whole=known.whole)
    code, sentence = explained(known.mended, upstream)
    old = known.mended.old
    line = old.line_of(min(edit.start for edit in known.mended.new.edits))
    mends = listed(known.right) or "this line"
    told = f"{sentence}. That mends {mends}, but {listed(known.wrong)} "
    told += "stays wrong" if len(known.wrong) == 1 else "stay wrong"
    return Cause(told, f"{os.path.basename(old.path)}:{line}", code, known.right)


def _fix(mended: Mended, upstream: str) -> Fix | None:
    old, new = mended.old, mended.new
    here = os.path.relpath(old.path)
    shown = os.path.basename(old.path) if here.startswith("..") else here
    if not os.access(old.path, os.W_OK):
        return None
    diff = unified(old, new, shown)
    head, *changed = diff.split("\n")[2:]
    code, sentence = explained(mended, upstream)
    return Fix(
        diff=diff,
        file=here,
        line=max(int(head.split()[1].lstrip("-").split(",")[0]), 1),
        before=tuple(line[1:] for line in changed if line.startswith("-")),
        after=tuple(line[1:] for line in changed if line.startswith("+")),
        explanation=sentence,
        kind=code,
        edits=len(new.edits),
        verified_at=tuple(point.label for point in mended.points),
        reaches=_reaches(mended),
    )


def _reaches(mended: Mended) -> str:
    sizes = "" if mended.other_sizes else "not tried at other sizes"
    settings = f"right at {mended.bound}, but not at every value" if mended.bound else ""
    return ", ".join(filter(None, (settings, sizes)))
