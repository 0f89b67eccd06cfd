"""Walk over every equation of a program, through calls, loops, branches and custom rules."""

from collections.abc import Iterator
from typing import Any

from gradlab.tracing.jaxprs import body, contains, inner_jaxprs
from gradlab.tracing.program import Program

__all__ = ["iterates", "jaxprs", "walk"]


def walk(program: Program) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield each equation, with the names of the primitives that it lies inside, outermost first.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> program = trace(lambda x: jax.lax.map(jnp.sin, x), jnp.ones(3))
        >>> [(equation.primitive.name, inside) for equation, inside in walk(program)]
        [('scan', ()), ('sin', ('scan',))]
    """
    yield from _walk(program.jaxpr, ())


def _walk(jaxpr: Any, inside: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    for equation in body(jaxpr).equations:
        yield equation, inside
        for _, inner in inner_jaxprs(equation):
            yield from _walk(inner, (*inside, equation.primitive.name))


def jaxprs(jaxpr: Any) -> Iterator[Any]:
    """Yield a jaxpr and every jaxpr inside it."""
    yield jaxpr
    for equation in body(jaxpr).equations:
        for _, inner in inner_jaxprs(equation):
            yield from jaxprs(inner)


def iterates(program: Program) -> bool:
    """Return whether the program holds a `while` loop, and may be exact only to convergence."""
    return contains(program.jaxpr, lambda equation: equation.primitive.name == "while")
