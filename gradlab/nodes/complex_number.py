"""Complex arithmetic on pairs of real arrays, the real and the imaginary parts.

So every gradient is that of a real function, and no convention is left to choose. JAX's gradient
of a real loss at z = a + i b is `da - i db`: the conjugate of what these pairs hold as (da, db).
A function that is holomorphic, dw = f'(z) dz, has as local gradient the 2 x 2 block
[[Re f', -Im f'], [Im f', Re f']] at each entry, and as backward the product with conj(f').
"""

from abc import abstractmethod
from typing import Any

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, Domain, generic, special
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Diagonal

__all__ = ["ComplexAbs", "ComplexAngle", "ComplexDivide", "ComplexExp", "ComplexMultiply"]

_Pair = tuple[Array, Array]


def _times(z: _Pair, w: _Pair) -> _Pair:
    """Return the product of two complex numbers."""
    (a, b), (c, d) = z, w
    return a * c - b * d, a * d + b * c


def _conjugate(z: _Pair) -> _Pair:
    return z[0], -z[1]


def _require_same_shapes(node: Node, parts: tuple[Array, ...]) -> None:
    if any(part.shape != parts[0].shape for part in parts):
        shapes = ", ".join(shape_text(part.shape) for part in parts)
        raise InputError(f"{node!r}: shapes {shapes} came; expected all parts to have one shape")


class _Holomorphic(Node):
    """A complex-differentiable function of one or two complex arrays."""

    @abstractmethod
    def value(self, *z: _Pair) -> _Pair:
        """Return the value, real and imaginary part."""

    @abstractmethod
    def slopes(self, z: tuple[_Pair, ...], w: _Pair) -> tuple[_Pair, ...]:
        """Return the complex derivative in each argument."""

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        parts = as_inputs(self, inputs)
        _require_same_shapes(self, parts)
        z = tuple(zip(parts[::2], parts[1::2]))
        w = self.value(*z)
        return w, (z, w)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        of_real: list[Any] = []
        of_imaginary: list[Any] = []
        for re, im in self.slopes(*residuals):
            of_real += [Diagonal(re), Diagonal(-im)]
            of_imaginary += [Diagonal(im), Diagonal(re)]
        return tuple(of_real), tuple(of_imaginary)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        z, w = residuals
        u = (as_upstream(self, upstream[0], w[0]), as_upstream(self, upstream[1], w[1]))
        gradients = [_times(u, _conjugate(slope)) for slope in self.slopes(z, w)]
        return tuple(part for gradient in gradients for part in gradient)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        n = int(cls.arity()[0])
        return (
            generic(cls(), *((3, 4),) * n),
            generic(cls(), *((5,),) * n),
            generic(cls(), *((2, 1, 3),) * n),
            Case(cls(), ((),) * n, "scalar"),
            Case(cls(), ((0, 3),) * n, "zero size"),
        )


class ComplexMultiply(_Holomorphic):
    """(a + i b) (c + i d) = (a c - b d) + i (a d + b c).

    Local gradients: in each factor, the other one as 2 x 2 blocks: four diagonals.
    Backward: dz = upstream * conj(w), dw = upstream * conj(z).
    """

    def value(self, *z: _Pair) -> _Pair:
        return _times(*z)

    def slopes(self, z: tuple[_Pair, ...], w: _Pair) -> tuple[_Pair, ...]:
        return z[1], z[0]

    def reference(self, a: Array, b: Array, c: Array, d: Array) -> Any:
        w = jax.lax.complex(a, b) * jax.lax.complex(c, d)
        return jnp.real(w), jnp.imag(w)


class ComplexDivide(_Holomorphic):
    """(a + i b) / (c + i d), scaled by the greater of |c| and |d| against overflow.

    Local gradients: 1/w in the dividend and -(z/w)/w in the divisor, as 2 x 2 blocks: four
    diagonals each. Backward: dz = upstream * conj(1/w), dw = upstream * conj(-(z/w)/w).
    Source: Smith, "Algorithm 116: complex division" (1962).
    """

    domains = (Domain(), Domain(), Domain(low=0.5), Domain(low=0.25))

    def value(self, *z: _Pair) -> _Pair:
        return _quotient(*z)

    def slopes(self, z: tuple[_Pair, ...], w: _Pair) -> tuple[_Pair, ...]:
        xp, divisor = namespace(w[0]), z[1]
        inverse = _quotient((xp.ones_like(w[0]), xp.zeros_like(w[0])), divisor)
        other = _quotient(w, divisor)
        return inverse, (-other[0], -other[1])

    def reference(self, a: Array, b: Array, c: Array, d: Array) -> Any:
        size = c * c + d * d
        return (a * c + b * d) / size, (b * c - a * d) / size


