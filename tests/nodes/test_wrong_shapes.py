"""Inputs that do not belong together: the error says what came and what was expected."""

import numpy as np
import pytest

from gradlab import InputError, nodes

x23, x4, ids = np.ones((2, 3)), np.ones(4), np.array([0, 1])

WRONG = [
    (lambda: nodes.cross_entropy(x23, ids, reduction="average"), "'mean', 'sum' or 'none'"),
    (lambda: nodes.cross_entropy(x23, np.array([0, 1, 2])), "x has shape 2x3, labels has 3"),
    (lambda: nodes.nll_loss(x23, np.array([0, 3])), "labels run from 0 to 3, but x has 3 classes"),
    (lambda: nodes.mse_loss(x23, x4), "x has shape 2x3, target has 4"),
    (lambda: nodes.layer_norm(x23, x4, x4), "features is 3 and 4"),
    (lambda: nodes.group_norm(x23, np.ones(3), np.ones(3)), "3 channels cannot be divided into 2"),
    (lambda: nodes.batch_norm(x4, np.ones(1), np.ones(1)), "x needs 2 axes or more"),
    (lambda: nodes.glu(x23), "odd size"),
    (lambda: nodes.broadcast_to(x23, shape=(4, 3)), "2x3 does not broadcast to 4x3"),
    (lambda: nodes.stack(x23, x4), "2x3, 4 cannot be stacked"),
    (lambda: nodes.tile(x23), "give one for each axis"),
    (lambda: nodes.squeeze(x23, axis=0), "another size than 1"),
    (lambda: nodes.pad(x23), "before, after"),
    (lambda: nodes.tril(x4), r"expected x \(\*batch, m, n\); x needs 2 axes"),
    (lambda: nodes.dot(x4, np.ones(3)), "n is 4 and 3"),
    (lambda: nodes.outer(x23, x4), "a needs 1 axis"),
    (lambda: nodes.scatter_add(x23, ids, x4), "the updates 4"),
    (lambda: nodes.segment_sum(x23, np.array([0])), "n is 2 and 1"),
    (lambda: nodes.embedding(x4, ids), r"expected table \(words, features\)"),
    (lambda: nodes.take_along_axis(x23, np.array([[0]])), "differ along axis -1 only"),
    (lambda: nodes.top_k(x4, k=5), "no 5 entries in a row of shape 4"),
    (lambda: nodes.pixel_shuffle(np.ones((1, 3, 2, 2))), "divisible by the factor 2"),
    (lambda: nodes.max(np.ones((2, 0)), axis=1), "no entries along axis 1"),
    (lambda: nodes.dropout(x4, np.ones(4, bool), rate=1.5), "no probability"),
    (lambda: nodes.gumbel_softmax(x23, x4), "x has shape 2x3, noise has 4"),
    (lambda: nodes.info_nce_loss(x4, x4), r"expected queries \(items, features\)"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[m for _, m in WRONG])
def test_a_wrong_call_says_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()
