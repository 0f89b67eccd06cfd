"""How a check looks: one glance for a person, one suite for a machine."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gradlab.formatting import count, listed, scientific
from gradlab.reporting._check_page import html as check_page
from gradlab.reporting._failure import failure, part_lines, wrapped, wrong_lines
from gradlab.reporting._junit import Case, Outcome, junit_document
from gradlab.reporting._markup import Markup
from gradlab.reporting._table import is_detailed, width_now

if TYPE_CHECKING:
    from gradlab.checking.report import CheckReport
    from gradlab.report import Digits, Evidence, Law

_MARKS = {"passed": "ok", "warned": "warn", "failed": "FAIL", "skipped": "-", "inconclusive": "?"}
_OUTCOMES: dict[str, Outcome] = {
    "passed": "passed",
    "warned": "passed",
    "failed": "failed",
    "skipped": "skipped",
    "inconclusive": "skipped",
}
_MOST_UNCHECKED = 8  # lines
_NARROW = 24  # columns that are too few for a column of text


def text(report: "CheckReport") -> str:
    """Return the report as a person reads it: a failure with its fix, or how far a pass reaches."""
    if report.status == "wrong":
        lines = [failure(report, headline(report))]
    else:
        lines = [*wrapped("", headline(report), hang=2)]
        lines += [line for name, said in _told(report) for line in wrapped(f"{name:<10}", said)]
    return "\n".join([*lines, *(["", *law_lines(report.laws)] if is_detailed() else [])])


def _told(report: "CheckReport") -> Iterator[tuple[str, str]]:
    """Yield what is said of a gradient that is not wrong, each with a word before it."""
    for leaf in report.leaves:
        if leaf.status == "undecided":
            total = leaf.right + leaf.wrong + leaf.inconclusive
            for why in leaf.reasons[:3]:
                some = (
                    f"{'all' if why.entries == total else f'{why.entries:,} of'} {total:,} entries"
                )
                yield "reason", f"{some} of the gradient of {leaf.path}: {why.sentence}"
    for path, digits in report.digits.items():
        yield from _lost(report, path, digits)
    if not report.ok:
        for cause in (*report.fixes[:1], *report.findings):
            yield "cause", getattr(cause, "explanation", "") or getattr(cause, "text", "")
        for law in report.laws:
            if law.status == "inconclusive" and law.name not in ("formula", "accuracy"):
                yield "reason", f"{_name(law)}: {law.reason}"
    if report.fixes:
        for k, line in enumerate(report.fixes[0].diff.splitlines()):
            yield "" if k else "fix", line
    elif report.status.endswith("loses digits"):
        yield "next", "write the formula so that nothing cancels or overflows, or use a wider dtype"
    if report.status == "undecided":
        stuck = any(law.name == "form" and law.status == "inconclusive" for law in report.laws)
        stuck |= any(part.status == "cannot run" for rule in report.rules for part in rule.parts)
        yield (
            "next",
            "fix the error that is raised, then check again"
            if stuck
            else "check in a wider dtype (dtypes=), at other inputs (domain=), or with reference=",
        )
    alike: dict[tuple[object, ...], list[str]] = {}
    for path, each in report.evidence.items():
        if each.grade is not None:
            alike.setdefault((each.grade, each.where, each.unreached), []).append(path)
    for paths in alike.values():
        weakest = max((report.evidence[path] for path in paths), key=lambda e: e.bound or 0.0)
        names = "" if len(alike) == 1 else f"{listed(paths)}: "
        yield "evidence", names + reached(weakest)
    seen: dict[str, list[str]] = {}
    for path, finest in report.resolution.items():
        if 0 < finest < 1:
            seen.setdefault(scientific(finest), []).append(path)
    if seen:
        parts = [f"of {size} or more in {listed(paths)}" for size, paths in seen.items()]
        yield "finds", f"relative errors {', and '.join(parts)}"
    for leaf in report.leaves:
        if leaf.inconclusive and leaf.status != "undecided":
            done = leaf.right + leaf.wrong
            entries = count(done + leaf.inconclusive, "entry", "entries")
            yield "judged", f"{done:,} of {entries} of {leaf.path}; report.leaves has the reasons"
    for law in report.laws:
        if law.status == "warned":
            yield "warning", f"{_name(law)}: {law.reason}"
    unchecked = [each.reason for each in report.unchecked[:_MOST_UNCHECKED]]
    more = len(report.unchecked) - len(unchecked)
    yield from (("unchecked", line) for line in unchecked)
    if more:
        yield "unchecked", f"{count(more, 'more input')} not checked"
    for rule in report.rules:
        for line in part_lines((rule,))[1:]:
            yield rule.name[:9], line.strip()
    usual = report.oracle.startswith("autodiff") and not report.oracle.endswith("NumPy")
    if is_detailed() or not report.ok or not usual:
        yield "oracle", report.oracle
    yield from (("note", note) for note in report.notes)


def _lost(report: "CheckReport", path: str, digits: "Digits") -> Iterator[tuple[str, str]]:
    """Yield where digits are lost, and whether autodiff loses them too."""
    if not digits.lost:
        return
    index = f"[{', '.join(map(str, digits.at))}]" if digits.at else ""
    yield "reason", f"{digits.least:.1f} of {digits.full:.1f} digits are left at {path}{index}"
    if digits.autodiff_least is not None:
        said = f"autodiff has {digits.autodiff_least:.1f} digits there"
        if digits.autodiff_least < digits.least + 1:
            said += " too"
            if report.ok:
                said += ", so this is a warning"
            elif digits.avoidable:
                said += ", but this gradient is not finite where the right one is"
        yield "compare", said


def reached(evidence: "Evidence") -> str:
    """Return how far a right gradient's verdict reaches, in a sentence or two."""
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
        words += (
            "; a wrong rule would be called right with probability "
            f"{scientific(evidence.bound)} at most"
        )
    if evidence.grade != "proved" and evidence.unreached:
        words += f"; no input was found where {', or where '.join(evidence.unreached[:2])}"
    return words


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
        return f"undecided for {names}" if paths else "undecided: a rule inside cannot run"
    if status == "loses digits":
        return f"right formula, but {_loss(report, status)}"
    if status == "right, loses digits":
        return f"right, but {_loss(report, status)} (unavoidable here)"
    meant = report.oracle.endswith("intended") or any(rule.intended for rule in report.rules)
    if not paths:
        return "not judged: intended"
    return f"right for {names}{', as intended' if meant else ''}"


