"""Products of arrays: linear in each input, so each local gradient is made of the others.

Also what rotates or biases by position, which is a product with fixed numbers.
"""

import math
from string import ascii_letters

import numpy as np

from gradlab import operators as ops
from gradlab.common.arrays import Array, Shape, einsum, namespace
from gradlab.errors import InputError
from gradlab.formatting import shape_text
from gradlab.nodes._base import Applied, Gradients, Like, Linear, Namespace, Node, Pulled
from gradlab.nodes._lazy import jnp
from gradlab.operators import Operator

Wanted = tuple[bool, ...]


def _require_inner(node: Node, a: Array, b: Array) -> None:
    inner = b.shape[-2] if len(b.shape) > 1 else (b.shape[0] if b.shape else None)
    if not a.shape or inner is None or a.shape[-1] != inner:
        raise InputError(
            f"{node!r}: shapes {shape_text(a.shape)} and {shape_text(b.shape)} do not multiply; "
            "the last axis of the first must be as long as the second-last of the second"
        )


class Matmul(Node):
    """a @ b. Leading axes are batches and broadcast; one-dimensional inputs are vectors.

    Local gradients: y[i, j] = sum_k a[i, k] b[k, j], so dy[i, j] / da[i, k] = b[k, j] and
    dy[i, j] / db[k, j] = a[i, k]: block-diagonal, the blocks all equal. Nothing else is nonzero.
    Backward: da = upstream @ b^T, db = a^T @ upstream, summed over batch axes that were broadcast.
    """

    jax = "jax.numpy.matmul"
    drawn = (
        "3x4 4x2; 2x1x3x4 3x4x2; 3 2x3x4; two vectors: 4 4; matrices and a vector: 2x3x4 4; "
        "size-1 axes: 1x1 1x3; zero size: 3x0 0x2"
    )

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        try:
            return a @ b, (a, b)
        except (ValueError, TypeError):
            _require_inner(self, a, b)
            raise InputError(
                f"{self!r}: the leading axes of shapes {shape_text(a.shape)} and "
                f"{shape_text(b.shape)} do not broadcast"
            ) from None

    def gradients(self, xp: Namespace, a: Array, b: Array) -> Gradients:
        return ops.right_multiplication(b, a.shape), ops.left_multiplication(a, b.shape)

    def pull(self, xp: Namespace, u: Array, a: Array, b: Array) -> Pulled:
        return self.pull_wanted(xp, (True, True), u, a, b)

    def pull_wanted(self, xp: Namespace, wanted: Wanted, u: Array, a: Array, b: Array) -> Pulled:
        # Vectors are matrices with one row or one column; give them that axis for the while.
        rows, columns = len(a.shape) > 1, len(b.shape) > 1
        if not columns:
            u = u[..., None]
        if not rows:
            u = u[..., None, :]
        da = u @ (b if columns else b[:, None]).mT if wanted[0] else None
        db = (a if rows else a[None, :]).mT @ u if wanted[1] else None
        return (
            da if rows or da is None else da[..., 0, :],
            db if columns or db is None else db[..., 0],
        )


class Affine(Node):
    """x @ w + b: the fully connected layer.

    Local gradients: in x, the matrix w for each row by itself (block-diagonal); in w, x; in b, a
    broadcast. Backward: dx = upstream @ w^T; dw = x^T @ upstream and db = upstream, both summed
    over the rows.
    """

    shapes = "x (*rows, inputs), w (inputs, outputs), b (outputs) -> (*rows, outputs)"
    drawn = "5x3 3x4 4; 2x5x3 3x2 2; 3 3x4 4; size-1 axes: 1x1 1x1 1; zero size: 0x3 3x4 4"

    def apply(self, xp: Namespace, x: Array, w: Array, b: Array) -> Applied:
        y = x @ w
        bias = b if xp is np else xp.broadcast_to(b, y.shape)  # JAX's user may forbid promotion
        return y + bias, (x, w, b.shape)

    def gradients(self, xp: Namespace, x: Array, w: Array, b: Shape) -> Gradients:
        in_x = ops.right_multiplication(w, x.shape)
        shape = in_x.output_shape
        return in_x, ops.left_multiplication(x, w.shape), ops.Broadcast(b, shape, in_x.dtype)

    def pull(self, xp: Namespace, u: Array, x: Array, w: Array, b: Shape) -> Pulled:
        return self.pull_wanted(xp, (True, True, True), u, x, w, b)

    def pull_wanted(
        self, xp: Namespace, wanted: Wanted, u: Array, x: Array, w: Array, b: Shape
    ) -> Pulled:
        rows, grads = x.reshape(-1, w.shape[0]), u.reshape(-1, w.shape[1])
        dx, dw = u @ w.T if wanted[0] else None, rows.T @ grads if wanted[1] else None
        return dx, dw, grads if wanted[2] else None

    def reference(self, x: Array, w: Array, b: Array) -> Array:
        y = jnp.matmul(x, w)
        return y + jnp.broadcast_to(b, y.shape)


