"""q = W x, entry by entry: dq_k / dW_ij is x_j where k = i, and 0 elsewhere.

The gradient of W has the shape of W, whatever the size of the Jacobian.

Run it with `python examples/lecture/matrix_times_vector.py`.
"""

import numpy as np

import gradlab

W = np.array([[0.1, 0.5], [-0.3, 0.8]], np.float32)
X = np.array([0.2, 0.4], np.float32)


def product(w, x):
    return w @ x


def main() -> None:
    J = gradlab.jacobian(product, W, X, wrt="w")
    print(J.evaluate().to_dense())  # two rows for q, four columns for W
    print(J.why())
    upstream = np.array([0.44, 0.52], np.float32)
    gradient = (upstream @ J.evaluate().to_dense()).reshape(W.shape)
    print("gradient of W, with the shape of W:")
    print(gradient.round(3))


if __name__ == "__main__":
    main()
