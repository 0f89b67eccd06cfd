"""The structure of Jacobians: inferred from programs, explained, evaluated, asserted."""

from gradlab.structure.claims import assert_structure
from gradlab.structure.compiled import CompiledJacobian
from gradlab.structure.conditions import Condition
from gradlab.structure.entries import Entries, Side
from gradlab.structure.jacobian import Jacobian, jacobian
from gradlab.structure.report import JacobianReport

__all__ = [
    "CompiledJacobian",
    "Condition",
    "Entries",
    "Jacobian",
    "JacobianReport",
    "Side",
    "assert_structure",
    "jacobian",
]
