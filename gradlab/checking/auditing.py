"""`gradlab.audit`: every custom rule that a function meets, held at the inputs it meets there."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.arguments import argument_names, name_of, refuse_numbers, require_callable
from gradlab.checking.beside import idle_devices, side_by_side
from gradlab.checking.forms import FINITE_DIFFERENCES, subject_of_program
from gradlab.checking.inputs import require_arrays
from gradlab.checking.memory import require_memory
from gradlab.checking.report import AuditedRule, AuditReport, CheckReport, Law, Leaf
from gradlab.checking.summary import Repair, summarise
from gradlab.checking.trial import Trial
from gradlab.errors import GradlabError, InputError
from gradlab.progress import tracked
from gradlab.reading import ported
from gradlab.tracing import (
    ClosesOverTrace,
    CustomRule,
    Meeting,
    Program,
    custom_rules,
    rule_inputs,
    strip,
    trace,
)
from gradlab.tracing.settings import undisturbed

if TYPE_CHECKING:
    from gradlab.checking.mending import HandRule

__all__ = ["audit"]


@undisturbed()
def audit(function: Any, *inputs: Any, seed: int = 0) -> AuditReport:
    """Check every custom rule inside a function, at the inputs that it meets there.

    Rules under jit, vmap, scan, cond and remat are seen, and rules inside rules; an inner one is
    trusted once it has its own verdict. What a rule closes over is constant: only what depends on
    the audited function's inputs is differentiated.

    Memory: that of `check` for the largest rule, and every rule's inputs; what cannot fit is
    refused.

    Args:
        function: a JAX function, before `jax.grad`: differentiation uses rules up.
        *inputs: arrays of any shape, Python numbers, or pytrees of them, of any dtype; at least
            one leaf is float or complex.
        seed: of upstreams, tangents and rounding noise.

    Returns:
        A report that is true if every rule is right; it names each with its source line.

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
    require_callable("function", function)
    refuse_numbers(seed=seed)
    if not inputs:
        raise InputError(
            f"inputs: {name_of(function)} was given none; nothing can be differentiated"
        )
    labels = argument_names(function, len(inputs))
    require_arrays(inputs, labels)
    require_memory("audit", inputs)
    try:
        program = trace(function, *inputs)
    except GradlabError as error:
        name = name_of(ported(function, inputs, error))
        raise InputError(
            f"audit: {name} is NumPy, which has no custom rules; use check({name}, ..., backward=)"
        ) from error
    meetings = rule_inputs(program, program.flatten(inputs))
    around = functools.cache(lambda: _around(program, inputs, seed))
    written = functools.cache(lambda: _written(function, inputs, labels))
    varying = [meeting for meeting in _distinct(meetings) if meeting.inputs]
    told = tracked(varying, lambda m: m.rule.name)
    devices = idle_devices()[: max(1, len(varying))]
    rules = tuple(side_by_side(lambda m: _audited(m, seed, around, written), told, devices))
    notes = []
    constant = [m.rule for m in _distinct(meetings) if not m.inputs]
    if constant:
        names = ", ".join(dict.fromkeys(_place(rule) for rule in constant))
        notes.append(f"not differentiated here, their inputs are constants or integers: {names}")
    if not meetings:
        notes.append(
            "no custom rule was met; pass the function before jax.grad, which uses rules up"
        )
    return AuditReport(program.name, rules, tuple(notes), seed)


def _distinct(meetings: list[Meeting]) -> Iterator[Meeting]:
    """Yield each rule once per place, shapes and meaning, innermost first."""
    seen = set()
    for meeting in meetings:
        rule = meeting.rule
        shapes = tuple((tuple(a.shape), str(a.dtype)) for a in rule.in_avals)
        known = meeting.program.identity  # None: it cannot be told apart, so it is checked again
        key = (
            rule.name,
            rule.defined,
            rule.source,
            shapes,
            id(meeting) if known is None else known,
        )
        if key not in seen:
            seen.add(key)
            yield meeting


def _audited(
    meeting: Meeting,
    seed: int,
    around: Callable[[], CheckReport],
    written: Callable[[], "list[HandRule]"],
) -> AuditedRule:
    rule, program = meeting.rule, meeting.program
    program = dataclasses.replace(program, name=rule.name)
    values = dict(zip(program.in_names, meeting.inputs))
    try:
        primal = strip(program, lambda other: _place(other) == _place(rule))
        subject = subject_of_program(
            program,
            values,
            primal,
            f"autodiff of the primal of {rule.name}",
            stated=bool(custom_rules(primal)),  # inner rules are trusted, whatever slopes say
        )
        clock = time.process_time()

        def mend() -> Repair:
            from gradlab.checking.mending import repair  # a right rule never needs it

            found = [hand for hand in written() if hand.place == (rule.name, rule.defined)]
            return repair(found, time.process_time() - clock, seed)

        report = summarise([Trial(subject, values, seed)], seed, 1, None, mend)
    except ClosesOverTrace:
        report = around()
    return AuditedRule(
        name=rule.name,
        kind=rule.kind,
        source=rule.source,
        defined=rule.defined,
        inside=tuple(rule.inside),
        report=report,
    )


def _written(function: Any, inputs: tuple[Any, ...], names: tuple[str, ...]) -> "list[HandRule]":
    from gradlab.checking.mending import rules_met  # a right rule never needs it

    return rules_met(function, inputs, names)


def _around(program: Program, inputs: tuple[Any, ...], seed: int) -> CheckReport:
    """Check the whole function by finite differences, for rules that cannot be run alone."""
    values = dict(zip(program.in_names, program.flatten(inputs)))
    try:
        subject = subject_of_program(program, values, None, FINITE_DIFFERENCES)
    except ClosesOverTrace as error:
        return _unjudged(program, inputs, seed, str(error))
    note = "a rule inside closes over traced values, so it was judged with the function around it"
    subject = dataclasses.replace(subject, notes=(*subject.notes, note))
    return summarise([Trial(subject, values, seed)], seed, 1)


def _unjudged(program: Program, inputs: tuple[Any, ...], seed: int, reason: str) -> CheckReport:
    """Return the report of a function whose rule can be run neither alone nor inside it."""
    named = zip(program.leaves, program.flatten(inputs))
    wanted = [(leaf, x) for leaf, x in named if leaf.traced and leaf.differentiable]
    return CheckReport(
        function=program.name,
        laws=(Law("formula", "inconclusive", reason),),
        leaves=tuple(
            Leaf(leaf.path, tuple(leaf.shape), str(leaf.dtype), 0, 0, int(np.size(x)), "undecided")
            for leaf, x in wanted
        ),
        oracle="none",
        resolution={leaf.path: float("inf") for leaf, _ in wanted},
        seed=seed,
        dtypes=tuple(dict.fromkeys(str(leaf.dtype) for leaf, _ in wanted)),
    )


def _place(rule: CustomRule) -> str:
    return f"{rule.name} at {rule.defined}"
