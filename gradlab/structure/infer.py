"""Inference: which seeds each value of a linear program may read, equation by equation.

The state of a value is one pattern per seed. An equation composes its rule with the states of its
operands; calls are entered, control flow is in `control`. Nothing here knows array sizes: an
elementwise program over ten million entries costs what one over ten costs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradlab.common import faults
from gradlab.patterns import Pattern
from gradlab.patterns.size import Sizes, Undecided
from gradlab.primitives import Site, lookup
from gradlab.primitives.facts import facts
from gradlab.primitives.known import Known, of_array
from gradlab.primitives.ranges import Kind, Need
from gradlab.structure.conditions import Accept, Condition, Watch, refuse
from gradlab.structure.constants import evaluated
from gradlab.structure.sizes import has_names, in_sizes
from gradlab.tracing.interpreter import platform_branch
from gradlab.tracing.jaxprs import Literal, body, inner_jaxprs, source, view
from gradlab.tracing.linearise import call_body, part_of_jax

Shape = tuple[int, ...]
Dependence = Mapping[int, Pattern]
"""For each seed that a value may read, the pattern value <- seed."""

NOTHING: Dependence = {}
ZERO = Known(support=Pattern.zero((), ()))


@dataclass(frozen=True)
class Note:
    """A place where the pattern may be larger than the truth, and why."""

    text: str
    primitive: str
    source: str

    def __str__(self) -> str:
        at = f" at {self.source}" if self.source else ""
        return f"{self.primitive}{at}: {self.text}"


@dataclass(frozen=True, eq=False)
class Traced:
    """What is known of a value of a linear program.

    A pattern says which seeds an entry reads. That is where it is not zero only if it is zero when
    all seeds are, and JAX does not hold a custom rule to that: a backward may add 1, or compare.

    Attributes:
        reads: for each seed that it may read, the pattern value <- seed.
        known: what holds at every input and seed.
        offset: the place after which it may not be zero though all seeds are.
        parts: of a complex value, the real part and the imaginary one, where they are told apart.
    """

    reads: Dependence = field(default_factory=dict)
    known: Known | None = None
    offset: Note | None = None
    parts: "tuple[Traced, Traced] | None" = None

    @property
    def nonzero(self) -> Pattern | None:
        """The region outside which it is zero at every input and seed, if there is one."""
        return None if self.known is None else self.known.nonzero

    @property
    def is_zero(self) -> bool:
        """Whether it is zero at every input and seed."""
        return self.known is not None and self.known.is_zero

    @property
    def vanishes(self) -> bool:
        """Whether it is zero where all seeds are."""
        return self.is_zero or (bool(self.reads) and self.offset is None)


@dataclass(frozen=True, eq=False)
class Step:
    """One equation that carries seeds: what its operands read, and what its outputs read."""

    name: str
    source: str
    params: Mapping[str, Any]
    reads: tuple[Dependence, ...]
    makes: tuple[Dependence, ...]
    inner: tuple["Step", ...] = ()
    origin: Any = None  # the equation whose line that is


@dataclass(eq=False)
class Walk:
    """One pass over a program, with the steps and notes that it leaves behind.

    Attributes:
        accept: which conditions may be taken to hold.
        used: the conditions that the patterns rest on, the strictest of each kind and place.
        refused: whether others would have made a pattern smaller.
        watched: where the values are on which conditions were found.
        unclear: how many masks were met of which nothing was known.
        sizes: the sizes that have names and no numbers, if there are any.
        timed: whether the steps of a loop are read at once, time as the first axis.
    """

    steps: list[Step] = field(default_factory=list)
    notes: dict[Note, None] = field(default_factory=dict)
    unknown: dict[str, None] = field(default_factory=dict)
    caller: Any = None  # the user's call of a function of JAX's
    accept: Accept = refuse
    used: dict[Need, Condition] = field(default_factory=dict)
    refused: bool = False
    watched: dict[Need, list[Watch]] = field(default_factory=dict)
    unclear: int = 0
    composed: dict[tuple[int, int], tuple[Pattern, Pattern, Pattern]] = field(default_factory=dict)
    sizes: Sizes | None = None
    timed: bool = False

    @property
    def said(self) -> tuple[dict[Note, None], dict[Need, Condition], bool]:
        """What was noted and assumed so far; set to it, the walk forgets what came since."""
        return dict(self.notes), dict(self.used), self.refused

    @said.setter
    def said(self, before: tuple[dict[Note, None], dict[Need, Condition], bool]) -> None:
        self.notes, self.used, self.refused = dict(before[0]), dict(before[1]), before[2]

    def run(self, jaxpr: Any, inputs: Sequence[Traced]) -> list[Traced]:
        """Return what each output of a jaxpr reads, given what each input reads.

        Every run has its own environment: a jaxpr that is called twice shares its variables
        between the calls, and nothing learned in one may reach the other.
        """
        parts = body(jaxpr)
        values: dict[Any, Traced] = dict.fromkeys(parts.constvars, Traced())
        for variable, constant in zip(parts.constvars, parts.constants):
            values[variable] = Traced(known=of_array(constant))
        values.update(zip(parts.invars, inputs, strict=True))

        def read(atom: Any) -> Traced:
            return Traced(known=of_array(atom.val)) if isinstance(atom, Literal) else values[atom]

        for equation in parts.equations:
            operands = [read(atom) for atom in equation.invars]
            if equation.primitive.name in CELLS:
                results, values[_cell(equation)] = CELLS[equation.primitive.name](
                    self, equation, operands
                )
            else:
                results = self.equation(equation, operands)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in parts.outvars]

    def equation(self, equation: Any, operands: list[Traced]) -> list[Traced]:
        """Return what each output of an equation reads."""
        first_step = len(self.steps)
        try:
            return self.read(equation, operands)
        except Undecided as error:
            reason = str(error).partition(";")[0]
        except Exception as error:
            name = equation.primitive.name
            faults.warn(f"rule for {name}", error, "All entries count as read.")
            reason = f"gradlab's rule for {name} failed"
        del self.steps[first_step:]
        return self.dense(equation, operands, reason)

    def read(self, equation: Any, operands: list[Traced]) -> list[Traced]:
        """Return what each output of an equation reads, if that needs no number of a size."""
        inner = call_body(equation)
        if inner is None and equation.primitive.name == "cond":
            inner, operands = _taken(equation, operands)
        if inner is not None:
            return self.call(equation, inner, operands)
        flow = CONTROL.get(equation.primitive.name)
        first_step = len(self.steps)
        if not any(operand.reads for operand in operands):
            site = self.site_of(equation, operands)
            known = facts(site, lambda: self.value(equation, operands))
            self.remark(equation, site)
            if flow and not any(known):  # what it carries may be masked
                known = tuple(result.known for result in flow(self, equation, operands))
                del self.steps[first_step:]
            return self.halved(equation, operands, [Traced(known=fact) for fact in known])
        made = flow(self, equation, operands) if flow else self.primitive(equation, operands)
        made = self.halved(equation, operands, made)
        inside = tuple(self.steps[first_step:]) if flow else ()
        del self.steps[first_step:]
        self.steps.append(
            Step(
                equation.primitive.name,
                self.source(equation),
                equation.params,
                tuple(operand.reads for operand in operands),
                tuple(result.reads for result in made),
                inside,
                self.caller or equation,
            )
        )
        return made

    def halved(self, equation: Any, operands: list[Traced], made: list[Traced]) -> list[Traced]:
        """Return results, their real and imaginary parts told apart where they have such."""
        halve = HALVES.get(equation.primitive.name)
        return halve(self, equation, operands, made) if halve else made

    def call(self, equation: Any, inner: Any, operands: list[Traced]) -> list[Traced]:
        """Run a called jaxpr; what JAX's own functions do inside counts as done by the caller."""
        caller = self.caller
        if caller is None and part_of_jax(inner) and source(equation):
            self.caller = equation
        results = self.run(inner, operands)
        self.caller = caller
        return results

    def source(self, equation: Any) -> str:
        """Return the user's line behind an equation."""
        return source(self.caller or equation)

    def primitive(self, equation: Any, operands: list[Traced]) -> list[Traced]:
        """Compose an equation's rule with what its operands read."""
        site = self.site_of(equation, operands)
        known = facts(site)
        if site.primitive.reads is None:
            self.unknown[site.name] = None
            self.note(equation, "no rule for this primitive: dense on all axes")
        parts: list[dict[int, list[Pattern]]] = [{} for _ in site.out_shapes]
        for k, operand in enumerate(operands):
            if not operand.reads:
                continue
            for found, step in zip(parts, site.reads(k), strict=True):
                if step is None:
                    continue
                for seed, pattern in operand.reads.items():
                    found.setdefault(seed, []).append(self.compose(step, pattern))
        self.remark(equation, site)
        made = []
        joined = self.joined(equation, site)
        for output, (found, fact) in enumerate(zip(parts, known, strict=True)):
            reads, zero = union(found), output in joined or site.is_zero(output)
            if zero and not reads:  # seeds reach it through zeros alone
                fact = Known(support=Pattern.zero(site.out_shapes[output], ()))
            offset = None if zero else self.offset(equation, operands)
            made.append(Traced(reads, fact, offset))
        return made

    def joined(self, equation: Any, site: Site) -> set[int]:
        """Return the outputs of a reduction by a program which stay zero whatever it joins."""
        if not site.primitive.combines:
            return set()
        count = len(site.out_shapes)
        zero = {k for k in range(count) if site.vanishes[k] and site.vanishes[count + k]}
        while True:
            inputs = [Traced(known=ZERO if k % count in zero else None) for k in range(2 * count)]
            results = Walk().run(equation.params[site.primitive.combines], inputs)
            kept = {k for k in zero if results[k].is_zero}
            if kept == zero:
                return zero
            zero = kept

    def offset(self, equation: Any, operands: Iterable[Traced]) -> Note:
        """Return where the first of several values, or else an equation, ceased to be zero."""
        before = next((operand.offset for operand in operands if operand.offset), None)
        text = "its backward is not zero for an upstream of zero: dense on all axes"
        return before or Note(text, equation.primitive.name, self.source(equation))

    def result(self, value: Traced, shape: Shape, seeds: Mapping[int, Shape]) -> Dependence:
        """Return what a result reads: everything, where it may not be zero though all seeds are."""
        if value.vanishes:
            return value.reads
        if value.offset:
            self.notes[value.offset] = None
        else:
            text = "its backward is not zero for an upstream of zero: dense on all axes"
            self.notes[Note(text, "output", "")] = None
        return {seed: Pattern.dense(shape, given) for seed, given in seeds.items()}

    def compose(self, after: Pattern, before: Pattern) -> Pattern:
        """Return `after @ before`, remembered, since most equations repeat a few compositions."""
        key = id(after), id(before)
        if key not in self.composed:
            self.composed[key] = after, before, after @ before
        return self.composed[key][2]

    def site_of(self, equation: Any, operands: Sequence[Traced]) -> Site:
        """Return an equation as the rules see it."""
        seen = vars(view(equation))
        if self.sizes:
            seen |= {k: in_sizes(seen[k], self.sizes) for k in ("in_shapes", "out_shapes")}
            seen["params"] = {k: in_sizes(v, self.sizes) for k, v in seen["params"].items()}
        return Site(
            **seen,
            primitive=lookup(equation.primitive.name),
            depends=tuple(bool(operand.reads) for operand in operands),
            known=tuple(operand.known for operand in operands),
            vanishes=tuple(operand.vanishes for operand in operands),
            grants=_Grants(self, equation),
        )

    def shape(self, atom: Any) -> Shape:
        """Return the shape of a variable or a literal."""
        shape: Shape = in_sizes(tuple(getattr(atom.aval, "shape", ())), self.sizes)
        return shape

    def dense(self, equation: Any, operands: Sequence[Traced], why: str) -> list[Traced]:
        """Let every output read every seed that reaches the equation."""
        seeds = {n: p.input_shape for operand in operands for n, p in operand.reads.items()}
        shapes = map(self.shape, equation.outvars)
        if not seeds:
            return [Traced() for _ in shapes]
        text = f"{why}: dense on all axes"
        self.note(equation, text)
        offset = Note(text, equation.primitive.name, self.source(equation))
        return [
            Traced({n: Pattern.dense(shape, given) for n, given in seeds.items()}, None, offset)
            for shape in shapes
        ]

    def value(self, equation: Any, operands: Sequence[Traced]) -> tuple[Known | None, ...] | None:
        """Return what the values of operands tell of an equation's results."""
        if self.sizes and (any(inner_jaxprs(equation)) or has_names(equation)):
            return None
        if not all(operand.known for operand in operands) and equation.primitive.name != "sort":
            return None
        return evaluated(equation, [operand.known for operand in operands])

    def remark(self, equation: Any, site: Site) -> None:
        """Record what rules and facts have noted of an equation."""
        for text in dict.fromkeys(site.notes):
            self.note(equation, text)

    def note(self, equation: Any, text: str) -> None:
        """Record that the pattern may be too large because of an equation."""
        self.notes[Note(text, equation.primitive.name, self.source(equation))] = None


