"""Shapes with names for sizes, such as "BxTx64:bfloat16,T%8==0", and the numbers given for them."""

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradlab.errors import InputError, InputTypeError

__all__ = ["checked", "described", "named", "numbered", "of_words", "shaped"]

_NAME = "[A-Z][A-Z0-9_]*"
_ATOM = rf"(?:\d+(?:{_NAME})?|{_NAME})"
_SUM = rf"{_ATOM}(?:[*+-]{_ATOM})*"
_SHAPE = re.compile(rf"({_SUM}(?:x{_SUM})*)(:\w+)?((?:,[^\s,]+)*)")
_CONSTRAINT = re.compile(r"([^<>=!]+)(>=|<=|==|!=|>|<)([^<>=!]+)")
_COMPARED = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq,
    "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def named(text: Any, sizes: Mapping[str, int]) -> bool:
    """Whether an input is a shape in words. A lone name, as in "SAME", is one if it has a size."""
    parts = _SHAPE.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        return False
    alone = re.fullmatch(_NAME, parts[1]) and not (parts[2] or parts[3])
    return not alone or parts[1] in sizes


def numbered(text: str, sizes: Mapping[str, int]) -> str:
    """Return a shape in words with numbers in place of names, without its constraints.

    Raises:
        InputError: a name has no number, a size is not positive, or a constraint does not hold.

    Example:
        >>> numbered("BxT+1x64:bfloat16,T%2==0", {"B": 2, "T": 8})
        '2x9x64:bfloat16'
    """
    parts = _SHAPE.fullmatch(text)
    if parts is None:
        raise InputError(f"{text!r} is no shape; write BxTx64, or BxTx64:bfloat16,T>=2")
    shape = [_value(size, text, sizes) for size in parts[1].split("x")]
    if min(shape) < 1:
        raise InputError(
            f"{text!r} has a size of {min(shape)} at these numbers; choose larger ones"
        )
    for constraint in constraints_of(text):
        compared = _CONSTRAINT.fullmatch(constraint)
        if compared is None:
            raise InputError(f"{constraint!r} is no constraint; write T>=2 or T%8==0")
        left, right = (_value(compared[k], text, sizes) for k in (1, 3))
        if not _COMPARED[compared[2]](left, right):
            raise InputError(f"{constraint} does not hold at the sizes given; choose others")
    return "x".join(map(str, shape)) + (parts[2] or "")


def constraints_of(text: str) -> list[str]:
    """Return the constraints that follow a shape in words."""
    return text.split(",")[1:]


def shaped(value: Any, sizes: Mapping[str, int]) -> Any:
    """Return an input, as the shape that it stands for if it is one in words."""
    if not named(value, sizes):
        return value
    shape, _, dtype = numbered(value, sizes).partition(":")
    try:
        return jax.ShapeDtypeStruct(
            tuple(map(int, shape.split("x"))), jnp.dtype(dtype or "float32")
        )  # type: ignore[no-untyped-call]  # it has no types
    except TypeError:
        raise InputError(f"{value!r}: {dtype!r} is no dtype; write float32 or bfloat16") from None


def described(inputs: Sequence[Any], sizes: Mapping[str, int]) -> dict[str, str]:
    """Return for each name in shapes its number, and the constraints that name it."""
    found: dict[str, str] = {}
    words = [value for value in inputs if named(value, sizes)]
    for name, number in sizes.items():
        said = [c for text in words for c in constraints_of(text) if name in _names(c)]
        if any(name in _names(text) for text in words):
            found[name] = ", ".join([f"{name} = {number}", *dict.fromkeys(said)])
    return found


def _names(text: str) -> list[str]:
    return re.findall(_NAME, text)


def _value(words: str, text: str, sizes: Mapping[str, int]) -> int:
    """Return the value of a sum of products."""
    if re.fullmatch(rf"{_ATOM}(?:[*%+-]{_ATOM})*", words) is None:
        raise InputError(f"{text!r}: {words!r} is no size; write a number, a name, 3B, T+1 or B*T")
    total = 0
    for sign, term in re.findall(r"([+-]?)([^+-]+)", words):
        value = 1
        for mark, factor in re.findall(r"([*%]?)([^*%]+)", term):
            number = _atom(factor, text, sizes)
            value = value % number if mark == "%" else value * number
        total += -value if sign == "-" else value
    return total


def _atom(word: str, text: str, sizes: Mapping[str, int]) -> int:
    digits, name = re.fullmatch(r"(\d*)(.*)", word).groups()  # type: ignore[union-attr]  # it fits
    if name and name not in sizes:
        raise InputError(
            f"{text!r}: gradlab proves at numbers, and {name} has none; "
            f"give sizes={{'{name}': 8}}, or --sizes {name}=8"
        )
    return int(digits or 1) * (sizes[name] if name else 1)


def of_words(words: Sequence[str]) -> dict[str, int]:
    """Return sizes from words such as "B=8,T=128".

    Example:
        >>> of_words(["B=8,T=128"])
        {'B': 8, 'T': 128}
    """
    found = {}
    for word in (part for each in words for part in each.split(",")):
        name, _, number = word.partition("=")
        if not re.fullmatch(_NAME, name) or not number.isdigit():
            raise InputError(f"--sizes: expected NAME=NUMBER, such as T=128, got {word!r}")
        found[name] = int(number)
    return found


def checked(sizes: Any) -> dict[str, int]:
    """Return the numbers that a caller gives for names.

    Raises:
        InputTypeError: it is no dict from names to positive integers.
    """
    given = dict(sizes or {})
    for name, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputTypeError(f"sizes: {name} is a number of entries, such as 8; got {number!r}")
    return given
