"""gradlab: is the gradient right, which entry is wrong and why, and what shape has its Jacobian?

Importing this package is cheap: neither JAX nor NumPy is loaded until one of its names is used.
"""

import gc
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlab import nodes as nodes
    from gradlab import strategies as strategies
    from gradlab.checking.auditing import audit as audit
    from gradlab.checking.entry import assert_gradients as assert_gradients
    from gradlab.checking.entry import check as check
    from gradlab.checking.report import AuditedRule as AuditedRule
    from gradlab.checking.report import AuditReport as AuditReport
    from gradlab.checking.report import CheckReport as CheckReport
    from gradlab.checking.verify import NodeResult as NodeResult
    from gradlab.checking.verify import VerifyReport as VerifyReport
    from gradlab.checking.verify import verify as verify
    from gradlab.errors import GradientMismatch as GradientMismatch
    from gradlab.errors import GradientUndecided as GradientUndecided
    from gradlab.errors import GradlabError as GradlabError
    from gradlab.errors import InputError as InputError
    from gradlab.errors import InputTypeError as InputTypeError
    from gradlab.errors import NotReadable as NotReadable
    from gradlab.errors import StructureMismatch as StructureMismatch
    from gradlab.graph import Graph as Graph
    from gradlab.graph.report import GraphReport as GraphReport
    from gradlab.nodes import Node as Node
    from gradlab.numerics import PrecisionReport as PrecisionReport
    from gradlab.numerics.doctor import DoctorReport as DoctorReport
    from gradlab.numerics.precision import precision as precision
    from gradlab.numerics.sweep import SweepReport as SweepReport
    from gradlab.reading import as_jax as as_jax
    from gradlab.report import Digits as Digits
    from gradlab.report import Entry as Entry
    from gradlab.report import Evidence as Evidence
    from gradlab.report import Finding as Finding
    from gradlab.report import Fix as Fix
    from gradlab.report import Law as Law
    from gradlab.report import Leaf as Leaf
    from gradlab.report import Rule as Rule
    from gradlab.report import RulePart as RulePart
    from gradlab.report import Unchecked as Unchecked
    from gradlab.structure import CompiledJacobian as CompiledJacobian
    from gradlab.structure import Condition as Condition
    from gradlab.structure import Entries as Entries
    from gradlab.structure import Jacobian as Jacobian
    from gradlab.structure import assert_structure as assert_structure
    from gradlab.structure.jacobian import jacobian as jacobian
    from gradlab.structure.report import JacobianReport as JacobianReport

__version__ = "0.2.0"

_HOME = {
    name: home
    for home, names in {
        "gradlab.checking.auditing": "audit",
        "gradlab.checking.entry": "assert_gradients check",
        "gradlab.checking.report": "AuditReport AuditedRule CheckReport",
        "gradlab.checking.verify": "NodeResult VerifyReport verify",
        "gradlab.errors": "GradientMismatch GradientUndecided GradlabError InputError "
        "InputTypeError NotReadable StructureMismatch",
        "gradlab.graph": "Graph",
        "gradlab.graph.report": "GraphReport",
        "gradlab.nodes": "Node nodes",
        "gradlab.numerics": "PrecisionReport precision",
        "gradlab.numerics.doctor": "DoctorReport",
        "gradlab.numerics.sweep": "SweepReport",
        "gradlab.reading": "as_jax",
        "gradlab.report": "Digits Entry Evidence Finding Fix Law Leaf Rule RulePart Unchecked",
        "gradlab.strategies": "strategies",
        "gradlab.structure": "CompiledJacobian Condition Entries Jacobian assert_structure "
        "jacobian",
        "gradlab.structure.report": "JacobianReport",
    }.items()
    for name in names.split()
}
__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker knows the names above alone, and sees a typing error

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
        collects = gc.isenabled()
        gc.disable()  # what is being defined is no garbage, and a look at all of JAX costs 0.06 s
        try:
            module = importlib.import_module(home)
        finally:
            if collects:
                gc.enable()
        value = module if home == f"gradlab.{name}" else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
