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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from gradlab.common.arrays import Array, DTypeLike, Function, Tree
from gradlab.errors import GradlabError
from gradlab.formatting import count, shape_text
from gradlab.nodes import Node
from gradlab.nodes._base import Case
from gradlab.operators import Operator
from gradlab.proof import LONG, Proof, prove
from gradlab.references import Evaluation, judge
from gradlab.report import Evidence
from gradlab.structure import jacobian
from gradlab.tracing import trace

# by law and subject, as ("local gradient", "d output / d x") or ("backward", "gradient of x")
Quantities = dict[tuple[str, str], Array]


@dataclass(frozen=True)
class ByHand:
    """What a node's own methods return: local gradients as one row of operators per output."""

    output: tuple[Array, ...]
    gradients: tuple[Array, ...]
    operators: tuple[tuple[Any, ...], ...]  # an operator, or None where there is no gradient


@dataclass(frozen=True)
class Run:
    """One case of a node: its inputs, one upstream per output, and how to speak of it."""

    node: Node
    inputs: tuple[Array, ...]
    upstream: tuple[Array, ...]
    text: str

    @property
    def wrt(self) -> tuple[int, ...]:
        """The positions of the differentiable inputs."""
        return tuple(i for i in range(len(self.inputs)) if self.node.domain(i).differentiable)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        n = len(self.upstream)
        return ("output",) if n == 1 else tuple(f"output[{o}]" for o in range(n))

    def by_hand(self, inputs: tuple[Array, ...], upstream: tuple[Array, ...]) -> ByHand:
        """Run the node's own forward, backward and local gradient."""
        output, residuals = self.node.forward(*inputs)
        several = isinstance(output, tuple)
        gradients = self.node.backward(tuple(upstream) if several else upstream[0], residuals)
        local = self.node.local_gradient(residuals)
        return ByHand(
            output if several else (output,), tuple(gradients), local if several else (local,)
        )

    def quantities(self, hand: ByHand, upstream: tuple[Array, ...]) -> Quantities:
        """Return what the node says, as arrays."""
        found: Quantities = {}
        for name, y, row in zip(self.outputs, hand.output, hand.operators):
            found["forward", name] = y
            for i in self.wrt:
                found["local gradient", self._derivative(name, i)] = row[i].to_dense()
        for i in self.wrt:
            found["backward", self._gradient(i)] = hand.gradients[i]
            pulled = [row[i].T @ u for row, u in zip(hand.operators, upstream)]
            found["transpose", self._gradient(i)] = sum(pulled[1:], start=pulled[0])
        return found

    def reference(self, inputs: tuple[Array, ...]) -> Callable[..., tuple[Array, ...]]:
        """Return the reference as a function of the differentiable inputs alone."""

        def outputs(*chosen: Array) -> tuple[Array, ...]:
            every = list(inputs)
            for i, x in zip(self.wrt, chosen):
                every[i] = x
            y = self.node.reference(*every)
            return y if isinstance(y, tuple) else (y,)

        return outputs

    def by_jax(self, inputs: tuple[Array, ...], upstream: tuple[Array, ...]) -> Quantities:
        """Return what JAX says of the node's reference: its value, `jax.jacfwd` and `jax.grad`."""
        import jax
        import jax.numpy as jnp

        outputs = self.reference(inputs)

        def weighted(*chosen: Array) -> Array:
            return sum(jnp.sum(u * y) for u, y in zip(upstream, outputs(*chosen)))

        chosen = [inputs[i] for i in self.wrt]
        argnums = tuple(range(len(chosen)))
        found: Quantities = {}
        y = outputs(*chosen)
        for name, yo in zip(self.outputs, y):
            found["forward", name] = yo
            for i, x in zip(self.wrt, chosen):
                found["local gradient", self._derivative(name, i)] = jnp.zeros((yo.size, x.size))
        # `jacfwd` does not take an axis of size 0: where there are no entries, zeros stay. (Batches
        # of VJPs are compiled wrongly by some versions of jaxlib, batches of JVPs are not.)
        rows = [o for o, yo in enumerate(y) if yo.size]
        columns = tuple(k for k, x in enumerate(chosen) if x.size)
        blocks: Tree = []
        if rows and columns:
            blocks = jax.jacfwd(lambda *x: [outputs(*x)[o] for o in rows], columns)(*chosen)
        for o, row in zip(rows, blocks):
            for k, block in zip(columns, row):
                key = "local gradient", self._derivative(self.outputs[o], self.wrt[k])
                found[key] = block.reshape(y[o].size, chosen[k].size)
        for i, gradient in zip(self.wrt, jax.grad(weighted, argnums)(*chosen)):
            found["backward", self._gradient(i)] = gradient
            found["transpose", self._gradient(i)] = gradient
        return found

    def _derivative(self, output: str, i: int) -> str:
        return f"d {output} / d {self.node.input_name(i)}"

    def _gradient(self, i: int) -> str:
        return f"gradient of {self.node.input_name(i)}"

    def entry(self, quantity: tuple[str, str], index: tuple[int, ...]) -> tuple[int, ...]:
        """Return an index as a person counts: a matrix entry as output entry, then input entry."""
        shapes = {
            ("local gradient", self._derivative(name, i)): (u.shape, self.inputs[i].shape)
            for name, u in zip(self.outputs, self.upstream)
            for i in self.wrt
        }
        if quantity not in shapes:
            return index
        pairs = zip(index, shapes[quantity])
        return tuple(int(k) for n, shape in pairs for k in np.unravel_index(n, shape))


