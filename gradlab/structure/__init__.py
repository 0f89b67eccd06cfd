"""The structure of Jacobians: inferred from programs, explained, evaluated, asserted."""

from gradlab.structure.claims import assert_structure
from gradlab.structure.entries import Entries, Side
from gradlab.structure.jacobian import jacobian
from gradlab.structure.report import JacobianReport

__all__ = ["Entries", "JacobianReport", "Side", "assert_structure", "jacobian"]
