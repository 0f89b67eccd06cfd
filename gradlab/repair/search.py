"""The search for a mended function: edits by cost, judged by values, verified at fresh points.

A gradient that is wrong has a right one beside it, so a mistake in the source can be searched for.
What gives the right gradients at two points of different sizes is held against points that the
search never saw.
"""

import ast
import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, NamedTuple

import jax
import numpy as np

from gradlab.common.arrays import NumPyArray as Array
from gradlab.common.arrays import Tree
from gradlab.repair import edits as kinds
from gradlab.repair.bench import Bench
from gradlab.repair.edits import (
    FITTED,
    NAMES,
    SOLVED,
    TOKENS,
    TRIED,
    WIDE,
    Material,
    Site,
    is_stored,
)
from gradlab.repair.first_line import WrongLine, first_wrong_line
from gradlab.repair.lines import Hit, Line, Right, suspects
from gradlab.repair.places import Named, at_its_definition, doubt, is_right, telling
from gradlab.repair.pool import Scope, derived, rows_beside
from gradlab.repair.problem import INSIDE, OTHER_WAY, Errors, Half, Mended, Point, Problem, judged
from gradlab.repair.safe import safe_forms
from gradlab.repair.solving import Fitter, Need, needs, one_sign, wider
from gradlab.repair.source import ATOM, Edit, Text, alike, edited, read
from gradlab.repair.standin import evaluated
from gradlab.repair.watch import Watch
from gradlab.repair.within import Known, Within
from gradlab.repair.world import Failed, World, copied, place, quiet, watched

_BEAM = 8
_ENOUGH = 6  # verified edits; the best of them are given
_CHOICES = ("clip", "maximum", "minimum", "where")
_TIERS = (TOKENS, NAMES, SOLVED, WIDE, FITTED, TRIED)
_LONG = 15  # statements of a backward, above which the first wrong line is looked for
_LOOK = 256  # candidates, after which the clock is read: that is slow on some machines
_RUNS_AWAY = 6  # times the CPU that the search should take
_TIMES = 10  # how many times the lines of the original a candidate may run
_MANY = 10_000_000  # lines
_EQUATION = 40  # lines, in whose time an equation is evaluated
_LOST = 0.1  # the relative error of an entry that keeps its first digit
_ALGEBRA = 5e-6  # of the time of a candidate: an operation of linear algebra
_ALONE = 0.03  # of the time of a candidate, in which one line runs
_CALLED = 6  # characters, of an edit in a function that is called
_RETURNED = 12  # characters, of an edit where a value is returned, not where it is made
_FEW = 32  # entries of a value that is solved for first
_SIZE = re.compile(r"\.(shape|size)\b|^[\d.]+$|[*/+-] [\d.]+\)?$")  # what seldom is missing
_NUMBERS = re.compile(r"(?<![\w.])[\d.]+")
_VARIABLE = re.compile(r"\w+(\.\w+|\[['\"]\w+['\"]\])*")
_NEAR = 1e-6  # the error up to a factor of what is right up to a factor
_STRANGE = 60  # characters that an edit adds, from which no other goes on
_NO_MORE = 2  # by which the cost of a fix that is listed too may be above that of the first
_PAIRED = 3  # edits that make the same gradients right, each tried with others
_PLACES = 4  # with a name, from which slices are cut
_ZEROS, _LARGE = 6, 16  # points with inputs of zero, and with large ones
_TINY = 1e-170  # whose square is no number
_TIMES_LARGE = (100, -100, 30, -30)  # where what can saturate does
_TIMES_FAR = (10_000, -10_000)
_NAMED = 0.4  # of the candidates that are names, before values are solved for
_SOLVED = 4  # drafts of one edit whose values are solved for a second one
_WATCHED = 0.4  # of as many runs as candidates: for the first wrong line
_FURTHER = 0.4  # of all candidates: for a better place than that of a doubtful fix
_LINES = 8  # that compute no right gradient, of which edits are tried
_ALONE_RIGHT = 2  # edits of a line that make it right, and no other
_HITS = 8  # edits of one line, from which a second one may go on
_BESIDES = 1.25  # of all candidates: once all were tried
_LINED = 0.6  # of all candidates: for edits of single lines
_DERIVED = 15  # candidates, in whose time the values beside a line are made
_TOGETHER = 40  # cheap edits of a line, of which two are tried at once
_TARGETS = 12  # gradients that a line may have to compute
_LOCALS = 8  # values of a forward's local
Cost = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _Draft:
    """A state of one function's text, and how good its gradients are at the first point."""

    code: CodeType
    text: Text
    right: tuple[bool, ...]
    errors: Errors


class _Solved(NamedTuple):
    """A place in a text, what its value must be, and what could be written there."""

    text: Text
    site: Site
    scope: Scope
    need: Need | Hit
    fitter: Fitter

    def texts(self) -> Iterator[Edit]:
        """Yield the edits that give the place a value that is needed."""
        text, site, value = self.text, self.site, self.need.value
        multiplied = set(kinds.factors(text, site.node))
        around = [text.of(p) for p in site.parents if isinstance(p, ast.Call)]
        fitting, new = self.fitter.wide(value.shape)
        forms = {"{m}": new, "{s} * {m}": value * new, "{s} / {m}": value / new}
        forms |= {
            "{s} + {m}": value + new,
            "{s} - {m}": value - new,
            "1 + {m} * {s}": 1 + value * new,
        }
        if text.of(site.node) in ("1", "1.0"):
            del forms["{s} * {m}"]  # nobody writes 1 * x
        for form, results in forms.items():
            for k in self.need.close(results):
                each = fitting[k]
                if any(call in each.text for call in around):
                    continue  # nobody writes a function of what it makes
                inverse = each.text.startswith("(1 / ")
                if form == "{s} / {m}" and (inverse or not one_sign(new[k])):
                    continue
                if form in ("{s} + {m}", "{s} - {m}") and each.text.removeprefix("-") in multiplied:
                    continue  # nobody writes x + x
                if self.need.met(results[k]):
                    if form == "{m}" and (made := kinds.styled(text, site, each.text)):
                        yield kinds.filled(text, site, form, Material(made, ATOM, each.values))
                    yield kinds.filled(text, site, form, each)
        wrapped = kinds.wraps(text, site, self.scope.words.calls)
        square = value.ndim == 2 and value.shape[0] == value.shape[1]
        even = kinds.symmetrised(text, site) if square else ()
        for edit, written in (*wrapped, *even, *kinds.normalised(text, site, value.ndim)):
            values = self.scope.value(written)
            if values is not None and self.need.met(values):
                yield edit

    def products(self, spend: Callable[[float], None], most: int) -> Iterator[Edit]:
        """Yield the edits that add or multiply by a product of at most so many, found by fitting.

        A product stands for a whole value only where its right value is known.
        """
        value, exact = self.need.value, self.need.exact
        if exact is None:
            return
        mine = self.text.of(self.site.node)
        wanted = {"{m}": exact} if isinstance(self.need, Need) else {}
        wanted |= {"{s} + {m}": exact - value}
        wanted |= {"{s} * {m}": exact / value} if np.all(value != 0) else {}
        for form, array in wanted.items():
            for product in self.fitter.products(array, most, spend):
                if form == "{s} * {m}" and f"/ {mine}" in product:
                    continue  # nobody divides by what it multiplies
                yield kinds.filled(self.text, self.site, form, Material(product, 13, ()))


class _Ended(Exception):
    """The search has tried as many candidates as it may."""


def mend(problem: Problem, lost: str = "") -> tuple[list[Mended], WrongLine | Half | None]:
    """Return the cheapest verified edits that make every gradient right: at most three.

    The second is an edit that makes some gradients right, or the first wrong line of a long
    backward, where that is known.

    Args:
        problem: the rule, and the right gradients.
        lost: the dtype in which a right formula loses digits; then safe forms are tried.
    """
    with quiet():
        for k in (0, -1):  # near the given inputs, then at them: a value may be a special one
            given = problem.point(k, 0)
            search = given and _begun(problem, given, special=k < 0)
            if not search:
                continue
            found = search.safe(lost or "float64") if lost or not search.finite else []
            if not (found or lost) and search.wrong:
                found = search.found()
            if found or lost or search.wrong:
                return found, None if found else search.half() or search.line()
        return [], None


def _begun(problem: Problem, given: Point, special: bool) -> "_Search | None":
    for numpy in (True, False):
        with contextlib.suppress(Failed):  # the user's code may not run on copies
            return _Search(problem, World(problem.owned, numpy), given, special)
    return None


