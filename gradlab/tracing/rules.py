"""Custom derivative rules: which ones a program meets, and the program without them.

Autodiff of the stripped program differentiates the primal function that a rule decorates, so the
rule can be held against it. Rules defined inside JAX stay: they are the reference's own conventions
(stripped, `jax.nn.softplus` would have the gradient 0 at 0).
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gradlab.errors import GradlabError
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.evaluate import Evaluator, Value
from gradlab.tracing.jaxprs import JAX_FOLDER, body, contains, inner_jaxprs, source, source_path
from gradlab.tracing.program import Program, derive
from gradlab.tracing.walking import walk

__all__ = ["CustomRule", "NotStrippable", "custom_rules", "is_rule", "rule_of", "strip"]

_PRIMITIVES = ("custom_jvp_call", "custom_vjp_call")


@dataclass(frozen=True)
class CustomRule:
    """A custom derivative rule, as it is met in a program.

    `kind` is custom_vjp, custom_jvp or custom_gradient; `defined` is where its primal function is
    written, `source` where it is called; `inside` names the loops, branches and calls around it.
    """

    name: str
    kind: str
    user: bool
    source: str
    defined: str
    in_avals: tuple[Any, ...]
    out_avals: tuple[Any, ...]
    inside: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """How many loops, branches and calls lie around it."""
        return len(self.inside)


def custom_rules(program: Program) -> list[CustomRule]:
    """Return every custom rule in a program, in the order of the equations, at any depth.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> [(rule.name, rule.user) for rule in custom_rules(trace(jax.nn.relu, jnp.ones(3)))]
        [('relu', False)]
    """
    found = ((equation, inside) for equation, inside in walk(program) if is_rule(equation))
    return [replace(rule_of(equation), inside=inside) for equation, inside in found]


def is_rule(equation: Any) -> bool:
    """Return whether an equation is a call of a function with a custom rule."""
    return equation.primitive.name in _PRIMITIVES


def rule_of(equation: Any) -> CustomRule:
    """Describe the rule that an equation calls."""
    name, defined = _place(_debug(call_jaxpr(equation)))
    kind = equation.primitive.name.removesuffix("_call")
    rule = equation.params.get("bwd") or equation.params.get("jvp_jaxpr_fun")
    _, written = _place(getattr(rule, "debug_info", None))
    if _in_jax(written) and os.path.basename(written).startswith("custom_derivatives.py"):
        if kind == "custom_vjp":  # jax.custom_gradient hides both functions behind its own
            kind, defined = "custom_gradient", _first_line(call_jaxpr(equation)) or defined
            name = "custom_gradient" if name == "wrapped_fun" else name
        written = defined
    user = not _in_jax(written)
    return CustomRule(
        name=name,
        kind=kind,
        user=user,
        source=source(equation) or os.path.basename(defined),
        defined=os.path.basename(defined),
        in_avals=tuple(atom.aval for atom in equation.invars),
        out_avals=tuple(atom.aval for atom in equation.outvars),
    )


def strip(program: Program, which: Callable[[CustomRule], bool] | None = None) -> Program:
    """Return the program with custom rules replaced by the primal functions that they decorate.

    Args:
        program: a traced program.
        which: says of each rule whether it goes; by default all the user's rules go and JAX's stay.

    Raises:
        NotStrippable: a rule lies where it cannot be taken out: in a `shard_map`, or in a function
            that a rule which stays calls (`odeint` over a function with a rule).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from gradlab.tracing import trace
        >>> @jax.custom_jvp
        ... def wrong(x):
        ...     return x * x
        >>> wrong.defjvp(lambda x, t: (x[0] * x[0], 3.0 * t[0]))  # doctest: +ELLIPSIS
        <function ...>
        >>> stripped = strip(trace(wrong, jnp.ones(3)))
        >>> float(jax.grad(lambda x: stripped.flat(x)[0].sum())(jnp.ones(3))[0])
        2.0
    """
    chosen = which or (lambda rule: rule.user)

    def goes(equation: Any) -> bool:
        return is_rule(equation) and chosen(rule_of(equation))

    if not contains(program.jaxpr, goes):
        return program
    evaluator = _Stripper(goes)

    def flat_function(*arrays: Any) -> list[Any]:
        outputs = evaluator(program.jaxpr, [Value(array, True) for array in arrays])
        return [value.array for value in outputs]

    def wide() -> Program | None:
        return strip(program.wide, which) if program.wide is not None else None

    stripped = derive(
        program, flat_function, program.in_avals, program.in_names, program.out_names, wide
    )
    if contains(stripped.jaxpr, goes):
        left = next(rule for rule in custom_rules(stripped) if chosen(rule))
        raise NotStrippable(
            f"the rule of {left.name} ({left.defined}) cannot be taken out of {program.name}: it "
            f"lies inside {' in '.join(reversed(left.inside)) or 'a call'}; check it by itself"
        )
    return replace(
        stripped, leaves=program.leaves, in_tree=program.in_tree, out_tree=program.out_tree
    )


class NotStrippable(GradlabError):
    """A custom rule lies where it cannot be replaced by its primal function."""


class _Stripper(Evaluator):
    """Evaluates as traced, except that chosen rules become their primals."""

    def __init__(self, goes: Callable[[Any], bool]) -> None:
        self.goes = goes

    def keeps(self, equation: Any) -> bool:
        if is_rule(equation):
            return not self.goes(equation)
        inner = [jaxpr for _, jaxpr in inner_jaxprs(equation)]
        return not any(contains(jaxpr, self.goes) for jaxpr in inner)


def _debug(jaxpr: Any) -> Any:
    return getattr(jaxpr, "debug_info", None)


def _place(debug: Any) -> tuple[str, str]:
    """Return a function's name and `/full/file.py:line` from JAX's debug text `f at file:line`."""
    text = getattr(debug, "func_src_info", None) or ""
    match = re.fullmatch(r"(.*?) at (.*)", text)
    return (match[1], match[2]) if match else (text or "function", "")


def _in_jax(path: str) -> bool:
    return path.startswith(JAX_FOLDER)


def _first_line(jaxpr: Any) -> str:
    return next((p for p in map(source_path, body(jaxpr).equations) if p), "")
