"""Style for one picture alone: in a notebook, what a style says holds for the whole page."""

import re

_RULE = re.compile(r"([^{}@]+)(?=\{[^{}]*\})")  # the selectors of a rule, inside `@media` too


def renamed(markup: str) -> str:
    """Return markup whose classes all begin with `gl-`, in elements and in styles.

    Example:
        >>> renamed('<style>.gradlab-graph .ink{fill:red}</style><b class="ink odd">x .ink</b>')
        '<style>.gradlab-graph .gl-ink{fill:red}</style><b class="gl-ink gl-odd">x .ink</b>'
    """

    def named(found: re.Match[str]) -> str:
        names = (n if n.startswith("g") and "-" in n else f"gl-{n}" for n in found[1].split())
        return f'class="{" ".join(names)}"'

    styled = re.sub(
        "<style>.*?</style>",
        lambda found: re.sub(r"(?<= )\.(?!gl-)(?=[a-z])", ".gl-", found[0]),
        markup,
        flags=re.DOTALL,
    )
    return re.sub('class="([^"]*)"', named, styled)


def scoped(css: str, root: str) -> str:
    """Return style whose rules hold below an element of class `root`, and nowhere else.

    Example:
        >>> scoped("text,.ink{fill:#222}@media (width>9px){.ink{fill:#eee}}", "graph")
        '.graph text,.graph .ink{fill:#222}@media (width>9px){.graph .ink{fill:#eee}}'
    """
    return _RULE.sub(
        lambda found: ",".join(f".{root} {each.strip()}" for each in found[1].split(",")), css
    )
