"""What reports are made of: plain frozen data, below every room that fills it in.

`Report` is the base of every report: a truth value, plain data, and a way to be shown. Below it
stand the parts that several rooms share: laws, leaves, entries, findings, fixes, evidence, digits
and rules. How a report looks is the business of `gradlab.reporting`, which lies above the rooms
that make reports; a report finds it when it is printed, not before.
"""

import dataclasses
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

LawStatus = Literal["passed", "warned", "failed", "skipped", "inconclusive"]
Status = Literal["wrong", "loses digits", "undecided", "right, loses digits", "right"]
STATUSES: tuple[Status, ...] = (
    "wrong",
    "loses digits",
    "undecided",
    "right, loses digits",
    "right",
)
"""Every verdict, the worst first; the first two fail, the last two are ok."""

PartStatus = Literal["right", "wrong", "undecided", "absent", "cannot run"]
Grade = Literal["points", "every branch", "every value", "proved"]

GRADES: tuple[Grade, ...] = ("points", "every branch", "every value", "proved")
"""How far a right verdict reaches, from the weakest on."""


class Report(ABC):
    """The base of every report: `kind` names it, `ok` says whether all held."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    derived: ClassVar[tuple[str, ...]] = ()
    hidden: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def ok(self) -> bool:
        """Whether everything that was asked holds; each report says what that means for it."""

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.render("text")

    def _repr_html_(self) -> str:
        text: str = importlib.import_module("gradlab.reporting").fragment(self.to_dict())
        return text

    def render(self, format: str) -> str:
        """Return this report in a format that `gradlab.reporting` knows: text, json, html, ..."""
        text: str = importlib.import_module("gradlab.reporting").render(self, format)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return this report as JSON-plain data; `schema` names the kind and its version."""
        return {"schema": f"gradlab.{self.kind}/{self.version}", "ok": self.ok, **_fields(self)}


def plain(value: Any) -> Any:
    """Return `value` as JSON-plain data: dicts, lists, strings, numbers, booleans, None.

    Floats that JSON has no word for become the strings "nan", "inf" and "-inf".

    Example:
        >>> plain({"error": float("inf"), "index": (3, 1)})
        {'error': 'inf', 'index': [3, 1]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):  # a named tuple
        return plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, JAX arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _fields(value: Any) -> dict[str, Any]:
    """Return a dataclass's fields, but for the `hidden`, and its properties named in `derived`."""
    hidden = getattr(value, "hidden", ())
    names = [f.name for f in dataclasses.fields(cast(Any, value)) if f.name not in hidden]
    return {name: plain(getattr(value, name)) for name in (*names, *getattr(value, "derived", ()))}


@dataclass(frozen=True)
class Law:
    """One property that a correct gradient has, and whether this one has it.

    Attributes:
        name: formula, accuracy, adjoint, finite differences, ...
        status: a law that judged nothing is inconclusive.
        reason: why; empty where there is nothing to say.
        error: in floors: the error that rounding alone explains is 1; None where none was measured.
        judged: how many entries it judged.
        dtype: the inputs' dtype, where several were checked.
    """

    name: str
    status: LawStatus
    reason: str = ""
    error: float | None = None
    dtype: str = ""
    judged: int = 0


class ReasonCount(NamedTuple):
    """What decided some entries of one gradient.

    Attributes:
        code: one or a few words that never change their meaning.
        sentence: the same in words.
        entries: how many entries it decided.
    """

    code: str
    sentence: str
    entries: int


