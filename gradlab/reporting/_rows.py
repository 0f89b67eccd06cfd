"""A long drawing broken into rows, as a paragraph is broken into lines.

Rows are about equally long, and the breaks lie where few wires have to go on in another row: the
best choice as a whole, not line by line. Source: Knuth and Plass, Breaking paragraphs into lines,
Software: Practice and Experience 11 (1981).
"""

from collections.abc import Sequence

__all__ = ["broken"]

_CUT = 0.03  # what a wire that is cut costs, beside the squared share by which a row is off


def broken(widths: Sequence[float], cuts: Sequence[int], limit: float) -> list[range]:
    """Return the columns of each row.

    Args:
        widths: of the columns.
        cuts: how many wires run between each column and the one before it.
        limit: how wide a row may be, unless it is a single column.

    Example:
        >>> broken([5.0, 5.0, 5.0, 5.0], [0, 1, 1, 1], limit=12.0)
        [range(0, 2), range(2, 4)]
        >>> broken([5.0, 5.0, 5.0, 5.0], [0, 1, 1, 1], limit=20.0)
        [range(0, 4)]
    """
    total = sum(widths)
    if total <= limit:
        return [range(len(widths))]
    wanted = total / -(-total // limit)
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the columns so far; where their row starts
    for end in range(1, len(widths) + 1):
        choices = []
        width = 0.0
        for start in range(end - 1, -1, -1):
            width += widths[start]
            if width > limit and start < end - 1:
                break
            cost = (width / wanted - 1) ** 2 + _CUT * cuts[start]
            choices.append((best[start][0] + cost, start))
        best.append(min(choices))
    rows = []
    end = len(widths)
    while end:
        start = best[end][1]
        rows.append(range(start, end))
        end = start
    return rows[::-1]
