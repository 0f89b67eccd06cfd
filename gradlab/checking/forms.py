"""A JAX function that carries its own rule, turned into a `Subject`.

It is held against autodiff of the primal that the rule decorates; with `reference=` against that.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.arguments import name_of
from gradlab.checking.gradients import call_that_works, looks_handwritten
from gradlab.checking.intended import Intended, in_words
from gradlab.checking.probes import Calls
from gradlab.checking.subject import (
    Complaint,
    Subject,
    Upstream,
    nothing_to_differentiate,
    unchecked,
)
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.references import forward_gradient_program, jvp_program, upstream_names, vjp_program
from gradlab.report import Rule, RulePart
from gradlab.tracing import (
    ClosesOverTrace,
    NotStrippable,
    NotTraceable,
    Program,
    custom_rules,
    intend,
    iterates,
    kernels,
    narrowings,
    only_forward,
    opaque,
    open_kernels,
    rename,
    require_closed,
    rule_inputs,
    strip,
    trace,
    with_derivative_of,
)
from gradlab.tracing.jaxprs import body, holds
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.linearise import forbids_forward_mode, reverse_alone

_FORWARD = 256  # entries that are differentiated one by one, where there is no reverse mode
FINITE_DIFFERENCES = "finite differences of the forward in float64"


def own_rule(
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    names: tuple[str, ...],
    reference: Callable[..., Any] | None,
    wrt: tuple[int, ...] | None,
    intended: Intended,
    calls: Calls,
) -> Subject:
    """A JAX function whose gradient is whatever JAX makes of it, custom rules included."""
    fixed: tuple[int, ...] = ()
    try:
        program = trace(function, *inputs, names=names)
    except NotTraceable as error:
        fixed = _need_no_trace(inputs, wrt)
        try:
            program = trace(function, *inputs, names=names, fixed=fixed)
        except NotTraceable:
            works = call_that_works(name_of(function), names, _result(function, inputs))
            works = works or "pass backward= to check a NumPy function"
            raise InputError(f"{error.args[0]}; {works}") from (error.__cause__ or error)
    require_closed(program)
    meant = reference is not None or intended.whole is not None or intended.rules
    if not meant and len(program.out_names) > 1 and not custom_rules(program):
        _refuse_numpy(function, inputs, names)
    values = dict(zip(program.in_names, program.flatten(inputs)))
    if intended.whole is None and not intended.rules:
        believed, oracle = _believed(program, reference, inputs, fixed)
        stated = reference is not None
    else:
        believed, oracle = _meant(program, intended, inputs, names, fixed)
        stated = True
    subject = subject_of_program(
        program, values, believed, oracle, wrt=wrt, stated=stated, calls=calls
    )
    return replace(subject, intended=intended.said, rules=_listed(program, intended))


def _refuse_numpy(
    function: Callable[..., Any], inputs: tuple[Any, ...], names: tuple[str, ...]
) -> None:
    """Refuse NumPy of operators alone, which JAX can trace, where its own gradient was meant."""
    given = copy.deepcopy(inputs)
    result = _result(function, given)
    if looks_handwritten(result, given):
        works = call_that_works(name_of(function), names, result)
        raise InputError(f"returns: {works}; where all are outputs, pass arrays of jax.numpy")


def _result(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    """Return what a function returns when it is called as it is; nothing where it raises."""
    try:
        with np.errstate(all="ignore"):
            return function(*inputs)
    except Exception:  # what it raises was said, or will be
        return None


def _need_no_trace(inputs: tuple[Any, ...], wrt: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return which inputs `jax.grad` hands on as they are: numbers, and what `wrt` leaves out."""
    numbers = {i for i, x in enumerate(inputs) if isinstance(x, float | complex | int)}
    others = set() if wrt is None else set(range(len(inputs))) - set(wrt)
    return tuple(sorted(numbers | others))