def _quotient(z: _Pair, w: _Pair) -> _Pair:
    (a, b), (c, d) = z, w
    xp = namespace(c)
    scale = xp.maximum(xp.abs(c), xp.abs(d))
    c, d = c / scale, d / scale
    size = scale * (c * c + d * d)
    return (a * c + b * d) / size, (b * c - a * d) / size


class ComplexExp(_Holomorphic):
    """exp(a + i b) = exp(a) (cos b + i sin b).

    Local gradients: the value w itself, as 2 x 2 blocks: four diagonals.
    Backward: dz = upstream * conj(w).
    """

    def value(self, *z: _Pair) -> _Pair:
        ((a, b),) = z
        xp = namespace(a)
        size = xp.exp(a)
        return size * xp.cos(b), size * xp.sin(b)

    def slopes(self, z: tuple[_Pair, ...], w: _Pair) -> tuple[_Pair, ...]:
        return (w,)

    def reference(self, a: Array, b: Array) -> Any:
        w = jnp.exp(jax.lax.complex(a, b))
        return jnp.real(w), jnp.imag(w)


class _OfPair(Node):
    """A real function of one complex array."""

    domains = (Domain(kinks=(0.0,)),)

    @abstractmethod
    def value(self, a: Array, b: Array) -> Array:
        """Return the value."""

    @abstractmethod
    def slopes(self, a: Array, b: Array) -> _Pair:
        """Return the derivatives in the real and in the imaginary part."""

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        a, b = as_inputs(self, inputs)
        _require_same_shapes(self, (a, b))
        return self.value(a, b), (a, b)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        return tuple(map(Diagonal, self.slopes(*residuals)))

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        upstream = as_upstream(self, upstream, residuals[0])
        return tuple(upstream * slope for slope in self.slopes(*residuals))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (3, 4), (3, 4)),
            generic(cls(), (5,), (5,)),
            generic(cls(), (2, 1, 3), (2, 1, 3)),
            special(cls(), "on the axes", [3.0, 0.0, -2.0, 0.0], [0.0, 1.0, 0.0, -4.0]),
            special(cls(), "large and small", [1e200, 3e-200], [1e200, -4e-200]),
            Case(cls(), ((0, 3), (0, 3)), "zero size"),
        )


class ComplexAbs(_OfPair):
    """|a + i b| = sqrt(a^2 + b^2), without overflow; a node of two parts, at 0 with gradient 0.

    Local gradients: diag(a / |z|) and diag(b / |z|): the direction of z.
    Backward: dz = upstream * z / |z|. At the kink z = 0 it is 0, the middle of all slopes.
    """

    def value(self, a: Array, b: Array) -> Array:
        return namespace(a).hypot(a, b)

    def slopes(self, a: Array, b: Array) -> _Pair:
        xp, size = namespace(a), self.value(a, b)
        size = xp.where(size == 0, xp.ones_like(size), size)
        return a / size, b / size

    def reference(self, a: Array, b: Array) -> Array:
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a), jnp.abs(b)))
        return scale * jnp.sqrt((a / scale) ** 2 + (b / scale) ** 2)


class ComplexAngle(_OfPair):
    """The angle of a + i b, from -pi to pi: arctan2(b, a), cut along the negative real axis.

    Local gradients: diag(-b / |z|^2) and diag(a / |z|^2): across the direction of z, and the
    smaller the larger z is. Backward: dz = upstream * i z / |z|^2. At z = 0 it is 0.
    """

    def value(self, a: Array, b: Array) -> Array:
        return namespace(a).atan2(b, a)

    def slopes(self, a: Array, b: Array) -> _Pair:
        xp = namespace(a)
        size = xp.hypot(a, b)
        size = xp.where(size == 0, xp.ones_like(size), size)
        return -(b / size) / size, (a / size) / size

    def reference(self, a: Array, b: Array) -> Array:
        scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(a), jnp.abs(b)))
        return jnp.arctan2(b / scale, a / scale)