class _Search:
    """The search at one point: where its values are `special`, no comparison is edited."""

    def __init__(self, problem: Problem, world: World, given: Point, special: bool) -> None:
        self.problem, self.world, self.points, self._special = problem, world, [given], special
        self.entry = world.load(problem.entry)
        world.differentiated = problem.differentiated
        self.verified: list[Mended] = []
        self._sures: set[int] = set()  # of what was verified, what holds on every branch
        self._doubtful: dict[int, int] = {}  # what may not stand where the mistake is
        self._right: dict[_Draft, set[int]] = {}  # the statements whose values are right
        # statements that are given what is right, and compute what is not
        self._wrong: set[tuple[CodeType, int]] = set()
        self._patience = 0.0  # how many candidates may be tried while all that is verified is so
        self._least: Cost | None = None  # of what is verified, the smallest cost
        self._partly: list[_Draft] = []  # which make more gradients right
        self._alone: list[_Draft] = []  # with which more lines are right
        self._bound: list[Mended] = []  # right for the settings as they are
        self._refuting: list[Point] = []  # on other branches, where candidates were wrong
        self.texts: dict[CodeType, Text] = {}
        self._seen: set[tuple[CodeType, bytes]] = set()
        self._benches: dict[_Draft, Bench] = {}
        self._places: dict[_Draft, list[_Solved]] = {}
        self._unsolved: dict[_Draft, list[tuple[Site, Scope]]] = {}
        self._given: dict[str, tuple[Any, ...]] = {}  # arguments that are plain arrays
        self._limits: dict[str, int] = {}
        self._full: dict[str, Point | None] = {}
        self._starts: dict[CodeType, _Draft] = {}
        self._moved: dict[CodeType, dict[int, frozenset[str]]] = {}
        self._apart = False  # whether only statements count on which no right gradient depends
        self._reached: dict[CodeType, dict[int, set[int]]] = {}
        self._before: set[str] = set()  # the functions that run to make arguments
        self._tiers: tuple[int, ...] = _TIERS
        self._clock = time.process_time()
        self.tried = 0.0
        self._total, self._end, self._seconds = 0, 0.0, 0.0
        self._begin()

    def _begin(self) -> None:
        """Run once; note what ran, what it costs, and what is wrong."""
        came = self._at(self.points[0])
        before = evaluated[0]
        self._at(self.points[0])
        lines = self._limits[self.points[0].label] // _TIMES + _EQUATION * (evaluated[0] - before)
        self._total, self._seconds = self.problem.allowed(lines, self.world.numpy)
        if not self.world.numpy:  # JAX compiles each candidate anew
            self._tiers = _TIERS[:1]
        self.points += self._of_other_sizes(1, came)
        for code in self.world.copies:
            known = place(code) in self.world.ever and self.problem.edits(code.co_filename)
            if known and (text := read(code)) is not None:
                self.texts[code] = text
        self.right, self.errors = judged(came, self.points[0].expected)
        self.shapes = [np.shape(c) for c in came]
        self.finite = all(
            np.isfinite(np.asarray(c, complex)[np.isfinite(e)]).all()
            for c, e in zip(came, self.points[0].expected)
            if c is not None and np.shape(c) == np.shape(e)
        )

    def _of_other_sizes(self, k: int, came: Sequence[Any]) -> list[Point]:
        """Return the k-th point of sizes that the backward takes, as at the first point."""
        known = [np.shape(c) == np.shape(e) for c, e in zip(came, self.points[0].expected)]
        bare = self.problem.shapes(self.points[0].inputs) is not None
        made = self.problem.completed if bare else lambda point: point
        refused = []
        for point in self.problem.points(k, bare):
            with contextlib.suppress(Failed):
                shapes = self.problem.shapes(point.inputs) or [np.shape(e) for e in point.expected]
                there = zip(known, self._at(point), shapes)
                if not all(np.shape(c) == shape for fits, c, shape in there if fits):
                    refused.append(point)
                elif (full := made(point)) is not None:
                    return [full]
        return list(itertools.islice(filter(None, map(made, refused)), 1))

    @property
    def wrong(self) -> bool:
        """Whether there is something to edit, and something to mend: any x - x makes a zero."""
        pairs = zip(self.right, self.points[0].expected)
        return bool(self.texts) and any(np.any(e) for right, e in pairs if not right)

    def _at(self, point: Point, changed: CodeType | None = None) -> list[Any]:
        """Return the gradients at a point, in the time that the original takes there."""
        first = point.label not in self._limits
        most = _TIMES * max(self._limits.values(), default=_MANY)
        self.world.limit = self._limits.get(point.label, min(most, _MANY))
        with self.world.varied(point.others):
            given = self._arguments(point, changed)
            lines = self.world.lines
            result = self.world.call(self.entry, *given)
        if first:
            self._limits[point.label] = _TIMES * max(lines, self.world.lines, _TIMES)
        return self.problem.gradients(result)

    def _arguments(self, point: Point, changed: CodeType | None) -> tuple[Tree, ...]:
        kept = self._given.get(point.label)
        if kept is not None and (changed is None or place(changed) not in self._before):
            self.world.lines = 0
            found: tuple[Any, ...] = copied(kept, {})
            return found
        self.world.ran = set()
        made = self.problem.arguments(self.world, point)
        if changed is None:
            self._before |= self.world.ran
            if _is_plain(made):
                self._given[point.label] = copied(made, {})
        return made

    def found(self) -> list[Mended]:
        """Search with one edit; go on from the edits that made something better, with a second."""
        mine = getattr(self.problem.entry, "__code__", None)
        texts = sorted(self.texts.items(), key=lambda item: item[0] is not mine)
        drafts = [_Draft(code, text, self.right, self.errors) for code, text in texts]
        self._starts = {draft.code: draft for draft in drafts}
        behind = [d for d in drafts if place(d.code) not in self._before]
        with contextlib.suppress(_Ended):
            long = self._is_long(behind)
            if long:
                self._tried_tier(behind, TOKENS, 0.15)  # what is cheap, everywhere
            if long and not self._settled():
                self._line_by_line(behind, _LINED)
            forward = [draft for draft in drafts if draft not in behind]
            if not self._settled():
                self._searched(behind, 1.0, forward)
        with contextlib.suppress(_Ended):
            if not (self._is_long(behind) or self.verified):
                self._line_by_line(behind, _BESIDES)
        return self._best_first()

    def _line_by_line(self, drafts: Sequence[_Draft], share: float, edits: int = 2) -> None:
        """Try the edits of one line that make its value a right gradient.

        Lines are tried in the order in which they run. Where an edit makes other lines right, the
        search goes on from it, with at most so many `edits` in all.

        Args:
            drafts: from which the edits go on.
            share: of all candidates, after which no more are tried.
            edits: how many may be made, one after the other.
        """
        try:
            lines, right = self._lines(drafts, self.points[0])
        except Failed:
            return
        later: list[list[_Draft]] = []
        for k, (line, draft) in enumerate(lines[:_LINES]):
            bench, found = self._bench(draft), dict[bytes, _Draft]()
            self._wrong |= {(line.code, line.statement)} if line.sure else set()
            for edit in self._of_line(draft, bench, line, k < _LINES / 2):
                if self.tried > share * self._total:
                    return
                self._spend(_ALONE)
                if hit := line.hit(edit):
                    new = self._tried(bench, draft, edit)
                    new = new or dataclasses.replace(draft, text=edited(draft.text, edit))
                    known = found.setdefault(hit, new)
                    if self._cost(new.code, new.text) < self._cost(known.code, known.text):
                        found[hit] = new
            if line.sure and edits > 1 and not self._settled():
                more, alone = self._further(drafts, list(found.values()), right)
                later += alone
                if more:
                    self._line_by_line(more, share, edits - 1)
            if self._settled():
                return
        for some in later[:_ALONE_RIGHT]:
            self._line_by_line(some, share, edits - 1)
            if self._settled():
                return

    def _further(
        self, drafts: Sequence[_Draft], found: Sequence[_Draft], right: Right
    ) -> tuple[list[_Draft], list[list[_Draft]]]:
        """Return what to go on from: the drafts with the edit that makes most other lines right.

        Then those with each cheap edit that makes its own line right alone.
        """
        most, best, alone = 0, list[_Draft](), list[list[_Draft]]()
        for draft in sorted(found, key=lambda d: self._cost(d.code, d.text))[:_HITS]:
            some = [draft, *(d for d in drafts if d.code is not draft.code)]
            with contextlib.suppress(Failed):
                gained = _gained(draft, right, self._lines(some, self.points[0])[1])
                if gained > most:
                    most, best = gained, some
                    self._alone = [draft]
                elif gained == 0 and draft.text.edits[-1].tier < SOLVED:
                    alone.append(some)
        return best, alone[:_ALONE_RIGHT]

    def _lines(
        self, drafts: Sequence[_Draft], point: Point
    ) -> tuple[list[tuple[Line, _Draft]], Right]:
        """Return the lines that compute no gradient, each with its draft, and what is right."""
        within = self.problem.within(point)
        of = {draft.code: draft for draft in drafts}
        benches = {draft.code: self._bench(draft) for draft in drafts}  # they run, too
        texts = {draft.code: draft.text for draft in drafts}
        watch = Watch(self.world, texts, functools.partial(self._at, point))

        def scope(code: CodeType, given: dict[str, Any]) -> Scope:
            return benches[code].around(given)

        self._spend(4)
        with watch:
            found, right = suspects(watch, within, point.expected, scope)
        return [(line, of[line.code]) for line in found], right

    def _of_line(self, draft: _Draft, bench: Bench, line: Line, values: bool) -> Iterator[Edit]:
        """Yield the edits of a line. Those that need no values come first."""
        cheap = list(self._edits(draft, bench, TOKENS, line.statement))
        yield from cheap
        yield from self._edits(draft, bench, NAMES, line.statement)
        if not values:
            return
        scope = bench.around(line.given)
        fitter = Fitter([*scope.simple, *derived(scope, 40 if line.sure else 12)])
        self._spend(_DERIVED)
        node = getattr(line.text.statements[line.statement], "value", None)
        places = list(bench.value_sites({line.statement}, line.given))
        for site, _ in places:
            for shape in _shapes(scope, draft.text, site):
                self._spend(_ALONE * math.prod(shape))
                if (hit := line.with_value(site, shape)) is not None:
                    yield from _Solved(draft.text, site, scope, hit, fitter).texts()
        for site, _ in places if line.sure else ():
            hit = line.with_value(site, line.value.shape) if site.node is node else None
            if hit is not None:
                for each in line.wanted(_TARGETS):
                    exact = dataclasses.replace(hit, exact=each)
                    made = _Solved(draft.text, site, scope, exact, fitter)
                    yield from made.products(self._spend, 3)
        if line.sure:
            yield from kinds.both(draft.text, cheap[:_TOGETHER])

    def _best_first(self) -> list[Mended]:
        """Return what was verified, the cheapest first; what the entry calls costs a little."""
        found = self.verified or self._bound
        alone = any(len(m.new.edits) == 1 for m in found)  # then two are one mistake, split
        doubts = {
            id(m): max(self._doubtful.get(id(m), 0), alone and len(m.new.edits) > 1) for m in found
        }
        keys = {id(m): (doubts[id(m)], *self._cost(m.code, m.new)) for m in found}
        ranked = sorted(found, key=lambda m: keys[id(m)])
        for _, some in itertools.groupby(ranked, key=lambda m: keys[id(m)][:2]):
            ordered = self._explained_first(list(some))
            for k, first in enumerate(ordered):
                if not self._is_sure(first):
                    continue
                dear = keys[id(first)][2] + _NO_MORE
                cheap = [m for m in ordered[k + 1 :] if keys[id(m)][2] <= dear]
                others = filter(self._is_sure, cheap)
                most = 0 if self.problem.walked else 2  # each is held on every branch
                return [self._watched(m) for m in (first, *itertools.islice(others, most))]
        return []

    def _is_sure(self, mended: Mended) -> bool:
        """Whether what is verified is right in JAX itself, and on every branch."""
        return id(mended) in self._sures or self._sure(mended.code, mended.new)

    def _explained_first(self, ranked: list[Mended]) -> list[Mended]:
        """Put first the fixes with which most locals are values of the right derivative."""
        if len(ranked) < 2 or not self._starts:
            return ranked
        try:
            known = Known(self.problem.computed(self.points[0]))
        except Failed:
            return ranked

        def strange(draft: _Draft) -> int:
            bench = self._bench(draft)
            held = {n: v for kept in bench.kept[0].values() for n, v in kept.items()}
            told = [value for value in held.values() if telling(value)]
            # an array that is turned is known less well: it may be another's negative
            return sum(2 - known.holds(each) - known.holds(each, turns=False) for each in told)

        def stranger(mended: Mended) -> int:
            made = _Draft(mended.code, mended.new, self.right, self.errors)
            old = read(mended.code)
            assert old is not None
            return strange(made) - strange(_Draft(mended.code, old, self.right, self.errors))

        return [*sorted(ranked[:_ENOUGH], key=stranger), *ranked[_ENOUGH:]]

    def _cost(self, code: CodeType, new: Text) -> Cost:
        """Return what orders fixes."""
        mine = getattr(self.problem.entry, "__code__", None)
        old = read(code)
        assert old is not None
        return _cost(old, new, _CALLED * (code is not mine))

    def _watched(self, mended: Mended) -> Mended:
        """Return what is mended with the locals that it has as it runs."""
        draft = _Draft(mended.code, mended.new, self.right, self.errors)
        with contextlib.suppress(Failed):
            return dataclasses.replace(mended, scope=self._bench(draft).scope)
        return mended

    def half(self) -> Half | None:
        """Return an edit that makes some gradients right, at points that nobody saw as well."""
        paths = self.problem.rule.paths
        if len(paths) != len(self.right) or not self.fresh:
            return None
        for draft in (*sorted(self._partly, key=_plain, reverse=True), *self._alone[:1]):
            old = read(draft.code)
            if old is not None and self._doubt(draft.code, old, draft.text) < 2:
                break
        else:
            return None
        if not any(draft.right) and not self._mends_lines_elsewhere(draft):
            return None
        points = (*self.points[1:], *self.fresh, *self._still)
        with contextlib.suppress(Failed), self.world.exchanged(draft.code, draft.text):
            for point in points:
                seen = judged(self._at(point, draft.code), point.expected)[0]
                if any(ok and not here for ok, here in zip(draft.right, seen)):
                    return None
            mended = Mended(draft.code, old, draft.text, points, True)
            pairs = list(zip(paths, self.right, draft.right))
            right = tuple(path for path, was, now in pairs if now and not was)
            wrong = tuple(path for path, _, now in pairs if not now)
            return Half(self._watched(mended), right, wrong)
        return None

    def _mends_lines_elsewhere(self, draft: _Draft) -> bool:
        """Whether more lines are right with an edit, at points that nobody saw as well."""
        behind = [d for d in self._starts.values() if place(d.code) not in self._before]
        mended = [draft, *(d for d in behind if d.code is not draft.code)]
        for point in (*self.points[1:2], *self.fresh[:1]):
            with contextlib.suppress(Failed):
                before, after = (self._lines(some, point)[1] for some in (behind, mended))
                if _gained(draft, before, after) > 0:
                    continue
            return False
        return True

    def safe(self, dtype: str) -> list[Mended]:
        """Return the safe forms with which every gradient keeps its digits."""
        finite = np.isfinite(self.problem.lost(dtype))
        for code, text in self.texts.items():
            for edit in safe_forms(text, "GL204" if finite else "GL405"):
                new = edited(text, edit)
                if self.problem.lost(dtype, code, new) < _LOST:
                    self._verify(code, new)
        return self._best_first()

    def line(self) -> WrongLine | None:
        """Return the first wrong line, where no edit was found, and that makes a gradient right."""
        behind = [d for d in self._starts.values() if place(d.code) not in self._before]
        found = self._first_line(behind) if behind and self._is_long(behind) else None
        if found is None and behind:
            found = self._first_line(behind, self._named.locals)
            mine = getattr(self.problem.entry, "__code__", None)
            if found is None or found.code is not mine:  # a helper may be given what is wrong
                return None
            if isinstance(found.text.statements[found.statement], ast.Return):
                return None  # of that, the verdict tells as much
        return found if found is not None and found.mended else None

    def _is_long(self, drafts: Sequence[_Draft]) -> bool:
        """Whether a backward is too long to try everything."""
        benches = [self._bench(draft) for draft in drafts]
        looped = any(n > 1 for bench in benches for n in bench.visits.values())
        return looped or sum(len(bench.kept[0]) for bench in benches) > _LONG

    def _first_line(
        self, drafts: list[_Draft], named: Mapping[str, Sequence[Array]] | None = None
    ) -> WrongLine | None:
        """Return the first wrong line. Locals that are `named` are held against the forward's."""
        if self.problem.long and named is None:
            return None
        point = self.points[0]
        try:
            known = self.problem.within(point)
        except Failed:
            return None
        known = dataclasses.replace(known, gradients=[*known.gradients, *point.expected])
        return first_wrong_line(
            self.world,
            {draft.code: draft.text for draft in drafts},
            lambda: self._at(point),
            lambda came: judged(came, point.expected)[0],
            known,
            point.expected,
            named,
            most=int(_WATCHED * self._total),
        )

    def _searched(self, drafts: list[_Draft], share: float, forward: Sequence[_Draft] = ()) -> None:
        """Search with one edit, then with two, in a share of the candidates that are left.

        One edit of a `forward` is tried as well, since what it keeps may be wrong.
        """
        spent = self.tried / self._total
        share = spent + share * (1 - spent)
        better = [d for d in self._partly if len(d.text.edits) == 1]  # no edit is tried again
        gone_on: set[bytes] = set()
        most, tiers, cut = 0.85 * share + 0.15 * spent, list(self._tiers), False
        for tier in [*tiers[:-1], NAMES, *tiers[-1:]] if TRIED in tiers else tiers:
            named, again = tier == NAMES, tier == NAMES and tier not in tiers
            if again and not cut:
                continue
            here = self.tried / self._total
            end = here + _NAMED * (most - here) if named and not again else most
            if tier == FITTED and any(sum(d.right) > sum(self.right) for d in better):
                end = here + 0.4 * (most - here)  # a second edit is the likelier one
            better += self._tried_tier(drafts, tier, end)
            if named and not again:
                cut = self.tried >= end * self._total
                tiers.remove(NAMES)  # the rest of them comes later
            if tier == TOKENS and not self._settled():
                self._twice(better, share)
            for draft in forward if tier == TOKENS and not self._settled() else ():
                bench = self._bench(draft)
                for edit in _kept_instead(draft.text, bench):
                    self._tried(bench, draft, edit)
            if tier == WIDE and not self._settled():  # a backward is wrong more often than that
                for early in (TOKENS, NAMES):
                    self._tried_tier(forward, early, self._kept(0.15))
            first = sum(self.right)
            if tier >= WIDE and not self._settled():
                self._joined([d for d in better if sum(d.right) > first])
            partly = [d for d in better if sum(d.right) > first and d.text.segment not in gone_on]
            if partly and tier >= FITTED and not self._settled():
                gone_on |= {draft.text.segment for draft in partly}
                self._second(self._best(partly), min(share, self.tried / self._total + 0.4))
            if self._settled():
                return
        self._second(forward, self._kept(0.5))
        if not self._settled():
            self._second(self._best(better), share)

    def _twice(self, better: Sequence[_Draft], share: float) -> None:
        """Try a second cheap edit where the first makes all right up to a common factor."""
        near = [d for d in better if d.errors[1] < _NEAR <= self.errors[1]]
        near = [d for d in near if d.text.edits[0].old not in ("+", "-")]  # another sign would do
        near.sort(key=lambda draft: self._cost(draft.code, draft.text))
        self._tried_tier(near[:_PAIRED], TOKENS, min(share, self.tried / self._total + 0.1))

    def _joined(self, partly: Sequence[_Draft]) -> None:
        """Try two edits at once, of which each makes gradients right that the other does not."""
        few: dict[tuple[bool, ...], list[_Draft]] = {}
        for draft in sorted(partly, key=lambda d: self._cost(d.code, d.text)):
            few.setdefault(draft.right, []).append(draft)
        best = itertools.chain(*(some[:_PAIRED] for some in few.values()))
        for one, two in itertools.combinations(best, 2):
            first, last = sorted((one.text.edits[0], two.text.edits[0]), key=lambda e: e.start)
            pairs = list(zip(one.right, two.right))
            both = any(a and not b for a, b in pairs) and any(b and not a for a, b in pairs)
            if both and one.code is two.code and first.end <= last.start:
                start = self._starts[one.code]
                new = edited(edited(start.text, last), first)
                if (one.code, new.segment) in self._seen:
                    continue
                self._seen.add((one.code, new.segment))
                self._spend(1)
                came = self._bench(start).whole(new, 0)
                if came is not None and all(judged(came, self.points[0].expected)[0]):
                    self._verify(one.code, new)

    def _kept(self, most: float) -> float:
        """Return up to which share of all candidates edits of a forward may be tried."""
        spent = self.tried / self._total
        return spent + min(self.problem.forwards / self._total, most * (1 - spent))

    def _second(self, drafts: Sequence[_Draft], share: float) -> None:
        factor = [d for d in drafts if d.errors[1] < _NEAR]  # a common factor is wrong
        rest = [d for d in drafts if d not in factor]
        partly = [d for d in drafts if sum(d.right) > sum(self.right)]
        for some in (partly, factor, rest[:_SOLVED], rest[_SOLVED:]):  # the best ones first
            self._apart = some is partly  # what no right gradient needs
            for tier in self._tiers if some else ():
                self._tried_tier(some, tier, share)
                if self._settled():
                    return
            self._apart = False

    def _best(self, drafts: list[_Draft]) -> list[_Draft]:
        """Return those with most right gradients, or the best few by each measure they better.

        Of those that do the same, the cheapest is kept: what is far-fetched fails elsewhere.
        """
        most = max((sum(d.right) for d in drafts), default=0)
        cheap = sorted(drafts, key=lambda d: self._cost(d.code, d.text))
        kept: dict[tuple[object, ...], _Draft] = {}
        for draft in cheap:
            kept.setdefault((draft.code, draft.right, *(f"{e:.6g}" for e in draft.errors)), draft)
        each = list(kept.values())
        ranked = [sorted(each, key=lambda d: (most - sum(d.right), d.errors[k])) for k in range(3)]
        ranked = [[d for d in r if d.errors[k] < self.errors[k]] for k, r in enumerate(ranked)]
        some = itertools.chain(*itertools.islice(itertools.zip_longest(*ranked), _BEAM))
        return list(dict.fromkeys(d for d in some if d is not None))

    def _tried_tier(self, drafts: Sequence[_Draft], tier: int, share: float) -> list[_Draft]:
        """Try the edits of one tier of each draft; return those that make something better.

        Args:
            drafts: from which the edits go on.
            tier: of the edits.
            share: of all candidates, after which no more are tried.
        """
        better: list[_Draft] = []
        both = [(draft, self._bench(draft)) for draft in drafts]
        both = [(draft, bench) for draft, bench in both if bench.kept[0]]  # the others never ran
        self._end = end = min(share, 1.0) * self._total
        if self.tried >= end:
            if self._settled() or end == self._total:
                raise _Ended
            return better
        solved = tier in (SOLVED, WIDE)  # such edits are few
        for draft, bench in both[: _SOLVED if tier in (SOLVED, WIDE, FITTED) else None]:
            fixed = kinds.compared(draft.text) if self._special else []
            last, start = self._made(draft)[1:]
            for edit in self._edits(draft, bench, tier):
                if self.tried >= end and not solved:
                    if self._settled() or end == self._total:
                        raise _Ended
                    return better
                if edit.statement == last and edit.start < start:
                    continue
                if any(a <= edit.start and edit.end <= b for a, b in fixed):
                    whole = (edit.start, edit.end) in fixed and edit.old in edit.new
                    if not whole:  # a comparison stays as it is
                        continue
                made = self._tried(bench, draft, edit)
                better += [made] if made is not None else []
                if len(self.verified) - len(self._doubtful) >= _ENOUGH:
                    raise _Ended
                if self._doubtful and not self._settled() and self.tried > self._patience:
                    raise _Ended
        return better

    def _spend(self, candidates: float) -> None:
        """Count what is tried; the clock only stops what runs away."""
        before, self.tried = self.tried, self.tried + candidates
        looked = before // _LOOK < self.tried // _LOOK
        if looked and time.process_time() - self._clock > _RUNS_AWAY * self._seconds:
            raise _Ended

    def _bench(self, draft: _Draft) -> Bench:
        if draft in self._benches:
            return self._benches[draft]
        mine = getattr(self.problem.entry, "__code__", None) is draft.code
        read_ = self.problem.gradients if mine else None
        self._spend(4)

        def run(k: int) -> list[Any]:
            return self._at(self.points[k], draft.code)

        count, forward = len(self.points), self.problem.forward
        more = [read(forward)] if forward is not None and forward not in self.texts else []
        texts = [*self.texts.values(), *filter(None, more)]
        upstream = self.problem.upstream_name if mine else ""
        bench = Bench(self.world, draft.code, draft.text, run, read_, count, texts, upstream)
        self._benches[draft] = bench
        return bench

    def _edits(
        self, draft: _Draft, bench: Bench, tier: int, only: int | None = None
    ) -> Iterator[Edit]:
        """Yield the edits of one tier, or of one statement alone.

        Those that only wrong gradients need come first.
        """
        text, wanted = draft.text, self._wanted(draft, bench)
        wanted = wanted if only is None else {only} & set(bench.kept[0])
        if tier in (SOLVED, WIDE, FITTED):
            known = self._places.setdefault(draft, [])
            places = known if tier == FITTED else self._solved(draft, bench, wanted, tier)
            made: list[Edit] = []
            for place in places:
                if tier != FITTED:
                    made += place.texts()
                elif self.tried < self._end:
                    made += place.products(self._spend, 3 if text.edits else 4)
            known += places if tier != FITTED else ()
            for site, scope in self._unsolved.pop(draft, ()) if not text.edits else ():
                made += _instead(text, site, scope)
            yield from sorted(made, key=lambda e: len(e.new) - len(e.old) + e.cost)
            return
        words = bench.words
        every = (e for e in bench.tokens if e.tier == tier and e.statement in wanted)
        some: Iterable[Edit] = every
        if tier == TOKENS:
            some = itertools.chain(some, _others(text, bench, wanted))
        if tier == TOKENS and (b"fft" in text.file or self._is_complex(bench)):
            pairs = bench.value_sites(wanted)
            values = ((site, scope.value(text.of(site.node))) for site, scope in pairs)
            arrays = (s for s, v in values if isinstance(v, np.ndarray) and v.dtype.kind == "c")
            some = itertools.chain(some, kinds.conjugated(text, arrays))
        if tier == TOKENS:
            apart = (e for e in kinds.unshared(text) if e.statement in bench.kept[0])
            turns = [form for form in words.calls if form.startswith("{}.")]
            too = (*kinds.added_again(text, words.places), *kinds.turned_first(text, turns))
            some = itertools.chain(some, apart, (e for e in too if e.statement in wanted))
            if self.problem.rule.static and bench.reads is not None:
                some = itertools.chain(some, kinds.parameters(text))
        if tier == NAMES:
            numbers = [each for each in words.written if each[0].isdigit()]
            cut = kinds.written_elsewhere(text, words.slices, numbers)
            cut = (e for e in cut if e.statement in wanted)
            yield from _cut(text, bench, wanted)  # few fit
            cut = itertools.chain(cut, _placed(text, bench, wanted))
            some = itertools.chain(some, cut, self._summed(text, bench, wanted))
            some = itertools.chain(some, _imported(text, bench, wanted))
            some = some if text.edits else itertools.chain(some, _unsolvable(text, bench, wanted))
        if tier == NAMES and bench.reads is None:  # a forward may keep another function of it
            kept = (s for s in kinds.sites(text) if isinstance(s.parent, ast.Tuple))
            wrapped = (edit for site in kept for edit, _ in kinds.wraps(text, site, words.calls))
            some = itertools.chain(wrapped, some)
        if tier in (NAMES, TRIED):  # another number first: a count is often the wrong one
            held = self._moving(draft)
            moving = {k: held.get(k, frozenset[str]()) for k in bench.kept[0]}
            pooled = (
                kinds.names(text, site, shape, pool, again, words.calls, moving[site.statement])
                for site, scope in bench.value_sites(wanted)
                if not isinstance(site.node, ast.Constant) or tier == NAMES
                if (shape := _shape(scope, text.of(site.node))) is not None
                and (shape == () or isinstance(site.parent, ast.Compare)) == (tier == NAMES)
                for pool in [_fitting(site, shape, scope.simple)]
                for again in [bench.visits[site.statement] > 1]
            )
            some = itertools.chain(some, *pooled)
        if tier == NAMES:
            yield from _carried(text, bench, wanted)
        innocent, short = self._innocent(draft), tier in (NAMES, TRIED)

        def late(edit: Edit) -> tuple[bool, bool, bool, bool, int]:
            once = tier == TRIED and bench.visits.get(edit.statement) == 1  # what is once is solved
            sized = short and _SIZE.search(edit.new) is not None and not _SIZE.search(edit.old)
            longer = short * abs(len(edit.new) - len(edit.old))
            return edit.statement in innocent, once, sized, short and edit.cost > 0, longer

        yield from sorted(some, key=late)

    def _moving(self, draft: _Draft) -> dict[int, frozenset[str]]:
        """Return what is zero, before each statement, where the upstream is: what depends on it."""
        if draft.code not in self._moved:
            first, bench = self.points[0], self._bench(self._starts[draft.code])
            zero = jax.tree.map(lambda u: 0 * u, first.upstream)
            still = dataclasses.replace(first, upstream=zero, label=f"{first.label}, upstream 0")
            self._limits[still.label] = self._limits[first.label]
            self.points.append(still)
            there = bench.watched(-1)
            self.points.pop()
            pairs = ((k, kept, bench.kept[0].get(k, {})) for k, kept in there.items())
            self._moved[draft.code] = {
                k: frozenset(n for n, v in kept.items() if _zero(v) and not _zero(here.get(n, v)))
                for k, kept, here in pairs
            }
        return self._moved[draft.code]

    def _is_complex(self, bench: Bench) -> bool:
        """Whether something complex takes part."""
        held = itertools.chain(*(scope.values() for scope in bench.kept[0].values()))
        arrays = (v for v in held if isinstance(v, np.ndarray))
        return any(map(np.iscomplexobj, itertools.chain(arrays, self.points[0].expected)))

    def _summed(self, text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
        """Yield the sums of values that have the shape of a gradient of another shape."""
        pairs = [(s, np.shape(e)) for s, e in zip(self.shapes, self.points[0].expected)]
        pairs = [(came, right) for came, right in pairs if came != right]
        for site, scope in bench.value_sites(wanted) if pairs else ():
            shape = _shape(scope, text.of(site.node))
            for right in (right for came, right in pairs if came == shape):
                yield from kinds.summed(text, site, shape or (), right)

    def _wanted(self, draft: _Draft, bench: Bench) -> set[int]:
        wrong = [i for i, ok in enumerate(draft.right) if not ok]
        found = _slice(draft.text, wrong, len(draft.right)) if bench.reads else None
        reached = set(bench.kept[0]) - self._made(draft)[0]
        reached -= self._right_ones(draft) if self._doubtful else set()
        reached -= self._innocent(draft) if self._apart else set()
        return reached if found is None else found & reached

    @functools.cached_property
    def _valued(self) -> set[str]:
        """The functions that make the forward's value."""
        with contextlib.suppress(Failed):
            self.problem.value(self.world, self.points[0], jvp=False)
            return set(self.world.ran)
        return set()

    def _made(self, draft: _Draft) -> tuple[set[int], int, int]:
        """Return what makes the forward's value, which no edit may change.

        First the statements; then the one that returns, and where in it begins what is kept.
        """
        text, code, nothing = draft.text, draft.code, (set[int](), -1, 0)
        end = len(text.statements) - 1
        mine = code is getattr(self.problem.entry, "__code__", None)
        if mine or end < 0 or place(code) not in self._valued:
            return nothing
        last = text.statements[end]
        inside = [n for s in text.statements for n in ast.walk(s)]
        writes = any(isinstance(n, ast.Attribute | ast.Subscript) and is_stored(n) for n in inside)
        if not isinstance(last, ast.Return) or writes:
            return nothing
        if any(isinstance(s, ast.Return | ast.If) for s in text.statements[:end]):
            return nothing  # it may do something else for the backward
        if not isinstance(last.value, ast.Tuple):
            return set(range(end + 1)), -1, 0
        if code is not self.problem.forward or len(last.value.elts) < 2:
            return nothing
        made = _slice(text, [0], len(last.value.elts)) or set()
        return made - {end}, end, text.span(last.value.elts[1])[0]

    def _innocent(self, draft: _Draft) -> set[int]:
        """Return the statements on which right gradients depend, or no wrong one."""
        right = [i for i, ok in enumerate(draft.right) if ok]
        found = _slice(draft.text, right, len(draft.right), sure=True) or set()
        if not right:
            return found
        for k, moved in self._reach(draft).items():
            found -= {k}
            found |= {k} if not moved.isdisjoint(right) or moved <= set(right) else set()
        return found

    def _reach(self, draft: _Draft) -> dict[int, set[int]]:
        """Return, for each statement, which gradients change when its value is moved a little."""
        if draft.code not in self._reached:
            start = self._starts[draft.code]
            bench, expected = self._bench(start), self.points[0].expected
            came = bench.whole(start.text, 0) or []
            found = self._reached[draft.code] = {}
            for k in sorted(bench.kept[0]) if len(came) == len(expected) else ():
                edit = kinds.nudged(start.text, k)
                if edit is None:
                    continue
                self._spend(1)
                there = bench.gradients(edit, __nudged__=_nudged)
                if there is not None and len(there) == len(came):
                    pairs = enumerate(zip(came, there))
                    found[k] = {i for i, (a, b) in pairs if not np.array_equal(a, b)}
        return self._reached[draft.code]

    def _solved(self, draft: _Draft, bench: Bench, wanted: set[int], tier: int) -> list[_Solved]:
        """Return the places where another value would make gradients right.

        Values of few entries come first: they are solved in little time.
        """
        found: list[_Solved] = []
        pools: dict[int, Fitter] = {}
        hopeless: set[ast.AST] = set()
        before = {place.site for place in self._places[draft]}
        innocent = self._innocent(draft)
        places = list(bench.value_sites(wanted))
        apart = [s for s, _ in places if self._is_apart(draft, s, innocent)]
        scopes = {site.statement: scope for site, scope in places}
        places += [(s, scopes[s.statement]) for s in kinds.repeated(draft.text, apart)]
        made = kinds.written_in_parts(draft.text)  # in no one place, so that is asked first
        places.sort(key=lambda p: not (p[0].again and draft.text.of(p[0].node) in made))
        for site, scope in places:
            shapes = _shapes(scope, draft.text, site)
            shapes = [s for s in shapes if (math.prod(s) > _FEW) == (tier == WIDE)]
            vain = not site.again and not hopeless.isdisjoint(site.parents)
            if not shapes or self.tried >= self._end or vain or site in before:
                continue
            needed = self._needs(draft, bench, site, scope, shapes)
            once = bench.visits[site.statement] == 1 and not site.again
            placed = kinds.is_variable(site.node) or _may_lack_a_number(site)
            placed = placed or kinds.is_cut(site.node)
            if needed is None and placed and once:
                self._unsolved.setdefault(draft, []).append((site, scope))
            if not needed:
                hopeless |= set() if needed is None else {site.node}
                continue
            if site.statement not in pools:
                whole = [*scope.simple, *derived(scope)]
                whole.sort(key=lambda m: "(" in m.text and m.text in scope.words.written)
                self._spend(len(whole) / 12)
                pools[site.statement] = Fitter(whole)
            fitter = pools[site.statement]
            found += [_Solved(draft.text, site, scope, each, fitter) for each in needed]
        return found

    def _is_apart(self, draft: _Draft, site: Site, innocent: set[int]) -> bool:
        """Whether no right gradient depends on a place: a return names each gradient's part."""
        node, *inner = (*site.parents[1:], site.node)
        parts = node.elts if isinstance(node, ast.Tuple) and inner else []
        returned = isinstance(site.parents[0], ast.Return) and len(parts) == len(draft.right)
        if returned and self._bench(draft).reads is not None:
            return not draft.right[parts.index(inner[0])]
        return site.statement not in innocent

    def _needs(
        self,
        draft: _Draft,
        bench: Bench,
        site: Site,
        scope: Scope,
        shapes: Sequence[tuple[int, ...]],
    ) -> list[Need] | None:
        """Return what a value must be: for all that is wrong, or for one wrong gradient."""
        value = scope.floats(draft.text.of(site.node), isinstance(site.node, ast.Constant))
        if value is None:
            return None
        if bench.visits[site.statement] != 1:
            return None
        expected = self.points[0].expected
        edit = kinds.moved(draft.text, site)
        owners = np.concatenate([np.full(np.size(e), i) for i, e in enumerate(expected)])
        goal = np.concatenate([np.ravel(e) for e in expected])
        wrong = [i for i, ok in enumerate(draft.right) if not ok]
        alone = [~np.isin(owners, [j for j in wrong if j != i]) for i in wrong]
        chosen = [np.ones(goal.size, bool), *(alone if len(wrong) > 1 else [])]

        def move(delta: Array) -> Array | None:
            self._spend(0.35)
            came = bench.gradients(edit, __moved__=delta)
            if came is None or any(np.shape(c) != np.shape(e) for c, e in zip(came, expected)):
                return None
            return np.concatenate([np.ravel(c) for c in came])

        found: list[Need] | None = None
        for shape in shapes:
            wide = np.broadcast_to(value, shape).astype(float)
            found = needs(wide, move, goal, chosen)
            if found is not None:
                self._spend(_ALGEBRA * goal.size * wide.size**2)
            if found:
                break
        return found

    def _tried(self, bench: Bench, draft: _Draft, edit: Edit) -> _Draft | None:
        """Run a candidate; return it where it is better than its draft, and verify it if right."""
        new = edited(draft.text, edit)
        if (draft.code, new.segment) in self._seen:
            return None
        alone = _last_alone(draft, edit) if draft.text.edits else new
        tier, size, _ = self._cost(draft.code, alone or new) if self._least else (0, 0, 0)
        if self._least is not None and (tier, size - _NO_MORE) > self._least[:2]:
            return None  # a cheaper one holds
        self._seen.add((draft.code, new.segment))
        self._spend(1)
        came = bench.gradients(edit)
        if came is None or len(came) != len(self.points[0].expected):
            return None
        right, errors = judged(came, self.points[0].expected)
        if all(right):
            again = bench.whole(alone, 0) if alone not in (None, new) else None
            enough = again is not None and all(judged(again, self.points[0].expected)[0])
            self._verify(draft.code, alone if alone is not None and enough else new)
            return None
        if any(was and not now for was, now in zip(draft.right, right)):
            return None
        more = sum(right) > sum(draft.right)
        better = any(now < 0.9 * was for was, now in zip(draft.errors, errors))
        apart = errors[1] > 0.99 * right.count(False)  # as zeros are, which are no way to go on
        strange = len(edit.new) - len(edit.old) > _STRANGE
        if not more and (not better or apart or strange):
            return None
        if more and len(self.points) > 1:
            there = bench.whole(new, 1)
            also = (False,) if there is None else judged(there, self.points[1].expected)[0]
            if len(also) != len(right) or any(r and not a for r, a in zip(right, also)):
                return None
        improved = _Draft(draft.code, new, right, errors)
        self._partly += [improved] * more
        return improved

    def _verify(self, code: CodeType, new: Text) -> None:
        """Hold a candidate against the other point, then against points that nobody saw."""
        if not self.fresh or (_chooses_nothing(new) and not _chooses_nothing(self.texts[code])):
            return
        points = (*self.points[1:], *self._refuting, *self.fresh, *self._other_way)
        try:
            for point in self.fresh:
                if point.label not in self._limits:
                    self._at(point)  # how long the original runs there
            points += tuple(self._still)
            with self.world.exchanged(code, new):
                for point in points:
                    if not all(judged(self._at(point, code), point.expected)[0]):
                        return
                values = [self.problem.value(self.world, point) for point in self.fresh]
                if not self._leaves_alone(code):
                    return
                if any(self._errs(p, code) for p in self._uneven):
                    return
                touched = place(code) in self.world.ran
            if touched:  # the forward runs what was edited, and must give what it gave
                for point, value in zip(self.fresh, values):
                    if not all(map(_same, self.problem.value(self.world, point), value)):
                        return
        except Failed:
            return
        if not all(self._keeps_numbers(point, code, new) for point in self._extremes):
            return
        if _grows(new) and not all(self._gives_numbers(point, code, new) for point in self._far):
            return
        written = {ast.dump(m.new.tree) for m in (*self.verified, *self._bound)}
        old = read(code)
        if ast.dump(new.tree) in written or old is None:
            return
        if self._writes_a_setting(new):
            return
        bound = self._bound_to(code, new, touched)
        if bound and (not _says_no_number(new) or max(e.tier for e in new.edits) >= FITTED):
            return
        later = bool(self.verified or (bound and self._bound))  # only of those that are given
        if later or self._sure(code, new):
            shapes = [[np.shape(x) for x in jax.tree.leaves(p.inputs)] for p in self.fresh]
            sizes = shapes[-1] != shapes[0]
            made = Mended(code, old, new, tuple(self.fresh), sizes, bound=bound)
            (self._bound if bound else self.verified).append(made)
            self._sures |= set() if later else {id(made)}
            if (doubted := self._doubt(code, old, new)) and not bound:
                self._doubtful[id(made)] = doubted
                if (moved := at_its_definition(old, new)) is not None:
                    self._verify(code, moved)
                self._patience = self._patience or self.tried + _FURTHER * self._total
            elif not (later or bound):
                self._least = self._cost(code, new)

    def _settled(self) -> bool:
        """Whether something is verified that stands where the mistake is, as far as is known."""
        return len(self.verified) > len(self._doubtful)

    def _doubt(self, code: CodeType, old: Text, new: Text) -> int:
        """Return how far a fix may stand at another place than the mistake."""
        if all((code, edit.statement) in self._wrong for edit in new.edits):
            return 0
        bench = self._bench(self._starts[code]) if code in self._starts else None
        if bench is None or place(code) in self._valued:
            return int(bench is not None and at_its_definition(old, new) is not None)
        right = self._right_ones(self._starts[code])
        return doubt(old, new, bench.scope, right, self._named)

    def _right_ones(self, draft: _Draft) -> set[int]:
        """Return the statements whose values are right by their names, and what these are of."""
        if place(draft.code) in self._valued or draft.text.edits:
            return set()
        if draft not in self._right:
            bench, found, needed = self._bench(draft), set[int](), set[str]()
            for k in sorted(bench.visits, reverse=True):
                reads, writes = _reads_and_writes(draft.text.statements[k])
                scope = bench.scope(k) if bench.visits[k] == 1 else None
                told = scope is not None and is_right(draft.text, k, scope, self._named)
                if told or (writes and writes <= needed):
                    found.add(k)
                    needed |= reads
            self._right[draft] = found
        return self._right[draft]

    @functools.cached_property
    def _named(self) -> Named:
        """The forward's locals, and the gradients within it."""
        held: dict[str, list[Array]] = {}

        def keep(_: int, scope: dict[str, Any]) -> None:
            for name, value in scope.items():
                if isinstance(value, np.ndarray) and len(held.get(name, ())) < _LOCALS:
                    held.setdefault(name, []).append(value.copy())

        pushes = self.problem.rule.kind == "jvp"  # where `dx` is a tangent, and no gradient

        def within() -> Within:
            with contextlib.suppress(Failed):
                return Within([], [], [], [], []) if pushes else self.problem.within(point)
            return Within([], [], [], [], [])

        point = self.points[0]
        given = {} if pushes else dict(zip(self.problem.rule.paths, point.expected))
        valued = self._valued
        with contextlib.suppress(Failed), contextlib.ExitStack() as stack:
            for code, copies in self.world.copies.items():
                text = read(code) if place(code) in valued else None
                if text is not None:
                    stack.enter_context(self.world.exchanged(code, text, watched))
                    for copy in copies:
                        copy.__globals__["__keep__"] = keep
            self.problem.value(self.world, point, jvp=False)
        return Named(held, given, within)

    def _leaves_alone(self, code: CodeType) -> bool:
        """Whether the backward leaves the upstream as it is that it was given."""
        given = self._arguments(self.fresh[0], code)
        before = copied(self.problem.upstream_of(given), {})
        self.world.call(self.entry, *given)
        leaves = (jax.tree.leaves(x) for x in (before, self.problem.upstream_of(given)))
        return all(map(np.array_equal, *leaves))

    def _sure(self, code: CodeType, new: Text) -> bool:
        """Whether a candidate is right in JAX itself, and on every branch."""
        return self.problem.confirmed(code, new, self.fresh[0]) and not self._refuted(code, new)

    def _bound_to(self, code: CodeType, new: Text, touched: bool) -> str:
        """Return the settings for whose values alone a candidate is right: "c = 4.0"."""
        bound: dict[str, None] = {}
        for point, values in self._settings:
            with contextlib.suppress(Failed), self.world.exchanged(code, new):
                right = all(judged(self._at(point, code), point.expected)[0])
                if right and (not touched or all(map(_same, self._values(point), values))):
                    continue
            bound |= {f"{name} = {value:g}": None for name, value in point.others}
        return " and ".join(bound)

    def _writes_a_setting(self, new: Text) -> bool:
        """Whether an edit compares with a number that is a setting's value: `1` for `margin`.

        A few points may not tell one from the other.
        """
        read_ = self.world.read_by(self.world.ever)
        known = {abs(s.value) for s in self.world.settings if s.root in read_}
        known = {value for value in known if type(value) is float}
        spans = kinds.compared(new)
        inside = (e for e in new.edits if any(a <= e.start < b for a, b in spans))
        return any(float(number) in known for e in inside for number in _new_numbers(e))

    @functools.cached_property
    def _settings(self) -> list[tuple[Point, list[Any]]]:
        """Points at which settings are others and all runs, and the forward's values there."""
        found: list[tuple[Point, list[Any]]] = []
        for settings, points in self.problem.of_settings(self.world):
            if any(settings.items() <= point.others.items() for point, _ in found):
                continue
            for point in points:
                if not all(map(np.size, jax.tree.leaves(point.upstream))):
                    continue
                with contextlib.suppress(Failed):
                    right = judged(self._at(point), point.expected)[0]
                    if all(now for was, now in zip(self.right, right) if was):
                        found.append((point, self._values(point)))
                        break
        return found

    def _values(self, point: Point) -> list[Any]:
        with self.world.varied(point.others):
            return self.problem.value(self.world, point)

    def _errs(self, point: Point, code: CodeType) -> bool:
        """Whether what runs gives a wrong gradient at a point, which it takes."""
        with contextlib.suppress(Failed):
            return not all(judged(self._at(point, code), point.expected)[0])
        return False

    @functools.cached_property
    def _uneven(self) -> list[Point]:
        """At most two points with a square array made uneven, where right gradients stay right."""
        found = []
        for point in self.problem.uneven():
            with contextlib.suppress(Failed):
                here = judged(self._at(point), point.expected)[0]
                if any(was and not now for was, now in zip(self.right, here)):
                    continue  # nobody calls it so
            self._limits.setdefault(point.label, _TIMES * _TIMES * max(self._limits.values()))
            found.append(point)
            if len(found) == 2:
                break
        return found

    def _refuted(self, code: CodeType, new: Text) -> bool:
        """Whether a candidate is wrong on another branch; others are held there at once."""
        wrong, where = self.problem.refuted(code, new)
        if where is not None:
            self._refuting.append(where)
        return wrong

    @property
    def fresh(self) -> list[Point]:
        """Three points that the search never saw; one of other sizes where that is possible."""
        if not hasattr(self, "_fresh"):
            made = [point for k in (11, 12) for point in self._with_other_numbers(k)]
            made += self._of_other_sizes(13, self._at(self.points[0]))
            self._fresh = made if len(made) == 3 else []
        return self._fresh

    @functools.cached_property
    def _other_way(self) -> list[Point]:
        """The point at which what is True is False, where there is one and all is right there."""
        if not any(type(x) is bool for x in jax.tree.leaves(self.problem.given)):
            return []
        point = self.problem.point(OTHER_WAY, 0, vary=True)
        with contextlib.suppress(Failed):
            if point is not None and all(judged(self._at(point), point.expected)[0]):
                return [point]
        return []

    @functools.cached_property
    def _still(self) -> list[Point]:
        """A point with an upstream of zero, where all runs: there no quotient of two is right."""
        if self.problem.rule.kind == "gradients" or not self.fresh:
            return []
        point = self.problem.still(self.fresh[0])
        self._limits[point.label] = self._limits[self.fresh[0].label]
        with contextlib.suppress(Failed):
            self._at(point)
            return [point]
        return []

    @functools.cached_property
    def _extremes(self) -> list[Point]:
        """Points with inputs of zero, tiny and large ones; what is right there is not known.

        A fix must give numbers there. It need not be right: zero may be a kink, and an iteration
        may not have converged.
        """
        first, made = self.fresh[:1], list[Point]()
        for point in first:
            made += itertools.islice(self.problem.times(point, (0, _TINY)), 2 * _ZEROS)
            made += itertools.islice(self.problem.times(point, _TIMES_LARGE), _LARGE)
        return made

    @functools.cached_property
    def _far(self) -> list[Point]:
        """Points with inputs so large that their exponentials are infinite."""
        times = (self.problem.times(point, _TIMES_FAR) for point in self.fresh[:1])
        return list(itertools.islice(itertools.chain(*times), _LARGE))

    def _gives_numbers(self, point: Point, code: CodeType, new: Text) -> bool:
        """Whether a candidate gives numbers wherever the right ones are."""
        full = self._completed(point)
        self._limits.setdefault(point.label, max(self._limits.values()))
        return full is None or self._finite(full, code, new)

    def _keeps_numbers(self, point: Point, code: CodeType, new: Text) -> bool:
        """Whether a candidate gives numbers wherever the original does, and the right ones are."""
        self._limits.setdefault(point.label, max(self._limits.values()))
        with contextlib.suppress(Failed), self.world.exchanged(code, new):
            if all(c is not None and np.isfinite(c).all() for c in self._at(point, code)):
                return True
        full = self._completed(point)
        del self._limits[point.label]  # as the original takes there
        return full is None or not self._finite(full) or self._finite(full, code, new)

    def _completed(self, point: Point) -> Point | None:
        """Return a point with the right gradients, which may take long where a loop never ends."""
        if point.label not in self._full:
            self._full[point.label] = self.problem.completed(point)
        return self._full[point.label]

    def _finite(self, point: Point, code: CodeType | None = None, new: Text | None = None) -> bool:
        """Whether the original, or a candidate, gives numbers where the right gradients are."""
        mended = self.world.exchanged(code, new) if code and new else contextlib.nullcontext()
        with contextlib.suppress(Failed), mended:
            pairs = zip(self._at(point, code), point.expected)
            return all(
                np.isfinite(np.asarray(c)[np.isfinite(e)]).all()
                for c, e in pairs
                if np.shape(c) == np.shape(e)
            )
        return False

    def _with_other_numbers(self, k: int) -> list[Point]:
        """Return the k-th point, with other settings in the place of numbers where all runs."""
        for each, vary in itertools.product((k, INSIDE + k), (True, False)):
            point = self.problem.point(each, 0, vary)
            with contextlib.suppress(Failed):
                if point is not None and self._at(point):
                    return [point]
        return []


def _gained(draft: _Draft, before: Right, after: Right) -> int:
    """Return how much more is right with the edits of a draft, beside the edited lines."""
    edited_ = {(draft.code, edit.statement) for edit in draft.text.edits}
    return sum(after[k] - before[k] for k in {*before, *after} - edited_)


def _plain(draft: _Draft) -> tuple[int, int]:
    """Return what is larger, the more gradients a draft makes right, and the less it adds."""
    return sum(draft.right), -sum(len(e.new) - len(e.old) + e.cost for e in draft.text.edits)


def _same(one: Any, other: Any) -> bool:
    return np.allclose(one, other, rtol=1e-12, atol=0, equal_nan=True)


def _grows(new: Text) -> bool:
    """Whether the edits of a text put in an exponential that was not there."""
    return any(e.new.count("exp(") > e.old.count("exp(") for e in new.edits)


def _chooses_nothing(text: Text) -> bool:
    """Whether a choice is between a value and itself, as in `clip(x, 0, x)`."""
    calls = [node for node in ast.walk(text.tree) if isinstance(node, ast.Call)]
    choices = [each for each in calls if kinds.last_name(each) in _CHOICES]
    return any(len(set(map(ast.dump, each.args))) < len(each.args) for each in choices)


def _says_no_number(new: Text) -> bool:
    """Whether the edits of a text put in no number that was not there."""
    texts = ("".join(getattr(e, part) + " " for e in new.edits) for part in ("new", "old"))
    numbers = [collections.Counter(_NUMBERS.findall(each)) for each in texts]
    return not numbers[0] - numbers[1]


def _new_numbers(edit: Edit) -> list[str]:
    old = _NUMBERS.findall(edit.old)
    return [n for n in _NUMBERS.findall(edit.new) if n not in old and n.strip(".")]


def _last_alone(draft: _Draft, edit: Edit) -> Text | None:
    """Return the text with the last edit alone; None where it builds on the one before it."""
    before, old = draft.text.edits[-1], read(draft.code)
    after = before.start + len(before.new.encode())
    covers = edit.start <= before.start and after <= edit.end
    apart = covers or edit.start >= after or edit.end <= before.start
    if old is None or len(draft.text.edits) > 1 or not apart:
        return None
    shift = after - before.end
    start = edit.start - shift * (edit.start >= after)
    end = edit.end - shift * (covers or edit.start >= after)
    here = old.segment[start:end].decode()
    return edited(old, dataclasses.replace(edit, start=start, end=end, old=here))


def _cut(text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
    """Yield slices of as many entries as before, from places that have a name."""
    every = (site for site in kinds.sites(text) if isinstance(site.node, ast.Subscript))
    for site in every:
        scope = bench.scope(site.statement) if site.statement in wanted else None
        base = text.of(getattr(site.node, "value", site.node))
        if scope is None or (shape := _shape(scope, text.of(site.node))) is None:
            continue
        places = [n for n, v in scope.locals[0].items() if type(v) is int]
        for edit in kinds.shifted(text, site, places[:_PLACES]):
            start, here = text.span(site.node)[0], text.of(site.node)
            a, b = edit.start - start, edit.end - start
            if _shape(scope, base + (here[:a] + edit.new + here[b:])[len(base) :]) == shape:
                yield edit


def _placed(text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
    """Yield places that an array of indices holds, in the place of others."""
    known = {n: v for scope in bench.kept[0].values() for n, v in scope.items()}
    arrays = [n for n, v in known.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iu"]
    arrays = [n for n in arrays if np.ndim(known[n])]
    for alias in bench.words.aliases[:1]:
        made = kinds.placed(text, arrays[:2], alias)
        yield from (edit for edit in made if edit.statement in wanted)


def _imported(text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
    """Yield other functions that the module imports, in the place of those that are called."""
    imported = bench.world.imported(bench.copy)
    for site in kinds.sites(text) if imported else ():
        called = isinstance(site.parent, ast.Call) and site.parent.func is site.node
        for name in imported if called and site.statement in wanted else ():
            if name != text.of(site.node):
                yield kinds.filled(text, site, "{m}", Material(name, ATOM, ()), NAMES)
        alone = called and len(site.parent.args) == 1  # type: ignore[attr-defined]
        for name in imported if alone and site.statement in wanted else ():
            if f"{name}(".encode() not in text.file:  # what nobody calls may take an order too
                whole = Site(site.parent, site.parents[:-1], site.statement)  # type: ignore[arg-type]
                new = f"{name}(1, {text.of(site.parent.args[0])})"  # type: ignore[attr-defined]
                yield kinds.filled(text, whole, "{m}", Material(new, ATOM, ()), NAMES)


def _carried(text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
    """Yield factors at the end of a loop of what it carries into the next turn."""
    for loop in text.statements:
        last = loop.body[-1] if isinstance(loop, ast.For | ast.While) else None
        scope = bench.scope(text.statements.index(last)) if last is not None else None
        if last is None or scope is None or text.statements.index(last) not in wanted:
            continue
        made = [s for s in ast.walk(loop) if isinstance(s, ast.Assign) and len(s.targets) == 1]
        carried = {text.of(s.targets[0]) for s in made if isinstance(s.targets[0], ast.Name)}
        for name in sorted(n for n in carried if _reads_itself(loop, n)):
            shape = _shape(scope, name)
            for each in scope.simple if shape is not None else ():
                if wider(shape or (), each.shape) and each.text != name and not each.is_number:
                    yield kinds.after(text, last, f"{name} = {name} * {each.text}", NAMES)


def _reads_itself(loop: ast.stmt, name: str) -> bool:
    """Whether a loop reads a name before it writes it."""
    for statement in loop.body:  # type: ignore[attr-defined]
        reads, writes = _reads_and_writes(statement)
        if name in reads:
            return True
        if name in writes:
            return False
    return False


def _others(text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
    """Yield other containers of the same kind: the parameters of another layer."""
    for site, scope in bench.value_sites(wanted):
        here: Any = scope.locals[0].get(getattr(site.node, "id", ""))
        if type(here) in (dict, list, tuple):
            for name, other in scope.locals[0].items():
                alike = type(other) is type(here) and len(other) == len(here)
                if alike and name != text.of(site.node) and set(_keys(other)) == set(_keys(here)):
                    yield kinds.filled(text, site, "{m}", Material(name, ATOM, ()), TOKENS)


def _unsolvable(text: Text, bench: Bench, wanted: set[int]) -> Iterator[Edit]:
    """Yield what may stand for arrays that cannot be solved for: they are read again, or bounded.

    Bounds are those that the user's source gives other arrays.
    """
    scopes = {site.node: scope for site, scope in bench.value_sites(wanted)}
    every = [site for site in kinds.sites(text) if site.node in scopes]
    for site in kinds.repeated(text, every):
        if len({site.statement, *(s.statement for s in site.again)}) == 1:
            yield from _instead(text, site, scopes[site.node])
    turns = [form for form in bench.words.calls if form.startswith("{}.")]
    for site in every:
        scope = scopes[site.node]
        if turns and len(_shape(scope, text.of(site.node)) or ()) > 2:
            yield from (edit for edit, _ in kinds.wraps(text, site, turns))
        if not isinstance(site.node, ast.Name) or not _shape(scope, site.node.id):
            continue
        if bench.visits[site.statement] > 1:
            yield from _instead(text, site, scope)
        for form in bench.words.bounded:
            made = form.replace("{}", site.node.id)
            value = scope.value(made)
            same = (m.text for m in scope.simple if np.array_equal(m.values[0], value))
            yield kinds.filled(text, site, "{m}", Material(next(same, made), ATOM, ()), NAMES)


def _may_lack_a_number(site: Site) -> bool:
    """Whether a value has a name of its own, or is all that a function is called with."""
    called = isinstance(site.parent, ast.Call) and site.parent.args == [site.node]
    return called or isinstance(site.parent, ast.Assign)


def _instead(text: Text, site: Site, scope: Scope) -> Iterator[Edit]:
    """Yield what may stand for an array that cannot be solved for: others, and products."""
    shape, here = _shape(scope, text.of(site.node)), text.of(site.node)
    for number in scope.words.written if _may_lack_a_number(site) else ():
        if number[0].isdigit():
            each = Material(number, ATOM, (), False)
            yield kinds.filled(text, site, "{s} + {m}", each)
    for each in _terms(text, site, scope):
        yield kinds.filled(text, site, "{s} + {m}", each)
        yield kinds.filled(text, site, "{s} - {m}", each)
    if not kinds.is_variable(site.node):
        return
    word = re.compile(rf"[^\w.]{re.escape(here)}\b")
    for call in (*scope.words.written, *scope.words.sums):  # as the source makes it anew
        if call.endswith(")") and word.search(call) and _shape(scope, call) == shape:
            yield kinds.filled(text, site, "{m}", Material(call, ATOM, ()))
    for new in rows_beside(scope, here, shape or ()):
        yield kinds.filled(text, site, "{m}", Material(new, ATOM, ()))
    made = ((p, scope.values(p)) for p in scope.words.products)
    some = [Material(text_, 13, values) for text_, values in made if values is not None]
    for each in (*scope.simple, *some):
        named = each.binds < ATOM or _VARIABLE.fullmatch(each.text)
        if named and each.text != here and each.shape == shape:
            yield kinds.filled(text, site, "{m}", each)


def _terms(text: Text, site: Site, scope: Scope) -> Iterator[Material]:
    """Yield arrays like the one at a place: of those that are cut there, the same part."""
    node, cut = site.node, ""
    if isinstance(node, ast.Subscript) and kinds.is_cut(node):
        whole, node = text.of(node), node.value
        cut = whole[len(text.of(node)) :]
    here = text.of(node)
    shape = _shape(scope, here) if kinds.is_variable(node) else None
    for each in scope.simple if shape else ():
        if each.shape == shape and each.text != here and _VARIABLE.fullmatch(each.text):
            yield dataclasses.replace(each, text=each.text + cut)


def _kept_instead(text: Text, bench: Bench) -> Iterator[Edit]:
    """Yield locals that a forward does not return, in the place of those that it returns."""
    kept = [s for s in kinds.sites(text) if isinstance(s.parent, ast.Tuple) and s.parents[1:]]
    names = {text.of(site.node) for site in kept}
    for site in kept:
        scope = bench.scope(site.statement) if isinstance(site.parents[0], ast.Return) else None
        shape = _shape(scope, text.of(site.node)) if scope is not None else None
        for each in scope.simple if scope is not None and shape else ():
            if each.text.isidentifier() and each.shape == shape and each.text not in names:
                yield kinds.filled(text, site, "{m}", each, TOKENS)


def _keys(value: Any) -> Any:
    return value if isinstance(value, dict) else ()


def _is_plain(value: Tree) -> bool:
    """Whether a value holds arrays and numbers alone, which can be copied."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, np.ndarray | np.generic | int | float | complex | str)


def _shape(scope: Scope, written: str) -> tuple[int, ...] | None:
    """Return the shape of an expression's value, where that is a number or an array."""
    value = scope.value(written)
    return np.shape(value) if isinstance(value, np.ndarray | np.generic | float | int) else None


def _shapes(scope: Scope, text: Text, site: Site) -> list[tuple[int, ...]]:
    """Return the shapes in which a value is solved for: its own, then wider ones.

    A number may stand for an array of the shape of what is made with it.
    """
    shape = _shape(scope, text.of(site.node))
    around = site.parents if shape == () and isinstance(site.node, ast.Constant) else ()
    made = [_shape(scope, text.of(p)) for p in around[::-1] if isinstance(p, ast.expr)]
    others = (s for s in scope.shapes if shape is not None and s != shape and wider(s, shape))
    chosen = dict.fromkeys([*filter(None, made), *sorted(others)])
    return [] if shape is None else [shape, *chosen][:3]


def _nudged(value: Any) -> Any:
    """Return a value with all its numbers a little off."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_nudged, value))
    if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind in "fc"):
        size = 1 + np.abs(value) if np.any(value) else 0.0  # it may be zero by the chosen upstream
        return value + 1e-3 * np.cos(np.arange(np.size(value))).reshape(np.shape(value)) * size
    return value


def _zero(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic | float) and not np.any(value)


def _fitting(site: Site, shape: tuple[int, ...], pool: list[Material]) -> list[Material]:
    """Return what may stand in a place: no array where a number does, but in a comparison."""
    compared = isinstance(site.parent, ast.Compare)
    return [each for each in pool if shape or compared or not each.shape]


def _cost(old: Text, new: Text, size: int) -> Cost:
    """Return what orders fixes: how far the search went, how much is new or in another style."""
    known, unused, returned = old.segment.decode(), _unused(old), _made_to_return(old)
    for edit in new.edits:
        strange = [w for w in re.findall(r"\w+|[^\w\s]", edit.new) if w not in known]
        styled = f"={edit.new}" in known
        size += edit.cost + _changed(edit.old, edit.new)
        size += 2 * len(strange) - 2 * styled
        size += 2 * max(0, len(_NUMBERS.findall(edit.new)) - len(_NUMBERS.findall(edit.old)) - 1)
        size -= _CALLED * (not unused.isdisjoint(re.findall(r"\w+", edit.new)))
        size += 4 * (edit.tier >= SOLVED and edit.old.isidentifier())  # where it is made, not read
        size += _RETURNED * (edit.old in returned)
    if len(new.edits) > 1:  # one mistake is often made twice
        size += 4 * len({word for edit in new.edits for word in _exchanged(edit)})
    return max(e.tier for e in new.edits), size, new.edits[0].start


def _exchanged(edit: Edit) -> Iterator[str]:
    """Yield the words of an edit that others stand for afterwards."""
    old, new = (re.findall(r"[^\W\d]\w*", each) for each in (edit.old, edit.new))
    yield from (one for one, two in zip(old, new) if one != two and len(old) == len(new))


@functools.lru_cache(maxsize=64)
def _made_to_return(text: Text) -> set[str]:
    """Return the names that a function computes in one place, and returns without reading them."""
    names = [n for s in text.statements for n in ast.walk(s) if isinstance(n, ast.Name)]
    counts = collections.Counter((n.id, is_stored(n)) for n in names)
    alone = {
        t.id
        for s in text.statements
        if isinstance(s, ast.Assign)
        for t in s.targets
        if isinstance(t, ast.Name)
    }
    ends = {
        n.id
        for s in text.statements
        if isinstance(s, ast.Return)
        for n in ast.walk(s)
        if isinstance(n, ast.Name)
    }
    return {n for n in alone & ends if counts[n, True] == counts[n, False] == 1}


@functools.lru_cache(maxsize=64)
def _unused(text: Text) -> set[str]:
    """Return the names that a function gives a value which nothing reads."""
    names = [n for s in text.statements for n in ast.walk(s) if isinstance(n, ast.Name)]
    return {n.id for n in names if is_stored(n)} - {n.id for n in names if not is_stored(n)}


def _changed(old: str, new: str) -> int:
    """Return how many characters differ, what stands at both ends alike left out."""
    start, end = alike(old, new)
    return len(new) - start - end + abs(len(new) - len(old))


def _slice(text: Text, chosen: Sequence[int], count: int, sure: bool = False) -> set[int] | None:
    """Return the statements on which some of the returned values depend; None: not known.

    Those that only may be among them are left out where one wants to be `sure`.
    """
    last = text.statements[-1]
    if not isinstance(last, ast.Return) or last.value is None:
        return None
    parts = last.value.elts if isinstance(last.value, ast.Tuple) else [last.value]
    if len(parts) != count:
        return None
    needed = {n.id for i in chosen for n in ast.walk(parts[i]) if isinstance(n, ast.Name)}
    found, before = {len(text.statements) - 1}, -1
    while before != len(found):
        before = len(found)
        for index, statement in enumerate(text.statements[:-1]):
            reads, writes = _reads_and_writes(statement)
            if writes & needed or not (writes or sure):
                found.add(index)
                needed |= reads
    return found


@functools.lru_cache(maxsize=1 << 12)
def _reads_and_writes(statement: ast.stmt) -> tuple[set[str], set[str]]:
    reads: set[str] = set()
    writes: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            (reads if isinstance(node.ctx, ast.Load) else writes).add(node.id)
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            base: ast.expr = node
            while isinstance(base, ast.Subscript | ast.Attribute):
                base = base.value
            writes |= {base.id} if isinstance(base, ast.Name) else set()
        writes |= {node.name} if isinstance(node, ast.FunctionDef) else set()
    return reads, writes | (reads if isinstance(statement, ast.Expr) else set())
