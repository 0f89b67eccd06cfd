"""The rules: for each primitive, which entries of an operand an output entry may read.

One file per family. A primitive that has no rule counts as dense on all axes and is named in the
report; nothing is taken for elementwise because its shapes match.
"""

from gradlab.structure.rules import (  # noqa: F401  (imported for their registrations)
    algebra,
    contractions,
    elementwise,
    indexing,
    movement,
    ordering,
    reductions,
    windows,
)
from gradlab.structure.sites import rule_for

__all__ = ["rule_for"]
