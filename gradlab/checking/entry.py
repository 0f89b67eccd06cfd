"""`gradlab.check`: hold a gradient against every law that a correct one obeys."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import jax
import numpy as np

from gradlab.arguments import (
    argument_names,
    call_of,
    refuse_flags,
    refuse_numbers,
    require_callable,
    require_inputs,
)
from gradlab.checking.domain import parse_domain
from gradlab.checking.evidence import nearby
from gradlab.checking.forms import own_rule
from gradlab.checking.inputs import (
    RETURNS,
    Returns,
    cast,
    has_float64,
    parse_dtypes,
    parse_wrt,
    require_arrays,
    require_memory,
)
from gradlab.checking.intended import parse_intended
from gradlab.checking.layers import layer_form
from gradlab.checking.probes import Calls
from gradlab.checking.reach import Prove, Settings
from gradlab.checking.report import CheckReport
from gradlab.checking.subject import Subject
from gradlab.checking.summary import summarise
from gradlab.checking.trial import Trial
from gradlab.common.arrays import Array, Function, Tree
from gradlab.errors import (
    GradientMismatch,
    GradientUndecided,
    GradlabError,
    InputError,
    InputTypeError,
)
from gradlab.formatting import count
from gradlab.tracing.callbacks import counted
from gradlab.tracing.leaves import flatten
from gradlab.tracing.settings import undisturbed

if TYPE_CHECKING:
    from gradlab.graph import Graph
    from gradlab.nodes import Node
    from gradlab.repair.problem import HandRule, Kind
    from gradlab.repair.written import Repaired


@undisturbed()
@counted()
def check(
    function: Any,
    *inputs: Tree,
    backward: Function | None = None,
    reference: Function | None = None,
    returns: Returns = "output",
    parameters: Any = None,
    gradients: Any = None,
    intended: Any = None,
    domain: Any = None,
    wrt: Any = None,
    order: int = 1,
    seed: int = 0,
    samples: int = 1,
    dtypes: Any = None,
    device: Any = None,
    branches: bool = True,
    prove: Prove = True,
) -> CheckReport:
    """Check a gradient: is it right, which entry is wrong, and why.

    There is no tolerance to set. Errors are measured in floors: 1 floor is the error that rounding
    explains at an entry.

    Memory: some 40 float64 copies of the inputs of an elementwise layer, 30 more for each further
    sample, and the memory of the function's own gradient. A call that cannot fit is refused.

    Args:
        function: a JAX function, with or without custom rules inside; a forward in JAX or NumPy,
            with `backward`; an object with `forward` and `backward`; a model with `loss`; a
            `gradlab.Node`; a `gradlab.Graph`.
        *inputs: arrays of any shape, Python numbers, or pytrees of them. Float and complex leaves
            are differentiated, in their own dtype. Integers, booleans and keys are not.
        backward: the backward pass to check, in JAX or NumPy: `backward(upstream, *inputs)`, or
            `backward(upstream, residuals)` where `returns` is "output+residuals"; it returns one
            gradient per input, in the input's shape and dtype, or None.
        reference: a function whose value and gradient are right. By default, gradlab believes
            autodiff of the primal function, or finite differences where JAX cannot trace it.
        returns: what `function` returns: "output", "output+residuals" (a pair), or
            "output+gradients" (a loss and its gradients).
        parameters: the parameters of an object or a model: names or paths ("W", "layers[0].W"), or
            a dict from parameter to gradient path. By default, gradlab finds them by name.
        gradients: paths of the gradients of the parameters, in the same order.
        intended: the intended derivative, where it is not the true one: a function whose derivative
            is intended (`lambda x: x` for straight-through), "any", or a dict from rules inside, or
            their names, to either. The value is still compared with the primal's.
        domain: the legal inputs: `(low, high)`, where None is open; "positive"; "finite"; the
            allowed integers; a function from the inputs to bool; or a dict from input name to
            these. gradlab makes no other inputs.
        wrt: inputs to differentiate, by position or by name (default: all).
        order: 2 checks second derivatives too, 3 and 4 the next ones as well.
        seed: seed of upstreams, tangents and rounding noise.
        samples: number of inputs: the given ones, and others near them.
        dtypes: float dtypes to check in, one after the other: "float64", "float32", "bfloat16",
            "float16".
        device: device that runs the rule: "cpu", "gpu" or "gpu:1". The reference runs on the CPU.
        branches: whether to check near the inputs, and branches that they do not take: those of
            a setting that is True or False, too.
        prove: whether to try to prove the gradient; "long" spends seven times the time on it.

    Returns:
        A report that is true if the gradient is right; print it to read what was found.

    Raises:
        InputError: a shape, a name or a dtype does not fit.
        InputTypeError: an argument is of the wrong kind.

    References:
        Floors: Parker (1997), "Monte Carlo arithmetic: exploiting randomness in floating-point
        arithmetic". Noise and step of finite differences: More and Wild (2011), "Estimating
        computational noise".

    Example:
        >>> import gradlab, numpy as np
        >>> def backward(upstream, x, w):
        ...     return upstream @ w.T, upstream.T @ x
        >>> x, w = np.arange(4.0).reshape(2, 2), np.array([[1.0, 2.0], [3.0, 5.0]])
        >>> report = gradlab.check(lambda x, w: x @ w, x, w, backward=backward)
        >>> report.ok, report.worst.path, report.diagnosis
        (False, 'w', 'the gradient of w is transposed')
    """
    given = len(inputs)
    asked = _Asked(
        function, inputs, backward, reference, returns, wrt, parameters, gradients, intended, domain
    )
    inputs = asked.inputs
    refuse_numbers(order=order, seed=seed, samples=samples)
    refuse_flags(branches=branches)
    refuse_flags("long", prove=prove)
    require_memory("check", inputs, samples)
    place = _device(device)
    trials = []
    for dtype in parse_dtypes(dtypes):
        subject = _willing(asked, inputs) if dtype is None else asked.subject(cast(inputs, dtype))
        trials += list(_trials(subject, seed, samples, place))
    subject = trials[0].subject

    def mend(lost: str, trial: Trial) -> "Repaired":
        from gradlab.repair import repair  # a search that right gradients never need

        rules = _written(asked, trial, trial not in trials)
        return asked.calls.limited(lambda: repair(rules, seed, lost)) or ((), None)

    mending = None if not subject.searchable or asked.intended.rules else mend
    report = summarise(trials, seed, order, Settings(branches, prove, anew=asked.anew), mending)
    if report.ok and branches and (asked.reference is None or _is_node(function)):
        other = _other_settings(asked, subject, seed, place)
        report = report if other is None else other
    if subject.forward is not None and any(rule.parts for rule in report.rules):
        from gradlab.checking.rules import judged_rules  # most functions have none to judge

        rules = judged_rules(report.rules, subject.forward, subject.values, seed)
        report = dataclasses.replace(report, rules=rules)
    names = (asked.names or ())[:given]
    call = call_of(
        "check",
        function,
        names,
        seed,
        backward=backward,
        reference=reference,
        returns=None if returns == "output" else returns,
        parameters=parameters,
        gradients=gradients,
        intended=intended,
        domain=domain,
        wrt=wrt,
        order=None if order == 1 else order,
        samples=None if samples == 1 else samples,
        dtypes=dtypes,
    )
    report = dataclasses.replace(report, call=call)
    if _is_graph(function) and backward is None and report.failed:
        from gradlab.checking.wrong_node import name_wrong_node

        return name_wrong_node(report, function, inputs)
    return report


def _other_settings(asked: "_Asked", subject: Subject, seed: int, place: Any) -> CheckReport | None:
    """Return the report where a setting that is True or False is the other, if it is wrong there.

    A function that is another there, or refuses it, says nothing of the rule.
    """
    for k, value in enumerate(asked.inputs):
        if type(value) is not bool or not asked.domain.everything:
            continue
        try:
            inputs = (*asked.inputs[:k], not value, *asked.inputs[k + 1 :])
            other = asked.subject(inputs)
            if [u.shape for u in other.upstreams] != [u.shape for u in subject.upstreams]:
                continue
            report = summarise(list(_trials(other, seed, 1, place)), seed, 1)
        except GradlabError:
            continue
        if report.status == "wrong" and asked.names is not None:
            name = asked.names[k]
            note = (
                f"gradlab made {name} = {not value}; if this cannot occur, state the legal inputs: "
            )
            note += f"domain={{{name!r}: [{value}]}}"
            return dataclasses.replace(report, notes=(note, *report.notes))
    return None


def assert_gradients(function: Any, *inputs: Tree, **options: Any) -> CheckReport:
    """Check a gradient as `gradlab.check` does, in its memory, and raise if it is not right.

    Args:
        function: as for `check`.
        *inputs: as for `check`, of its shapes and dtypes.
        **options: as for `check`: backward, reference, returns, intended, domain, wrt, order, seed,
            samples, dtypes, device.

    Returns:
        The report, which is ok.

    Raises:
        InputError: as for `check`.
        InputTypeError: as for `check`.
        GradientMismatch: a law failed, or digits are lost that autodiff keeps; `.report` holds the
            report.
        GradientUndecided: no law failed, but some input's gradient could not be judged.

    Example:
        >>> import gradlab, jax.numpy as jnp
        >>> gradlab.assert_gradients(jnp.sin, jnp.array([0.5, 2.0])).status
        'right'
    """
    __tracebackhide__ = True
    report = check(function, *inputs, **options)
    if report.status == "undecided":
        raise GradientUndecided(str(report), report)
    if not report.ok:
        raise GradientMismatch(str(report), report)
    return report


def _written(asked: "_Asked", trial: Trial, made: bool) -> "list[HandRule]":
    """Return the rules that were written by hand, with the inputs at which a trial is wrong.

    `made`: gradlab made them.
    """
    from gradlab.repair import HandRule, rule_of_node, rules_met

    function, names = asked.function, asked.names or ()
    whole = asked.intended.whole
    meant = whole if callable(whole) else asked.reference
    paths = tuple(target.path for target in trial.subject.targets)
    kinds: dict[str, Kind] = {"output+residuals": "residuals", "output+gradients": "gradients"}
    kind, backward = kinds.get(asked.returns, "pair"), asked.backward or function
    rule = HandRule(
        kind, function, backward, asked.inputs, names, paths, wrt=asked.wrt, meant=meant
    )
    rule = rule.at(trial.values) if made else rule
    if asked.node is not None:
        wrt = tuple(names.index(path) for path in paths)
        return [rule_of_node(asked.node, asked.reference, rule.inputs, wrt)]
    if asked.backward is None and asked.returns == "output":
        met = rules_met(function, rule.inputs, names, paths)
        if meant is not None:  # of the whole function, not of what it calls
            mine = getattr(function, "fun", None)
            met = [dataclasses.replace(r, meant=meant) for r in met if r.primal is mine]
            met = [r for r in met if not r.static]
        if not made:
            return met
        before = {id(r.backward): r.inputs for r in rules_met(function, asked.inputs, names)}
        return [dataclasses.replace(r, given=before.get(id(r.backward), ())) for r in met]
    return [rule]


class _Asked:
    """What the user asked for, validated; it makes the subject for inputs of any dtype."""

    def __init__(
        self,
        function: Any,
        inputs: tuple[Tree, ...],
        backward: Any,
        reference: Any,
        returns: Any,
        wrt: Any,
        parameters: Any,
        gradients: Any,
        intended: Any,
        domain: Any,
    ) -> None:
        if not isinstance(returns, str) or returns not in RETURNS:
            raise InputError(f"returns: expected one of {', '.join(RETURNS)}, got {returns!r}")
        if _is_node(function, of_class=True):
            raise InputTypeError(
                f"function: {function.__name__} is a class of nodes; pass a node, such as "
                f"{function.__name__}()"
            )
        self.names: tuple[str, ...] | None = None
        self.notes: tuple[str, ...] = ()
        self.node: Node | None = None
        if _is_graph(function) and backward is None:
            graph, returns, self.names = function, "output", function.arguments
            function, backward = _from_graph(graph)
            reference = graph.reference if reference is None else reference
        elif _is_node(function) and backward is None:
            self.node = function
            function, backward, reference, returns, self.names = _from_node(
                function, reference, len(inputs)
            )
        elif not (_is_node(function) or _is_graph(function)):
            form = layer_form(function, backward, inputs, parameters, gradients)
            if form is not None:
                function, backward, returns = form.forward, form.backward, form.returns
                inputs, self.names, self.notes = form.inputs, form.names, form.notes
                wrt = form.wrt if wrt is None else wrt
        self.inputs = inputs
        if isinstance(function, tuple | list) and function and all(map(callable, function)):
            raise InputTypeError(
                f"function: got {count(len(function), 'function')} in a {type(function).__name__}; "
                "give the forward alone, and its backward by name: backward=..."
            )
        require_callable("function", function)
        for label, value in (("backward", backward), ("reference", reference)):
            if value is not None:
                require_callable(label, value)
        if returns == "output+residuals" and backward is None:
            raise InputError(
                "backward: returns='output+residuals' needs it: backward(upstream, residuals)"
            )
        if returns == "output+gradients" and backward is not None:
            raise InputError(
                "backward: leave it out; with returns='output+gradients' the function has its own"
            )
        require_inputs(function, inputs)
        self.names = self.names or argument_names(function, len(inputs))
        require_arrays(inputs, self.names)
        self.wrt = parse_wrt(wrt, self.names)
        self.function, self.backward = function, backward
        self.reference, self.returns = reference, returns
        if intended is not None and reference is not None:
            raise InputError(
                "intended: give it, or reference=, not both; reference= is for the value too"
            )
        self.intended = parse_intended(intended, whole=True)
        self.domain = parse_domain(domain, inputs, self.names)
        self.calls = Calls.for_entries(sum(np.size(leaf) for leaf in jax.tree.leaves(inputs)))

    def anew(self, values: Mapping[str, Array]) -> Subject:
        """Return the subject at other inputs, given by path; those that are not stay.

        gradlab makes them: a loop of the user's Python that ends at the given ones may never end.
        """
        given, leaves, tree = flatten(self.inputs, self.names or ())
        placed = [values.get(leaf.path, value) for value, leaf in zip(given, leaves)]
        from gradlab.reading.lines import few_lines  # reads NumPy, which JAX's rules never need

        with few_lines():
            return self.subject(jax.tree_util.tree_unflatten(tree, placed))

    def subject(self, inputs: tuple[Tree, ...]) -> Subject:
        assert self.names is not None
        names, wrt, intended = self.names, self.wrt, self.intended
        if self.backward is None and self.returns == "output":
            subject = own_rule(
                self.function, inputs, names, self.reference, wrt, intended, self.calls
            )
        else:
            from gradlab.checking.pairs import pair  # reads NumPy, which JAX's rules never need

            given = self.function, inputs, names, self.backward, self.reference, self.returns
            subject = pair(*given, wrt, intended, self.calls)
        notes = (*self.notes, *subject.notes)
        return dataclasses.replace(subject, notes=notes, domain=self.domain)


def _willing(asked: _Asked, inputs: tuple[Tree, ...]) -> Subject:
    """Return the subject at the inputs as they are; in float32 where only float64 is refused."""
    try:
        subject = asked.subject(inputs)
        if not any(complaint.kind == "refused" for complaint in subject.complaints):
            return subject
    except InputError:
        if not has_float64(inputs):
            raise
        subject = None
    if has_float64(inputs):
        try:
            narrow = asked.subject(cast(inputs, "float32"))
        except InputError:
            narrow = None
        if narrow is not None and not any(c.kind == "refused" for c in narrow.complaints):
            note = "the function refuses float64, so gradlab checked it in float32"
            return dataclasses.replace(narrow, notes=(*narrow.notes, note))
    return asked.subject(inputs) if subject is None else subject


def _is_graph(function: Any) -> "TypeGuard[Graph]":
    """Whether this is a Graph; where that room has not been imported, nothing is."""
    room = sys.modules.get("gradlab.graph")
    return room is not None and isinstance(function, room.Graph)


def _is_node(function: Any, of_class: bool = False) -> bool:
    """Whether this is a node, or a class of them; where no node has been imported, nothing is."""
    room = sys.modules.get("gradlab.nodes")
    return room is not None and (
        isinstance(function, type) and issubclass(function, room.Node)
        if of_class
        else isinstance(function, room.Node)
    )


def _from_graph(graph: "Graph") -> tuple[Function, Function]:
    """Return a graph's forward and backward as functions that keep nothing."""

    def forward(*inputs: Tree) -> Any:
        return graph(*inputs)

    def backward(upstream: Any, *inputs: Tree) -> Any:
        return graph.value_and_gradient(*inputs, upstream=upstream)[1]

    forward.__name__ = graph.title
    return forward, backward


