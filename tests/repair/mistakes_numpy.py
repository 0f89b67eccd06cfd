"""Mistakes that people make in NumPy: a layer, and what stands in the place of the right text."""

MISTAKES = [
    ("rms_norm", [("dot = np.mean(", "dot = np.sum(")]),
    ("rms_norm", [("r**3 * x", "r**2 * x")]),
    ("rms_norm", [("dx = r * dy - r**3 * x * dot", "dx = r * dy")]),
    ("rms_norm", [("dy = dout * gamma", "dy = dout")]),
    ("rms_norm", [("np.sum(dout * x * r, axis=0)", "np.sum(dout * x, axis=0)")]),
    ("layer_norm", [("dxhat - mean_d - xhat", "dxhat - xhat")]),
    ("layer_norm", [("(dxhat * xhat).sum(axis=1", "(dxhat * xhat).sum(axis=0")]),
    ("layer_norm", [("dgamma = (dout * xhat)", "dgamma = (dout * gamma)")]),
    ("layer_norm", [(") / std", ") / std**2")]),
    (
        "layer_norm",
        [
            (
                "mean_d = dxhat.sum(axis=1, keepdims=True) / n",
                "mean_d = dxhat.sum(axis=1, keepdims=True)",
            )
        ],
    ),
    ("batch_norm", [("* -0.5 * ivar**3", "* 0.5 * ivar**3")]),
    ("batch_norm", [("dvar * 2 * xmu / m", "dvar * 2 * xmu")]),
    ("batch_norm", [(" + dmean / m", "")]),
    ("batch_norm", [("ivar**3", "ivar**2")]),
    ("softmax_cross_entropy", [("    d /= n\n", "")]),
    ("softmax_cross_entropy", [("y] -= 1", "y] += 1")]),
    ("softmax", [("return (s * (dout - dot),)", "return (s * (1 - s) * dout,)")]),
    ("softmax", [("(dout * s).sum(axis=-1", "(dout * s).sum(axis=0")]),
    ("attention", [("dk = ds.T @ q * scale", "dk = ds.T @ q")]),
    ("attention", [("dv = a.T @ dout", "dv = a.T @ dout * scale")]),
    (
        "attention",
        [
            (
                "ds = a * (da - (da * a).sum(axis=1, keepdims=True))",
                "ds = a * (da - da.sum(axis=1, keepdims=True))",
            )
        ],
    ),
    ("affine_relu", [("dz = dout * (z > 0)", "dz = dout")]),
    ("affine_relu", [("(z > 0)", "(x @ w > 0)")]),
    ("affine_relu", [("db = dz.sum(axis=0)", "db = dout.sum(axis=0)")]),
    ("mlp", [("(1 - h**2)", "(1 - h)")]),
    ("mlp", [("dw1 = x.T @ dz1", "dw1 = x.T @ dh")]),
    ("lstm_step", [("daf = df * f * (1 - f)", "daf = df * f")]),
    ("lstm_step", [("dc = dc_next * f", "dc = dc_next")]),
    ("lstm_step", [("di = dc_next * g", "di = dc_next * i")]),
    ("rnn", [("(dout[t] + dh)", "dout[t]")]),
    ("rnn", [("dwx += x[t].T", "dwx = x[t].T")]),
    ("rnn", [("reversed(range(x.shape[0]))", "range(x.shape[0])")]),
    ("conv1d", [("dout.sum(axis=(0, 2))", "dout.sum(axis=0).mean(axis=1)")]),
    ("conv1d", [("dx[:, :, j : j + k] += ", "dx[:, :, j : j + k] = ")]),
    ("gelu", [("1 + 3 * 0.044715 * x**2", "1 + 0.044715 * x**2")]),
    ("gelu", [("0.5 * x * (1 - t**2) * dinner", "0.5 * (1 - t**2) * dinner")]),
    ("silu", [("x * s * (1 - s)", "s * (1 - s)")]),
    ("embedding", [("np.add.at(dtable, tokens, dout)", "dtable[tokens] += dout")]),
    ("mse", [("n = diff.size", "n = diff.shape[0]")]),
    ("ridge", [(" + 0.2 * w", "")]),
    ("hinge", [("d[np.arange(n), y] -= count", "d[np.arange(n), y] = 0")]),
    ("max_pool", [("repeat(2, axis=3) * mask", "repeat(2, axis=3)")]),
    ("normalise", [("- y * (dout * y)", "- x * (dout * y)")]),
    # two edits
    (
        "rms_norm",
        [("r**3 * x * dot", "r**2 * x * dot"), ("dout * x * r, axis=0", "dout * x, axis=0")],
    ),
    (
        "layer_norm",
        [
            ("dbeta = dout.sum(axis=0)", "dbeta = dout.mean(axis=0)"),
            ("dxhat - mean_d - xhat", "dxhat + mean_d - xhat"),
        ],
    ),
    ("mlp", [("(1 - h**2)", "(1 - h)"), ("db2 = dout.sum(axis=0)", "db2 = dout.mean(axis=0)")]),
    (
        "attention",
        [("dk = ds.T @ q * scale", "dk = ds.T @ q"), ("dq = ds @ k * scale", "dq = ds @ k")],
    ),
    (
        "lstm_step",
        [
            ("dai = di * i * (1 - i)", "dai = di * i"),
            ("db = da.sum(axis=0)", "db = da.mean(axis=0)"),
        ],
    ),
    (
        "batch_norm",
        [
            ("* -0.5 * ivar**3", "* 0.5 * ivar**3"),
            ("dgamma = np.sum(dout * xhat", "dgamma = np.sum(dout * xmu"),
        ],
    ),
    ("ridge", [("np.outer(r, w) / n", "np.outer(r, w)"), (" + 0.2 * w", " + 0.1 * w")]),
    ("rnn", [("dwh += prev.T", "dwh = prev.T")]),
]
