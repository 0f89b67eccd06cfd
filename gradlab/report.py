"""What all reports share: a truth value, plain data, and a way to be shown.

A report is a frozen dataclass of plain data. How it looks is the business of `gradlab.reporting`,
which lies above the rooms that make reports; a report finds it when it is printed, not before.
"""

import dataclasses
import importlib
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, cast

__all__ = ["Report", "plain"]


class Report(ABC):
    """The base of every report: `kind` names it, `ok` says whether all held."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    @abstractmethod
    def ok(self) -> bool:
        """Whether everything that was asked holds; each report says what that means for it."""

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self.render("text")

    def _repr_html_(self) -> str:
        return self.render("html")

    def render(self, format: str) -> str:
        """Return this report in a format that `gradlab.reporting` knows: text, json, html, ..."""
        text: str = importlib.import_module("gradlab.reporting").render(self, format)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return this report as JSON-plain data; `schema` names the kind and its version."""
        declared = dataclasses.fields(cast(Any, self))  # of the kind of report, a dataclass
        fields = {f.name: plain(getattr(self, f.name)) for f in declared}
        return {"schema": f"gradlab.{self.kind}/{self.version}", "ok": self.ok, **fields}


def plain(value: Any) -> Any:
    """Return `value` as JSON-plain data: dicts, lists, strings, numbers, booleans, None.

    Floats that JSON has no word for become the strings "nan", "inf" and "-inf".

    Example:
        >>> plain({"error": float("inf"), "index": (3, 1)})
        {'error': 'inf', 'index': [3, 1]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k if isinstance(k, str) else str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, JAX arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