def _from_node(node: Any, reference: Any, count: int) -> tuple[Any, ...]:
    """Return a node's forward and backward as functions, and the reference that it names."""

    def forward(*inputs: Tree) -> Any:
        return node.forward(*inputs)

    def backward(upstream: Any, residuals: Tree) -> Any:
        return node.backward(upstream, residuals)

    named = getattr(node, "name", None)
    forward.__name__ = named() if callable(named) else type(node).__name__
    names = tuple(node.input_name(i) for i in range(count)) if hasattr(node, "input_name") else None
    reference = node.reference if reference is None else reference
    return forward, backward, reference, "output+residuals", names


def _trials(subject: Subject, seed: int, samples: int, place: Any) -> Sequence[Trial]:
    first = Trial(subject, subject.values, seed, place=place)
    trials = [first]
    for k in range(1, samples):
        values = {**subject.values, **nearby(subject, subject.values, seed + k)}
        trials.append(Trial(subject, values, seed + k, first.evaluation, place))
    return trials


def _device(device: Any) -> Any:
    """Return the device that was named: a JAX device, or a platform such as 'gpu' or 'gpu:1'."""
    if device is None or isinstance(device, jax.Device):
        return device
    platform, _, index = str(device).partition(":")
    try:
        return jax.devices(platform)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError):
        known = ", ".join(sorted({d.platform for d in jax.devices()} | {"cpu"}))
        raise InputError(
            f"device: JAX sees no {device!r}; choose among {known}", (str(device), "cpu")
        ) from None
