"""Matrix products, solves and factorisations, real and complex."""

import numpy as np
from corpus.model import COMPLEX, FULL, operation


@operation(lambda d: (d.normal(3, 4), d.normal(4, 5), d.normal(5)))
class linear:
    def forward(xp, x, w, b):
        return x @ w + b

    def backward(xp, g, x, w, b):
        return g @ w.T, x.T @ g, g.sum(axis=0)


@linear.fault("apache/tvm#2465", "missing sum", shape=True)
def bias_not_summed(xp, g, x, w, b):
    return g @ w.T, x.T @ g, g


@linear.fault("a gradient averaged by the layer too", "factor|mean for sum")
def weights_averaged(xp, g, x, w, b):
    return g @ w.T, x.T @ g / x.shape[0], g.sum(axis=0)


@linear.fault("a layer that forgets its input", "detached")
def input_detached(xp, g, x, w, b):
    return 0 * x, x.T @ g, g.sum(axis=0)


@linear.fault("deeplearning4j/nd4j#2424")
def bias_of_the_first_row(xp, g, x, w, b):
    return g @ w.T, x.T @ g, g[0]


@operation(lambda d: (d.normal(4, 4), d.normal(4, 4)))
class matmul_square:
    def forward(xp, x, w):
        return x @ w

    def backward(xp, g, x, w):
        return g @ w.T, x.T @ g


@matmul_square.fault("jax 2292681128", "transposed")
def weights_transposed(xp, g, x, w):
    return g @ w.T, g.T @ x


@matmul_square.fault("fast-MPN-COV#28", "input transposed")
def transpose_forgotten(xp, g, x, w):
    return g @ w, x.T @ g


@matmul_square.fault("oneflow#6149", "swapped")
def gradients_swapped(xp, g, x, w):
    return x.T @ g, g @ w.T


@matmul_square.fault("a transposed result", "transposed")
def input_transposed(xp, g, x, w):
    return w @ g.T, x.T @ g


@operation(lambda d: (d.normal(2, 3, 4), d.normal(4, 5)))
class batched_matmul:
    def forward(xp, x, w):
        return x @ w

    def backward(xp, g, x, w):
        return g @ w.T, xp.tensordot(x, g, axes=((0, 1), (0, 1)))


@batched_matmul.fault("jax 960061df23", "missing sum", shape=True)
def batch_not_summed(xp, g, x, w):
    return g @ w.T, xp.swapaxes(x, 1, 2) @ g


@batched_matmul.fault("the last of the batch only")
def last_of_the_batch(xp, g, x, w):
    return g @ w.T, x[-1].T @ g[-1]


@operation(lambda d: (d.complex(3, 2), d.complex(2, 4)), dtypes=COMPLEX)
class complex_matmul:
    """JAX's convention: the backward is linear, without conjugates."""

    def forward(xp, x, w):
        return x @ w

    def backward(xp, g, x, w):
        return g @ w.T, x.T @ g


@complex_matmul.fault("tensorflow#4859")
def conjugated_weights(xp, g, x, w):
    return g @ w.T.conj(), x.T @ g


@complex_matmul.fault("jax bc2e42807e", "conjugated")
def conjugated_result(xp, g, x, w):
    return (g @ w.T).conj(), x.T @ g


@operation(lambda d: (d.complex(5),), dtypes=COMPLEX)
class imaginary_part:
    def forward(xp, z):
        return xp.imag(z)

    def backward(xp, g, z):
        return -1j * g


@imaginary_part.fault("jax#979", "sign|conjugated")
def turned_the_wrong_way(xp, g, z):
    return 1j * g


@operation(lambda d: (d.complex(4),), dtypes=COMPLEX)
class squared_modulus:
    def forward(xp, z):
        return (z * z.conj()).real

    def backward(xp, g, z):
        return 2 * g * z.conj()


@squared_modulus.fault("jax db52d42597", "conjugated")
def not_conjugated(xp, g, z):
    return 2 * g * z


