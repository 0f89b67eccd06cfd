"""To which digits a program rounds what it computes."""

from typing import Any

from gradlab.references.precision import name_with_bits, real_name
from gradlab.references.products import cut_to
from gradlab.tracing.jaxprs import body, dtype_of
from gradlab.tracing.leaves import is_inexact
from gradlab.tracing.walking import jaxprs


def digits_of(program: Any, device: Any) -> set[str]:
    """Return the names of the real dtypes to which a program rounds where it runs.

    A `device` may keep fewer digits of float32 factors: that counts as a dtype too.
    """
    names = set()
    for jaxpr in jaxprs(program):
        parts = body(jaxpr)
        atoms = [*parts.constvars, *parts.invars]
        for equation in parts.equations:
            atoms += [*equation.invars, *equation.outvars]
            if equation.primitive.name == "reduce_precision":
                names.add(name_with_bits(equation.params["mantissa_bits"]))
            names.add(cut_to(equation, device) or "")
        names |= {real_name(dtype) for dtype in map(dtype_of, atoms) if is_inexact(dtype)}
    return names - {""}
