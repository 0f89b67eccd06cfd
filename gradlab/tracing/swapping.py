"""A product that is only transposed is the product of its operands in the other order.

Autodiff writes the gradient of a matrix as `(u' x)'`. XLA folds that by itself, but not once noise
stands between product and transpose: then every entry is fetched across the rows of large arrays.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gradlab.tracing.jaxprs import Literal


def swapped(equations: Sequence[Any], outvars: Sequence[Any]) -> list[Any]:
    """Return the equations of a jaxpr with every `transpose(a @ b)` that may be as `b @ a`.

    A product among `outvars`, the outputs of the jaxpr, is left as it is.
    """
    atoms = [atom for equation in equations for atom in equation.invars]
    uses = Counter(atom for atom in (*atoms, *outvars) if not isinstance(atom, Literal))
    products = {
        equation.outvars[0]: equation
        for equation in equations
        if equation.primitive.name == "dot_general" and uses[equation.outvars[0]] == 1
    }
    exchanged = {}
    for equation in equations:
        if equation.primitive.name == "transpose" and not isinstance(equation.invars[0], Literal):
            product = products.get(equation.invars[0])
            if product and tuple(equation.params["permutation"]) == _exchange(product):
                exchanged[id(equation)] = product
    dropped = {id(product) for product in exchanged.values()}
    return [
        _other_way_round(exchanged[id(e)], e.outvars) if id(e) in exchanged else e
        for e in equations
        if id(e) not in dropped
    ]


def _exchange(product: Any) -> tuple[int, ...] | None:
    """Return the permutation that exchanges the rows and columns of a product."""
    if product.params.get("out_sharding") is not None:
        return None
    (contracted, _), (batch, _) = product.params["dimension_numbers"]
    first = len(batch)
    second = product.invars[0].aval.ndim - len(contracted)  # the columns come after the rows
    last = product.outvars[0].aval.ndim
    return (*range(first), *range(second, last), *range(first, second))


def _other_way_round(product: Any, outvars: Sequence[Any]) -> Any:
    (left, right), (left_batch, right_batch) = product.params["dimension_numbers"]
    precision = product.params["precision"]
    return product.replace(
        invars=product.invars[::-1],
        outvars=list(outvars),
        params={
            **product.params,
            "dimension_numbers": ((right, left), (right_batch, left_batch)),
            "precision": precision[::-1] if isinstance(precision, tuple) else precision,
        },
    )
