"""Shapes with names for sizes, such as "BxTx64:bfloat16,T%8==0", and the numbers given for them."""

import contextlib
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from gradlab.errors import InputError, InputTypeError
from gradlab.patterns.size import Sizes, same
from gradlab.tracing.jaxprs import NOT_THE_USERS

_NAME = "[A-Z][A-Z0-9_]*"
_ATOM = rf"(?:\d+(?:{_NAME})?|{_NAME})"
_SUM = rf"{_ATOM}(?:[*+-]{_ATOM})*"
_SHAPE = re.compile(rf"({_SUM}(?:x{_SUM})*)(:\w+)?((?:,[^\s,]+)*)")
_SMALL = 24
"""How many small sizes are proved one by one, below those where the general proof holds."""

_CONSTRAINT = re.compile(r"([^<>=!]+)(>=|<=|==|!=|>|<)([^<>=!]+)")
_COMPARED = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq,
    "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def in_shapes(inputs: Sequence[Any], sizes: Mapping[str, Any]) -> list[str]:
    """Return the inputs that are shapes in words.

    A lone name, as in "SAME", is a shape if it has a size. It is one too if all inputs are words:
    without a shape there would be nothing to differentiate.
    """
    words = [text for text in inputs if isinstance(text, str)]
    lone = len(words) == len(inputs)
    return [
        text
        for text in words
        if _SHAPE.fullmatch(text) and (lone or text in sizes or not re.fullmatch(_NAME, text))
    ]


def numbered(text: str, sizes: Mapping[str, Any]) -> tuple[tuple[Any, ...], str]:
    """Return the shape and the dtype that words stand for.

    Args:
        text: the words.
        sizes: for each name a number, or a dimension of JAX that has no number.

    Raises:
        InputError: a name has no number, a size is not positive, or a constraint does not hold.
    """
    parts = _SHAPE.fullmatch(text)
    if parts is None:
        raise InputError(f"{text!r} is no shape; write BxTx64, or BxTx64:bfloat16,T>=2")
    shape = tuple(_value(size, text, sizes) for size in parts[1].split("x"))
    least = [n for n in shape if not jax.export.is_symbolic_dim(n)]
    if min(least, default=1) < 1:
        raise InputError(
            f"{text!r} has a size of {min(least)} at these numbers; choose larger ones"
        )
    for left, compared, right in constraints_of(text):
        sides = [_value(words, text, sizes) for words in (left, right)]
        known = not any(map(jax.export.is_symbolic_dim, sides))
        if known and not _COMPARED[compared](*sides):
            raise InputError(
                f"{left}{compared}{right} does not hold at the sizes given; choose others"
            )
    return shape, (parts[2] or ":float32")[1:]


def constraints_of(text: str) -> list[tuple[str, str, str]]:
    """Return the constraints that follow a shape in words."""
    found = []
    for constraint in text.split(",")[1:]:
        compared = _CONSTRAINT.fullmatch(constraint)
        if compared is None:
            raise InputError(f"{constraint!r} is no constraint; write T>=2 or T%8==0")
        found.append((compared[1], compared[2], compared[3]))
    return found


