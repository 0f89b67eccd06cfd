"""Complex arithmetic on pairs of real arrays, the real and the imaginary parts.

So every gradient is that of a real function, and no convention is left to choose. JAX's gradient
of a real loss at z = a + i b is `da - i db`: the conjugate of what these pairs hold as (da, db).
A function that is holomorphic, dw = f'(z) dz, has as local gradient the 2 x 2 block
[[Re f', -Im f'], [Im f', Re f']] at each entry, and as backward the product with conj(f').
"""

from abc import abstractmethod
from typing import TypeAlias

from gradlab.common.arrays import Array, namespace
from gradlab.nodes._base import Applied, Gradients, Namespace, Node, Outputs
from gradlab.nodes._domain import NONZERO, Domain
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Diagonal

Pair: TypeAlias = tuple[Array, Array]  # real and imaginary part


def _times(z: Pair, w: Pair) -> Pair:
    """Return the product of two complex numbers."""
    (a, b), (c, d) = z, w
    return a * c - b * d, a * d + b * c


def _quotient(z: Pair, w: Pair) -> Pair:
    """Return z / w, scaled by the greater part of w."""
    (a, b), (c, d) = z, w
    xp = namespace(c)
    scale = xp.maximum(xp.abs(c), xp.abs(d))
    c, d = c / scale, d / scale
    size = scale * (c * c + d * d)
    return (a * c + b * d) / size, (b * c - a * d) / size


class _Holomorphic(Node):
    """A complex-differentiable function of one or two complex arrays."""

    @abstractmethod
    def value(self, *z: Pair) -> Pair:
        """Return the value, real and imaginary part."""

    @abstractmethod
    def derivative(self, z: tuple[Pair, ...], w: Pair) -> tuple[Pair, ...]:
        """Return the complex derivative in each argument."""

    def apply(self, xp: Namespace, *parts: Array) -> Applied:
        z = tuple(zip(parts[::2], parts[1::2]))
        w = self.value(*z)
        return w, tuple(part for pair in self.derivative(z, w) for part in pair)

    def gradients(self, xp: Namespace, *kept: Array) -> Gradients:
        """Return four diagonals for each argument."""
        pairs = list(zip(kept[::2], kept[1::2]))
        of_real = [d for re, im in pairs for d in (Diagonal(re), Diagonal(-im))]
        of_imaginary = [d for re, im in pairs for d in (Diagonal(im), Diagonal(re))]
        return tuple(of_real), tuple(of_imaginary)


_ONE = "3x4 3x4; 5 5; 2x1x3 2x1x3; scalar: scalar scalar; zero size: 0x3 0x3"
_TWO = (
    "3x4 3x4 3x4 3x4; 5 5 5 5; 2x1x3 2x1x3 2x1x3 2x1x3; scalar: scalar scalar scalar scalar; "
    "zero size: 0x3 0x3 0x3 0x3"
)


class ComplexMultiply(_Holomorphic):
    """(a + i b) (c + i d) = (a c - b d) + i (a d + b c).

    Local gradients: in each factor, the other one as 2 x 2 blocks: four diagonals.
    Backward: dz = upstream * conj(w), dw = upstream * conj(z).
    """

    shapes = "a (*any), b (*any), c (*any), d (*any) -> (*any), (*any)"
    drawn = _TWO

    def value(self, *z: Pair) -> Pair:
        return _times(*z)

    def derivative(self, z: tuple[Pair, ...], w: Pair) -> tuple[Pair, ...]:
        return z[1], z[0]

    def reference(self, a: Array, b: Array, c: Array, d: Array) -> Outputs:
        w = jax.lax.complex(a, b) * jax.lax.complex(c, d)
        return jnp.real(w), jnp.imag(w)