class Outer(Node):
    """The outer product of two vectors: y[i, j] = a[i] b[j].

    Local gradients: dy[i, j]/da[i] = b[j] and dy[i, j]/db[j] = a[i]; nothing else is nonzero.
    Backward: da = upstream @ b, db = a @ upstream.
    """

    jax = "jax.numpy.outer"
    shapes = "a (m), b (n) -> (m, n)"
    drawn = "3 4; 5 2; 1 3; zero size: 0 3"

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        return a[:, None] * b[None, :], (a, b)

    def gradients(self, xp: Namespace, a: Array, b: Array) -> Gradients:
        return (
            ops.Contraction("j,i->ij", b, input_shape=a.shape),
            ops.Contraction("i,j->ij", a, input_shape=b.shape),
        )

    def pull(self, xp: Namespace, u: Array, a: Array, b: Array) -> Pulled:
        return u @ b, a @ u


class Dot(Node):
    """The dot product of two vectors: sum(a * b).

    Local gradients: the rows b^T and a^T. Backward: da = upstream * b, db = upstream * a.
    """

    jax = "jax.numpy.dot"
    shapes = "a (n), b (n) -> ()"
    drawn = "3 3; 7 7; 1 1; zero size: 0 0"

    def apply(self, xp: Namespace, a: Array, b: Array) -> Applied:
        return (a * b).sum(), (a, b)

    def gradients(self, xp: Namespace, a: Array, b: Array) -> Gradients:
        return ops.Dense(b[None, :], (), a.shape), ops.Dense(a[None, :], (), b.shape)

    def pull(self, xp: Namespace, u: Array, a: Array, b: Array) -> Pulled:
        return u * b, u * a


class QuadraticForm(Node):
    """x^T A x for a vector x and a square matrix A, which need not be symmetric.

    Local gradients: the row ((A + A^T) x)^T, and in A the outer product x x^T as one row.
    Backward: dx = upstream * (A + A^T) x, dA = upstream * x x^T.
    """

    shapes = "x (n), a (n, n) -> ()"
    drawn = "3 3x3; 5 5x5; 1 1x1; zero size: 0 0x0"

    def apply(self, xp: Namespace, x: Array, a: Array) -> Applied:
        return x @ (a @ x), (x, a)

    def gradients(self, xp: Namespace, x: Array, a: Array) -> Gradients:
        row, outer = (a @ x + x @ a)[None, :], (x[:, None] * x[None, :]).reshape(1, -1)
        return ops.Dense(row, (), x.shape), ops.Dense(outer, (), a.shape)

    def pull(self, xp: Namespace, u: Array, x: Array, a: Array) -> Pulled:
        return u * (a @ x + x @ a), u * x[:, None] * x[None, :]

    def reference(self, x: Array, a: Array) -> Array:
        return jnp.dot(x, jnp.matmul(a, x))