def prepare(case: Case, seed: int, dtype: DTypeLike) -> Run:
    """Return a case with inputs drawn and an upstream for each output, signed and generic."""
    node, inputs = case.node, case.draw(seed, dtype)
    rng = np.random.default_rng([seed, 1])
    output, _ = node.forward(*inputs)
    upstream = tuple(
        np.asarray(rng.standard_normal(np.shape(y)), np.asarray(y).dtype)
        for y in (output if isinstance(output, tuple) else (output,))
    )
    shapes = ", ".join(f"{node.input_name(i)} {shape_text(x.shape)}" for i, x in enumerate(inputs))
    return Run(node, inputs, upstream, f"{case.note}: {node!r} at {shapes} ({dtype})")


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
            at = verdict.worst or ()
            numbers = found[at].item(), q.value[at].item(), float(error[at])
            index = run.entry(quantity, at)
            ledger.findings.append(Finding(law, where, run.text, subject, index, *numbers))


def _malformed(run: Run, hand: ByHand) -> Iterator[tuple[str, str]]:
    """Yield every gradient or operator that has not its input's form, and what is wrong."""
    gradients = hand.gradients
    if len(gradients) != len(run.inputs):
        found, wanted = count(len(gradients), "gradient"), count(len(run.inputs), "input")
        yield "backward", f"returns {found} for {wanted}"
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


def node_evidence(cases: Sequence[Case], seed: int) -> dict[str, Evidence]:
    """Return, for each input of a node, whether all cases prove its gradient."""
    found: dict[str, list[Proof]] = {}
    for case in cases:
        run = prepare(case, seed, np.dtype(np.float64))
        for i, proof in zip(run.wrt, prove_case(run, seed)):
            found.setdefault(run.node.input_name(i), []).append(proof)
    return {name: _evidence(proofs) for name, proofs in found.items()}


def _evidence(proofs: Sequence[Proof]) -> Evidence:
    tried = {"points": len(proofs)}
    if not all(proof.proved for proof in proofs):
        return Evidence(grade="points", tried=tried)
    return Evidence(
        grade="proved",
        also=("points",),
        bound=max(proof.bound for proof in proofs),
        assumes=tuple(dict.fromkeys(text for proof in proofs for text in proof.assumes)),
        tried=tried,
    )


def prove_case(run: Run, seed: int) -> list[Proof]:
    """Try to prove each gradient that a node's backward returns."""
    n, outputs = len(run.inputs), len(run.upstream)

    def rule(*arrays: Array) -> list[Array]:
        hand = run.by_hand(arrays[:n], arrays[n:])
        return [hand.gradients[i] for i in run.wrt]

    def reference(*arrays: Array) -> list[Array]:
        inputs, upstream = arrays[:n], arrays[n:]
        _, backward = jax.vjp(run.reference(inputs), *(inputs[i] for i in run.wrt))
        return list(backward(tuple(upstream)))

    names = [f"input {k}" for k in range(n)] + [f"upstream {k}" for k in range(outputs)]
    arrays = [np.asarray(array) for array in (*run.inputs, *run.upstream)]
    try:
        with jax.enable_x64(True):
            programs = [trace(f, *arrays, names=names) for f in (rule, reference)]
    except GradlabError as error:
        return [Proof(False, reason=str(error)) for _ in run.wrt]
    point = dict(zip(names, arrays))
    return prove(programs[0], programs[1], point, range(len(run.wrt)), seed, LONG)
