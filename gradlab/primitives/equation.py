"""One equation of a program, without JAX's types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Equation:
    """What the book of primitives sees of an equation.

    A dtype that NumPy has no word for, such as a key's, is `object`.
    """

    name: str
    params: Mapping[str, Any]
    in_shapes: tuple[Shape, ...]
    out_shapes: tuple[Shape, ...]
    in_dtypes: tuple[np.dtype[Any], ...]
    out_dtypes: tuple[np.dtype[Any], ...]

    @property
    def shape(self) -> Shape:
        """The shape of the first output."""
        return self.out_shapes[0]
