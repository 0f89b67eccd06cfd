"""Prove that two programs are one formula, by evaluating both at random points of prime fields."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.proof.algebra import Field, Symbol, TooLarge, cost
from gradlab.proof.field import lanes
from gradlab.tracing import Program, narrowings
from gradlab.tracing.callbacks import Refused, run_callbacks
from gradlab.tracing.constants import constants_of
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.interpreter import TooLong
from gradlab.tracing.jaxprs import Literal, body, dtype_of, needed
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.program import without_checks

BUDGET, LONG = 6e7, 4e8  # entries times lanes: about 0.3 and 2 seconds
_BOUND = 2.0**-40
_ROUNDS = 3
_STRICT_POINTS = 4  # most of which are undefined where ambiguous are many
_TURNS = 4096
_NEAR = 2.0**-9  # how far the concrete point lies from the given inputs
_AGREE = 1e-4

STOPPED = "the proof would take too long"
DIFFER = "the formulas differ, or a law that they rest on is not known"
ASSUMES = (
    "powers of a generator at different exponents behave as independent numbers",
    "no coefficient is divisible by all primes that were used",
)


@dataclass(frozen=True)
class Proof:
    """What came of trying to prove one output."""

    proved: bool  # whether rule and reference are one formula, on the branches that were taken
    bound: float = 1.0  # the probability that different formulas pass, 1 where nothing is proved
    assumes: tuple[str, ...] = ()  # what the proof takes for granted
    reason: str = ""  # why nothing is proved; empty where it is


def prove(
    rule: Program,
    reference: Program,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[int],
    seed: int = 0,
    budget: float = BUDGET,
) -> list[Proof]:
    """Try to prove outputs of two programs equal, as formulas.

    Both programs are evaluated in prime fields at random inputs (identity testing; Schwartz 1980,
    Zippel 1979). What is chosen by numbers (branches, comparisons, maxima) is taken from one run
    near the given inputs, so a proof speaks of the branches that it takes.

    `budget`: work, in entries times lanes, after which the proof stops.
    """
    try:
        narrow = _narrowed(rule, reference)
        if narrow:
            return [Proof(False, reason=narrow) for _ in outputs]
        attempt = _Attempt(rule, reference, inputs, outputs, seed, budget)
        with without_checks(), np.errstate(all="ignore"):
            run_callbacks(functools.partial(attempt.compare, strict=False))
            if any(leaf.reason == DIFFER for leaf in attempt.leaves.values()) and attempt.ambiguous:
                run_callbacks(functools.partial(attempt.compare, strict=True))
            return attempt.proofs()
    except TooLarge:
        reason = STOPPED
    except TooLong:
        reason = "a loop runs too often to be proved"
    except Refused:
        reason = "a callback cannot be run near the given inputs"
    return [Proof(False, reason=reason) for _ in outputs]


def _narrowed(rule: Program, reference: Program) -> str:
    """Return why a cast stands in the way: the rule rounds where the reference does not."""
    known = {narrowing.dtype for narrowing in narrowings(reference)}
    for narrowing in narrowings(rule):
        if narrowing.dtype not in known:
            return f"the rule {narrowing}, and the reference does not"
    return ""


@dataclass(eq=False)
class _Leaf:
    """What is known of one output so far, entry by entry."""

    odds: NDArray[np.float64]  # that different formulas agreed so far
    points: NDArray[np.int64]  # at which both were defined
    reason: str = ""

    @property
    def proved(self) -> bool:
        """Whether every entry is."""
        return not self.reason and bool(((self.odds <= _BOUND) & (self.points >= 2)).all())


class _Attempt:
    """Both programs at one concrete point and, round by round, at more points of the fields."""

    def __init__(
        self,
        rule: Program,
        reference: Program,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[int],
        seed: int,
        budget: float,
    ) -> None:
        self.programs = rule, reference
        self.seed, self.budget = seed, budget
        self.constants = constants_of([rule, reference])
        self.given = inputs
        self.assumed: dict[str, None] = dict.fromkeys(ASSUMES)
        self.uncovered: dict[str, None] = {}
        self.ambiguous = False
        shapes = {place: rule.out_avals[place].shape for place in outputs}
        self.leaves = {
            place: _Leaf(np.ones(shape), np.zeros(shape, np.int64))
            for place, shape in shapes.items()
        }

    def compare(self, strict: bool) -> None:
        """Compare all outputs at more and more points, until their bounds are low.

        `strict`: roots and logarithms of what is no square are undefined. Then exp(log(x)) = x and
        sqrt(x) sqrt(y) = sqrt(x y) hold wherever they are defined.
        """
        for leaf in self.leaves.values():
            if leaf.reason == DIFFER:
                leaf.reason, leaf.odds, leaf.points = "", leaf.odds * 0 + 1, leaf.points * 0
        spent: float = sum(self._least(program, strict) for program in self.programs)
        for turn in range(_ROUNDS):
            if spent > self.budget:
                raise TooLarge  # before anything is drawn
            before = self.budget
            first, second = (self._evaluated(program, turn, strict) for program in self.programs)
            for place, leaf in self.leaves.items():
                if not leaf.proved and not leaf.reason:
                    self._compare(leaf, first[place], second[place])
            if all(leaf.proved or leaf.reason for leaf in self.leaves.values()):
                break
            spent = before - self.budget

    @functools.cached_property
    def near(self) -> dict[str, NDArray[Any]]:
        """The concrete point."""
        rng = np.random.default_rng([self.seed, 11])
        return {name: _nearby(np.asarray(array), rng) for name, array in self.given.items()}

    def _least(self, program: Program, strict: bool) -> int:
        """Return the least work that evaluating a program once is."""
        inputs = [is_inexact(aval.dtype) for aval in program.in_avals]
        chosen = lanes(_STRICT_POINTS if strict else 1, self.seed, strict)
        return _least(program.jaxpr, inputs) * len(chosen)

    def _evaluated(self, program: Program, turn: int, strict: bool) -> list[tuple[Symbol, Field]]:
        chosen = lanes(_STRICT_POINTS if strict else 1, self.seed + turn, strict)
        field = Field(chosen, self.constants, self.budget)
        field.turns = _TURNS
        rng = np.random.default_rng([self.seed, turn, strict, 13])
        drawn = {name: field.input(self.near[name], rng) for name in sorted(self.near)}
        outputs = field(program.jaxpr, [drawn[name] for name in program.in_names])
        self.budget = field.budget
        self.assumed |= field.assumed
        self.uncovered |= field.unproved
        self.ambiguous |= field.ambiguous
        return [(output, field) for output in outputs]

    def _compare(
        self, leaf: _Leaf, first: tuple[Symbol, Field], second: tuple[Symbol, Field]
    ) -> None:
        (one, field), (other, _) = first, second
        if not _agree(one.real, other.real):
            leaf.reason = "the numbers differ, or are not finite, near the given inputs"
            return
        lead = field.lanes
        degree = one.degree.minus(other.degree)
        shape = (len(lead), *leaf.odds.shape)
        same, defined, exact = np.ones(shape, bool), np.ones(shape, bool), np.ones(len(lead), bool)
        for x, y in zip(field.parts(one), field.parts(other)):
            same &= x.a == y.a
            defined &= np.isfinite(x.a) & np.isfinite(y.a)
            exact &= x.exact & y.exact
        if exact.any():
            defined &= exact.reshape(-1, *(1,) * leaf.odds.ndim)
        if (defined & ~same).any():
            leaf.reason = DIFFER
            return
        chance = np.minimum(1.0, max(degree, 1.0) / lead.column(leaf.odds.ndim))
        leaf.odds = leaf.odds * np.where(defined, chance, 1.0).prod(0)
        for point in np.unique(lead.points):
            leaf.points = leaf.points + defined[lead.points == point].any(0)

    def proofs(self) -> list[Proof]:
        """Return what came of it."""
        return [self._proof(leaf) for leaf in self.leaves.values()]

    def _proof(self, leaf: _Leaf) -> Proof:
        if leaf.proved:
            bound = float(min(1.0, leaf.odds.sum()))
            return Proof(True, bound, tuple(self.assumed))
        if leaf.reason:
            return Proof(False, reason=leaf.reason)
        if self.uncovered:
            return Proof(False, reason=f"not covered: {', '.join(self.uncovered)}")
        if (leaf.points < 2).any():
            return Proof(False, reason="the formulas are undefined at too many random points")
        return Proof(False, reason="the formulas are too large for a low bound")


def _least(jaxpr: Any, unknown: Sequence[bool]) -> int:
    """Return the work of the equations that depend on some inputs, loops left out."""
    parts, found = body(jaxpr), 0
    depends = {variable for variable, flag in zip(parts.invars, unknown) if flag}
    for equation in needed(parts.equations, parts.outvars):
        flags = [not isinstance(atom, Literal) and atom in depends for atom in equation.invars]
        if any(flags):
            results = [v for v in equation.outvars if is_inexact(dtype_of(v))]
            depends.update(results)
            inner = call_jaxpr(equation)
            if inner is not None:
                found += _least(inner, flags)
            elif results:
                found += cost(equation)
    return found


def _agree(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    size = np.abs(second).max(initial=0.0)
    allowed = _AGREE * (np.abs(second) + 1e-2 * size)
    return bool((np.abs(first - second) <= allowed).all())


def _nearby(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return numbers near an input's, so that no choice rests on a tie."""
    if not is_inexact(array.dtype):
        return array
    wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    size = np.abs(wide[np.isfinite(wide)])
    typical = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
    moved = rng.uniform(0.5, 1.0, array.shape) * rng.choice([-1.0, 1.0], array.shape)
    scale = np.where(wide == 0, min(typical, 1.0), np.abs(wide))
    near: NDArray[Any] = wide + _NEAR * scale * moved
    return near
