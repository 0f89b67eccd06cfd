"""`gradlab.audit`: every custom rule that a function meets, held at the inputs it meets there."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gradlab.arguments import (
    argument_names,
    call_of,
    name_of,
    refuse_flags,
    refuse_numbers,
    require_callable,
    require_inputs,
)
from gradlab.checking.domain import Domain, parse_domain
from gradlab.checking.evidence import near
from gradlab.checking.forms import (
    FINITE_DIFFERENCES,
    jvp_or_none,
    subject_of_program,
    vjp_or_none,
)
from gradlab.checking.inputs import require_arrays, require_memory
from gradlab.checking.intended import Meaning, in_words, parse_intended
from gradlab.checking.probes import Dropped
from gradlab.checking.reach import Prove, Settings
from gradlab.checking.report import AuditedRule, AuditReport, CheckReport
from gradlab.checking.rules import judge_parts
from gradlab.checking.summary import summarise
from gradlab.checking.trial import Trial
from gradlab.errors import GradlabError, InputError, InputTypeError
from gradlab.progress import tracked
from gradlab.reading import ported
from gradlab.references import vjp_program
from gradlab.report import Law, Leaf, Rule
from gradlab.tracing import (
    NOT_JUDGED,
    ClosesOverTrace,
    CustomRule,
    Differentiated,
    Meeting,
    NotStrippable,
    Program,
    custom_rules,
    intend,
    moved_together,
    open_kernels,
    reached_outputs,
    require_closed,
    restricted,
    rule_inputs,
    strip,
    symbolic_zeros,
    trace,
    walk,
)
from gradlab.tracing import Leaf as TracedLeaf
from gradlab.tracing.callbacks import counted
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.settings import undisturbed

if TYPE_CHECKING:
    from gradlab.repair import HandRule
    from gradlab.repair.written import Repaired


_MAPS = frozenset({"shard_map", "xla_pmap"})
_POINTS = 8  # at which one rule is judged


@undisturbed()
@counted()
def audit(
    function: Callable[..., Any],
    *inputs: Any,
    intended: Mapping[Any, Any] | None = None,
    domain: Any = None,
    seed: int = 0,
    samples: int = 1,
    branches: bool = True,
    prove: Prove = True,
) -> AuditReport:
    """Check every custom rule inside a function, at the inputs that it meets there.

    gradlab finds rules under jit, vmap, scan, cond and remat, and rules inside rules. It compares
    each with autodiff of the function that the rule decorates, without any custom rule of yours.
    An operand that depends on no input of `function` is a constant and is not differentiated.

    Memory: as `check` for the largest rule, and the inputs of every rule. A call that cannot fit is
    refused.

    Args:
        function: a JAX function, not its gradient: `jax.grad` replaces the rules.
        *inputs: arrays of any shape, Python numbers, or pytrees of them, of any dtype; at least
            one leaf is float or complex.
        intended: the intended derivative of a rule, where it is not the true one. A dict from the
            decorated function, its name, or "file.py:name", to a function whose derivative is
            intended (`lambda x: x` for straight-through), or to "any".
        domain: the legal inputs of the function, as for `check`.
        seed: seed of upstreams, tangents and rounding noise.
        samples: number of inputs: the given ones, and others near them.
        branches: whether to check near the inputs, and branches that they do not take.
        prove: whether to try proofs, as for `check`.

    Returns:
        A report that is true if every rule that is differentiated is right; it names each with its
        source line.

    Raises:
        InputError: the function cannot be traced by JAX.
        InputTypeError: `function` cannot be called.

    Example:
        >>> import gradlab, jax, jax.numpy as jnp
        >>> @jax.custom_jvp
        ... def double(x):
        ...     return 2 * x
        >>> double.defjvps(lambda t, y, x: 3 * t)
        >>> report = gradlab.audit(lambda x: jax.nn.silu(double(x)), jnp.array([-1.0, 2.0]))
        >>> [(rule.name, rule.report.ok) for rule in report.rules]
        [('double', False)]
    """
    given: object = function
    if hasattr(given, "backward") and not callable(given):
        kind = type(given).__name__
        raise InputTypeError(
            f"audit: {kind} has a backward of its own, and no custom rules; use check(layer, ...)"
        )
    require_callable("function", function)
    refuse_numbers(seed=seed, samples=samples)
    refuse_flags(branches=branches)
    refuse_flags("long", prove=prove)
    require_inputs(function, inputs)
    names = argument_names(function, len(inputs))
    require_arrays(inputs, names)
    meanings = parse_intended(intended, whole=False)
    legal = parse_domain(domain, inputs, names)
    require_memory("audit", inputs)
    try:
        program = trace(function, *inputs)
    except GradlabError as error:
        raise _no_rules(name_of(ported(function, inputs, error))) from error
    require_closed(program)
    dropped = Dropped(program.name)
    met = rule_inputs(program, program.flatten(inputs))
    for flat in _sampled(program, inputs, seed, samples, legal):
        met += dropped.attempt(functools.partial(rule_inputs, program, flat)) or []
    groups = _grouped(met)
    whole = _Whole(function, inputs, names, program, seed, Settings(branches, prove))
    said = [meanings.meaning(group[0].rule) for group in groups]
    meanings.require_met([group[0].rule for group in groups])
    audited = [(group, meaning) for group, meaning in zip(groups, said) if group[0].wrt]
    found: dict[int, AuditedRule] = {}
    shields_last = sorted(enumerate(audited), key=lambda each: bool(each[1][0][0].shielded))
    for k, (group, meaning) in tracked(shields_last, lambda each: each[1][0][0].rule.name):
        found[k] = _audited(group, meaning, whole, list(found.values()))
    rules = tuple(found[k] for k in range(len(found)))
    mapped = _on_a_mesh(program)
    rules += tuple(_audited_around(rule, whole) for rule in mapped)
    notes = [*dropped.notes]
    constant = [group[0].rule for group in groups if not group[0].wrt]
    if constant:
        listed = ", ".join(dict.fromkeys(_place(rule) for rule in constant))
        notes.append(f"not checked, because their inputs are constants or integers here: {listed}")
    notes += [
        f"{name} was not checked, because gradlab does not know its right derivative"
        for name in _left(program)
    ]
    if not groups and not mapped and not _left(program):
        _refuse_numpy(program.name, function, inputs)
        notes.append("no custom rule was met; pass the function itself, not its gradient")
    more = None if samples == 1 else samples
    call = call_of("audit", function, names, seed, intended=intended, domain=domain, samples=more)
    rules = tuple(
        dataclasses.replace(rule, report=dataclasses.replace(rule.report, call=call))
        for rule in rules
    )
    return AuditReport(program.name, rules, tuple(notes), seed)


@dataclasses.dataclass(frozen=True, eq=False)
class _Whole:
    """The function that is audited, and what is asked of it as a whole, when it is asked."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    names: tuple[str, ...]
    program: Program
    seed: int
    settings: Settings

    @functools.cached_property
    def report(self) -> CheckReport:
        """The check of all of it, for rules that cannot be cut out."""
        return _around(self.program, self.inputs, self.seed)

    @functools.cached_property
    def written(self) -> "list[HandRule]":
        """The rules that somebody wrote, as source."""
        from gradlab.repair import rules_met  # a right rule never needs it

        return rules_met(self.function, self.inputs, self.names)

    @functools.cached_property
    def differentiated(self) -> Differentiated:
        """What its differentiation runs, in reverse, or else forwards."""

        def derivative() -> Program | None:
            program = trace(self.function, *self.inputs)  # anew: JAX keeps what it has staged
            wanted = program.differentiable
            return vjp_or_none(program, wanted) or jvp_or_none(program, wanted)

        return Differentiated.of(derivative)


