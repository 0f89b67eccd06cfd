"""How a check looks: one glance for a person, one suite for a machine."""

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradlab.formatting import count, shape_text
from gradlab.reporting._failure import NO_FIX, failure
from gradlab.reporting._junit import Case, Outcome, junit_document
from gradlab.reporting._table import columns, is_detailed

if TYPE_CHECKING:
    from gradlab.checking.report import CheckReport, Entry, Law
    from gradlab.report import Evidence

__all__ = [
    "cases",
    "headline",
    "junit",
    "law_lines",
    "listed",
    "reached",
    "text",
    "verdict",
    "what_is_wrong",
    "wrapped",
]

_MARKS = {"passed": "ok", "warned": "warn", "failed": "FAIL", "skipped": "-", "inconclusive": "?"}
_OUTCOMES: dict[str, Outcome] = {
    "passed": "passed",
    "warned": "passed",
    "failed": "failed",
    "skipped": "skipped",
    "inconclusive": "skipped",
}
_WIDTH = 72  # pytest puts a failure eight columns to the right: there it still fits into 80
_MOST_UNCHECKED = 8  # lines
_NARROW = 24  # columns that are too few for a column of text
_WHOLE = re.compile(r"\[[^\]]*\]|got \S+ expected \S+")  # an index, the two numbers


def text(report: "CheckReport") -> str:
    """Return the report as a person reads it: a failure with its fix, else verdict and laws."""
    if report.status == "wrong" and not is_detailed():
        return failure(report, headline(report), columns() or 100)
    if report.ok and not is_detailed():
        return _pass(report)
    lines = [*wrapped("", headline(report), hang=2), *what_is_wrong(report), ""]
    lines += [*law_lines(report.laws), ""]
    for line in (*_leaf_lines(report), *_unchecked_lines(report), f"oracle: {report.oracle}"):
        lines += wrapped("", line, hang=2)
    for note in report.notes:
        lines += wrapped("note: ", note)
    return "\n".join(lines)


def _pass(report: "CheckReport") -> str:
    """Return a right gradient's report: how far it reaches, and what would have been seen."""
    lines = wrapped("", headline(report), hang=2)
    alike: dict[tuple[object, ...], list[str]] = {}
    for path, each in report.evidence.items():
        alike.setdefault((each.grade, each.where, each.unreached), []).append(path)
    for paths in alike.values():
        weakest = max((report.evidence[path] for path in paths), key=lambda e: e.bound or 0.0)
        names = "" if len(alike) == 1 else f"{listed(paths)}: "
        lines += wrapped("evidence  ", names + reached(weakest))
    seen: dict[str, list[str]] = {}
    for path, finest in report.resolution.items():
        if finest < 1:
            seen.setdefault(f"{finest:.0e}", []).append(path)
    if seen:
        found = "; ".join(f"of {size} or more in {listed(paths)}" for size, paths in seen.items())
        lines += wrapped("finds     ", f"relative errors {found}")
    for law in report.laws:
        if law.status == "warned":
            lines += wrapped(f"warning   {_name(law)}: ", law.reason)
    for line in _unchecked_lines(report):
        lines += wrapped("unchecked ", line)
    lines += wrapped("oracle    ", report.oracle)
    for note in report.notes:
        lines += wrapped("note      ", note)
    return "\n".join(lines)


def reached(evidence: "Evidence") -> str:
    """Return how far a right gradient's verdict reaches, in a sentence or two.

    Example:
        >>> from gradlab.report import Evidence
        >>> reached(Evidence(grade="points", tried={"points": 1}))
        'right at the given inputs'
        >>> reached(Evidence(grade="proved", bound=2e-13)).partition(";")[0]
        'proved as a formula, for every input of this shape'
    """
    points = evidence.tried.get("points", 1)
    words = {
        None: "nothing was judged",
        "points": "right at the given inputs" if points < 2 else f"right at {points} inputs",
        "every branch": "right on each side of every condition",
        "every value": f"right at all {evidence.tried.get('values', 0):,} finite values",
        "proved": "proved as a formula, for every input of this shape",
    }[evidence.grade]
    if evidence.where:
        words = words.replace(", for every input of this shape", "")
        words += f" where {'; '.join(evidence.where[:2])}"
        words += f", and {len(evidence.where) - 2} more conditions" * (len(evidence.where) > 2)
    if evidence.bound is not None:
        words += f"; a wrong rule would pass with probability {evidence.bound:.0e} at most"
    if evidence.grade != "proved" and evidence.unreached:
        words += f"; no input reached {'; '.join(evidence.unreached[:2])}"
    return words


def wrapped(head: str, body: str, hang: int | None = None) -> list[str]:
    """Return `head + body` in lines for a terminal of 80 columns, the later ones indented.

    Words, numbers, paths and indices stay whole, be the line too long for it.

    Args:
        head: what stands before the text, to its column.
        body: the text.
        hang: the indentation of the later lines; by default they stand under the text.

    Example:
        >>> for line in wrapped("note: ", "the error at x[0, 17] is what rounding explains " * 2):
        ...     print(line)
        note: the error at x[0, 17] is what rounding explains the error at
              x[0, 17] is what rounding explains
    """
    lines = textwrap.wrap(
        _WHOLE.sub(lambda whole: whole[0].replace(" ", "\0"), body),
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * (len(head) if hang is None else hang),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines] or [head.rstrip()]


