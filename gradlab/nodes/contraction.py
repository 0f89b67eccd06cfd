"""Einstein summation: every product of arrays that is a sum over shared indices."""

from dataclasses import dataclass
from string import ascii_letters
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jnp
from gradlab.nodes._matrices import einsum
from gradlab.operators import Contraction

__all__ = ["Einsum"]


@dataclass(frozen=True)
class Einsum(Node):
    """The sum over all indices that the output lacks of the product of the operands.

    y[out] = sum of x_1[in_1] x_2[in_2] ..., as in `einsum("in_1,in_2->out", x_1, x_2)`.

    Args:
        subscripts: a letter for each axis of each operand, and of the output, after `->`. A letter
            may occur twice in an operand (its diagonal); each of the output's occurs once there.

    Local gradients: in each operand the contraction with all others, which are fixed.
    Backward: dx_i is the einsum in which x_i and the output have changed places: with ones for
    an index that only x_i has, and with an identity matrix for one that x_i has twice.
    """

    subscripts: str = "ij,jk->ik"

    def _terms(self) -> tuple[list[str], str]:
        operands, arrow, output = self.subscripts.replace(" ", "").partition("->")
        terms = operands.split(",")
        letters = "".join(terms)
        if (
            not arrow
            or not (letters + output).isalpha()
            or len(set(output)) < len(output)
            or not set(output) <= set(letters)
        ):
            raise InputError(
                f"{self!r}: expected letters such as 'ij,jk->ik', with an explicit output of "
                "letters that the operands have, each once"
            )
        return terms, output

    def forward(self, *xs: Any) -> tuple[Array, Any]:
        arrays = as_inputs(self, xs)
        terms, _ = self._terms()
        ranks = [len(term) for term in terms]
        sizes: dict[str, int] = {}
        fits = ranks == [len(x.shape) for x in arrays] and all(
            sizes.setdefault(letter, size) == size
            for term, x in zip(terms, arrays)
            for letter, size in zip(term, x.shape)
        )
        if not fits:
            raise InputError(
                f"{self!r}: shapes {', '.join(shape_text(x.shape) for x in arrays)} came; expected "
                f"{len(terms)} operands with {', '.join(map(str, ranks))} axes, and one size for "
                "each letter"
            )
        y = einsum(self.subscripts, *arrays)
        return y, (arrays, y)

    def _fixed(self, i: int, arrays: tuple[Array, ...]) -> tuple[str, list[str], list[Array]]:
        """Return operand i's letters, no two alike, and what it is multiplied by."""
        xp, (terms, output) = namespace(*arrays), self._terms()
        x = arrays[i]
        others = [(t, a) for k, (t, a) in enumerate(zip(terms, arrays)) if k != i]
        spare = iter(sorted(set(ascii_letters) - set("".join(terms))))
        letters = ""
        for letter, size in zip(terms[i], x.shape):
            if letter in letters:
                twin = next(spare)
                others.append((letter + twin, xp.eye(size, dtype=x.dtype)))
                letters += twin
            else:
                letters += letter
        known = set(output).union(*(t for t, _ in others))
        for letter, size in zip(letters, x.shape):
            if letter not in known:
                others.append((letter, xp.ones((size,), dtype=x.dtype)))
        if not others:
            others = [("", xp.ones((), dtype=x.dtype))]
        return letters, [t for t, _ in others], [a for _, a in others]

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        arrays, _ = residuals
        _, output = self._terms()
        operators = []
        for i, x in enumerate(arrays):
            letters, terms, fixed = self._fixed(i, arrays)
            subscripts = ",".join([*terms, letters]) + "->" + output
            operators.append(Contraction(subscripts, *fixed, input_shape=x.shape))
        return tuple(operators)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        arrays, y = residuals
        upstream, (_, output) = as_upstream(self, upstream, y), self._terms()
        gradients = []
        for i, x in enumerate(arrays):
            letters, terms, fixed = self._fixed(i, arrays)
            subscripts = ",".join([output, *terms]) + "->" + letters
            gradients.append(einsum(subscripts, upstream, *fixed).astype(x.dtype))
        return tuple(gradients)

    def reference(self, *xs: Array) -> Array:
        return jnp.einsum(self.subscripts, *xs)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (3, 4)),
            generic(cls("bij,bjk,k->bi"), (2, 2, 3), (2, 3, 2), (2,)),
            generic(cls("bti->bi"), (2, 3, 2)),
            Case(cls("ii->i"), ((3, 3),), "a diagonal"),
            Case(cls("ijij->"), ((2, 3, 2, 3),), "a trace"),
            Case(cls("i,j->ij"), ((2,), (3,)), "an outer product"),
            Case(cls("ij,kj->"), ((2, 3), (2, 3)), "all summed"),
            Case(cls("ij->ij"), ((2, 3),), "nothing done"),
            Case(cls(), ((2, 0), (0, 3)), "zero size"),
        )