def _refuse_numpy(name: str, function: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    """Refuse NumPy made of operators alone, which JAX traces too: it has no custom rules."""
    given = jax.tree_util.tree_leaves(inputs)
    if given and all(isinstance(leaf, np.ndarray) for leaf in given):
        found = jax.tree_util.tree_leaves(function(*copy.deepcopy(inputs)))
        if all(isinstance(leaf, np.ndarray | np.generic) for leaf in found):
            raise _no_rules(name)


def _no_rules(name: str) -> InputError:
    return InputError(
        f"audit: {name} is NumPy, which has no custom rules; use check({name}, ..., backward=)"
    )


def _on_a_mesh(program: Program) -> list[CustomRule]:
    """Return the user's rules under a `shard_map` or `pmap`, each once."""
    inside = [r for r in custom_rules(program) if r.user and not _MAPS.isdisjoint(r.inside)]
    return list({(r.name, r.defined, r.source): r for r in inside}.values())


def _audited_around(rule: CustomRule, whole: _Whole) -> AuditedRule:
    """Return a rule judged on the devices of its mesh, with the whole function around it."""
    described = {name: getattr(rule, name) for name in ("name", "kind", "defined", "source")}
    return AuditedRule(
        **described, inside=rule.inside, calls=1, inputs_tried=1, report=whole.report
    )


def _left(program: Program) -> list[str]:
    """Return the primitives that hold rules which nothing judges."""
    names = (equation.primitive.name for equation, _ in walk(program))
    return list(dict.fromkeys(name for name in names if name in NOT_JUDGED))


def _sampled(
    program: Program, inputs: tuple[Any, ...], seed: int, samples: int, domain: Domain
) -> Iterator[list[Any]]:
    """Yield flat inputs near the given ones, as far as they are legal."""
    traced = [leaf for leaf in program.leaves if leaf.traced]
    for k in range(1, samples):
        rng = np.random.default_rng([seed + k, 5])
        moved = {
            leaf.path: near(value, rng) if leaf.differentiable else value
            for leaf, value in zip(traced, program.flatten(inputs))
        }
        values = domain.clipped(moved)
        if not domain.broken(values):
            yield list(values.values())


def _grouped(met: Sequence[Meeting]) -> list[list[Meeting]]:
    """Return the meetings of each rule, place, shapes and meaning together, innermost first.

    A rule that something differentiates is not listed where another one shields it, nor where its
    inputs had to be made up.
    """
    groups: dict[Hashable, list[Meeting]] = {}
    for meeting in met:
        rule = meeting.rule
        avals = [atom.aval for atom in meeting.equation.invars]
        shapes = tuple((tuple(a.shape), str(a.dtype)) for a in avals)
        meaning = _meaning(meeting)
        place = rule.name, rule.defined, rule.source, shapes, meaning, meeting.wrt
        groups.setdefault((*place, bool(meeting.shielded), meeting.made_up), []).append(meeting)
    met_well = {_place(group[0].rule) for group in groups.values() if not group[0].shielded}
    reached = {(_place(g[0].rule), g[0].rule.source) for g in groups.values() if not g[0].made_up}
    return [
        group
        for group in groups.values()
        if not (group[0].shielded and _place(group[0].rule) in met_well)
        and not (group[0].made_up and (_place(group[0].rule), group[0].rule.source) in reached)
    ]


def _meaning(meeting: Meeting) -> Hashable:
    """Return a key that meetings share which are judged alike, however often the rule is made.

    JAX wraps a rule's functions anew at each call, so that it is its traced gradient that tells.
    """
    known = meeting.program.identity
    if known is not None or meeting.rule.parts or not meeting.wrt:
        return id(meeting) if known is None else known
    try:
        gradient = vjp_program(meeting.program, meeting.wrt).computes
    except Exception:  # whatever the user's rule raises: it is said where the rule is judged
        return id(meeting)
    key = gradient, meeting.program.computes
    return id(meeting) if None in key else key


def _audited(
    group: Sequence[Meeting],
    meaning: Meaning | None,
    whole: _Whole,
    others: Sequence[AuditedRule],
) -> AuditedRule:
    """Judge one rule where it is met; `others` are judged already, those that shield it too."""
    first, rule = group[0], group[0].rule
    points = _few([point for meeting in group for point in meeting.points])
    report = _verdict(group, points, meaning, whole)
    unused = ""
    if first.shielded:
        outer = [other for other in others if other.name == first.shielded]
        if report is None:
            unused = (
                f"not used: {first.shielded} has its own rule, so nothing differentiates this one"
            )
        elif not report.ok and outer and all(other.report.ok for other in outer):
            unused = f"not judged: {first.shielded} has its own rule, and that rule is right"
    elif report is None:
        unused = f"not used: no upstream reaches it in {whole.program.name}"
    if report is None or unused:
        targets = [first.program.leaves[i] for i in first.wrt]
        report = _unjudged(rule.name, targets, whole.seed, unused)
    elif first.made_up:
        note = "the branch that calls it was not taken, so gradlab judged it at inputs of its own"
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return AuditedRule(
        name=rule.name,
        kind=rule.kind,
        source=rule.source,
        defined=rule.defined,
        inside=tuple(rule.inside),
        calls=0 if unused else sum(meeting.calls for meeting in group),
        inputs_tried=0 if unused else len(points),
        parts=tuple(part for each in report.rules for part in each.parts),
        intended=in_words(meaning),
        report=report,
    )


def _verdict(
    group: Sequence[Meeting],
    points: Sequence[Sequence[Any]],
    meaning: Meaning | None,
    whole: _Whole,
) -> CheckReport | None:
    """Return what checking a rule at its points finds; None where nothing differentiates it.

    What fails is judged again by what occurs: outputs that receive an upstream, operands that move.
    """
    first = group[0]
    equations = [meeting.equation for meeting in group]
    if first.shielded and not any(map(whole.differentiated.uses, equations)):
        return None
    if first.bound:
        return whole.report
    try:
        report = _judged(first, points, meaning, whole)
        if report.ok or first.shielded:
            return report
        occurs, note = first, ""
        reached = reached_outputs(whole.program, equations)
        floats = [k for k, aval in enumerate(first.program.out_avals) if is_inexact(aval.dtype)]
        if reached == ():
            return None
        if reached is not None and len(reached) < len(floats):
            occurs = dataclasses.replace(first, program=restricted(first.program, reached))
            names = [first.program.out_names[k] for k in floats if k not in reached]
            note = f"not judged: {', '.join(names)}, which no upstream reaches in "
            note += whole.program.name
        together = _together(first, equations, whole.program)
        if occurs is first and together is None:
            return report
        report = _judged(occurs, points, meaning, whole, together)
        return dataclasses.replace(report, notes=(*report.notes, *filter(None, [note])))
    except ClosesOverTrace:
        return whole.report


def _together(
    meeting: Meeting, equations: Sequence[Any], program: Program
) -> tuple[tuple[str, ...], ...] | None:
    """Return which operands of a rule that is told of symbolic zeros have tangents together."""
    if not symbolic_zeros(meeting.program) or len(meeting.wrt) < 2:
        return None
    sets = moved_together(program, equations)
    names = ([meeting.program.in_names[i] for i in meeting.wrt if i in each] for each in sets)
    return tuple(dict.fromkeys(tuple(each) for each in names if each)) or None


def _judged(
    meeting: Meeting,
    points: Sequence[Sequence[Any]],
    meaning: Meaning | None,
    whole: _Whole,
    together: tuple[tuple[str, ...], ...] | None = None,
) -> CheckReport:
    """Check one rule at all of its points, against its primal without any of the user's rules."""
    program = dataclasses.replace(meeting.program, name=meeting.rule.name)
    seed = whole.seed
    rule, wrt = meeting.rule, meeting.wrt
    values = [dict(zip(program.in_names, point)) for point in points]
    believed, oracle = None, f"finite differences of the root that {rule.name} finds"
    if rule.kind != "custom_root":
        believed, oracle = _expansion(program, rule)
    stated = believed is not None and bool(custom_rules(believed))  # JAX's own rules are trusted
    if meaning is not None and not isinstance(meaning, str):
        mine, stated = {(rule.name, rule.defined): meaning}, True
        believed = intend(program, lambda other: mine.get((other.name, other.defined)))
        oracle = f"autodiff of {name_of(meaning)}, as intended"
    subject = subject_of_program(program, values[0], believed, oracle, wrt=wrt, stated=stated)
    constant = tuple(name for i, name in enumerate(program.in_names) if i not in wrt)
    subject = dataclasses.replace(subject, constant=constant, intended=in_words(meaning))
    shown = Rule(rule.name, rule.kind, rule.defined, rule.source)
    subject = dataclasses.replace(subject, together=together, rules=(shown,) if rule.user else ())
    trial = Trial(subject, values[0], seed)
    others = [
        Trial(subject, point, seed + k, trial.evaluation) for k, point in enumerate(values[1:], 1)
    ]
    # JAX's own rules have conventions of their own beyond the inputs that they are made for
    branches = whole.settings.branches and rule.user
    settings = dataclasses.replace(whole.settings, branches=branches)

    trials = [trial, *others]

    def mend(lost: str, wrong: Trial) -> "Repaired":
        from gradlab.repair import repair  # a right rule never needs it

        found = [hand for hand in whole.written if hand.place == (rule.name, rule.defined)]
        if wrong not in trials:
            found = [hand.at(wrong.values) for hand in found]
        return repair(found, seed, lost)

    report = summarise(trials, seed, 1, settings, mend)
    if not rule.user or meeting.broken:
        return report
    shown = dataclasses.replace(shown, parts=judge_parts(meeting, trial))
    return dataclasses.replace(report, rules=(shown,))


def _expansion(program: Program, rule: CustomRule) -> tuple[Program | None, str]:
    """Return the primal of a rule without any of the user's rules, and what to call it."""
    choices: tuple[Callable[[CustomRule], bool], ...] = (
        lambda other: other.user or _place(other) == _place(rule),
        lambda other: _place(other) == _place(rule),
    )
    for which in choices:
        try:
            return open_kernels(strip(program, which)), f"autodiff of {rule.name} without its rule"
        except NotStrippable:  # a rule of the user inside a function that a rule of JAX calls
            continue
    return None, FINITE_DIFFERENCES


def _few(points: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return the first point, the last, and some between."""
    places = np.linspace(0, len(points) - 1, min(_POINTS, len(points))).round().astype(int)
    return [points[k] for k in places]


def _around(program: Program, inputs: tuple[Any, ...], seed: int) -> CheckReport:
    """Check the whole function, for rules that hold values of the function that makes them."""
    values = dict(zip(program.in_names, program.flatten(inputs)))
    believed: Program | None
    try:
        try:
            believed, oracle = strip(program), f"autodiff of {program.name} without its rules"
        except NotStrippable:
            believed, oracle = None, FINITE_DIFFERENCES
        subject = subject_of_program(program, values, believed, oracle)
    except ClosesOverTrace as error:
        wanted = [leaf for leaf in program.leaves if leaf.traced and leaf.differentiable]
        return _unjudged(program.name, wanted, seed, str(error))
    note = "gradlab cannot separate a rule inside, so it judged the whole function"
    subject = dataclasses.replace(subject, notes=(*subject.notes, note))
    return summarise([Trial(subject, values, seed)], seed, 1)


def _unjudged(name: str, targets: Sequence[TracedLeaf], seed: int, reason: str) -> CheckReport:
    """Return the report of a rule that nothing judged."""
    return CheckReport(
        function=name,
        laws=(Law("formula", "inconclusive", reason),),
        leaves=tuple(
            Leaf(
                path=leaf.path,
                shape=tuple(leaf.shape),
                dtype=str(leaf.dtype),
                right=0,
                wrong=0,
                inconclusive=math.prod(leaf.shape),
                status="undecided",
            )
            for leaf in targets
        ),
        oracle="none",
        resolution={leaf.path: float("inf") for leaf in targets},
        seed=seed,
        dtypes=tuple(dict.fromkeys(str(leaf.dtype) for leaf in targets)),
    )


def _place(rule: CustomRule) -> str:
    return f"{rule.name} at {rule.defined}"
