"""How a failure looks: the line of source, the numbers, the edit that mends it, the command."""

import cmath
import contextlib
import linecache
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from gradlab.formatting import count, scientific
from gradlab.reporting._table import width_now

if TYPE_CHECKING:
    from gradlab.checking.report import CheckReport
    from gradlab.report import Entry, Fix, Leaf, Rule

_TOLD = re.compile(r"(?:^|; )((?:[^`:;]|`[^`]*`)+): `([^`]*)` should be `[^`]*`")
_WHOLE = re.compile(r"\[[^\]]*\]|\([^()]*seed \d+\)")  # an index; how it was checked
_LINES, _DIFF = 24, 14
_LEAVES = 8
_LEAST_FLOAT32 = 1e-8  # no rounding of float32 or narrower is as small
_NUMBERS = ("formula", "accuracy")
_WITNESSES = ("adjoint", "finite differences", "pushforward", "linear", "used")  # say it again
_command: ContextVar[str] = ContextVar("gradlab_command", default="")


@contextlib.contextmanager
def repeated_by(command: str) -> Iterator[None]:
    """Say inside that this command repeats what a report tells."""
    token = _command.set(command)
    try:
        yield
    finally:
        _command.reset(token)


class _Block(NamedTuple):
    """Lines that stand together; where a text is too long, the highest rank goes first.

    A rank of 0 or less never goes. `leaf` is the status of the input that is told.
    """

    rank: int
    lines: list[str]
    leaf: str = ""


_WORST, _WRONG, _RIGHT = -1, 5, 8  # ranks of what is said of an input


def failure(report: "CheckReport", headline: str) -> str:
    """Return the text of a gradient that is wrong, under its headline: at most 24 lines.

    What is to be changed stands there whole; what is told of it goes first.
    """
    fix = report.fixes[0] if report.fixes else None
    code, where = place(report, fix)
    headline = re.sub(r"(?= \([^()]*\)$)", how_many(report, fix), headline)
    head = wrapped(" ".join(filter(None, (code, where))) + "  ", headline, 2)
    blocks = [_Block(0, [*head, ""])]
    blocks += [_Block(0, [*_source(fix), ""])] if fix is not None else []
    most = 3 if fix is not None else _LEAVES
    blocks += _told(report, most)
    blocks += [_Block(4, wrapped("  ", text, 4)) for text in part_lines(report.rules)]
    blocks += [_Block(0, ["", *_diff(fix)])] if fix is not None else []
    blocks += _end(report, fix, code)
    made = any(law.name == "branches" for law in report.failed)  # then the first note says where
    for k, note in enumerate(report.notes):
        blocks.append(_Block(3 if made and not k else 9, wrapped("  note    ", note, 10)))
    return "\n".join(_fitted(blocks, [leaf.status for leaf in _in_order(report)[most:]]))


def _fitted(blocks: list[_Block], untold: Sequence[str]) -> list[str]:
    """Return the lines that there is room for; inputs with these statuses have no block."""
    kept, unsaid = list(blocks), list(untold)
    while sum(len(block.lines) for block in kept) + bool(unsaid) > _LINES:
        k = max(range(len(kept)), key=lambda k: (kept[k].rank, k))
        if kept[k].rank <= 0:
            break
        unsaid += filter(None, [kept.pop(k).leaf])
    lines = [(bool(block.leaf), line) for block in kept for line in block.lines]
    last = max((k for k, (of_leaf, _) in enumerate(lines) if of_leaf), default=0)
    lines[last + 1 : last + 1] = [(True, line) for line in _more(unsaid)]
    return [line for _, line in lines]


def _more(statuses: Sequence[str]) -> list[str]:
    """Return a line that counts the inputs that have none, by what their gradients are."""
    counted = Counter(status.partition(",")[0] for status in statuses).most_common()
    each = ", ".join(f"{number} {status}" for status, number in counted)
    if len(counted) == 1:
        each = f"{'all ' * (len(statuses) > 1)}{counted[0][0]}"
    see = "run with -v to see all" if _by_command() else "report.leaves has all"
    return [f"  {count(len(statuses), 'more input')} ({each}): {see}"] * bool(statuses)


def _diff(fix: "Fix") -> list[str]:
    lines = fix.diff.splitlines()
    if len(lines) > _DIFF:
        whole = "--patch FILE writes all" if _by_command() else "print(report.fixes[0].diff)"
        lines = [*lines[: _DIFF - 1], f"... {len(lines) - _DIFF + 1} more lines: {whole}"]
    return [f"  {'' if i else 'fix':<10}{line}" for i, line in enumerate(lines)]


def part_lines(rules: "Sequence[Rule]") -> list[str]:
    """Return a line for each part of a rule beyond its gradient, under the rule's name."""
    words = {"wrong": "WRONG: ", "right": "right"}
    lines = []
    for rule in rules:
        lines += [f"{rule.name} ({rule.kind}) at {rule.defined}"] if rule.parts else []
        for part in rule.parts:
            status = words.get(part.status, f"{part.status}: ")
            lines.append(f"  {part.part:<21}{status}{part.reason}")
    return lines


