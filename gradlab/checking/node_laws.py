"""The laws of a node: what must agree with what, entry by entry, in units of the floor.

    forward        = reference(x)
    local gradient = jax.jacfwd(reference)
    backward       = jax.grad of the upstream-weighted sum of reference
    transpose      : local_gradient.T @ upstream is that same gradient
    form           : a gradient has its input's shape and dtype
    pattern        : what an operator says, and what the inspector proves of the reference's
                     program, both hold every nonzero; where the two are equal, that is said

All cases of a node are one reference program and one node program, compiled together.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from gradlab.checking.node_runs import ByHand, Quantities, Run, prepare
from gradlab.common.arrays import Array, DTypeLike, Function, Tree
from gradlab.formatting import shape_text
from gradlab.nodes._base import Case
from gradlab.operators import Operator
from gradlab.references import Evaluation, judge
from gradlab.structure import jacobian
from gradlab.tracing import trace

_FUSED = ("forward", "backward")  # what is judged on JAX by default; operators cost twice as much


@dataclass(frozen=True)
class Finding:
    """One way in which a node is wrong, with the entry where it shows most.

    Attributes:
        law: forward, local gradient, backward, transpose, form, or runs.
        where: the namespace in which it ran: numpy, jax jitted, jax eager.
        case: the inputs on which it shows, as `generic: x 3x4, y 4 (float64)`.
        subject: what is wrong: `output`, `gradient of x`, `d output / d x`.
        index: the entry; for a local gradient the output entry, then the input entry.
        actual: the node's number.
        expected: the reference's number.
        error: their difference in floors.
        text: what else there is to say, such as the traceback of a node that raises.
    """

    law: str
    where: str
    case: str
    subject: str
    index: tuple[int, ...] = ()
    actual: float | complex = float("nan")
    expected: float | complex = float("nan")
    error: float = float("inf")
    text: str = ""


@dataclass
class Ledger:
    """What has been found about one node so far."""

    worst: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("forward", "local gradient", "backward", "transpose"), 0.0
        )
    )
    findings: list[Finding] = field(default_factory=list)
    structure: tuple[str, ...] = ()
    stored_bytes: int = 0
    dense_bytes: int = 0
    inconclusive: int = 0
    proved: bool | None = None  # whether the inspector proves exactly the operators' patterns

    def describe(self, hand: ByHand) -> None:
        """Note how the local gradients are stored, from the first case that is seen."""
        if not self.structure:
            operators = [op for row in hand.operators for op in row if op is not None]
            self.structure = tuple(op.name for op in operators)
            self.stored_bytes = sum(op.stored_bytes for op in operators)
            self.dense_bytes = sum(op.dense_bytes for op in operators)


def judge_cases(
    cases: tuple[Case, ...], ledger: Ledger, *, dtype: DTypeLike, seed: int, thorough: bool
) -> None:
    """Judge all laws on all cases of one node in one dtype, and enter what is found."""
    with np.errstate(all="ignore"):  # special points overflow on purpose
        runs = [prepare(case, seed + i, dtype) for i, case in enumerate(cases)]
        hands = [run.by_hand(run.inputs, run.upstream) for run in runs]
    for run, hand in zip(runs, hands):
        for subject, text in _malformed(run, hand):
            ledger.findings.append(Finding("form", "numpy", run.text, subject, text=text))
    if ledger.findings:
        return  # numbers in the wrong shape or of the wrong dtype are not worth comparing
    for run, hand in zip(runs, hands):
        ledger.findings.extend(_faults_of_pattern(run, hand))
    ledger.describe(hands[0])
    if ledger.proved is None:
        ledger.proved = True
        ledger.findings.extend(_faults_of_proof(runs[0], hands[0], ledger))

    inputs, upstreams = [run.inputs for run in runs], [run.upstream for run in runs]

    def reference(inputs: Tree, upstreams: Tree) -> list[Quantities]:
        return [run.by_jax(x, u) for run, x, u in zip(runs, inputs, upstreams)]

    def every(inputs: Tree, upstreams: Tree) -> list[Quantities]:
        return [run.quantities(run.by_hand(x, u), u) for run, x, u in zip(runs, inputs, upstreams)]

    def node(inputs: Tree, upstreams: Tree) -> list[Quantities]:
        rows = every(inputs, upstreams)
        return [{key: y for key, y in row.items() if thorough or key[0] in _FUSED} for row in rows]

    @functools.cache
    def every_noise() -> list[Quantities]:
        """Return how everything scatters, operators too: seldom asked, and slow to compile."""
        whole = trace(every, inputs, upstreams)
        named = dict(zip(whole.in_names, whole.flatten((inputs, upstreams))))
        rows: list[Quantities] = whole.unflatten(
            Evaluation(node=whole).estimates(named, law="accuracy")["node"]
        )
        return rows

    def noises(case: int) -> Quantities:
        return every_noise()[case]

    q, own = trace(reference, inputs, upstreams), trace(node, inputs, upstreams)
    values = dict(zip(own.in_names, own.flatten((inputs, upstreams))))
    estimates = Evaluation(reference=q, node=own).estimates(values, law="accuracy")
    expected, scatter = q.unflatten(estimates["reference"]), own.unflatten(estimates["node"])

    with np.errstate(all="ignore"):
        ran = {"numpy": [run.quantities(hand, run.upstream) for run, hand in zip(runs, hands)]}
    if dtype == np.float64:  # there lifting changes nothing: the node's program ran as it is
        ran["jax jitted"] = [{key: e.value for key, e in row.items()} for row in scatter]
    elif thorough:
        ran["jax jitted"] = own(inputs, upstreams)
    if thorough:
        ran["jax eager"] = _eagerly(node, inputs, upstreams, dtype)
    for where, actual in ran.items():
        for k, run in enumerate(runs):
            found, q, noise = actual[k], expected[k], scatter[k]
            _judge_run(run, where, found, q, noise, functools.partial(noises, k), ledger)


def _eagerly(function: Function, inputs: Tree, upstreams: Tree, dtype: DTypeLike) -> Tree:
    """Run on JAX arrays operation by operation, and come back in NumPy."""
    import jax

    with jax.enable_x64(dtype == np.float64):
        arrays = jax.tree.map(jax.numpy.asarray, (inputs, upstreams))
        return jax.tree.map(np.asarray, function(*arrays))


def _judge_run(
    run: Run,
    where: str,
    actual: Quantities,
    expected: Quantities,
    own: Quantities,
    every: Callable[[], Quantities],
    ledger: Ledger,
) -> None:
    for quantity, value in actual.items():
        law, subject = quantity
        found, q = np.asarray(value), expected[quantity]
        noise = own.get(quantity) or own.get(("backward", subject))
        verdict = judge(found, q, noise, run.upstream[0].dtype)
        if noise is None and verdict.wrong.any():
            verdict = judge(found, q, every()[quantity], run.upstream[0].dtype)
        error = np.where(verdict.inconclusive, 0.0, verdict.error)
        ledger.inconclusive += int(verdict.inconclusive.sum())
        ledger.worst[law] = max(ledger.worst[law], float(error.max(initial=0.0)))
        if verdict.wrong.any():
            at = np.unravel_index(np.argmax(np.where(verdict.wrong, error, -1.0)), error.shape)
            numbers = found[at].item(), q.value[at].item(), float(error[at])
            index = run.entry(quantity, tuple(map(int, at)))
            ledger.findings.append(Finding(law, where, run.text, subject, index, *numbers))


def _malformed(run: Run, hand: ByHand) -> Iterator[tuple[str, str]]:
    """Yield every gradient or operator that has not its input's form, and what is wrong."""
    gradients = hand.gradients
    if len(gradients) != len(run.inputs):
        yield "backward", f"returns {len(gradients)} gradients for {len(run.inputs)} inputs"
        return
    for i, (g, x) in enumerate(zip(gradients, run.inputs)):
        subject = f"gradient of {run.node.input_name(i)}"
        if g is None and i in run.wrt:
            yield subject, "is None, but the input is differentiable"
        elif g is not None and i not in run.wrt:
            yield subject, f"is given, but an input of dtype {x.dtype} has none; return None"
        elif g is not None and _form(g) != _form(x):
            yield subject, f"has {_form(g)}, its input has {_form(x)}"
    for u, row in zip(run.upstream, hand.operators):
        for i, op in enumerate(row):
            x = run.inputs[i]
            if op is not None and (op.output_shape, op.input_shape) != (u.shape, x.shape):
                yield (
                    f"local gradient of {run.node.input_name(i)}",
                    f"is {op!r}; expected shapes {shape_text(u.shape)} <- {shape_text(x.shape)}",
                )


