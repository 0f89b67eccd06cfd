"""What is known of JAX's primitives: one record each, in the file of its family.

To support a new primitive, add its record to one file of this room. To add a column, add a field
with a safe default to `Primitive`, and fill it in where it is known. Both wings read this room, so
it knows patterns and arrays, and no jaxpr: an equation comes in as an `Equation`.
"""

from gradlab.primitives.book import lookup, names
from gradlab.primitives.equation import Equation
from gradlab.primitives.record import Primitive, Site

__all__ = ["Equation", "Primitive", "Site", "lookup", "names"]