def _cause(report: "CheckReport") -> str:
    """Return why a gradient without a wrong entry is wrong: what was found, or what failed."""
    found = [finding.text for finding in report.findings] + [law.reason for law in report.failed]
    parts = [
        f"the {part.part} of {rule.name}: {part.reason}"
        for rule in report.rules
        for part in rule.parts
        if part.status == "wrong"
    ]
    return (found + parts)[0]


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


def law_lines(laws: Sequence["Law"], margin: str = "  ") -> list[str]:
    """Return each law with what it says, in three columns."""
    width = max((len(_name(law)) for law in laws), default=0)
    return [line for law in laws for line in _law_lines(law, width, margin)]


def _law_lines(law: "Law", width: int, margin: str) -> list[str]:
    floors = f"{law.error:.2g}" if law.error is not None else ""
    error = f"{floors} floor{'s' * (floors != '1')}" if floors and law.status == "passed" else ""
    detail = "; ".join(filter(None, (error, law.reason)))
    mark = f"{margin}{_MARKS[law.status]:<4}  "
    head = f"{mark}{_name(law):<{width}}  "
    return wrapped(head, detail, len(head) if len(head) + _NARROW <= width_now() else len(mark) + 2)


def _name(law: "Law") -> str:
    return f"{law.name} [{law.dtype}]" if law.dtype else law.name


def html(report: "CheckReport") -> Markup:
    """Return the body of the check's page."""
    rows = () if report.status == "wrong" else _told(report)  # a failure has its own words
    told = [said for name, said in rows if name in ("reason", "compare", "next", "evidence")]
    return check_page(report, verdict(report), told)


def junit(report: "CheckReport") -> str:
    """Return the report as a JUnit suite with one case per law."""
    return junit_document((f"gradlab check {report.function}", cases(report)))


def cases(report: "CheckReport") -> list[Case]:
    """Return one JUnit case per law, and one that says whether all inputs were decided."""
    found = []
    for law in report.laws:
        reason = law.reason
        if law.status == "failed":
            told = [line.strip() for line in wrong_lines(report)]
            reason = "\n".join(filter(None, [reason, *told, report.diagnosis]))
        found.append(Case(report.function, _name(law), _OUTCOMES[law.status], reason))
    lost = report.status in ("loses digits", "undecided")
    reason = verdict(report) if lost else ""
    found.append(Case(report.function, "decided", "failed" if lost else "passed", reason))
    return found
