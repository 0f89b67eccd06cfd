"""The edit engine: searches the source of a wrong gradient for the edit that makes it right.

It knows nothing of checks: it is given functions, points, and the right gradients there.
"""

from gradlab.repair.mutants import Mutant, mutants
from gradlab.repair.search import Load, Mended, Point, Task, mend
from gradlab.repair.source import Edit, Text, edited, read, unified
from gradlab.repair.world import World, functions_of, quiet, written_by_the_user

__all__ = [
    "Edit",
    "Load",
    "Mended",
    "Mutant",
    "Point",
    "Task",
    "Text",
    "World",
    "edited",
    "functions_of",
    "mend",
    "mutants",
    "quiet",
    "read",
    "unified",
    "written_by_the_user",
]