def place(report: "CheckReport", fix: "Fix | None") -> tuple[str, str]:
    """Return the code of the mistake, and the line of it."""
    if fix is not None:
        return fix.kind, f"{os.path.basename(fix.file)}:{fix.line}"
    found = [f for f in report.findings if f.code]
    if found:
        return found[0].code, found[0].line
    wrong = (part.part for rule in report.rules for part in rule.parts if part.status == "wrong")
    codes = {"implementation": "GL412", "batching": "GL413"}
    code = codes.get(next(wrong, ""), "GL900")
    return code, next((f.line for f in report.findings if f.line), "")


class Mistake(NamedTuple):
    """A line that is wrong, which part of it changes, and what is wrong there."""

    line: int
    text: str
    start: int
    end: int
    said: str


def mistakes(fix: "Fix") -> list[Mistake]:
    """Return each line that a fix changes; what is said of a statement stands at its first one."""
    told = _TOLD.findall(fix.explanation) or [(fix.explanation, "")]
    found: list[Mistake] = []
    for line, wrong, right in _changed(fix.diff):
        mine = [k for k, (_, before) in enumerate(told) if _squeezed(before) in _squeezed(wrong)]
        k = next(iter(mine), 0)
        said = told.pop(k)[0] if told else ""
        span = _span(wrong, right)
        if not wrong:  # a line is put in after this one, which is shown
            wrong = linecache.getline(os.path.abspath(fix.file), line).rstrip()
            span = len(wrong) - len(wrong.lstrip()), len(wrong) or 1
        found.append(Mistake(line, wrong, *span, said))
    rest = "".join(f", and {said}" for said, _ in told)
    return [found[0]._replace(said=found[0].said + rest), *found[1:]] if found else []