def headline(report: "CheckReport") -> str:
    """Return the verdict in one line."""
    return f"{report.function}: {verdict(report)} ({', '.join(report.dtypes)}, seed {report.seed})"


def verdict(report: "CheckReport") -> str:
    """Return the verdict in words: one of five, and the inputs that it is about."""
    status = report.status
    paths = [leaf.path for leaf in report.leaves if leaf.status == status]
    names = listed(paths)
    if status == "wrong":
        plural = "gradients" if len(paths) > 1 else "gradient"
        words = f"the {plural} of {names} {'are' if len(paths) > 1 else 'is'} WRONG"
        return words if paths else f"WRONG: {_cause(report)}"
    if status == "undecided":
        return f"undecided for {names}"
    if status == "loses digits":
        return f"right formula, but {_loss(report, status)}"
    if status == "right, loses digits":
        return f"right, but {_loss(report, status)} (unavoidable here)"
    return f"right for {names}"


def _cause(report: "CheckReport") -> str:
    """Return why a gradient without a wrong entry is wrong: what was found, or what failed."""
    found = [finding.text for finding in report.findings] + [law.reason for law in report.failed]
    return found[0] if found else "a part of its rule is wrong"


def _loss(report: "CheckReport", status: str) -> str:
    """Return where digits are lost, in the words that the first such input has for it."""
    leaves = [leaf for leaf in report.leaves if leaf.status == status]
    told = [
        reason.sentence
        for leaf in leaves
        for reason in leaf.reasons
        if reason.code == "digits lost"
    ]
    return told[0] if told else f"loses digits at {leaves[0].path}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: at most four, the rest counted.

    Example:
        >>> listed(["x"]), listed(["x", "w"]), listed(list("abcdef"))
        ('x', 'x and w', 'a, b, c, d and 2 more')
    """
    if len(names) > 4:
        return f"{', '.join(names[:4])} and {len(names) - 4:,} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def what_is_wrong(report: "CheckReport", margin: str = "  ") -> list[str]:
    """Return the worst entry and what explains it; nothing where all is right."""
    lines = []
    if report.worst is not None:
        lines += wrapped(f"{margin}worst entry  ", _entry_text(report.worst))
    causes = [report.fixes[0].explanation] if report.fixes else []
    causes += [finding.text for finding in report.findings]
    for cause in dict.fromkeys(causes or ([NO_FIX] if report.failed else [])):
        lines += wrapped(f"{margin}cause        ", cause)
    return lines


def _entry_text(entry: "Entry") -> str:
    index = f"[{', '.join(map(str, entry.index))}]" if entry.index else ""
    through = f", through {entry.output}" if entry.output else ""
    return (
        f"{entry.path}{index}: got {entry.actual:.9g}, expected {entry.expected:.9g} "
        f"({entry.error:.3g} times what rounding explains{through})"
    )


def law_lines(laws: Sequence["Law"], margin: str = "  ") -> list[str]:
    """Return each law with what it says, in three columns."""
    width = max((len(_name(law)) for law in laws), default=0)
    return [line for law in laws for line in _law_lines(law, width, margin)]


def _law_lines(law: "Law", width: int, margin: str) -> list[str]:
    error = f"{law.error:.2g} floors" if law.error is not None and law.status == "passed" else ""
    detail = "; ".join(filter(None, (error, law.reason)))
    mark = f"{margin}{_MARKS[law.status]:<4}  "
    head = f"{mark}{_name(law):<{width}}  "
    return wrapped(head, detail, len(head) if len(head) + _NARROW <= _WIDTH else len(mark) + 2)


def _name(law: "Law") -> str:
    return f"{law.name} [{law.dtype}]" if law.dtype else law.name


def _leaf_lines(report: "CheckReport") -> list[str]:
    lines = []
    for leaf in report.leaves:
        states = [(leaf.right, "right"), (leaf.wrong, "wrong"), (leaf.inconclusive, "undecided")]
        counts = ", ".join(f"{n:,} {state}" for n, state in states if n)
        seen = report.resolution.get(leaf.path, float("inf"))
        finest = f"; errors from {seen:.1g} on would be seen" if seen < 1 else ""
        size = count(leaf.right + leaf.wrong + leaf.inconclusive, "entry", "entries")
        kind = f"{shape_text(leaf.shape)} {leaf.dtype}"
        lines.append(f"{leaf.path} ({kind}): {size}: {counts or 'none'}{finest}")
    return lines


def _unchecked_lines(report: "CheckReport") -> list[str]:
    """Return a line for each input that was not checked; beyond a few, their number."""
    told = [each.reason for each in report.unchecked[:_MOST_UNCHECKED]]
    more = len(report.unchecked) - len(told)
    return [*told, f"{count(more, 'more input')} not checked"] if more else told


def junit(report: "CheckReport") -> str:
    """Return the report as a JUnit suite with one case per law."""
    return junit_document((f"gradlab check {report.function}", cases(report)))


def cases(report: "CheckReport") -> list[Case]:
    """Return one JUnit case per law, and one that says whether all inputs were decided."""
    found = []
    for law in report.laws:
        reason = law.reason
        if law.status == "failed":
            reason = "\n".join([reason, *(line.strip() for line in what_is_wrong(report))])
        found.append(Case(report.function, _name(law), _OUTCOMES[law.status], reason))
    lost = report.status in ("loses digits", "undecided")
    reason = verdict(report) if lost else ""
    found.append(Case(report.function, "decided", "failed" if lost else "passed", reason))
    return found
