"""How large a rational function may be: the bound on its degree that a proof's error rests on.

Two different rational functions of degree d agree at a random point of a field with p elements with
probability at most d / p (Schwartz 1980; Zippel 1979). Exponentials, roots and other functions
count as variables of their own. Denominators are kept apart, so that terms which share one do not
count it twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Divisor:
    """A denominator: its degree, its power, and how many different ones an entry may hold."""

    degree: float
    power: int = 1
    copies: float = 1

    @property
    def total(self) -> float:
        """The degree of all of it."""
        return self.degree * self.power * self.copies


@dataclass(frozen=True)
class Degree:
    """The degree of a numerator over a product of denominators, told apart by keys."""

    top: float
    under: Mapping[int, Divisor] = field(default_factory=dict)

    @property
    def below(self) -> float:
        """The degree of the denominator."""
        return sum(divisor.total for divisor in self.under.values())

    @property
    def total(self) -> float:
        """The degree of numerator and denominator together."""
        return self.top + self.below

    def plus(self, *others: "Degree", terms: float = 1) -> "Degree":
        """Return the degree of a sum with others, or of a choice among them."""
        every = (self, *others)
        union: dict[int, Divisor] = {}
        for each in every:
            for key, divisor in each.under.items():
                known = union.get(key, Divisor(divisor.degree, 0, 0))
                union[key] = Divisor(
                    divisor.degree,
                    max(known.power, divisor.power),
                    max(known.copies, divisor.copies),
                )
        union = {k: Divisor(d.degree, d.power, d.copies * terms) for k, d in union.items()}
        below = sum(divisor.total for divisor in union.values())
        return Degree(max(each.top + below - each.below for each in every), union)

    def minus(self, other: "Degree") -> float:
        """Return the degree of the numerator of the difference to a value of another program."""
        return max(self.top + other.below, other.top + self.below)

    def times(self, other: "Degree") -> "Degree":
        """Return the degree of a product."""
        union = dict(self.under)
        for key, divisor in other.under.items():
            known = union.get(key, Divisor(divisor.degree, 0, 0))
            union[key] = Divisor(
                divisor.degree, known.power + divisor.power, max(known.copies, divisor.copies)
            )
        return Degree(self.top + other.top, union)

    def inverse(self, key: int) -> "Degree":
        """Return the degree of 1 over this; `key` names the numerator as a denominator."""
        return Degree(self.below, {key: Divisor(self.top)})

    def raised(self, exponent: int, key: int) -> "Degree":
        """Return the degree of a power."""
        size = abs(exponent)
        under = {k: Divisor(d.degree, d.power * size, d.copies) for k, d in self.under.items()}
        found = Degree(self.top * size, under)
        if exponent >= 0:
            return found
        return Degree(found.below, {key: Divisor(self.top, size)})

    def inside(self) -> "Degree":
        """Return the degree of a function of this: a new variable, and the odds of a collision.

        Two different arguments agree one lane down, where the prime is half as large, with twice
        the probability.
        """
        return Degree(1 + 2 * self.total)


CONSTANT = Degree(0)
VARIABLE = Degree(1)


def joined(degrees: Iterable[Degree]) -> Degree:
    """Return the degree of any entry of several arrays."""
    first, *rest = degrees
    return first.plus(*rest) if rest else first
