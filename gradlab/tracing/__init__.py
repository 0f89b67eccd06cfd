"""Everything that reads a jaxpr: tracing, walking, stripping custom rules, lifting, source lines.

The only room that touches `jax.extend` or anything of JAX that is not documented as stable.
"""

from gradlab.tracing.arithmetic import JAX, Arithmetic, NumPy, widen_dtype
from gradlab.tracing.compiling import compile_once, remember
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.gradients import is_gradient
from gradlab.tracing.interpreter import Interpreter, TooLong
from gradlab.tracing.jaxprs import source, source_path
from gradlab.tracing.leaves import Leaf
from gradlab.tracing.lift import Lifter, Narrowing, Opaque, lift, narrowings, opaque
from gradlab.tracing.meetings import Meeting, rule_inputs
from gradlab.tracing.opening import kernels, open_kernels
from gradlab.tracing.program import (
    ClosesOverTrace,
    NotTraceable,
    Program,
    as_function,
    derive,
    rename,
    trace,
    without_checks,
)
from gradlab.tracing.rules import CustomRule, NotStrippable, custom_rules, strip
from gradlab.tracing.walking import iterates, repeats, walk

__all__ = [
    "JAX",
    "Arithmetic",
    "ClosesOverTrace",
    "CustomRule",
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
    "compile_once",
    "custom_rules",
    "derive",
    "is_gradient",
    "iterates",
    "kernels",
    "lift",
    "narrowings",
    "opaque",
    "open_kernels",
    "remember",
    "rename",
    "repeats",
    "rule_inputs",
    "source",
    "source_path",
    "strip",
    "trace",
    "walk",
    "widen_dtype",
    "without_checks",
]
