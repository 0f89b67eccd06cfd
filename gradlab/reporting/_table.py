"""Plain tables, the same on a terminal and in a file."""

import io
from collections.abc import Sequence

__all__ = ["table"]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int = 120) -> str:
    """Return a table without frames; columns that hold numbers are aligned to the right.

    Example:
        >>> print(table(("node", "error"), [("tanh", "0.5"), ("softmax", "12.5")]))
        node     error
        tanh       0.5
        softmax   12.5
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, header in enumerate(headers):
        numeric = all(row[i][:1].isdigit() for row in rows) if rows else False
        drawn.add_column(header, justify="right" if numeric else "left", header_style="")
    for row in rows:
        drawn.add_row(*map(Text, row))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
