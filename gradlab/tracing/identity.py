"""When two equations, or two whole programs, are the same: keys that only equal ones share.

Variables are numbered in the order in which they appear. Functions among the parameters count as
themselves: a key holds them, so that no other can come to stand in their place.
"""

import typing
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gradlab.common.arrays import Tree
from gradlab.tracing.callbacks import is_callback, tally
from gradlab.tracing.dependence import call_jaxpr
from gradlab.tracing.jaxprs import (
    Atom,
    Equation,
    Jaxpr,
    Literal,
    Variable,
    body,
    dtype_of,
    holds,
    shape_of,
)
from gradlab.tracing.kinds import lasting

_LARGEST = 1 << 16  # bytes of a constant; larger ones are data, and seldom met twice


class _Key(NamedTuple):
    """How constants are told apart, and which calls are opened: only what they compute counts.

    `lasting`: under which word keys of programs inside are kept; None: they do not last.
    """

    constant: Callable[[Any], Hashable]
    opens: Callable[[Equation], bool] = lambda equation: False
    lasting: "Rules | None" = None


class _Hashed:
    """A long key whose hash is computed once."""

    __slots__ = ("_hash", "_key")

    def __init__(self, key: Hashable) -> None:
        self._key, self._hash = key, hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, _Hashed) or self._hash != other._hash:
            return False
        return self._key == other._key


def fingerprint(equation: Equation) -> Hashable:
    """Return a key that two equations share only if they compute the same from the same inputs.

    It holds while the programs that they belong to are alive.
    """
    return _Hashed(_equation(equation, _Key(id)))


Rules: TypeAlias = typing.Literal["all", "lasting", "none"]


def identity(jaxpr: Jaxpr, rules: Rules = "all") -> Hashable | None:
    """Return a key that two programs share only if they compute the same, for good; None: unknown.

    `rules`: those by which they are differentiated in the same way, too: all rules, those that JAX
    itself wrote, or none, so that only what they compute counts.
    """
    known = _identities.setdefault(jaxpr, {})
    if rules not in known:
        try:
            known[rules] = _Hashed(_program(jaxpr, _Key(_contents, _OPENED[rules], rules)))
        except TypeError:
            known[rules] = None
    return known[rules]


_OPENED: dict[Rules, Callable[[Equation], bool]] = {
    "all": lambda equation: False,
    "lasting": lambda equation: lasting(equation) is None,
    "none": lambda equation: True,
}
_identities: "weakref.WeakKeyDictionary[Any, dict[Rules, Hashable | None]]"
_identities = weakref.WeakKeyDictionary()


def _contents(constant: Any) -> Hashable:
    array = np.asarray(constant)  # a TypeError for PRNG keys
    if array.nbytes > _LARGEST or array.dtype.hasobject:
        raise TypeError("too large to compare")
    return array.dtype.name, array.shape, array.tobytes()


def _equation(equation: Equation, key: "_Key") -> Hashable:
    called = call_jaxpr(equation) if key.opens(equation) else None
    if called is not None:
        return "call", _inside(called, key), equation.ctx
    counts = (tally(),) if is_callback(equation) else ()
    outputs = tuple((shape_of(variable), dtype_of(variable)) for variable in equation.outvars)
    params = equation.params
    if (rule := lasting(equation)) is not None:
        params = {**params, "jvp_jaxpr_fun": rule}
    return equation.primitive, _parameter(params, key), outputs, equation.ctx, *counts


def _parameter(value: Tree, key: "_Key") -> Hashable:
    if isinstance(value, dict):
        return tuple((name, _parameter(value[name], key)) for name in sorted(value))
    if isinstance(value, tuple | list):
        return type(value), tuple(_parameter(item, key) for item in value)
    if hasattr(getattr(value, "jaxpr", value), "eqns"):
        return _inside(value, key)
    if isinstance(value, float):
        return value.hex()  # 0.0 is not -0.0
    return type(value), value


def _inside(jaxpr: Jaxpr, key: "_Key") -> Hashable:
    """Return the key of a program inside another; JAX often has the same one in many traces.

    One that calls the host belongs to the check that counts its calls, and has no key that lasts.
    """
    if key.lasting is None or holds(jaxpr, is_callback):
        return _program(jaxpr, key)
    known = _identities.setdefault(jaxpr, {})
    if known.get(key.lasting) is None:
        known[key.lasting] = _Hashed(_program(jaxpr, key))
    return known[key.lasting]


def _program(jaxpr: Jaxpr, key: "_Key") -> Hashable:
    parts = body(jaxpr)
    numbers: dict[Any, int] = {}

    def number(variable: Variable) -> Hashable:
        return numbers.setdefault(variable, len(numbers)), shape_of(variable), dtype_of(variable)

    def read(atom: Atom) -> Hashable:
        if not isinstance(atom, Literal):
            return numbers[atom]
        return "literal", dtype_of(atom), np.asarray(atom.val, dtype_of(atom)).tobytes()

    entrance = tuple(map(number, (*parts.constvars, *parts.invars)))
    rows = []
    for equation in parts.equations:
        inputs = tuple(map(read, equation.invars))
        rows.append((_equation(equation, key), inputs, tuple(map(number, equation.outvars))))
    constants = tuple(map(key.constant, parts.constants))
    return entrance, constants, tuple(rows), tuple(map(read, parts.outvars))
