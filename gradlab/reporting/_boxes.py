"""What is laid out: boxes with ports, the edges between them, and the parts of an edge."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_PULLS = (1.0, 2.0, 8.0)  # of an edge with none, one or both of its ends a bend


@dataclass(eq=False)
class Box:
    """A rectangle to be placed; ports are heights of edge ends, measured from its middle."""

    width: float  # how wide it is
    above: float  # how far it reaches above its middle
    below: float  # how far it reaches below
    left: Sequence[float] = ()  # the ports where edges arrive, by position
    right: Sequence[float] = ()  # the ports where edges leave
    free: bool = False  # whether the ports on the left may change places, for fewer crossings
    x: float = 0.0  # the left side, once placed
    y: float = 0.0  # the middle, once placed
    room: float = 0.0  # the width of its column, once placed


@dataclass(eq=False)
class Edge:
    """From the right port of one box to the left port of another.

    Edges from one port run together as long as they can: `points`, once it is laid out, is the part
    of the way that the longer ones do not show already.
    """

    source: Box
    target: Box
    source_port: int = 0
    target_port: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)


class Link(NamedTuple):
    """The part of an edge between two neighbouring layers, and the ports at its ends."""

    source: Box
    target: Box
    source_port: int
    target_port: int

    @property
    def rise(self) -> float:
        """How far the target stands below the source where the link is straight."""
        return self.source.right[self.source_port] - self.target.left[self.target_port]

    @property
    def pull(self) -> float:
        """How much it wants to be straight: a bend has no width."""
        return _PULLS[(not self.source.width) + (not self.target.width)]
