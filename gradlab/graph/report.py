"""A graph as plain data: every wire with its value and gradient at a glance, every gate."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from gradlab.graph._glance import Glance
from gradlab.report import Fix, Report


@dataclass(frozen=True)
class WireView:
    """One wire.

    Attributes:
        name: its name.
        kind: where it comes from.
        value: the array on it.
        gradient: the gradient of the output with respect to it; None where there is none.
        marks: what is odd about it, in words.
    """

    name: str
    kind: Literal["input", "constant", "node"]
    value: Glance
    gradient: Glance | None
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeCheck:
    """How one node's backward and its differences agree.

    Attributes:
        status: passed, failed, or skipped: nothing could be concluded.
        reason: why it was skipped, or what else there is to say.
        actual: upstream times Jacobian times direction, as backward has it.
        expected: the same by differences of forward.
        error: what that may be off by.
    """

    status: Literal["passed", "failed", "skipped"]
    reason: str = ""
    actual: float = 0.0
    expected: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Gate:
    """One node at work.

    Attributes:
        name: the wire that leaves it, the first if there are several.
        node: the name of its node, equation or group.
        detail: the node with its parameters.
        inputs: the wires that enter.
        outputs: the wires that leave.
        line: the user's line that made it.
        frame: the groups that it was in before they were opened, outermost first.
        members: how many nodes it stands for, if it is a group.
        branches: what it sends back to each input whose wire has other users too; their sum is the
            wire's gradient.
        local_gradients: its Jacobian in each input, in words, where they were asked for.
        check: how its backward stands against finite differences, where that was asked for.
        fixes: edits of its source that make it right; of the first wrong gate on the way back.
        about: what the node does, and the formula of its local gradient; empty where none is known.
    """

    name: str
    node: str
    detail: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    line: str = ""
    frame: tuple[str, ...] = ()
    members: int = 0
    branches: tuple[Glance | None, ...] = ()
    local_gradients: tuple[str, ...] = ()
    check: NodeCheck | None = None
    fixes: tuple[Fix, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class GraphReport(Report):
    """A graph with a value and a gradient on every wire, ready to be drawn.

    Attributes:
        title: the name of the function.
        wires: in the order in which they are computed.
        gates: in the same order.
        outputs: the wires that the function returns.
        findings: where the first NaN or infinity appears, forward and backward.
        decimals: how many decimals people want to see.

    Example:
        >>> from gradlab import Graph
        >>> g = Graph(lambda x, y: x * y, 3.0, 4.0)
        >>> _ = g.backward()
        >>> [(wire.name, wire.gradient.entries) for wire in g.report().wires]
        [('x', 4.0), ('y', 3.0), ('multiply', 1.0)]
    """

    kind: ClassVar[str] = "graph"
    version: ClassVar[int] = 2

    title: str
    wires: tuple[WireView, ...]
    gates: tuple[Gate, ...]
    outputs: tuple[str, ...]
    findings: tuple[str, ...] = ()
    decimals: int = 3

    @property
    def ok(self) -> bool:
        """No NaN, outputs and gradients are finite, no node fails its check; masks may be inf."""
        failed = any(
            gate.check is not None and gate.check.status == "failed" for gate in self.gates
        )
        return not failed and all(map(self.is_finite, self.wires))

    def is_finite(self, wire: WireView) -> bool:
        """Return whether a wire holds no NaN, and nothing infinite that counts."""
        value, gradient = wire.value, wire.gradient
        counts = wire.name in self.outputs
        return (
            value.nans == 0
            and (value.finite or not counts)
            and (gradient is None or gradient.finite)
        )