class ComplexDivide(_Holomorphic):
    """(a + i b) / (c + i d), scaled by the greater of |c| and |d| against overflow.

    Local gradients: 1/w in the dividend and -(z/w)/w in the divisor, as 2 x 2 blocks: four
    diagonals each. Backward: dz = upstream * conj(1/w), dw = upstream * conj(-(z/w)/w).
    Source: Smith, "Algorithm 116: complex division" (1962).
    """

    shapes = "a (*any), b (*any), c (*any), d (*any) -> (*any), (*any)"
    domains = (Domain(), Domain(), Domain(low=0.5), Domain(low=0.25))
    drawn = _TWO

    def value(self, *z: Pair) -> Pair:
        return _quotient(*z)

    def derivative(self, z: tuple[Pair, ...], w: Pair) -> tuple[Pair, ...]:
        xp, divisor = namespace(w[0]), z[1]
        inverse = _quotient((xp.ones_like(w[0]), xp.zeros_like(w[0])), divisor)
        other = _quotient(w, divisor)
        return inverse, (-other[0], -other[1])

    def reference(self, a: Array, b: Array, c: Array, d: Array) -> Outputs:
        size = c * c + d * d
        return (a * c + b * d) / size, (b * c - a * d) / size


class ComplexExp(_Holomorphic):
    """exp(a + i b) = exp(a) (cos b + i sin b).

    Local gradients: the value w itself, as 2 x 2 blocks: four diagonals.
    Backward: dz = upstream * conj(w).
    """

    shapes = "a (*any), b (*any) -> (*any), (*any)"
    drawn = _ONE

    def value(self, *z: Pair) -> Pair:
        ((a, b),) = z
        xp = namespace(a)
        size = xp.exp(a)
        return size * xp.cos(b), size * xp.sin(b)

    def derivative(self, z: tuple[Pair, ...], w: Pair) -> tuple[Pair, ...]:
        return (w,)

    def reference(self, a: Array, b: Array) -> Outputs:
        w = jnp.exp(jax.lax.complex(a, b))
        return jnp.real(w), jnp.imag(w)


class _OfPair(Node):
    """A real function of one complex array."""

    domains = (NONZERO,)
    shapes = "a (*any), b (*any) -> (*any)"
    drawn = "3x4 3x4; 5 5; 2x1x3 2x1x3; zero size: 0x3 0x3"
    points = {
        "on the axes": ([3.0, 0.0, -2.0, 0.0], [0.0, 1.0, 0.0, -4.0]),
        "large and small": ([1e200, 3e-200], [1e200, -4e-200]),
    }

    def value(self, xp: Namespace, a: Array, b: Array) -> Array:
        """Return the value."""
        raise NotImplementedError

    def derivative(self, xp: Namespace, a: Array, b: Array, size: Array) -> Pair:
        """Return the derivatives in both parts; `size` is |z|, or 1 at 0."""
        raise NotImplementedError

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        return self.value(xp, a, b), (a, b)

    def _derivatives(self, xp: Namespace, a: Array, b: Array) -> Pair:
        size = xp.hypot(a, b)
        return self.derivative(xp, a, b, xp.where(size == 0, xp.ones_like(size), size))

    def gradients(self, xp: Namespace, a: Array, b: Array) -> Gradients:
        """Return two diagonals."""
        return tuple(map(Diagonal, self._derivatives(xp, a, b)))


class ComplexAbs(_OfPair):
    """|a + i b| = sqrt(a^2 + b^2), without overflow; a node of two parts, at 0 with gradient 0.

    Local gradients: diag(a / |z|) and diag(b / |z|): the direction of z.
    Backward: dz = upstream * z / |z|. At the kink z = 0 it is 0, the middle of all slopes.
    """

    formulas = lambda xp, a, b: xp.hypot(a, b), lambda xp, a, b, size: (a / size, b / size)

    def reference(self, a: Array, b: Array) -> Array:
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a), jnp.abs(b)))
        return scale * jnp.sqrt((a / scale) ** 2 + (b / scale) ** 2)


class ComplexAngle(_OfPair):
    """The angle of a + i b, from -pi to pi: arctan2(b, a), cut along the negative real axis.

    Local gradients: diag(-b / |z|^2) and diag(a / |z|^2): across the direction of z, and the
    smaller the larger z is. Backward: dz = upstream * i z / |z|^2. At z = 0 it is 0.
    """

    formulas = (
        lambda xp, a, b: xp.atan2(b, a),
        lambda xp, a, b, size: (-(b / size) / size, (a / size) / size),
    )

    def reference(self, a: Array, b: Array) -> Array:
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a), jnp.abs(b)))
        return jnp.arctan2(b / scale, a / scale)
