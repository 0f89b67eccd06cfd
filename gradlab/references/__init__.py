"""What a gradient should be: lifted autodiff, rounding scatter, finite differences, the verdict."""

from gradlab.references.derivatives import jvp_program, upstream_names, vjp_program
from gradlab.references.differences import Slope, finite_difference, finite_differences
from gradlab.references.estimates import DRAWS, Estimate
from gradlab.references.evaluation import Evaluation
from gradlab.references.host import on_host, options_for
from gradlab.references.precision import smallest_normal, unit_roundoff
from gradlab.references.untraced import numpy_estimate
from gradlab.references.verdict import LIMIT, LOST, WARN, Verdict, floor, judge, settle

__all__ = [
    "DRAWS",
    "LIMIT",
    "LOST",
    "WARN",
    "Estimate",
    "Evaluation",
    "Slope",
    "Verdict",
    "finite_difference",
    "finite_differences",
    "floor",
    "judge",
    "jvp_program",
    "numpy_estimate",
    "on_host",
    "options_for",
    "settle",
    "smallest_normal",
    "unit_roundoff",
    "upstream_names",
    "vjp_program",
]