class Einsum(Node):
    """The sum over all indices that the output lacks of the product of the operands.

    y[out] = sum of x_1[in_1] x_2[in_2] ..., as in `einsum("in_1,in_2->out", x_1, x_2)`.

    Args:
        subscripts: a letter for each axis of each operand, and of the output, after `->`. A letter
            may occur twice in an operand (its diagonal); each of the output's occurs once there.

    Local gradients: in each operand the contraction with all others, which are fixed.
    Backward: dx_i is the einsum in which x_i and the output have changed places: with ones for
    an index that only x_i has, and with an identity matrix for one that x_i has twice.
    """

    subscripts: str = "ij,jk->ik"
    drawn = (
        "2x3 3x4; 2x2x3 2x3x2 2 subscripts=bij,bjk,k->bi; 2x3x2 subscripts=bti->bi; "
        "a diagonal: 3x3 subscripts=ii->i; a trace: 2x3x2x3 subscripts=ijij->; "
        "an outer product: 2 3 subscripts=i,j->ij; all summed: 2x3 2x3 subscripts=ij,kj->; "
        "nothing done: 2x3 subscripts=ij->ij; zero size: 2x0 0x3"
    )

    def _terms(self) -> tuple[list[str], str]:
        operands, arrow, output = self.subscripts.replace(" ", "").partition("->")
        terms = operands.split(",")
        letters = "".join(terms)
        self.require(
            bool(arrow)
            and (letters + output).isalpha()
            and len(set(output)) == len(output)
            and set(output) <= set(letters),
            "expected letters such as 'ij,jk->ik', with an explicit output of theirs, each once",
        )
        return terms, output

    def apply(self, xp: Namespace, *xs: Array) -> Applied:
        terms, _ = self._terms()
        ranks = [len(term) for term in terms]
        sizes: dict[str, int] = {}
        fits = ranks == [len(x.shape) for x in xs] and all(
            sizes.setdefault(letter, size) == size
            for term, x in zip(terms, xs)
            for letter, size in zip(term, x.shape)
        )
        text = f"expected {len(terms)} operands with {ranks} axes, and one size for each letter"
        self.require(fits, text, **{f"x{i}": x.shape for i, x in enumerate(xs)})
        return einsum(self.subscripts, *xs).astype(xs[0].dtype), xs

    def _fixed(self, i: int, arrays: tuple[Array, ...]) -> tuple[str, list[str], list[Array]]:
        """Return operand i's letters, no two alike, and what it is multiplied by."""
        xp, (terms, output) = namespace(*arrays), self._terms()
        x = arrays[i]
        others = [(t, a) for k, (t, a) in enumerate(zip(terms, arrays)) if k != i]
        spare = iter(sorted(set(ascii_letters) - set("".join(terms))))
        letters = ""
        for letter, size in zip(terms[i], x.shape):
            if letter in letters:
                twin = next(spare)
                others.append((letter + twin, xp.eye(size, dtype=x.dtype)))
                letters += twin
            else:
                letters += letter
        known = set(output).union(*(t for t, _ in others))
        for letter, size in zip(letters, x.shape):
            if letter not in known:
                others.append((letter, xp.ones((size,), dtype=x.dtype)))
        if not others:
            others = [("", xp.ones((), dtype=x.dtype))]
        return letters, [t for t, _ in others], [a for _, a in others]

    def gradients(self, xp: Namespace, *xs: Array) -> Gradients:
        _, output = self._terms()
        operators = []
        for i, x in enumerate(xs):
            letters, terms, fixed = self._fixed(i, xs)
            subscripts = ",".join([*terms, letters]) + "->" + output
            operators.append(ops.Contraction(subscripts, *fixed, input_shape=x.shape))
        return tuple(operators)

    def pull(self, xp: Namespace, upstream: Array, *xs: Array) -> Pulled:
        _, output = self._terms()
        found = []
        for i in range(len(xs)):
            letters, terms, fixed = self._fixed(i, xs)
            found.append(einsum(",".join([output, *terms]) + "->" + letters, upstream, *fixed))
        return tuple(found)

    def reference(self, *xs: Array) -> Array:
        return jnp.einsum(self.subscripts, *xs)


