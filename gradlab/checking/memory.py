"""What cannot fit into this machine's memory is refused, before anything is allocated."""

import os
from typing import Any

import jax
import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import size_text
from gradlab.tracing.leaves import is_inexact

_COPIES = 12  # float64 copies of its inputs that a check holds at least; elementwise layers need 40


def require_memory(caller: str, inputs: Any, samples: int = 1) -> None:
    """Raise if the inputs are so large that no check of them can fit."""
    sizes = [
        np.size(leaf) for leaf in jax.tree.leaves(inputs) if is_inexact(getattr(leaf, "dtype", int))
    ]
    needed = 8 * _COPIES * sum(sizes) * samples
    here = _physical()
    if here and needed > here:
        raise InputError(
            f"{caller}: inputs of {sum(sizes):,} entries need at least {size_text(needed)}, and "
            f"this machine has {size_text(here)}; pass a smaller batch. "
            "assert_structure can prove that a function treats all rows alike"
        )


def _physical() -> int:
    """Return the machine's memory in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