@dataclass(frozen=True)
class _Grants:
    """What may be assumed at one equation of a walk."""

    walk: Walk
    equation: Any

    def need(self, kind: Kind, operand: int, level: float, besides: Pattern | None) -> Need:
        """Name a condition on an operand, and remember where it is."""
        shape = self.walk.shape(self.equation.invars[operand])[self.walk.timed :]
        name = self.equation.primitive.name
        word = {"select_n": "where", "reduce_max": "max", "reduce_min": "min"}.get(name, name)
        noun = "scores" if kind == "magnitude" else "rows of the scores"
        need = Need(kind, f"{noun} {shape}, operand of {word}", self.walk.source(self.equation))
        if not self.walk.timed:  # else it is that of the loop's own body
            watch = Watch(self.equation, operand, level, besides)
            self.walk.watched.setdefault(need, []).append(watch)
        return need

    def unclear(self) -> None:
        """Note a mask about which nothing is known here."""
        self.walk.unclear += 1

    def granted(self, needs: frozenset[Need], bound: float) -> bool:
        """Return whether all conditions are accepted; remember them, if so."""
        watched = all(n.kind == "magnitude" and n in self.walk.watched for n in needs)
        if self.walk.timed and not watched:
            self.unclear()
            return False
        conditions = {need: Condition.of(need, bound) for need in sorted(needs)}
        if not all(map(self.walk.accept, conditions.values())):
            self.walk.refused = True
            return False
        for need, condition in conditions.items():
            before = self.walk.used.get(need, condition)
            self.walk.used[need] = min(before, condition, key=lambda c: c.bound or 0.0)
        return True