class RotaryEmbedding(Linear):
    """Each pair of channels, rotated by an angle that grows with the position (RoPE).

    Pair f of position t turns by a = (t + offset) base^(-2 f / width):
    (y1, y2) = (x1 cos a - x2 sin a, x1 sin a + x2 cos a). The product of a rotated query and a
    rotated key then depends on the distance between their positions alone.

    Args:
        base: how much slower the last pair turns than the first.
        offset: the position of the first row.
        interleaved: whether pair f is channels 2 f and 2 f + 1 (RoFormer); else it is channels
            f and f + width / 2 (GPT-NeoX).

    Source: Su et al., "RoFormer" (arXiv:2104.09864, 2021), section 3.2.2.
    """

    base: float = 10000.0
    offset: int = 0
    interleaved: bool = True
    shapes = "x (*batch, length, width) -> (*batch, length, width)"
    drawn = (
        "2x3x4; 2x1x3x6 base=100.0 offset=5; 4x6 interleaved=False; size-1 axes: 1x2; "
        "zero size: 0x3x4"
    )

    def operator(self, x: Like) -> Operator:
        *batch, length, width = x.shape
        self.require(width % 2 == 0, "expected an even width", x=x.shape)
        pairs = width // 2
        rates = self.base ** (-np.arange(pairs) / max(pairs, 1))
        angles = (self.offset + np.arange(length))[:, None] * rates
        cos, sin = np.cos(angles), np.sin(angles)
        rotations = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        # a and b number the two of a pair, before and after; they are the last axis or stand before
        letters = "ntfb->ntfa" if self.interleaved else "ntbf->ntaf"
        inner = (pairs, 2) if self.interleaved else (2, pairs)
        paired = (math.prod(batch), length, *inner)
        turn = ops.Contraction(f"tfab,{letters}", rotations.astype(x.dtype), input_shape=paired)
        return ops.Reshape(paired, x.shape, x.dtype) @ turn @ ops.Reshape(x.shape, paired, x.dtype)

    def reference(self, x: Array) -> Array:
        length, width = x.shape[-2:]
        positions = jnp.arange(self.offset, self.offset + length, dtype=x.dtype)
        rates = jnp.asarray(self.base, x.dtype) ** (-jnp.arange(0, width, 2, dtype=x.dtype) / width)
        angles = jnp.broadcast_to(jnp.outer(positions, rates), (*x.shape[:-1], width // 2))
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        if self.interleaved:
            one, other = x[..., 0::2], x[..., 1::2]
        else:
            one, other = jnp.split(x, 2, axis=-1)
        turned = (one * cos - other * sin, one * sin + other * cos)
        if self.interleaved:
            return jnp.stack(turned, axis=-1).reshape(x.shape)
        return jnp.concatenate(turned, axis=-1)


class AlibiBias(Node):
    """scores[..., h, i, j] - slopes[h] |i - j|: the further away, the less attention (ALiBi).

    Local gradients: in the scores the identity; dy[h, i, j]/dslopes[h] = -|i - j|.
    Backward: dscores = upstream; dslopes[h] = -sum over all i, j of |i - j| upstream[..., h, i, j].
    Source: Press et al., "Train short, test long" (arXiv:2108.12409, 2021), section 3.
    """

    shapes = "scores (*batch, heads, queries, keys), slopes (heads)"
    drawn = "2x2x3x3 2; 3x2x4 3; 1x2x1x3x2 1; size-1 axes: 1x1x1 1"

    def apply(self, xp: Namespace, scores: Array, slopes: Array) -> Applied:
        queries, keys = scores.shape[-2:]
        away = np.abs(np.arange(queries)[:, None] - np.arange(keys))
        distance = xp.broadcast_to(xp.asarray(away, dtype=scores.dtype), scores.shape)
        steep = xp.broadcast_to(slopes[:, None, None], scores.shape)
        return scores - steep * distance, (distance, Like.of(slopes))

    def gradients(self, xp: Namespace, distance: Array, slopes: Like) -> Gradients:
        shape, dtype = distance.shape, distance.dtype
        along = ops.Broadcast(slopes.shape, shape, dtype, axes=self._others(distance))
        return ops.Identity(shape, dtype), ops.Diagonal(-distance) @ along

    def _others(self, distance: Array) -> tuple[int, ...]:
        return tuple(i for i in range(distance.ndim) if i != distance.ndim - 3)

    def reference(self, scores: Array, slopes: Array) -> Array:
        i, j = jnp.indices(scores.shape[-2:])
        return scores - jnp.broadcast_to(slopes[:, None, None] * jnp.abs(i - j)[None], scores.shape)