def subject_of_program(
    program: Program,
    values: dict[str, Any],
    believed: Program | None,
    oracle: str,
    *,
    wrt: tuple[int, ...] | None = None,
    stated: bool = False,
    calls: Calls | None = None,
) -> Subject:
    """Return a program whose own gradient is under test, and what is believed in its place."""
    targets, positions = _targets(program, wrt)
    common: dict[str, Any] = {
        "name": program.name,
        "values": values,
        "targets": targets,
        "upstreams": _upstreams(program),
        "outputs": program.out_names,
        "forward": program,
        "primal": _compiled(program),
        "notes": notes_on(program),
        "loops": iterates(program),
        "opaque": bool(opaque(program)),
        "unchecked": unchecked(program.leaves, targets),
        "calls": calls or Calls.for_entries(sum(aval.size for aval in program.in_avals)),
    }
    broken = _broken(program, values)
    if broken:
        complaint = Complaint("", broken, "refused")
        none = "none: the rule returns a wrong shape or dtype"
        return Subject(**common, run=_untouched, oracle=none, complaints=(complaint,))
    try:
        rule, notes = _gradient(program, positions)
    except ClosesOverTrace as error:
        positions, notes = _open(program, positions, error)
        rule = vjp_program(program, positions, apart=True)
        targets = tuple(t for t in targets if t.path in [program.in_names[i] for i in positions])
        common |= {"targets": targets, "unchecked": unchecked(program.leaves, targets)}
    except Exception as error:  # whatever the user's rule raises; JAX names what does not fit
        text = f"{type(error).__name__}: {error}"
        complaint = Complaint("", text, "refused", fault=_of_the_rule(error))
        broken = "none: the rule cannot be run"
        return Subject(**common, run=_untouched, oracle=broken, complaints=(complaint,))
    differentiated = None if believed is None else vjp_or_none(believed, positions)
    if believed is not None and differentiated is None:
        oracle = FINITE_DIFFERENCES
    common["notes"] = (*common["notes"], *notes)
    return Subject(
        **common,
        run=_compiled(rule),
        oracle=oracle,
        rule=rule,
        believed=believed,
        reference=differentiated,
        tangent=jvp_or_none(believed if believed is not None else program, positions),
        pushforward=jvp_or_none(program, positions),
        forward_mode=bool(notes) and "forward mode" in notes[0],
        stated=stated,
        approximate=believed is not None and not stated and iterates(believed),
        shapes=tuple(tuple(target.shape) for target in targets),
    )


def _broken(program: Program, values: dict[str, Any]) -> str:
    """Say which primitive inside does not return what its abstract evaluation promises."""
    if not only_forward(program.jaxpr):
        return ""
    met = rule_inputs(program, [values[name] for name in program.in_names])
    found = (f"{each.rule.name}: {each.broken}" for each in met if each.broken)
    return next(found, "")


def _gradient(program: Program, positions: tuple[int, ...]) -> tuple[Program, tuple[str, ...]]:
    """Return a program's gradient, in forward mode where a rule inside has no transpose."""
    try:
        return vjp_program(program, positions), ()
    except ClosesOverTrace:
        raise
    except Exception as error:  # JAX has many words for what it cannot transpose
        sizes = [program.in_avals[i].size for i in positions]
        kinds = [program.in_avals[i].dtype.kind for i in positions]
        one_way = only_forward(program.jaxpr) and jvp_or_none(program, positions) is not None
        if not one_way or sum(sizes) > _FORWARD or "c" in kinds:
            raise
        gradient = forward_gradient_program(program, positions)
        text = str(error).partition("\n")[0]
        note = f"JAX cannot differentiate it in reverse ({type(error).__name__}: {text})"
        return gradient, (f"{note}, so its gradient was taken in forward mode",)


