"""Style for one picture alone: in a notebook, what a style says holds for the whole page."""

import re

__all__ = ["scoped"]

_RULE = re.compile(r"([^{}@]+)(?=\{[^{}]*\})")  # the selectors of a rule, inside `@media` too


def scoped(css: str, root: str) -> str:
    """Return style whose rules hold below an element of class `root`, and nowhere else.

    Example:
        >>> scoped("text,.ink{fill:#222}@media (width>9px){.ink{fill:#eee}}", "graph")
        '.graph text,.graph .ink{fill:#222}@media (width>9px){.graph .ink{fill:#eee}}'
    """
    return _RULE.sub(
        lambda found: ",".join(f".{root} {each.strip()}" for each in found[1].split(",")), css
    )
