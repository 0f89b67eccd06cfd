"""Discrete Fourier and cosine transforms along the last axis: linear, each by one fixed matrix.

A complex array is a pair of real ones here, its real and imaginary parts, so that every gradient
is that of a real function. JAX's gradient of a real loss at z = a + i b is `da - i db`, the
conjugate of what these pairs hold as (da, db).

Source: Cooley and Tukey, "An algorithm for the machine calculation of complex Fourier series"
(1965); the cosine transform: Ahmed et al., "Discrete cosine transform" (1974).
"""

from typing import ClassVar

import numpy as np

from gradlab.common.arrays import Array, DTypeLike, namespace
from gradlab.nodes._base import Applied, Gradients, Like, Linear, Namespace, Node, Outputs, Pulled
from gradlab.nodes._lazy import jax, jnp
from gradlab.operators import Operator, right_multiplication


def _complex(real: Array, imaginary: Array) -> Array:
    dtype = np.complex128 if real.dtype.itemsize == 8 else np.complex64
    turn = namespace(real).asarray(1j, dtype=dtype)
    return real.astype(dtype) + turn * imaginary.astype(dtype)


def _parts(z: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    xp = namespace(z)
    return xp.real(z).astype(dtype), xp.imag(z).astype(dtype)


def _require_entries(node: Node, n: int, least: int = 1) -> None:
    node.require(n >= least, f"the last axis has {n} entries; expected at least {least}")


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


def _matrix(n: int, sign: float, dtype: DTypeLike) -> tuple[Array, Array]:
    """Return cos and sign * sin of 2 pi j k / n, as matrices over j and k."""
    cos, sin = _circle(np.outer(np.arange(n), np.arange(n)), n)
    return cos.astype(dtype), (sign * sin).astype(dtype)


class Fft(Node):
    """The discrete Fourier transform Y[k] = sum over j of z[j] exp(-2 pi i j k / n), in two parts.

    Local gradients: with C = cos and S = sin of 2 pi j k / n: dRe Y = C dRe + S dIm, dIm Y =
    -S dRe + C dIm, the same for each batch.
    Backward, for the upstream u + i v: dRe + i dIm = n IFFT(u + i v), the conjugate transpose.
    """

    shapes = "real (*batch, n), imaginary (*batch, n) -> (*batch, n), (*batch, n)"
    drawn = "2x4 2x4; 3 3; 2x1x5 2x1x5; size-1 axes: 1x1 1x1"
    sign: ClassVar[float] = -1.0

    def transform(self, xp: Namespace, z: Array) -> Array:
        """Return the transform of a complex array."""
        return xp.fft.fft(z)

    def adjoint(self, xp: Namespace, z: Array) -> Array:
        """Return the conjugate transpose of the transform, applied to a complex array."""
        return z.shape[-1] * xp.fft.ifft(z)

    def apply(self, xp: Namespace, real: Array, imaginary: Array) -> Applied:
        _require_entries(self, real.shape[-1])
        z = self.transform(xp, _complex(real, imaginary))
        return _parts(z, real.dtype), (Like.of(real),)

    def gradients(self, xp: Namespace, x: Like) -> Gradients:
        n = x.shape[-1]
        scale = 1.0 if self.sign < 0 else 1.0 / n
        cos, sin = (xp.asarray(scale * a) for a in _matrix(n, self.sign, x.dtype))
        c, s = right_multiplication(cos, x.shape), right_multiplication(sin, x.shape)
        return (c, -s), (s, c)

    def pull(self, xp: Namespace, upstream: tuple[Array, Array], x: Like) -> Pulled:
        return _parts(self.adjoint(xp, _complex(*upstream)), x.dtype)

    def reference(self, real: Array, imaginary: Array) -> Outputs:
        y = self.transform(jnp, jax.lax.complex(real, imaginary))
        return jnp.real(y), jnp.imag(y)


class InverseFft(Fft):
    """The inverse transform z[j] = (1/n) sum over k of Y[k] exp(2 pi i j k / n), in two parts.

    Local gradients: those of the transform, with the other sign of the sine, divided by n.
    Backward, for the upstream u + i v: dRe + i dIm = FFT(u + i v) / n, the conjugate transpose.
    """

    sign: ClassVar[float] = 1.0

    def transform(self, xp: Namespace, z: Array) -> Array:
        return xp.fft.ifft(z)

    def adjoint(self, xp: Namespace, z: Array) -> Array:
        return xp.fft.fft(z) / z.shape[-1]


class RealFft(Node):
    """The Fourier transform of real x, its first n // 2 + 1 frequencies, in two parts.

    Local gradients: dRe Y[k]/dx[j] = cos(2 pi j k / n), dIm Y[k]/dx[j] = -sin(2 pi j k / n).
    Backward, for the upstream u + i v: dx = n Re IFFT(u + i v, filled up with zeros to n).
    """

    shapes = "x (*batch, n) -> (*batch, n // 2 + 1), (*batch, n // 2 + 1)"
    drawn = "2x4; 5; 2x1x3; size-1 axes: 1x1"

    def apply(self, xp: Namespace, x: Array) -> Applied:
        _require_entries(self, x.shape[-1])
        return _parts(xp.fft.rfft(x), x.dtype), (Like.of(x),)

    def gradients(self, xp: Namespace, x: Like) -> Gradients:
        kept = x.shape[-1] // 2 + 1
        parts = _matrix(x.shape[-1], -1.0, x.dtype)
        return tuple((right_multiplication(xp.asarray(a[:, :kept]), x.shape),) for a in parts)

    def pull(self, xp: Namespace, upstream: tuple[Array, Array], x: Like) -> Pulled:
        n = x.shape[-1]
        return n * xp.real(xp.fft.ifft(_complex(*upstream), n=n))

    def reference(self, x: Array) -> Outputs:
        y = jnp.fft.rfft(x)
        return jnp.real(y), jnp.imag(y)


class InverseRealFft(Node):
    """The real x of even length n = 2 (m - 1) whose first m frequencies are given, in two parts.

    Local gradients, with weights c = 1 for the first and the last frequency and 2 between:
    dx[j]/dRe[k] = c[k] cos(2 pi j k / n) / n, dx[j]/dIm[k] = -c[k] sin(2 pi j k / n) / n.
    Backward: dRe + i dIm = c RFFT(upstream) / n; the imaginary parts of the first and the last
    frequency are not read and have gradient 0.
    """

    shapes = "real (*batch, m), imaginary (*batch, m) -> (*batch, 2 m - 2)"
    drawn = "2x3 2x3; 2 2; 2x1x4 2x1x4"

    def apply(self, xp: Namespace, real: Array, imaginary: Array) -> Applied:
        _require_entries(self, real.shape[-1], 2)
        x = xp.fft.irfft(_complex(real, imaginary)).astype(real.dtype)
        return x, (Like.of(real),)

    def _weights(self, n: int, dtype: DTypeLike) -> Array:
        weights = np.full(n // 2 + 1, 2.0 / n)
        weights[[0, -1]] = 1.0 / n
        return weights.astype(dtype)

    def gradients(self, xp: Namespace, real: Like) -> Gradients:
        m, n = real.shape[-1], 2 * (real.shape[-1] - 1)
        scale, parts = self._weights(n, real.dtype)[:, None], _matrix(n, -1.0, real.dtype)
        return tuple(right_multiplication(xp.asarray(scale * a[:m]), real.shape) for a in parts)

    def pull(self, xp: Namespace, upstream: Array, real: Like) -> Pulled:
        weights = xp.asarray(self._weights(upstream.shape[-1], real.dtype))
        weights = xp.broadcast_to(weights, real.shape)
        return tuple(weights * part for part in _parts(xp.fft.rfft(upstream), real.dtype))

    def reference(self, real: Array, imaginary: Array) -> Array:
        return jnp.fft.irfft(jax.lax.complex(real, imaginary))


class Dct(Linear):
    """The orthonormal cosine transform (type II).

    y[k] = c_k sum over j of x[j] cos(pi (2 j + 1) k / (2 n)), with c_0 = sqrt(1/n) and c_k =
    sqrt(2/n) otherwise, so that the matrix D of the transform is orthogonal.
    """

    shapes = "x (*batch, n) -> (*batch, n)"
    drawn = "2x4; 5; 2x1x3; size-1 axes: 1x1; zero size: 0x3"

    def _matrix(self, n: int, dtype: DTypeLike) -> Array:
        cos, _ = _circle(np.outer(2 * np.arange(n) + 1, np.arange(n)), 4 * n)
        scale = np.where(np.arange(n) == 0, np.sqrt(1 / n), np.sqrt(2 / n))
        return (scale * cos).astype(dtype)

    def operator(self, x: Like) -> Operator:
        _require_entries(self, x.shape[-1])
        return right_multiplication(self._matrix(x.shape[-1], x.dtype), x.shape)

    def apply(self, xp: Namespace, x: Array) -> Applied:
        _require_entries(self, x.shape[-1])
        return x @ xp.asarray(self._matrix(x.shape[-1], x.dtype)), (Like.of(x),)

    def pull(self, xp: Namespace, upstream: Array, x: Like) -> Pulled:
        return upstream @ xp.asarray(self._matrix(x.shape[-1], x.dtype)).T

    def reference(self, x: Array) -> Array:
        # `jax.scipy.fft.dct` goes through an FFT of twice the length, and loses exact zeros.
        return jnp.einsum("...j,jk->...k", x, self._matrix(x.shape[-1], x.dtype))
