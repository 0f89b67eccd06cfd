"""What a gradient should be: lifted autodiff, rounding scatter, finite differences, the verdict."""

from gradlab.references.blocking import blocks, inner, norm
from gradlab.references.derivatives import (
    forward_gradient_program,
    jvp_program,
    upstream_names,
    vjp_program,
)
from gradlab.references.differences import Slope, finite_difference, finite_differences
from gradlab.references.digits_left import LEAST_DIGITS, digits_left, full_digits, zero_to_rounding
from gradlab.references.estimates import DRAWS, Estimate, known
from gradlab.references.evaluation import Evaluation
from gradlab.references.host import as_read, on_host, options_for
from gradlab.references.precision import smallest_normal, unit_roundoff
from gradlab.references.products import product_digits
from gradlab.references.untraced import numpy_estimate
from gradlab.references.verdict import LIMIT, LOST, WARN, Reason, State, Verdict, floor, judge

__all__ = [
    "DRAWS",
    "LEAST_DIGITS",
    "LIMIT",
    "LOST",
    "WARN",
    "Estimate",
    "Evaluation",
    "Reason",
    "Slope",
    "State",
    "Verdict",
    "as_read",
    "blocks",
    "digits_left",
    "finite_difference",
    "finite_differences",
    "floor",
    "forward_gradient_program",
    "full_digits",
    "inner",
    "judge",
    "jvp_program",
    "known",
    "norm",
    "numpy_estimate",
    "on_host",
    "options_for",
    "product_digits",
    "smallest_normal",
    "unit_roundoff",
    "upstream_names",
    "vjp_program",
    "zero_to_rounding",
]
