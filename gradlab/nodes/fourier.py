"""Discrete Fourier and cosine transforms along the last axis: linear, each by one fixed matrix.

A complex array is a pair of real ones here, its real and imaginary parts, so that every gradient
is that of a real function. JAX's gradient of a real loss at z = a + i b is `da - i db`, the
conjugate of what these pairs hold as (da, db).

Source: Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series"
(1965); the cosine transform: Ahmed et al., "Discrete cosine transform" (1974).
"""

from typing import Any

import numpy as np

from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._arrays import Array, as_inputs, as_upstream, namespace
from gradlab.nodes._base import Node
from gradlab.nodes._domain import Case, generic
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import right_multiplication

__all__ = ["Dct", "Fft", "InverseFft", "InverseRealFft", "RealFft"]


def _complex(real: Array, imaginary: Array) -> Array:
    dtype = np.complex128 if real.dtype.itemsize == 8 else np.complex64
    turn = namespace(real).asarray(1j, dtype=dtype)
    return real.astype(dtype) + turn * imaginary.astype(dtype)


def _parts(z: Array, dtype: Any) -> tuple[Array, Array]:
    xp = namespace(z)
    return xp.real(z).astype(dtype), xp.imag(z).astype(dtype)


def _require_entries(node: Node, *x: Array) -> None:
    if any(not xi.shape or xi.shape[-1] == 0 or xi.shape != x[0].shape for xi in x):
        raise InputError(
            f"{node!r}: shapes {', '.join(shape_text(xi.shape) for xi in x)} came; expected a last "
            "axis that is not empty, and the same shape for real and imaginary parts"
        )


def _circle(k: Array, n: int) -> tuple[Array, Array]:
    """Return cos and sin of 2 pi k / n for integers k, exact wherever they are 0 or 1.

    The angle is brought to the first eighth of the circle in integers, so that it has no error.
    """
    quarter, rest = np.divmod(4 * k % (4 * n), n)
    steep = 2 * rest > n
    angle = np.where(steep, n - rest, rest) * (np.pi / (2 * n))
    near, far = np.cos(angle), np.sin(angle)
    cos, sin = np.where(steep, far, near), np.where(steep, near, far)
    turns = [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)]
    cases = [quarter == q for q in range(4)]
    return tuple(np.select(cases, [turn[part] for turn in turns]) for part in (0, 1))


def _matrix(n: int, sign: float, like: Array) -> tuple[Array, Array]:
    """Return cos and sign * sin of 2 pi j k / n, as matrices over j and k."""
    cos, sin = _circle(np.outer(np.arange(n), np.arange(n)), n)
    xp = namespace(like)
    return xp.asarray(cos, dtype=like.dtype), xp.asarray(sign * sin, dtype=like.dtype)


class Fft(Node):
    """The discrete Fourier transform Y[k] = sum over j of z[j] exp(-2 pi i j k / n), in two parts.

    Shapes: real, imaginary and both outputs (*batch, n).

    Local gradients: with C = cos and S = sin of 2 pi j k / n: dRe Y = C dRe + S dIm, dIm Y =
    -S dRe + C dIm, the same for each batch.
    Backward, for the upstream u + i v: dRe + i dIm = n IFFT(u + i v), the conjugate transpose.
    """

    _sign = -1.0

    def _transform(self, z: Array) -> Array:
        return namespace(z).fft.fft(z)

    def _adjoint(self, z: Array) -> Array:
        return z.shape[-1] * namespace(z).fft.ifft(z)

    def _scale(self, n: int) -> float:
        return 1.0

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        real, imaginary = as_inputs(self, inputs)
        _require_entries(self, real, imaginary)
        y = _parts(self._transform(_complex(real, imaginary)), real.dtype)
        return y, real

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x = residuals
        n = x.shape[-1]
        cos, sin = (self._scale(n) * a for a in _matrix(n, self._sign, x))
        c, s = right_multiplication(cos, x.shape), right_multiplication(sin, x.shape)
        return (c, -s), (s, c)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x = residuals
        u, v = (as_upstream(self, part, x) for part in upstream)
        return _parts(self._adjoint(_complex(u, v)), x.dtype)

    def reference(self, real: Array, imaginary: Array) -> Any:
        y = jnp.fft.fft(jax.lax.complex(real, imaginary))
        return jnp.real(y), jnp.imag(y)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 4), (2, 4)),
            generic(cls(), (3,), (3,)),
            generic(cls(), (2, 1, 5), (2, 1, 5)),
            Case(cls(), ((1, 1), (1, 1)), "size-1 axes"),
        )


class InverseFft(Fft):
    """The inverse transform z[j] = (1/n) sum over k of Y[k] exp(2 pi i j k / n), in two parts.

    Shapes: real, imaginary and both outputs (*batch, n).

    Local gradients: those of the transform, with the other sign of the sine, divided by n.
    Backward, for the upstream u + i v: dRe + i dIm = FFT(u + i v) / n, the conjugate transpose.
    """

    _sign = 1.0

    def _transform(self, z: Array) -> Array:
        return namespace(z).fft.ifft(z)

    def _adjoint(self, z: Array) -> Array:
        return namespace(z).fft.fft(z) / z.shape[-1]

    def _scale(self, n: int) -> float:
        return 1.0 / n

    def reference(self, real: Array, imaginary: Array) -> Any:
        z = jnp.fft.ifft(jax.lax.complex(real, imaginary))
        return jnp.real(z), jnp.imag(z)