Flow = Callable[[Walk, Any, list[Traced]], list[Traced]]
CONTROL: dict[str, Flow] = {}
Access = Callable[[Walk, Any, list[Traced]], tuple[list[Traced], Traced]]
CELLS: dict[str, Access] = {}
Halve = Callable[[Walk, Any, list[Traced], list[Traced]], list[Traced]]
HALVES: dict[str, Halve] = {}


def union(parts: Mapping[int, Iterable[Pattern]]) -> Dependence:
    """Join what several operands contribute, seed by seed; drop what is empty."""
    joined = {}
    for seed, patterns in parts.items():
        first, *others = {id(pattern): pattern for pattern in patterns}.values()
        pattern = Pattern.union([first, *others]) if others else first
        if not pattern.is_zero:
            joined[seed] = pattern
    return joined


def _taken(equation: Any, operands: list[Traced]) -> tuple[Any, list[Traced]]:
    """Return the branch of a `cond` that is taken, with its operands, where that is known."""
    branches, platform = equation.params["branches"], platform_branch(equation)
    known = operands[0].known
    index = None if known is None or operands[0].reads else known.value()
    if platform is not None or index is None:
        return (None, operands) if platform is None else (branches[platform], operands[1:])
    return branches[min(max(int(index), 0), len(branches) - 1)], operands[1:]


def _cell(equation: Any) -> Any:
    """Return the variable that names the mutable array of an equation."""
    return (equation.invars or equation.outvars)[0]