@squared_modulus.fault("Zygote#366", "factor")
def half_of_it(xp, g, z):
    return g * z.conj()


@operation(lambda d: (d.normal(3), d.normal(3, 3), d.normal(3)))
class bilinear:
    def forward(xp, x, a, y):
        return x @ a @ y

    def backward(xp, g, x, a, y):
        return g * (a @ y), g * x[:, None] * y[None, :], g * (x @ a)


@bilinear.fault("jax e6b23dd2b7", "transposed")
def outer_transposed(xp, g, x, a, y):
    return g * (a @ y), g * y[:, None] * x[None, :], g * (x @ a)


@bilinear.fault("fast-MPN-COV#28", "input transposed|exchanged")
def matrix_not_transposed(xp, g, x, a, y):
    return g * (a @ y), g * x[:, None] * y[None, :], g * (a @ x)


@operation(lambda d: (d.unit(3, 3) + 4 * np.eye(3), d.unit(3, 2)), dtypes=FULL)
class solve:
    def forward(xp, a, b):
        return xp.linalg.solve(a, b)

    def backward(xp, g, a, b):
        db = xp.linalg.solve(a.T, g)
        return -db @ xp.linalg.solve(a, b).T, db


@solve.fault("jax e6b23dd2b7", "input transposed")
def transpose_ignored(xp, g, a, b):
    db = xp.linalg.solve(a, g)
    return -db @ xp.linalg.solve(a, b).T, db


@solve.fault("jax d00351e13f", "sign")
def matrix_sign(xp, g, a, b):
    db = xp.linalg.solve(a.T, g)
    return db @ xp.linalg.solve(a, b).T, db


@operation(lambda d: (d.unit(3, 3) + 4 * np.eye(3),), dtypes=FULL)
class inverse:
    def forward(xp, a):
        return xp.linalg.inv(a)

    def backward(xp, g, a):
        y = xp.linalg.inv(a)
        return -y.T @ g @ y.T


@inverse.fault("fast-MPN-COV#28", "input transposed")
def not_transposed(xp, g, a):
    y = xp.linalg.inv(a)
    return -y @ g @ y


@operation(lambda d: (d.unit(3, 3) + 4 * np.eye(3),), dtypes=FULL)
class log_determinant:
    def forward(xp, a):
        return xp.linalg.slogdet(a)[1]

    def backward(xp, g, a):
        return g * xp.linalg.inv(a).T


@log_determinant.fault("fast-MPN-COV#28", "transposed")
def inverse_not_transposed(xp, g, a):
    return g * xp.linalg.inv(a)


@operation(lambda d: (d.unit(3, 3), d.integers(0, 1, 1)))
class symmetric_part:
    def forward(xp, a, _):
        return (a + a.T) / 2

    def backward(xp, g, a, _):
        return (g + g.T) / 2, None


@symmetric_part.fault("pytorch#30578")
def lower_triangle_only(xp, g, a, _):
    return xp.tril(g + g.T) / 2, None


@symmetric_part.fault("pytorch#30578", "factor")
def off_diagonal_doubled(xp, g, a, _):
    return g + g.T, None


@operation(lambda d: (d.normal(3, 2), d.normal(4, 5)))
class kronecker:
    def forward(xp, a, b):
        return xp.kron(a, b)

    def backward(xp, g, a, b):
        g = g.reshape(3, 4, 2, 5)
        return (
            (g * b[None, :, None, :]).sum(axis=(1, 3)),
            (g * a[:, None, :, None]).sum(axis=(0, 2)),
        )


@kronecker.fault("jax 2292681128")
def blocks_misread(xp, g, a, b):
    h = g.reshape(4, 3, 5, 2)
    g = g.reshape(3, 4, 2, 5)
    return (
        (h * b[:, None, :, None]).sum(axis=(0, 2)),
        (g * a[:, None, :, None]).sum(axis=(0, 2)),
    )
