"""Everything that reads a jaxpr: tracing, walking, stripping custom rules, lifting, source lines.

The only room that touches `jax.extend` or anything of JAX that is not documented as stable.
"""

from gradlab.tracing.arithmetic import JAX, Arithmetic, NumPy, widen_dtype
from gradlab.tracing.compiling import compile_once, remember
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.gradients import is_gradient
from gradlab.tracing.intending import intend, with_derivative_of
from gradlab.tracing.interpreter import Interpreter, TooLong
from gradlab.tracing.jaxprs import source, source_path
from gradlab.tracing.kinds import NOT_JUDGED, missing_kinds, only_forward
from gradlab.tracing.leaves import Leaf
from gradlab.tracing.lift import Lifter, Narrowing, Opaque, cannot_lift, lift, narrowings, opaque
from gradlab.tracing.meetings import Meeting, rule_inputs
from gradlab.tracing.opening import kernels, open_kernels
from gradlab.tracing.program import (
    ClosesOverTrace,
    NotTraceable,
    Program,
    as_function,
    derive,
    rename,
    restricted,
    trace,
    without_checks,
)
from gradlab.tracing.reaching import moved_together, reached_outputs
from gradlab.tracing.rules import (
    CustomRule,
    Differentiated,
    NotStrippable,
    custom_rules,
    strip,
    symbolic_zeros,
)
from gradlab.tracing.running import batches_by_itself, run_lifted, stage
from gradlab.tracing.walking import ends_by, iterates, repeated, repeats, walk

__all__ = [
    "JAX",
    "NOT_JUDGED",
    "Arithmetic",
    "ClosesOverTrace",
    "CustomRule",
    "Differentiated",
    "Evaluator",
    "Interpreter",
    "Leaf",
    "Lifter",
    "Meeting",
    "Narrowing",
    "NotStrippable",
    "NotTraceable",
    "NumPy",
    "Opaque",
    "Program",
    "TooLong",
    "Value",
    "as_function",
    "batches_by_itself",
    "cannot_lift",
    "compile_once",
    "custom_rules",
    "derive",
    "ends_by",
    "intend",
    "is_gradient",
    "iterates",
    "kernels",
    "lift",
    "missing_kinds",
    "moved_together",
    "narrowings",
    "only_forward",
    "opaque",
    "open_kernels",
    "reached_outputs",
    "remember",
    "rename",
    "repeated",
    "repeats",
    "restricted",
    "rule_inputs",
    "run_lifted",
    "source",
    "source_path",
    "stage",
    "strip",
    "symbolic_zeros",
    "trace",
    "walk",
    "widen_dtype",
    "with_derivative_of",
    "without_checks",
]
