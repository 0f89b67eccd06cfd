"""What a check and an audit found, as plain data."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gradlab.report import Report

__all__ = ["AuditReport", "AuditedRule", "CheckReport", "Entry", "Finding", "Law", "Leaf", "Status"]

Status = Literal["passed", "warned", "failed", "skipped", "inconclusive"]


@dataclass(frozen=True)
class Law:
    """One property that a correct gradient has, and whether this one has it.

    `error` is in floors: the error that rounding alone explains is 1.
    """

    name: str
    status: Status
    reason: str = ""
    error: float | None = None
    dtype: str = ""


@dataclass(frozen=True)
class Entry:
    """One entry of a gradient: where it is, what came, what was expected.

    `output` names the output entry through which it is wrong, where that could be located.
    """

    path: str
    index: tuple[int, ...]
    actual: complex
    expected: complex
    error: float
    law: str
    output: str = ""


@dataclass(frozen=True)
class Finding:
    """One diagnosis, verified: applying `kind` to the reference gives the gradient that came."""

    kind: str
    path: str
    text: str


@dataclass(frozen=True)
class Leaf:
    """How many entries of one input's gradient were right, wrong, or could not be judged."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    right: int
    wrong: int
    inconclusive: int

    @property
    def decided(self) -> bool:
        """Whether at least one entry was judged; an input without entries needs none."""
        return self.right + self.wrong > 0 or self.inconclusive == 0


@dataclass(frozen=True)
class CheckReport(Report):
    """What `gradlab.check` found.

    Attributes:
        function: the name of what was checked.
        laws: every law with its `name`, `status`, `reason` and `error` in floors.
        leaves: for each input, how many entries are right, wrong, or could not be judged.
        worst: the worst wrong entry: `path`, `index`, `actual`, `expected`; None where none is.
        findings: the diagnoses, each verified.
        oracle: which reference was believed.
        resolution: for each input, the smallest relative error that would have failed this check in
            a typical entry.
        notes: what else should be known: kinks, roundings, what could not be looked at.
        seed: repeats the check.
        dtypes: those in which it was made.

    Example:
        >>> import gradlab, jax.numpy as jnp
        >>> report = gradlab.check(jnp.tanh, jnp.array([0.5, 2.0]))
        >>> report.ok, report.worst, report.diagnosis
        (True, None, '')
    """

    kind: ClassVar[str] = "check"

    function: str
    laws: tuple[Law, ...]
    leaves: tuple[Leaf, ...]
    worst: Entry | None
    findings: tuple[Finding, ...]
    oracle: str
    resolution: dict[str, float]
    notes: tuple[str, ...]
    seed: int
    dtypes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No law failed, and every differentiable input has an entry that is conclusively right."""
        return not self.failed and not self.undecided

    @property
    def failed(self) -> tuple[Law, ...]:
        """The laws that failed."""
        return tuple(law for law in self.laws if law.status == "failed")

    @property
    def undecided(self) -> tuple[str, ...]:
        """The inputs of whose gradient no entry could be judged."""
        return tuple(leaf.path for leaf in self.leaves if not leaf.decided)

    @property
    def diagnosis(self) -> str:
        """What is wrong, in words; empty where nothing is, or where no explanation was verified."""
        return "; ".join(dict.fromkeys(finding.text for finding in self.findings))

    def to_dict(self) -> dict[str, Any]:
        """Return this report as JSON-plain data; `schema` names the kind and its version."""
        return {**super().to_dict(), "diagnosis": self.diagnosis}


@dataclass(frozen=True)
class AuditedRule:
    """One custom rule that was met, where it was met, and what checking it there found.

    `inside` names the loops, branches, checkpoints and rules around it, outermost first; a `jit` or
    a `vmap` changes no gradient and leaves no place.
    """

    name: str
    kind: str
    source: str
    defined: str
    inside: tuple[str, ...]
    report: CheckReport


@dataclass(frozen=True)
class AuditReport(Report):
    """What `gradlab.audit` found: every custom rule met, innermost first.

    Attributes:
        function: the name of what was audited.
        rules: each rule with its `name`, where it is met, and its own `CheckReport`.
        notes: what could not be looked at.
        seed: repeats the audit.

    Example:
        >>> import gradlab, jax, jax.numpy as jnp
        >>> print(gradlab.audit(lambda x: jax.nn.relu(x).sum(), jnp.array([-1.0, 2.0])).ok)
        True
    """

    kind: ClassVar[str] = "audit"

    function: str
    rules: tuple[AuditedRule, ...]
    notes: tuple[str, ...]
    seed: int

    @property
    def ok(self) -> bool:
        """Every rule that was met holds."""
        return all(rule.report.ok for rule in self.rules)
