"""All operations and all faults, in one place."""

from corpus import (  # noqa: F401  (importing them fills the two lists)
    activations,
    arithmetic,
    behaviour,
    indexing,
    layers,
    linear,
    long_sums,
    losses,
    normalisation,
    reductions,
    sequence,
    windows,
)
from corpus.model import FAULTS, OPERATIONS, Fault, Operation, as_custom_vjp, cast

__all__ = ["FAULTS", "OPERATIONS", "Fault", "Operation", "as_custom_vjp", "cast"]