class RealFft(Node):
    """The Fourier transform of real x, its first n // 2 + 1 frequencies, in two parts.

    Shapes: x (*batch, n), both outputs (*batch, n // 2 + 1).

    Local gradients: dRe Y[k]/dx[j] = cos(2 pi j k / n), dIm Y[k]/dx[j] = -sin(2 pi j k / n).
    Backward, for the upstream u + i v: dx = n Re IFFT(u + i v, filled up with zeros to n).
    """

    def forward(self, *inputs: Any) -> tuple[Any, Any]:
        (x,) = as_inputs(self, inputs)
        _require_entries(self, x)
        y = _parts(namespace(x).fft.rfft(x), x.dtype)
        return y, (x, y)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, _ = residuals
        kept = x.shape[-1] // 2 + 1
        cos, sin = _matrix(x.shape[-1], -1.0, x)
        return tuple((right_multiplication(a[:, :kept], x.shape),) for a in (cos, sin))

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, y = residuals
        u, v = (as_upstream(self, part, yi) for part, yi in zip(upstream, y))
        n, xp = x.shape[-1], namespace(x)
        return (n * xp.real(xp.fft.ifft(_complex(u, v), n=n)).astype(x.dtype),)

    def reference(self, x: Array) -> Any:
        y = jnp.fft.rfft(x)
        return jnp.real(y), jnp.imag(y)

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 4)),
            generic(cls(), (5,)),
            generic(cls(), (2, 1, 3)),
            Case(cls(), ((1, 1),), "size-1 axes"),
        )


class InverseRealFft(Node):
    """The real x of even length n = 2 (m - 1) whose first m frequencies are given, in two parts.

    Shapes: real and imaginary (*batch, m) with m >= 2, x (*batch, n).

    Local gradients, with weights c = 1 for the first and the last frequency and 2 between:
    dx[j]/dRe[k] = c[k] cos(2 pi j k / n) / n, dx[j]/dIm[k] = -c[k] sin(2 pi j k / n) / n.
    Backward: dRe + i dIm = c RFFT(upstream) / n; the imaginary parts of the first and the last
    frequency are not read and have gradient 0.
    """

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        real, imaginary = as_inputs(self, inputs)
        _require_entries(self, real, imaginary)
        if real.shape[-1] < 2:
            raise InputError(f"{self!r}: one frequency came; expected at least 2")
        x = namespace(real).fft.irfft(_complex(real, imaginary)).astype(real.dtype)
        return x, (real, x)

    def _weights(self, x: Array) -> Array:
        n = x.shape[-1]
        weights = np.full(n // 2 + 1, 2.0 / n)
        weights[[0, -1]] = 1.0 / n
        return namespace(x).asarray(weights, dtype=x.dtype)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        real, x = residuals
        scale = self._weights(x)[:, None]
        parts = _matrix(x.shape[-1], -1.0, x)
        return tuple(right_multiplication(scale * a[: real.shape[-1]], real.shape) for a in parts)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        real, x = residuals
        xp = namespace(x)
        weights = xp.broadcast_to(self._weights(x), real.shape)
        parts = _parts(xp.fft.rfft(as_upstream(self, upstream, x)), x.dtype)
        return tuple(weights * part for part in parts)

    def reference(self, real: Array, imaginary: Array) -> Array:
        return jnp.fft.irfft(jax.lax.complex(real, imaginary))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 3), (2, 3)),
            generic(cls(), (2,), (2,)),
            generic(cls(), (2, 1, 4), (2, 1, 4)),
        )


class Dct(Node):
    """The orthonormal cosine transform (type II).

    y[k] = c_k sum over j of x[j] cos(pi (2 j + 1) k / (2 n)), with c_0 = sqrt(1/n) and c_k =
    sqrt(2/n) otherwise, so that the matrix D of the transform is orthogonal.

    Shapes: x and y (*batch, n).

    Local gradient: the matrix D, the same for each batch. Backward: dx = D^T upstream, the inverse
    transform.
    """

    def _matrix(self, x: Array) -> Array:
        n = x.shape[-1]
        cos, _ = _circle(np.outer(2 * np.arange(n) + 1, np.arange(n)), 4 * n)
        scale = np.where(np.arange(n) == 0, np.sqrt(1 / n), np.sqrt(2 / n))
        return namespace(x).asarray(scale * cos, dtype=x.dtype)

    def forward(self, *inputs: Any) -> tuple[Array, Any]:
        (x,) = as_inputs(self, inputs)
        _require_entries(self, x)
        matrix = self._matrix(x)
        return (x @ matrix).astype(x.dtype), (x, matrix)

    def local_gradient(self, residuals: Any) -> tuple[Any, ...]:
        x, matrix = residuals
        return (right_multiplication(matrix, x.shape),)

    def backward(self, upstream: Any, residuals: Any) -> tuple[Array, ...]:
        x, matrix = residuals
        return ((as_upstream(self, upstream, x) @ matrix.T).astype(x.dtype),)

    def reference(self, x: Array) -> Array:
        # `jax.scipy.fft.dct` goes through an FFT of twice the length, and loses exact zeros.
        return jnp.einsum("...j,jk->...k", x, self._matrix(x))

    @classmethod
    def cases(cls) -> tuple[Case, ...]:
        return (
            generic(cls(), (2, 4)),
            generic(cls(), (5,)),
            generic(cls(), (2, 1, 3)),
            Case(cls(), ((1, 1),), "size-1 axes"),
            Case(cls(), ((0, 3),), "zero size"),
        )
