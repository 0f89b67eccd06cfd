"""Fifteen mistakes in NumPy that were written after the engine, and never looked at before."""

MISTAKES = [
    ("rms_norm", [("r * dy - r**3", "dy - r**3")]),
    (
        "layer_norm",
        [("dgamma = (dout * xhat).sum(axis=0)", "dgamma = (dout * xhat).sum(axis=1)[0] * gamma")],
    ),
    ("layer_norm", [("xhat * mean_dx", "xhat * mean_d")]),
    ("batch_norm", [("dmean = -np.sum(dxhat * ivar, axis=0)", "dmean = -np.sum(dxhat, axis=0)")]),
    ("batch_norm", [("dxhat = dout * gamma", "dxhat = dout / gamma")]),
    ("softmax_cross_entropy", [("d = p.copy()", "d = np.log(p)")]),
    ("attention", [("dv = a.T @ dout", "dv = a.T @ dout / q.shape[0]")]),
    ("attention", [("da = dout @ v.T", "da = -dout @ v.T")]),
    ("mlp", [("dx = dz1 @ w1.T", "dx = dh @ w1.T")]),
    ("lstm_step", [("dc_next = dh * o * (1 - t**2)", "dc_next = dh * o")]),
    (
        "lstm_step",
        [("da = np.hstack([dai, daf, dao, dag])", "da = np.hstack([daf, dai, dao, dag])")],
    ),
    ("rnn", [("prev = hs[t - 1] if t > 0 else h0", "prev = hs[t]")]),
    ("conv1d", [("piece = x[:, :, j : j + k]", "piece = x[:, :, j + 1 : j + 1 + k]")]),
    ("gelu", [("0.5 * (1 + t) + 0.5", "0.5 + 0.5")]),
    ("normalise", [(") / n,)", "),)")]),
]
