"""The table of the nodes: how far each is from JAX, in floors, and how its Jacobian is stored."""

from typing import TYPE_CHECKING

from gradlab.formatting import count, size_text
from gradlab.reporting._junit import Case, junit_document
from gradlab.reporting._table import table

if TYPE_CHECKING:
    from gradlab.checking.node_laws import Finding
    from gradlab.checking.verify import NodeResult, VerifyReport

__all__ = ["junit", "row", "text"]

HEADERS = ("node", "cases", "forward", "local", "backward", "structure", "stored", "dense", "")


def text(report: "VerifyReport") -> str:
    """Return the table, then what is wrong, then one line that sums it up."""
    wrong = [node for node in report.nodes if not node.ok]
    parts = [table(HEADERS, [row(node) for node in report.nodes])]
    parts += [_findings(node) for node in wrong]
    parts.append(_summary(report, wrong))
    return "\n\n".join(parts)


def row(node: "NodeResult") -> tuple[str, ...]:
    """Return one node's line of the table; errors are in floors."""
    return (
        node.name,
        str(node.cases),
        _floors(node.forward),
        _floors(node.local_gradient),
        _floors(node.backward),
        _structure(node),
        size_text(node.stored_bytes),
        size_text(node.dense_bytes),
        "ok" if node.ok else "WRONG",
    )


def _structure(node: "NodeResult") -> str:
    """Return how the local gradients are stored; `=` where the inspector proves just that."""
    names = ", ".join(dict.fromkeys(node.structure))
    return f"{names} =" if node.proved else names


def _floors(error: float) -> str:
    return f"{error:.1f}" if error < 1e4 else f"{error:.0e}"


def _findings(node: "NodeResult") -> str:
    lines = [f"{node.name} is wrong:", *(f"  {_finding(f)}" for f in node.findings)]
    if node.fixes:
        fix = node.fixes[0]
        lines += [f"  {fix.kind} {fix.explanation}", *(f"    {x}" for x in fix.diff.splitlines())]
    return "\n".join(lines)


def _finding(finding: "Finding") -> str:
    head = f"{finding.law} ({finding.where or 'any'}), {finding.case}"
    if finding.text:
        body = finding.text.rstrip().replace("\n", "\n      ")
        return f"{head}\n    {finding.subject} {body}".rstrip()
    index = f"[{', '.join(map(str, finding.index))}]" if finding.index else ""
    return (
        f"{head}\n    {finding.subject}{index}: {finding.actual:.17g}, "
        f"expected {finding.expected:.17g} (off by {_floors(finding.error)} floors)"
    )


def _summary(report: "VerifyReport", wrong: list["NodeResult"]) -> str:
    cases = sum(node.cases * len(node.dtypes) for node in report.nodes)
    dtypes = ", ".join(dict.fromkeys(d for node in report.nodes for d in node.dtypes))
    what = f"{count(len(report.nodes), 'node')} on {count(cases, 'case')} in {dtypes}"
    against = "against jax.grad and jax.jacfwd"
    verdict = f"{count(len(wrong), 'node')} WRONG" if wrong else "all right"
    graded = [node for node in report.nodes if node.evidence]
    proved = sum(node.grade == "proved" for node in graded)
    evidence = f"Evidence: {proved} proved as formulas, {len(graded) - proved} at points.\n"
    return (
        f"{what} {against}: {verdict} (seed {report.seed}).\n"
        f"{evidence if graded else ''}"
        "Errors are in floors: 1 is what rounding alone explains at that entry. Where = follows a "
        "structure,\nthe inspector proves exactly that pattern from JAX's own program."
    )


def junit(report: "VerifyReport") -> str:
    """Return the report as JUnit suites, one per family, with one case per node."""
    families = dict.fromkeys(node.family for node in report.nodes)
    return junit_document(
        *(
            (f"gradlab verify {family}", [_case(n) for n in report.nodes if n.family == family])
            for family in families
        )
    )


def _case(node: "NodeResult") -> Case:
    if not node.ok:
        return Case(node.family, node.name, "failed", _findings(node), node.seconds)
    worst = max(node.forward, node.local_gradient, node.backward)
    text = f"{count(node.cases, 'case')}, at most {_floors(worst)} floors off; {_structure(node)}"
    return Case(node.family, node.name, "passed", text, node.seconds)