def _open(
    program: Program, positions: tuple[int, ...], error: ClosesOverTrace
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return by which inputs JAX differentiates a program with a rule that holds traced values.

    A rule that closes over a traced value is run where it is made, and nowhere else. JAX does not
    differentiate it by what it closes over.
    """
    open_ = []
    for position in positions:
        try:
            vjp_program(program, (position,))
        except Exception:  # JAX has several words for what a rule closes over
            continue
        open_.append(position)
    if not open_:
        raise error
    held = [program.in_names[i] for i in positions if i not in open_]
    if not held:
        text = "a rule inside closes over an input, so JAX differentiates by one input at a time"
        return tuple(open_), (text,)
    text = f"a rule inside closes over {' and '.join(held)}; JAX does not differentiate it by that"
    return tuple(open_), (text,)


def _believed(
    program: Program,
    reference: Callable[..., Any] | None,
    inputs: tuple[Any, ...],
    fixed: tuple[int, ...],
) -> tuple[Program | None, str]:
    """Return the program that is believed, None if there is none, and what to call it."""
    if reference is not None:
        other = require_closed(trace(reference, *inputs, fixed=fixed))
        shapes = [tuple(aval.shape) for aval in program.out_avals]
        same_outputs(program.name, shapes, other, name_of(reference))
        named = rename(open_kernels(other), program.in_names)
        return named, f"autodiff of {name_of(reference)}"
    rules = [rule for rule in custom_rules(program) if rule.user]
    if not rules:
        return None, FINITE_DIFFERENCES
    primals = ", ".join(dict.fromkeys(rule.name for rule in rules))
    without = f"autodiff of {primals} without {'its rule' if len(rules) == 1 else 'their rules'}"
    try:
        return open_kernels(strip(program)), without
    except NotStrippable:
        return None, FINITE_DIFFERENCES


def _meant(
    program: Program,
    intended: Intended,
    inputs: tuple[Any, ...],
    names: tuple[str, ...],
    fixed: tuple[int, ...],
) -> tuple[Program, str]:
    """Return the program whose derivative is meant, and what to call it."""
    rules = [rule for rule in custom_rules(program) if rule.user]
    if callable(intended.whole):
        meaning = trace(intended.whole, *inputs, names=names, fixed=fixed)
        shapes = [tuple(aval.shape) for aval in program.out_avals]
        same_outputs(program.name, shapes, meaning, name_of(intended.whole), "intended")
        plain = open_kernels(strip(program))
        both = with_derivative_of(plain, open_kernels(rename(meaning, program.in_names)))
        return both, f"autodiff of {name_of(intended.whole)}, as intended"
    if intended.whole == "any":
        return open_kernels(strip(program)), "none: any derivative is intended"
    plain = strip(program, lambda rule: rule.user and intended.meaning(rule) is None)
    for rule in rules:
        intended.meaning(rule)
    intended.require_met(rules)
    primals = ", ".join(dict.fromkeys(rule.name for rule in rules))
    meant = open_kernels(intend(plain, intended.function))
    return meant, f"autodiff of {primals}, as intended"


def _listed(program: Program, intended: Intended) -> tuple[Rule, ...]:
    """Return the user's rules in a program, as reports list them."""
    found = {}
    for rule in custom_rules(program):
        if rule.user:
            found[rule.name, rule.defined, rule.source] = Rule(
                name=rule.name,
                kind=rule.kind,
                defined=rule.defined,
                source=rule.source,
                inside=rule.inside,
                calls=1,
                inputs_tried=1,
                intended=in_words(intended.meaning(rule) or intended.whole),
                parts=tuple(RulePart(part, "undecided") for part in rule.parts),
            )
    return tuple(found.values())


def same_outputs(
    name: str,
    shapes: list[tuple[int, ...]],
    other: Program,
    label: str,
    argument: str = "reference",
) -> None:
    """Refuse a function whose outputs have other shapes than the one that it stands for."""
    theirs = [tuple(aval.shape) for aval in other.out_avals]
    if shapes != theirs:
        ours, others = ("; ".join(map(shape_text, each)) for each in (shapes, theirs))
        raise InputError(f"{argument}: {label} returns {others}, but {name} returns {ours}")


def vjp_or_none(program: Program, positions: tuple[int, ...]) -> Program | None:
    """Return the program's VJP, made of pushforwards where it is small and cannot be transposed.

    None where that is impossible, too.
    """
    try:
        return vjp_program(program, positions)
    except Exception:  # while loops, kernels: JAX has many words for it
        entries = sum(math.prod(program.in_avals[i].shape) for i in positions)
        forward = entries <= _FORWARD and jvp_or_none(program, positions) is not None
        return forward_gradient_program(program, positions) if forward else None


def _of_the_rule(error: Exception) -> bool:
    """Whether JAX refuses what a custom rule returned, not what it cannot differentiate itself.

    JAX removes its own frames from the traceback, so that only its words tell.
    """
    return str(error).startswith(("Custom VJP", "Custom JVP"))


def jvp_or_none(program: Program, positions: tuple[int, ...]) -> Program | None:
    """Return the program's JVP, or None where forward mode is impossible."""
    parts = body(program.jaxpr)
    chosen = {id(parts.invars[i]) for i in positions}
    if any(reverse_alone(e) and chosen & set(map(id, e.invars)) for e in parts.equations):
        return None  # JAX needs a trace to say so
    try:
        pushed = jvp_program(program, positions)
    except Exception:  # a custom_vjp has no forward mode
        return None
    return None if holds(pushed.jaxpr, forbids_forward_mode) else pushed


def _targets(
    program: Program, wrt: tuple[int, ...] | None
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    traced = [leaf for leaf in program.leaves if leaf.traced]
    positions = tuple(
        i
        for i, leaf in enumerate(traced)
        if leaf.differentiable and (wrt is None or leaf.position in wrt)
    )
    if not positions:
        raise nothing_to_differentiate(program.leaves, wrt)
    return tuple(traced[i] for i in positions), positions


def _upstreams(program: Program) -> tuple[Upstream, ...]:
    outputs = [
        (name, aval)
        for name, aval in zip(program.out_names, program.out_avals)
        if is_inexact(aval.dtype)
    ]
    if not outputs:
        raise InputError(
            f"{program.name}: returns no float array "
            f"({', '.join(str(a.dtype) for a in program.out_avals) or 'nothing'}), "
            "so it has no gradient; return floats"
        )
    return tuple(
        Upstream(label, name, tuple(aval.shape), aval.dtype)
        for label, (name, aval) in zip(upstream_names(program), outputs)
    )


def notes_on(program: Program) -> tuple[str, ...]:
    """Return what a report should say of how a program was read."""
    read = [f"{kernel} runs in Pallas's interpret mode" for kernel in kernels(program)]
    return tuple(map(str, [*narrowings(program), *opaque(program), *read]))


def _compiled(rule: Program) -> Callable[[dict[str, Any]], list[Any]]:
    def run(values: dict[str, Any]) -> list[Any]:
        return list(rule(*(values[name] for name in rule.in_names)))

    return run


def _untouched(values: dict[str, Any]) -> list[Any]:
    raise InputError("the rule cannot be run")
