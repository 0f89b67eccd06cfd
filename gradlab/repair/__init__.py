"""The edit engine: searches the source of a wrong gradient for the edit that makes it right."""

from gradlab.repair.mutants import Mutant, mutants
from gradlab.repair.problem import HandRule
from gradlab.repair.source import read
from gradlab.repair.world import compiled, watched, written_by_the_user
from gradlab.repair.written import fixes_of, repair, rule_of_node, rules_met

__all__ = [
    "HandRule",
    "Mutant",
    "compiled",
    "fixes_of",
    "mutants",
    "read",
    "repair",
    "rule_of_node",
    "rules_met",
    "watched",
    "written_by_the_user",
]
