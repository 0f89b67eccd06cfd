"""What the author of a rule means by it, where that is no derivative of its function."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from gradlab.arguments import name_of, nearest, require_callable
from gradlab.common.arrays import Function
from gradlab.errors import InputError, InputTypeError
from gradlab.tracing import CustomRule

Meaning: TypeAlias = Function | Literal["any"]


@dataclass(frozen=True)
class Intended:
    """What is meant by a whole function, or by rules inside it."""

    whole: Meaning | None = None  # what the function under check means
    # what rules inside mean: by the decorated function, its name, or `file.py:name`
    rules: Mapping[Any, Meaning] = field(default_factory=dict)
    met: set[Any] = field(default_factory=set)  # the keys for which a rule was found

    def meaning(self, rule: CustomRule) -> Meaning | None:
        """Return what a rule means; None where that was not said."""
        for key, meaning in self.rules.items():
            if _names(key, rule):
                self.met.add(id(key))
                return meaning
        return None

    @property
    def said(self) -> str:
        """What the whole function means, or that rules inside were declared."""
        return in_words(self.whole) or ("rules inside" if self.rules else "")

    def function(self, rule: CustomRule) -> Function | None:
        """Return the function that a rule means; None where that was not said, or is "any"."""
        meaning = self.meaning(rule)
        return None if isinstance(meaning, str) else meaning

    def require_met(self, rules: Iterable[CustomRule]) -> None:
        """Refuse a key that no rule has."""
        known = [f"{rule.name} at {rule.defined}" for rule in rules]
        for key in self.rules:
            if id(key) not in self.met:
                name = key if isinstance(key, str) else name_of(key)
                near = nearest(name, [each.partition(" ")[0] for each in known])
                listed = ", ".join(dict.fromkeys(known)) or "none"
                raise InputError(
                    f"intended: no rule that was met is {name!r}; the rules are {listed}"
                    + (f"; {near}" if near else "")
                )


def parse_intended(intended: Any, whole: bool) -> Intended:
    """Return what was said to be intended."""
    if intended is None:
        return Intended()
    if isinstance(intended, Mapping):
        for key, meaning in intended.items():
            if not isinstance(key, str):
                require_callable("intended", key)
            if not _is_any(meaning):
                require_callable("intended", meaning)
        return Intended(rules=dict(intended))
    if not whole:
        raise InputTypeError(
            "intended: expected a dict from rules to what they mean, got "
            f"{type(intended).__name__}; pass {{rule: lambda x: x}}"
        )
    if not _is_any(intended):
        require_callable("intended", intended)
    return Intended(whole=intended)


def _is_any(meaning: Any) -> bool:
    return isinstance(meaning, str) and meaning == "any"


def _names(key: Any, rule: CustomRule) -> bool:
    """Whether a key is a rule's decorated function, its name, or `file.py:name`."""
    file, _, line = rule.defined.rpartition(":")
    if isinstance(key, str):
        return key in (rule.name, f"{file}:{rule.name}", f"{rule.name} at {rule.defined}")
    function = key
    while not hasattr(function, "__code__"):
        inner = next((getattr(function, n) for n in _INSIDE if hasattr(function, n)), None)
        if inner is None or inner is function:
            return name_of(key) == rule.name
        function = inner
    code = function.__code__
    same_file = os.path.basename(code.co_filename) == file
    return bool(
        same_file
        and code.co_name == rule.name
        and (str(code.co_firstlineno) == line or rule.kind == "custom_gradient")
    ) or (same_file and code.co_name == rule.name and not line)


_INSIDE = ("__wrapped__", "fun", "fn", "func")


def in_words(meaning: Meaning | None) -> str:
    """Return what a rule means: a name, "any", or "" where nothing was said."""
    return meaning if isinstance(meaning, str) else name_of(meaning) if meaning else ""