@dataclass(frozen=True, eq=False)
class Names:
    """The sizes of a call's inputs that have names.

    Attributes:
        numbers: for each name its number, or a dimension of JAX that has none, in units.
        units: for each name without a number, what is known to divide it.
        least: for each such name, the smallest number of units.
        known: polynomials in units that are at least 0, in words.
        said: for each name, the constraints that name it.
        unequal: pairs of sizes, in words, that the function was told are not equal.
    """

    numbers: Mapping[str, Any]
    units: Mapping[str, int]
    least: Mapping[str, int]
    known: tuple[str, ...]
    said: Mapping[str, tuple[str, ...]]
    unequal: dict[tuple[str, str], None] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Sequence[Any], numbers: Mapping[str, int]) -> "Names":
        """Return the names in a call's inputs."""
        words = in_shapes(inputs, numbers)
        constraints = [c for text in words for c in constraints_of(text)]
        names = dict.fromkeys(name for text in words for name in _names(text))
        if surplus := [name for name in numbers if name not in names]:
            has = f"the names are {', '.join(names)}" if names else "no shape has a name"
            raise InputError(f"sizes: no shape has a size {surplus[0]}; {has}")
        units = {name: 1 for name in names if name not in numbers}
        least, known = dict.fromkeys(units, 1), []
        for left, compared, right in constraints:
            name, _, divisor = left.partition("%")
            if name in units and divisor.isdigit() and (compared, right) == ("==", "0"):
                units[name] = lcm(units[name], int(divisor))
        for left, compared, right in constraints:
            if "%" in left or not units.keys() & {*_names(left), *_names(right)}:
                continue
            if compared in ("==", "!="):
                raise InputError(
                    f"{left}{compared}{right}: of a size without a number, gradlab reads >=, <=, "
                    f">, < and T%8==0; write the size itself, or give it a number"
                )
            if left in units and right.isdigit() and compared in (">", ">="):
                number = int(right) + (compared == ">")
                least[left] = max(least[left], -(-number // units[left]))
            sides = [_in_units(words, units) for words in (left, right)]
            high, low = sides if compared[0] == ">" else sides[::-1]
            known.append(f"{high} - ({low})" + (" - 1" if len(compared) == 1 else ""))
        dims = dict(numbers)
        if units:
            bounds = [f"{name} >= {n}" for name, n in least.items()]
            made = jax.export.symbolic_shape(", ".join(units), constraints=bounds)
            dims |= {n: unit * dim for (n, unit), dim in zip(units.items(), made)}
        for leaf in jax.tree.leaves(inputs):
            if isinstance(leaf, jax.ShapeDtypeStruct):
                for name in re.findall(r"[A-Za-z]\w*(?![\w(])", " ".join(map(str, leaf.shape))):
                    units[name], least[name], names[name] = 1, 1, None
        said = {
            name: tuple(
                dict.fromkeys("".join(c) for c in constraints if name in _names("".join(c)))
            )
            for name in names
        }
        return cls(dims, units, least, tuple(known), said)

    def sizes(self) -> Sizes | None:
        """Return the names as sizes, of which a new proof may assume more."""
        if not self.units:
            return None
        sizes = Sizes(self.least, self.known, self.units)
        for a, b in self.unequal:
            sizes.is_zero(sizes.read(a) - sizes.read(b))
        return sizes

    def everywhere(
        self,
        sizes: Sizes,
        least: Mapping[str, int],
        holds: Callable[[Mapping[str, Any], Sizes], bool],
    ) -> bool:
        """Return whether what a proof has found holds at all sizes, not only where it assumed.

        At the few small sizes that it left out, it is asked again.

        Args:
            sizes: what the proof has assumed.
            least: from where on, for each name.
            holds: whether it holds where names have these values, numbers or other sizes.
        """
        tried: set[frozenset[tuple[str, int]]] = set()

        def beyond(fixed: dict[str, int], here: Sizes) -> bool:
            bounds = here.bounds()
            for name in here.least:
                for number in range(least[name], bounds[name]):
                    further = {**fixed, name: number}
                    key = frozenset(further.items())
                    if key in tried:
                        continue
                    tried.add(key)
                    if len(tried) > _SMALL or not at(further):
                        return False
            return True

        def at(fixed: dict[str, int]) -> bool:
            here = Sizes(self.least, self.known, self.units, fixed)
            if any(same(here.read(a), here.read(b)) for a, b in self.unequal):
                return False
            numbers = {**fixed, **{name: here.named(name) for name in here.least}}
            return holds(numbers, here) and not here.others() and beyond(fixed, here)

        return beyond({}, sizes)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note what a function asks of its sizes by `==`: JAX says no where it does not know."""
        if not self.units:
            yield
            return
        dims = [dim for dim in self.numbers.values() if not isinstance(dim, int)]
        code = type(dims[0]).__eq__.__code__ if dims else None

        def seen(frame: FrameType, event: str, argument: Any) -> None:
            asked = event == "call" and frame.f_code is code and frame.f_back
            if asked and not asked.f_code.co_filename.startswith(NOT_THE_USERS):
                a, b = (str(frame.f_locals[name]) for name in ("self", "other"))
                if a != b:
                    self.unequal.setdefault((a, b))

        before = sys.getprofile()
        sys.setprofile(seen)
        try:
            yield
        finally:
            sys.setprofile(before)

    def described(self, sizes: Sizes | None, bounds: Mapping[str, int]) -> dict[str, str]:
        """Return for each name what holds of it: its number, or from where on a proof holds."""
        others = sizes.others() if sizes else []
        found = {}
        for name, said in self.said.items():
            if name in bounds:
                unit = self.units[name]
                here = [f"{name} >= {bounds[name] * unit}"]
                here += [f"{name} divisible by {unit}"] if unit > 1 else []
                here += [text for text in others if _names(text)[:1] == [name]]
            else:
                here = [f"{name} = {self.numbers[name]}", *said]
            found[name] = ", ".join(here)
        return found


def has_names(value: Any) -> bool:
    """Return whether an array, or what an equation makes, has a size without a number."""
    shapes = [v.aval.shape for v in value.outvars] if hasattr(value, "outvars") else [value.shape]
    return any(jax.export.is_symbolic_dim(n) for shape in shapes for n in shape)


def in_sizes(value: Any, sizes: Sizes | None) -> Any:
    """Return a parameter of an equation with JAX's dimensions as sizes."""
    if sizes is None or isinstance(value, int | str):
        return value
    if type(value) in (tuple, list):
        return type(value)(in_sizes(item, sizes) for item in value)
    return sizes.read(str(value)) if jax.export.is_symbolic_dim(value) else value


def shaped(value: Any, names: Names) -> Any:
    """Return an input, as the shape that it stands for if it is one in words."""
    if not in_shapes((value, None), names.numbers):
        return value
    shape, dtype = numbered(value, names.numbers)
    try:
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))  # type: ignore[no-untyped-call]  # it has no types
    except TypeError:
        raise InputError(f"{value!r}: {dtype!r} is no dtype; write float32 or bfloat16") from None


def _names(text: str) -> list[str]:
    return re.findall(_NAME, re.sub(r":\w+", "", text))


def _in_units(words: str, units: Mapping[str, int]) -> str:
    """Return words for a size in which names count units."""
    spaced = re.sub(rf"(\d+)({_NAME})", r"\1*\2", words)
    return re.sub(_NAME, lambda name: f"({units.get(name[0], 1)}*{name[0]})", spaced)


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
        raise InputError(f"{text!r}: {name} has no number; give sizes={{'{name}': 8}}")
    return int(digits or 1) * (sizes[name] if name else 1)


def of_words(words: Sequence[str]) -> dict[str, int]:
    """Return sizes from words such as "B=8,T=128"."""
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
    if sizes is not None and not isinstance(sizes, Mapping):
        raise InputTypeError(
            f"sizes: expected a dict from names to numbers, such as {{'T': 8}}, got "
            f"{type(sizes).__name__}"
        )
    given = dict(sizes or {})
    for name, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputTypeError(f"sizes: {name} is a number of entries, such as 8; got {number!r}")
    return given
