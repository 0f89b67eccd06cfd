"""Hold hand-written nodes against JAX: forward, local gradient and backward, each by itself.

For every case of a node one reference is traced, `jax.grad` of the upstream-weighted output and
`jax.jacfwd`, and evaluated in float64 together with its rounding floor (see `gradlab.references`).
The node then runs on NumPy in the dtype under test, on JAX jitted, and, when thorough, on JAX
eagerly; each number must lie within the floors of the reference. No tolerance is written here.
"""

import os
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ClassVar

import ml_dtypes
import numpy as np

from gradlab.arguments import refuse_flags, refuse_numbers
from gradlab.checking.inputs import parse_dtypes
from gradlab.checking.node_laws import Finding, Ledger, judge_cases, node_evidence, prepare
from gradlab.common.arrays import DType, DTypeLike
from gradlab.errors import GradlabError, InputError
from gradlab.nodes import Node, find, registry
from gradlab.nodes._base import Case
from gradlab.nodes._registry import NodeLike
from gradlab.progress import tracked
from gradlab.report import Evidence, Fix, Grade, Report, weakest
from gradlab.tracing.callbacks import counted
from gradlab.tracing.settings import require_platform, undisturbed

_MENDABLE = ("local gradient", "backward", "transpose", "form")
_TRIED = 2  # cases at which a mistake is searched for


@dataclass(frozen=True)
class NodeResult:
    """What was found out about one node; errors are the worst of all cases, in floors.

    Attributes:
        name: the node.
        family: the family that it belongs to.
        cases: how many cases it was run on.
        dtypes: the dtypes that it was verified in.
        forward: error of its output.
        local_gradient: error of its local gradients.
        backward: error of the gradients that it returns.
        structure: the operators that its local gradients are.
        stored_bytes: memory that these operators hold.
        dense_bytes: memory that dense matrices would hold.
        inconclusive: entries that could not be judged.
        proved: whether the inspector proves just the operators' patterns.
        seconds: CPU seconds that it took.
        findings: mistakes in it.
        fixes: edits of its source that make its gradients right, best first.
        evidence: for each input, whether its gradient was proved; empty where nobody asked.
    """

    derived: ClassVar[tuple[str, ...]] = ("grade",)

    name: str
    family: str
    cases: int
    dtypes: tuple[str, ...]
    forward: float
    local_gradient: float
    backward: float
    structure: tuple[str, ...]
    stored_bytes: int
    dense_bytes: int
    inconclusive: int
    proved: bool
    seconds: float
    findings: tuple[Finding, ...]
    evidence: dict[str, Evidence] = field(default_factory=dict)
    fixes: tuple[Fix, ...] = ()

    @property
    def grade(self) -> Grade | None:
        """The weakest grade of evidence among the inputs; None where something is wrong."""
        if self.findings:
            return None
        return weakest([each.grade for each in self.evidence.values()]) or "points"

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with this node."""
        return not self.findings


@dataclass(frozen=True)
class VerifyReport(Report):
    """The nodes that were held against JAX, one result each.

    Attributes:
        nodes: what was found, node by node; each has `findings`, empty where it is right.
        seed: where the random inputs and upstreams started.
        thorough: whether every special input was taken too.

    Example:
        >>> import gradlab
        >>> gradlab.verify("relu").nodes[0].findings
        ()
    """

    kind: ClassVar[str] = "verify"
    version: ClassVar[int] = 2
    derived: ClassVar[tuple[str, ...]] = ("grade",)
    nodes: tuple[NodeResult, ...]
    seed: int
    thorough: bool

    @property
    def grade(self) -> Grade | None:
        """The weakest grade of evidence among the nodes."""
        return weakest([node.grade for node in self.nodes])

    @property
    def ok(self) -> bool:
        """Whether every node is right."""
        return all(node.ok for node in self.nodes)


@undisturbed()
@counted()
def verify(
    *nodes: NodeLike,
    dtypes: Sequence[DTypeLike] | None = None,
    seed: int = 0,
    thorough: bool = False,
    prove: bool = False,
) -> VerifyReport:
    """Verify hand-written nodes against `jax.grad` and `jax.jacfwd`.

    Memory: the nodes' cases are small; beside JAX's compiled programs a run holds some megabytes.

    Args:
        *nodes: names, node classes or nodes; none means all that gradlab has.
        dtypes: the floating-point dtypes to verify in; by default float64, and when thorough
            float32 too.
        seed: where the random inputs and upstreams start.
        thorough: also take every special input (ties, zeros, size-1 axes, zero-size arrays,
            saturation, repeated indices), hold operators on JAX too, and run eagerly.
        prove: also try to prove each gradient one formula with autodiff of the node's reference.

    Returns:
        A report that is true if every node is right. The inputs, their shapes and their domains are
        the node's own, as its `cases()` lists them.

    Raises:
        InputError: there is no node of that name.
        InputTypeError: something is neither a node nor a name.

    Example:
        >>> import gradlab
        >>> report = gradlab.verify("tanh")
        >>> report.ok, report.nodes[0].structure
        (True, ('Diagonal',))
    """
    refuse_numbers(seed=seed)
    refuse_flags(thorough=thorough, prove=prove)
    return VerifyReport(
        tuple(results(*nodes, dtypes=dtypes, seed=seed, thorough=thorough, prove=prove)),
        seed,
        thorough,
    )


def results(
    *nodes: NodeLike,
    dtypes: Sequence[DTypeLike] | None = None,
    seed: int = 0,
    thorough: bool = False,
    prove: bool = False,
) -> Iterator[NodeResult]:
    """Yield one result after the other, as `verify` collects them; a caller may show progress."""
    subjects = [_cases_of(node) for node in nodes] if nodes else [_cases_of(n) for n in registry()]
    chosen = _dtypes(dtypes, thorough)
    require_platform()

    def result(cases: tuple[Case, ...]) -> NodeResult:
        found = _result(cases if thorough else _generic(cases), chosen, seed, thorough)
        if any(finding.law in _MENDABLE for finding in found.findings):
            return replace(found, fixes=_fixes(_generic(cases), seed))
        if not prove or found.findings:
            return found
        return replace(found, evidence=node_evidence(_generic(cases), seed))

    # XLA compiles outside Python's lock: while one node is compiled, the next is traced.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(result, subjects)
        yield from tracked(found, lambda node: node.name, len(subjects))


def _fixes(cases: tuple[Case, ...], seed: int) -> tuple[Fix, ...]:
    """Return the edits that mend a node, at the first of its cases at which it is wrong."""
    from gradlab.repair import repair, rule_of_node  # a search that right nodes never need

    runs = (prepare(case, seed, np.dtype(np.float64)) for case in cases[:_TRIED])
    rules = [rule_of_node(run.node, run.node.reference, run.inputs, run.wrt) for run in runs]
    return repair(rules, seed)[0]


def _cases_of(node: NodeLike) -> tuple[Case, ...]:
    """Return a node's cases; those of an instance are the ones that its own parameters take."""
    cls = find(node)
    cases = cls.cases()
    if isinstance(node, Node):
        cases = tuple(filter(_is_accepted, (replace(case, node=node) for case in cases)))
    if not cases:
        raise InputError(
            f"{node!r}: no case of {cls.__name__}.cases() fits it; give one: `generic(node, ...)`"
        )
    return cases


