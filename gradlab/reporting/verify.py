"""The table of the nodes: how far each is from JAX, in floors, and how its Jacobian is stored."""

from typing import TYPE_CHECKING

from gradlab.formatting import count, size_text
from gradlab.reporting._junit import Case, junit_document
from gradlab.reporting._markup import Markup, head, join, section, tag, top
from gradlab.reporting._markup import table as columns
from gradlab.reporting._table import is_detailed, table

if TYPE_CHECKING:
    from gradlab.checking.node_laws import Finding
    from gradlab.checking.verify import NodeResult, VerifyReport

HEADERS = (
    *("node", "cases", "forward", "local", "backward", "structure", "stored", "dense", "verdict"),
)


def text(report: "VerifyReport") -> str:
    """Return what is wrong, then one line that sums it up; the table of all nodes with `-v`."""
    wrong = [node for node in report.nodes if not node.ok]
    parts = [table(HEADERS, [row(node) for node in report.nodes]), _LEGEND] if is_detailed() else []
    parts += [_findings(node) for node in wrong]
    return "\n\n".join([*parts, _summary(report, wrong)])


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
        ("right" if node.ok else "WRONG") + f", {node.grade}" * bool(node.evidence and node.grade),
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


_LEGEND = (
    "Errors are in floors: 1 floor is the error that rounding explains at this entry.\n"
    "An = after a structure says that gradlab proved the same structure from JAX's program."
)


def _verdict(report: "VerifyReport", wrong: list["NodeResult"]) -> str:
    number, total = len(report.nodes) - len(wrong), count(len(report.nodes), "node")
    are = "is" if len(report.nodes) == 1 else "are"
    if wrong:
        return f"{len(wrong)} of {total} {'is' if len(wrong) == 1 else 'are'} WRONG"
    return f"{number} of {total} {are} right"


def _summary(report: "VerifyReport", wrong: list["NodeResult"]) -> str:
    dtypes = ", ".join(dict.fromkeys(d for node in report.nodes for d in node.dtypes))
    took = f"{sum(node.seconds for node in report.nodes):.0f} s of CPU"
    how = f"({dtypes}, seed {report.seed}, {took}); compared with jax.grad and jax.jacfwd"
    graded = [node for node in report.nodes if node.evidence]
    proved = sum(node.grade == "proved" for node in graded)
    rest = len(graded) - proved
    evidence = f"\nevidence  {proved} proved as formulas, {rest} points" if graded else ""
    return f"verify  {_verdict(report, wrong)} {how}{evidence}"


def html(report: "VerifyReport") -> Markup:
    """Return the body of the page: one row for each node, wrong ones first and opened."""
    wrong = [node for node in report.nodes if not node.ok]
    word, tone = ("WRONG", "bad") if wrong else ("right", "good")
    nodes = sorted(report.nodes, key=lambda node: node.ok)
    rows = [
        (*row(node)[:-1], tag("b", row(node)[-1], cls="good" if node.ok else "bad"))
        for node in nodes
    ]
    return join(
        top("verify", count(len(nodes), "node"), f"seed {report.seed}"),
        head(word, tone, _verdict(report, wrong), " ".join(_LEGEND.split())),
        section("What is wrong", *(tag("pre", _findings(node)) for node in wrong)),
        section("Nodes", columns(HEADERS, rows, HEADERS[1:5])),
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