def _changed(diff: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line that a diff changes, the line, and what it becomes."""
    for hunk in re.split("(?m)^@@ -", diff)[1:]:
        head, *lines = hunk.splitlines()
        wrong, right = ([x[1:] for x in lines if x[:1] == sign] for sign in "-+")
        first = int(re.split("[, ]", head)[0])
        pairs = zip(wrong or [""], [*right, *[""] * len(wrong)])
        yield from ((first + k, x, y) for k, (x, y) in enumerate(pairs) if x != y)


def _squeezed(text: str) -> str:
    return re.sub(r"\s|\.\.\.", "", text)


def how_many(report: "CheckReport", fix: "Fix | None") -> str:
    """Return the number of edits that mend a gradient, where there are several.

    They may undo one mistake.
    """
    if fix is None or fix.edits < 2:
        return ""
    return f": {fix.edits} edits mend {'them' if _several(report) else 'it'}"


def no_fix(report: "CheckReport") -> str:
    """Return that no edit was found."""
    what = "all these gradients" if _several(report) else "this gradient"
    return f"gradlab found no edit of one or two places that makes {what} right"


def _several(report: "CheckReport") -> bool:
    return sum(leaf.status == "wrong" for leaf in report.leaves) > 1


def _source(fix: "Fix") -> list[str]:
    """Return the lines that are wrong, with a mark below what changes."""
    lines = []
    for each in mistakes(fix):
        mark = f"     | {' ' * each.start}{'^' * (each.end - each.start)} "
        room = width_now() - len(mark)
        short = len(each.said) <= room
        lines.append(f"{each.line:>4} | {each.text}")
        lines += [mark + each.said] if short else [mark.rstrip(), f"     | {each.said}"]
    return [line.rstrip() for line in lines]


def _span(wrong: str, right: str) -> tuple[int, int]:
    """Return which part of a line an edit changes, in whole words."""
    start = _shared(wrong, right)
    tail = _shared(wrong[start:][::-1], right[start:][::-1])
    end = max(len(wrong) - tail, start + 1)
    words = [(m.start(), m.end()) for m in re.finditer(r"\w+", wrong)]
    start = min([start, *(a for a, b in words if a <= start < b)])
    return start, max([end, *(b for a, b in words if a < end <= b)])


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    pairs = enumerate(zip(one, other))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def wrong_lines(report: "CheckReport") -> list[str]:
    """Return what each input's gradient is, the worst entry with its numbers, and the cause."""
    lines = [line for block in _told(report, _LEAVES) for line in block.lines]
    return [*lines, *_more([leaf.status for leaf in _in_order(report)[_LEAVES:]])]


def _in_order(report: "CheckReport") -> "list[Leaf]":
    """Return the inputs, those that are not right first, and of these the worst."""
    worst = report.worst.path if report.worst is not None else ""
    order = {
        leaf.path: (leaf.status.startswith("right"), leaf.path != worst) for leaf in report.leaves
    }
    return sorted(report.leaves, key=lambda leaf: order[leaf.path])


def _told(report: "CheckReport", most: int) -> Iterator[_Block]:
    worst = report.worst.path if report.worst is not None else ""
    leaves = _in_order(report)
    column = max((len(leaf.path) for leaf in leaves[:_LEAVES]), default=1) + 2
    column = max(8, min(column, 24))
    for leaf in leaves[:most]:
        lines = wrapped(f"  {leaf.path:<{column}}", _leaf_text(leaf, report.worst), column + 2)
        if leaf.path == worst:
            lines += wrapped(" " * (column + 2), _off(report), column + 2)
        right = leaf.status.startswith("right")
        rank = _WORST if leaf.path == worst else _RIGHT if right else _WRONG
        yield _Block(rank, lines, leaf.status)
    seen = any(leaf.status == "wrong" for leaf in leaves)
    said = (*_NUMBERS, *(_WITNESSES if seen else ()))
    laws = [law for law in report.failed if law.name not in said]
    for law in sorted(laws, key=lambda law: law.name != "branches")[:3]:
        rank = 0 if law.name == "branches" else 6
        yield _Block(rank, wrapped(f"  {law.name:<{column}}  ", law.reason, column + 4))
    for finding in report.findings[:4]:
        yield _Block(4, wrapped(f"  {'cause':<{column}}", finding.text, column + 2))


def _leaf_text(leaf: "Leaf", worst: "Entry | None") -> str:
    total = leaf.right + leaf.wrong + leaf.inconclusive
    if leaf.status == "wrong":
        said = f"{leaf.wrong:,} of {count(total, 'entry', 'entries')} {_are(leaf.wrong)} wrong"
        if worst is not None and worst.path == leaf.path:
            index = f"[{', '.join(map(str, worst.index))}]" if worst.index else ""
            said += f". Worst: {worst.path}{index} is {worst.actual:.7g}, expected "
            said += f"{worst.expected:.7g}"
        return said
    if leaf.status == "undecided":
        return f"{leaf.inconclusive:,} of {count(total, 'entry', 'entries')} could not be judged"
    return f"{leaf.right:,} of {count(total, 'entry', 'entries')} {_are(leaf.right)} right"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _off(report: "CheckReport") -> str:
    entry = report.worst
    assert entry is not None
    if not cmath.isfinite(entry.actual) or not cmath.isfinite(entry.expected):
        return "no relative error: a number is not finite"
    if entry.expected == 0:
        return f"off by {abs(entry.actual):.2g}, where 0 is expected"
    return f"off by a relative {entry.relative:.2g}; rounding explains {rounding(report, entry)}"


def rounding(report: "CheckReport", entry: "Entry") -> str:
    """Return the relative error that rounding explains, and where gradlab ran a wider dtype."""
    wider = "float64" not in report.dtypes and entry.explained < _LEAST_FLOAT32
    return f"{scientific(entry.explained, 1)}{' in float64' * wider}"


def _end(report: "CheckReport", fix: "Fix | None", code: str) -> Iterator[_Block]:
    if fix is not None:
        yield _Block(1, wrapped("  verified  ", verified(fix), 12))
    elif any(leaf.status == "wrong" for leaf in report.leaves) or not report.findings:
        told = any(finding.kind != "line" for finding in report.findings)
        yield _Block(3 if told else 0, wrapped("  fix     ", no_fix(report), 10))
    yield _Block(0, [""])
    yield _Block(2, wrapped("  oracle  ", report.oracle, 10))
    yield _Block(0, wrapped("  repeat  ", repeat(report.call), 10))
    if fix is not None and _by_command():
        patch = "repeat with --patch fix.diff, then run: patch -p1 < fix.diff"
        yield _Block(7, wrapped("  apply   ", patch, 10))
    yield _Block(0, [f"  more    gradlab explain {code}"])


def _by_command() -> bool:
    """Whether the command line asked, and not Python."""
    return _command.get().startswith("gradlab")


def verified(fix: "Fix") -> str:
    """Return the number of inputs at which an edit makes every gradient right."""
    shapes = Counter(re.sub(r",? seed \d+", "", where) for where in fix.verified_at)
    first, *others = shapes.values()
    places = [count(first, "new input")]
    places += [f"{count(sum(others), 'input')} of other sizes"] * bool(others)
    reaches = f"; {fix.reaches}" if fix.reaches else ""
    return f"with this edit, every gradient is right at {' and at '.join(places)}{reaches}"


def repeat(call: str) -> str:
    """Return the command that repeats what a report tells, else the call."""
    return _command.get() or call


def wrapped(head: str, body: str, hang: int | None = None) -> list[str]:
    """Return `head + body` in lines as wide as the terminal, the later ones indented.

    Words, numbers, paths and indices stay whole, be the line too long for it.
    """
    lines = textwrap.wrap(
        _WHOLE.sub(lambda whole: whole[0].replace(" ", "\0"), body),
        max(width_now(), (hang or 0) + 24),
        initial_indent=head,
        subsequent_indent=" " * (len(head) if hang is None else hang),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in lines] or [head.rstrip()]