@dataclass(frozen=True)
class Leaf:
    """The verdict on one input's gradient, and what decided its entries.

    Attributes:
        path: the input.
        shape: its shape.
        dtype: its dtype.
        right: how many entries are right.
        wrong: how many entries are wrong.
        inconclusive: how many entries could not be judged.
        status: the verdict on this input, in the words of the report's own.
        reasons: what decided the entries, most entries first.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    right: int
    wrong: int
    inconclusive: int
    status: Status
    reasons: tuple[ReasonCount, ...] = ()


@dataclass(frozen=True)
class Unchecked:
    """An input that was not checked.

    Attributes:
        path: the input.
        dtype: its dtype, or its Python type.
        reason: why it was not checked.
    """

    path: str
    dtype: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """One entry of a gradient: where it is, what came, what was expected.

    Attributes:
        path: the input.
        index: the entry.
        actual: what came.
        expected: what it should be.
        error: their difference in floors.
        law: the law that it breaks.
        output: the output entry that makes it wrong, where gradlab could locate it.
        relative: their difference as a share of what was expected; infinite where that is 0.
        explained: the largest relative difference that rounding explains.
    """

    path: str
    index: tuple[int, ...]
    actual: complex
    expected: complex
    error: float
    law: str
    output: str = ""
    relative: float = math.nan
    explained: float = math.nan


class Cell(NamedTuple):
    """The entry of a block of a gradient that is furthest off.

    Attributes:
        at: the index of the entry.
        actual: what came.
        expected: what it should be.
        relative: their difference as a share of what was expected; infinite where that is 0.
        state: the verdict on this entry.
    """

    at: tuple[int, ...]
    actual: complex
    expected: complex
    relative: float
    state: Literal["right", "wrong", "undecided"]


@dataclass(frozen=True)
class ErrorMap:
    """A gradient seen from far: its entries, or blocks of entries of one size.

    Attributes:
        rows: how many blocks stand one below the other, over all axes but the last.
        columns: how many blocks stand side by side, over the last axis.
        height: how many rows of entries a block has.
        width: how many columns of entries a block has.
        cells: the worst entry of each block, row by row.
    """

    rows: int
    columns: int
    height: int
    width: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Finding:
    """One cause of a wrong gradient, verified: applying it to the reference gives what came.

    Attributes:
        kind: scaled, transposed, detached, ...
        path: the input whose gradient it explains.
        text: the cause in words.
        code: the code that `gradlab explain` knows, such as GL101; empty where there is none.
        line: the line of source, such as `layers.py:19`; empty where it is not known.
    """

    kind: str
    path: str
    text: str
    code: str = ""
    line: str = ""


@dataclass(frozen=True)
class Fix:
    """An edit of the source that makes a wrong gradient right, tried before it is given.

    Attributes:
        diff: a unified diff; `patch -p1` applies it.
        file: the file that the diff changes.
        line: the first changed line, from 1.
        before: the changed lines as they are, without line ends.
        after: the lines as they should be.
        explanation: one sentence in the words of the source.
        kind: the code of the mistake that `gradlab explain` knows.
        edits: at how many places the source changes.
        verified_at: the points at which the edited gradient is right.
        evidence: "proved" where the edited rule is proved equal to the reference.
        reaches: a limit of the edit, such as "only for 4 columns"; empty where there is none.
    """

    diff: str
    file: str
    line: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    explanation: str
    kind: str
    edits: int
    verified_at: tuple[str, ...]
    evidence: Literal["observed", "proved"] = "observed"
    reaches: str = ""


@dataclass(frozen=True)
class Evidence:
    """How far a right verdict on one input's gradient reaches.

    Attributes:
        grade: the highest grade that was reached; None if the gradient is not right.
        also: the other grades that were reached.
        where: conditions under which the grade holds; empty where it holds everywhere.
        unreached: sides of conditions that no input reached.
        bound: for proved: the probability that a wrong formula passes; None otherwise.
        assumes: for proved: the assumptions of the proof.
        tried: how many points, branches and values were judged.
    """

    grade: Grade | None = None
    also: tuple[Grade, ...] = ()
    where: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    bound: float | None = None
    assumes: tuple[str, ...] = ()
    tried: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Digits:
    """How many correct decimal digits one input's gradient has, entry by entry.

    Attributes:
        least: the digits of the worst entry; NaN where none is known.
        median: the digits of the median entry; NaN where none is known.
        full: the digits that the dtype can hold.
        lost: how many entries have fewer than half a digit: an error of 32 % or more.
        avoidable: how many of these keep a digit more in autodiff of the reference, or are not
            finite where they should be.
        unknown: how many entries have a reference that is itself uncertain.
        total: how many entries there are.
        at: the index of the worst entry.
        autodiff_least: the digits that autodiff of the reference keeps at its worst entry, in the
            same dtype; None unless an entry is lost.
        dtype: the dtype that was judged.
    """

    least: float
    median: float
    full: float
    lost: int
    avoidable: int
    unknown: int
    total: int
    at: tuple[int, ...]
    autodiff_least: float | None
    dtype: str


@dataclass(frozen=True)
class RulePart:
    """One part of a derivative rule, such as its transpose, and the verdict on it.

    Attributes:
        part: the part: value, forward derivative, transpose, batching, ...
        status: a part that is not defined is absent.
        reason: why; empty where there is nothing to say.
        worst: the entry that is furthest off; None where none is wrong.
    """

    part: str
    status: PartStatus
    reason: str = ""
    worst: Entry | None = None


@dataclass(frozen=True)
class Rule:
    """One derivative rule that was met.

    Attributes:
        name: the function that the rule belongs to.
        kind: custom_vjp, custom_jvp, linear_call, ...
        defined: the line that defines it.
        source: the line that calls it.
        inside: the loops, branches, checkpoints and rules around it, outermost first.
        calls: at how many points it was met.
        inputs_tried: at how many inputs it was judged.
        intended: the intended derivative, where the caller named one; else empty.
        parts: the verdict on each of its parts.
    """

    name: str
    kind: str
    defined: str
    source: str
    inside: tuple[str, ...] = ()
    calls: int = 0
    inputs_tried: int = 0
    intended: str = ""
    parts: tuple[RulePart, ...] = ()


def leaf_status(
    right: int, wrong: int, total: int, digits: Digits | None = None, zeros: int = 0
) -> Status:
    """Return the verdict on one gradient from the counts of its entries.

    Args:
        right: entries that the formula law found right.
        wrong: entries that some law found wrong.
        total: all entries.
        digits: what is left of its digits; None where the rule was not run.
        zeros: entries whose right value is zero.

    Example:
        >>> leaf_status(2, 0, 3), leaf_status(0, 0, 3)
        ('right', 'undecided')
    """
    if wrong:
        return "wrong"
    if digits is not None and digits.avoidable:
        return "loses digits"
    if total and (not right or (digits is not None and 0 < digits.lost >= total - zeros)):
        return "undecided"
    return "right, loses digits" if digits is not None and digits.lost else "right"


def report_status(
    laws: Iterable[Law], leaves: Iterable[Leaf], rules: Iterable[Rule] = ()
) -> Status:
    """Return the verdict of a report: the worst of its laws, rules and leaves.

    Example:
        >>> report_status([Law("pure", "failed")], [])
        'wrong'
    """
    parts = [part.status for rule in rules for part in rule.parts]
    if any(law.status == "failed" for law in laws) or "wrong" in parts:
        return "wrong"
    seen = [leaf.status for leaf in leaves]
    seen += ["undecided"] if "cannot run" in parts else []
    return min(seen, key=STATUSES.index, default="right")


def weakest(grades: Sequence[Grade | None]) -> Grade | None:
    """Return the lowest of several grades; None if there is none, or one is missing."""
    known = [grade for grade in grades if grade is not None]
    return min(known, key=GRADES.index) if known and len(known) == len(grades) else None