def _form(array: Array) -> str:
    return f"shape {shape_text(np.shape(array))} and dtype {np.asarray(array).dtype}"


def _faults_of_pattern(run: Run, hand: ByHand) -> Iterator[Finding]:
    """Yield a finding for every operator whose pattern misses a nonzero of its matrix."""
    for row in hand.operators:
        for i, op in enumerate(row):
            if op is not None:
                text = f"the pattern of {op!r} misses this entry of the matrix"
                yield from _strays(run, i, op, op.pattern.to_dense(), "numpy", text)


def _faults_of_proof(run: Run, hand: ByHand, ledger: Ledger) -> Iterator[Finding]:
    """Yield a finding for every operator with a nonzero outside what the inspector proves.

    The proof holds for every input, so that operator is wrong, or the proof is. The two patterns
    may still differ: an operator may store zeros (a mask in a matrix), and may know where a sort
    found its entries, which no proof can.
    """
    report = jacobian(run.reference(run.inputs), *(run.inputs[i] for i in run.wrt))
    patterns = iter(report.patterns.values())
    for row in hand.operators:
        for i in run.wrt:
            operator, proved = row[i], next(patterns)
            own, seen = operator.pattern.to_dense(), proved.to_dense()
            ledger.proved = bool(ledger.proved) and bool((own == seen).all())
            text = f"{operator!r} has a nonzero outside the proved {proved.notation}"
            yield from _strays(run, i, operator, seen, "inspector", text)


def _strays(
    run: Run, i: int, operator: Operator, pattern: Array, where: str, text: str
) -> Iterator[Finding]:
    """Yield a finding if the matrix of input i's operator has a nonzero outside of a pattern."""
    strays = np.argwhere((np.asarray(operator.to_dense()) != 0) & ~pattern)
    if len(strays):
        subject = f"local gradient of {run.node.input_name(i)}"
        yield Finding("pattern", where, run.text, subject, tuple(map(int, strays[0])), text=text)