def _is_accepted(case: Case) -> bool:
    try:
        with np.errstate(all="ignore"):
            case.node.forward(*case.draw(0))
    except GradlabError:
        return False
    return True


def _generic(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    return tuple(case for case in cases if case.generic) or cases


def _dtypes(dtypes: Sequence[DTypeLike] | None, thorough: bool) -> tuple[DType, ...]:
    if dtypes is None:
        dtypes = ("float64", "float32") if thorough else ("float64",)
    names = parse_dtypes(dtypes)
    return tuple(np.dtype(getattr(ml_dtypes, name, name)) for name in names if name is not None)


def _result(
    cases: tuple[Case, ...], dtypes: tuple[DType, ...], seed: int, thorough: bool
) -> NodeResult:
    start = time.thread_time()
    ledger = Ledger()
    node = cases[0].node
    for dtype in dtypes:
        try:
            judge_cases(cases, ledger, dtype=dtype, seed=seed, thorough=thorough)
        except Exception:  # whatever a node under test raises is a finding, not our end
            text = traceback.format_exc()
            ledger.findings.append(Finding("runs", "", f"{node!r} in {dtype}", "", text=text))
    return NodeResult(
        name=node.name(),
        family=node.family(),
        cases=len(cases),
        dtypes=tuple(map(str, dtypes)),
        forward=ledger.worst["forward"],
        local_gradient=ledger.worst["local gradient"],
        backward=max(ledger.worst["backward"], ledger.worst["transpose"]),
        structure=ledger.structure,
        stored_bytes=ledger.stored_bytes,
        dense_bytes=ledger.dense_bytes,
        inconclusive=ledger.inconclusive,
        proved=bool(ledger.proved),
        seconds=time.thread_time() - start,
        findings=tuple(ledger.findings),
    )
