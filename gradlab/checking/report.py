"""What a check and an audit found, as plain data."""

from dataclasses import dataclass, field
from typing import ClassVar

from gradlab.report import (
    Digits,
    Entry,
    ErrorMap,
    Evidence,
    Finding,
    Fix,
    Grade,
    Law,
    Leaf,
    Report,
    Rule,
    Status,
    Unchecked,
    report_status,
    weakest,
)


@dataclass(frozen=True)
class CheckReport(Report):
    """What `gradlab.check` found.

    Attributes:
        function: the name of the function that was checked.
        laws: every law with its `name`, `status`, `reason` and `error` in floors.
        leaves: the float inputs under test: how many entries are right, wrong, or undecided.
        unchecked: the other inputs, each with the reason.
        worst: the worst wrong entry: `path`, `index`, `actual`, `expected`; None where none is.
        findings: the diagnoses, each verified.
        fixes: edits of the source that make the gradient right, best first, at most three.
        oracle: the reference that was believed.
        evidence: for each input, how far its verdict reaches.
        digits: for each input, how many correct digits its gradient has.
        rules: the derivative rules that were met, each with the verdict on its parts.
        resolution: for each input, the smallest relative error that would have failed this check in
            a typical entry.
        notes: what else should be known: kinks, roundings, code that could not be read.
        seed: repeats the check.
        dtypes: the dtypes in which the gradient was checked.
        call: repeats the check, in a file of yours; "" where the report has no call of its own.
        maps: for up to twelve inputs, the wrong ones first, its gradient's errors seen from far.

    Example:
        >>> import gradlab, jax.numpy as jnp
        >>> report = gradlab.check(jnp.tanh, jnp.array([0.5, 2.0]))
        >>> report.ok, report.status, report.worst
        (True, 'right', None)
    """

    kind: ClassVar[str] = "check"
    version: ClassVar[int] = 2
    derived: ClassVar[tuple[str, ...]] = ("status", "failed", "undecided", "diagnosis", "grade")

    function: str
    laws: tuple[Law, ...]
    leaves: tuple[Leaf, ...]
    unchecked: tuple[Unchecked, ...] = ()
    worst: Entry | None = None
    findings: tuple[Finding, ...] = ()
    fixes: tuple[Fix, ...] = ()
    oracle: str = ""
    evidence: dict[str, Evidence] = field(default_factory=dict)
    digits: dict[str, Digits] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    resolution: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seed: int = 0
    dtypes: tuple[str, ...] = ()
    call: str = ""
    maps: dict[str, ErrorMap] = field(default_factory=dict, repr=False)

    @property
    def status(self) -> Status:
        """The verdict: wrong, loses digits, undecided, right (but loses digits), or right."""
        return report_status(self.laws, self.leaves, self.rules)

    @property
    def ok(self) -> bool:
        """Whether the gradient is right, though it may lose digits that autodiff loses too."""
        return self.status in ("right", "right, loses digits")

    @property
    def failed(self) -> tuple[Law, ...]:
        """The laws that failed."""
        return tuple(law for law in self.laws if law.status == "failed")

    @property
    def undecided(self) -> tuple[str, ...]:
        """The inputs whose gradient could not be judged."""
        return tuple(leaf.path for leaf in self.leaves if leaf.status == "undecided")

    @property
    def diagnosis(self) -> str:
        """The cause in words: the first fix's explanation, or else what the findings say."""
        if self.fixes:
            return self.fixes[0].explanation
        return "; ".join(dict.fromkeys(finding.text for finding in self.findings))

    @property
    def grade(self) -> Grade | None:
        """The weakest grade of evidence among the inputs; None if one has none."""
        found = [self.evidence.get(leaf.path, Evidence()).grade for leaf in self.leaves]
        return weakest(found)


@dataclass(frozen=True)
class AuditedRule(Rule):
    """One custom rule that was met, where it was met, and what checking it there found.

    Attributes:
        name: the function that the rule belongs to.
        kind: custom_vjp, custom_jvp, linear_call, ...
        defined: the line that defines it.
        source: the line that calls it.
        inside: the loops, branches, checkpoints and rules around it, outermost first; a `jit` or a
            `vmap` changes no gradient and leaves no place.
        calls: at how many points it was met.
        inputs_tried: at how many inputs it was judged.
        intended: what the rule is meant to be, where that was said; else empty.
        parts: the verdict on each of its parts.
        report: what checking it at these points found.
    """

    derived: ClassVar[tuple[str, ...]] = ("status", "fixes", "evidence", "grade", "digits")

    report: CheckReport = field(kw_only=True)

    @property
    def status(self) -> Status:
        """The verdict on this rule."""
        return report_status(self.report.laws, self.report.leaves, (self, *self.report.rules))

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """Edits of the source that make the rule right."""
        return self.report.fixes

    @property
    def evidence(self) -> dict[str, Evidence]:
        """For each input, how far its verdict reaches."""
        return self.report.evidence

    @property
    def grade(self) -> Grade | None:
        """The weakest grade of evidence among the inputs."""
        return self.report.grade

    @property
    def digits(self) -> dict[str, Digits]:
        """For each input, how many correct digits its gradient has."""
        return self.report.digits


@dataclass(frozen=True)
class AuditReport(Report):
    """What `gradlab.audit` found: every custom rule met, innermost first.

    Attributes:
        function: the name of the function that was audited.
        rules: each rule with its `name`, where it is met, and its own `CheckReport`.
        notes: what could not be looked at.
        seed: repeats the audit.

    Example:
        >>> import gradlab, jax, jax.numpy as jnp
        >>> print(gradlab.audit(lambda x: jax.nn.relu(x).sum(), jnp.array([-1.0, 2.0])).ok)
        True
    """

    kind: ClassVar[str] = "audit"
    version: ClassVar[int] = 2
    derived: ClassVar[tuple[str, ...]] = ("grade",)

    function: str
    rules: tuple[AuditedRule, ...]
    notes: tuple[str, ...] = ()
    seed: int = 0

    @property
    def ok(self) -> bool:
        """Every rule that something differentiates holds."""
        differentiated = (rule for rule in self.rules if rule.calls)
        return all(rule.status in ("right", "right, loses digits") for rule in differentiated)

    @property
    def grade(self) -> Grade | None:
        """The weakest grade of evidence among the rules; None if one has none."""
        return weakest([rule.grade for rule in self.rules])
