"""The lecture as one page: graphs to step through, four gates, a sigmoid, vectors, a diagonal.

Run it with `python examples/lecture/page.py [FILE.html]`, and open the file in a browser. Left and
right arrow step through the graph that is in the middle of the screen. Gates that stand side by
side step together.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gradlab
from gradlab import Graph, nodes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the root of the clone

from examples.lecture import gates
from examples.lecture.matrix_times_vector import W, X, product
from examples.sigmoid_gates import INPUTS, neuron
from examples.simplest_graph import f
from examples.vector_graph import f as squared_length

_STYLE = (  # the title of a part stands in the place of its page's own head
    "<style>.part .gl-top,.part .gl-word,.part h1,.part h1+.gl-lead{display:none!important}"
    ".four{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));"
    "max-width:1136px;margin:0 auto}.four>*{min-width:0}</style>"
)


def drawn(graph: Graph, decimals: int = 2) -> str:
    """Return the page of a graph whose gradients are known."""
    graph.backward()
    return graph.report(local_gradients=True, checks=True, decimals=decimals).render("html")


def matrix(function, *inputs, **options) -> str:
    """Return the page of a Jacobian, with its first entries by value."""
    found = gradlab.jacobian(function, *inputs, **options)
    corner = found.evaluate().to_scipy()[:12, :12].toarray()
    return replace(found.report, corner=tuple(map(tuple, corner.tolist()))).render("html")


def parts() -> list[tuple[str, str, str]]:
    """Return a title, a text and a page for each part."""
    sigmoid = Graph(neuron, *INPUTS)
    sigmoid.group(["negate", "exp", "add_2", "reciprocal"], name="sigmoid").ungroup("reciprocal")
    w, x = W.astype(np.float64), X.astype(np.float64)
    return [
        (
            "1. A graph, forward and backward",
            "Each gate knows its inputs and its output. Backward, it gets the upstream: the "
            "gradient of the end with respect to its output. It multiplies the upstream by its "
            "local gradient, and sends the product to its inputs.",
            drawn(Graph(f, -2.0, 5.0, -4.0).label(add="q", multiply="f")),
        ),
        (
            "2. Add distributes",
            "Both inputs get the upstream.",
            drawn(Graph(gates.add, 3.0, 4.0)),
        ),
        (
            "3. Multiply swaps",
            "Each input gets the other input times the upstream.",
            drawn(Graph(gates.multiply, 3.0, 4.0)),
        ),
        (
            "4. Max routes",
            "The larger input gets the whole upstream, the smaller one gets 0.",
            drawn(Graph(gates.maximum, 3.0, 4.0)),
        ),
        (
            "5. Copy adds",
            "A value that is used twice gets the sum of both gradients.",
            drawn(Graph(gates.copy, 3.0)),
        ),
        (
            "6. A neuron, and a sigmoid inside it",
            "Four gates in a row are a sigmoid s, and ds/dx = (1 - s) s. Open and close the group: "
            "the gradients outside are the same.",
            drawn(sigmoid),
        ),
        (
            "7. Vectors and matrices",
            "The same rules hold on wires that carry arrays. A gradient has the size of its "
            "variable: df/dW is 2 q x^T, df/dx is 2 W^T q.",
            drawn(Graph(squared_length, w, x).label(matmul="q", l2_loss="f"), 3),
        ),
        (
            "8. W x, entry by entry",
            "dq_k / dW_ij is x_j where k = i, and 0 elsewhere. So row k of W moves q_k alone. The "
            "Jacobian is 2 x 4, but the gradient of W has the size of W, 2 x 2.",
            matrix(product, W, X, wrt="w"),
        ),
        (
            "9. A layer 4,096 wide, on a minibatch of 100",
            "Its Jacobian has 409,600 rows and columns: 625 GiB. Each output depends on one "
            "input, so the diagonal is enough, and nobody forms the matrix.",
            matrix(jax.nn.gelu, jnp.sin(jnp.arange(409_600.0)).reshape(100, 4096)),
        ),
        (
            "10. Why a gate has a name",
            "Each output of a softmax depends on every input of its row. So its gate has a local "
            "gradient of its own: diag(p) - p p^T.",
            drawn(Graph(lambda x: (nodes.softmax(x) * np.arange(3.0)).sum(), np.zeros(3))),
        ),
    ]


def page() -> str:
    """Return the parts as one page; their style and their script are those of the first."""
    made = parts()
    head, body, rest = made[0][2].partition("<body>")
    script = rest[rest.index("<script>") :]
    pieces = []
    for title, text, whole in made:
        inside = whole.partition("<body>")[2].partition("<script>")[0]
        said = f"<section><h1>{title}</h1><p class='gl-lead'>{text}</p></section>"
        told = f"<div class='gradlab'><div class='gl-main'>{said}</div></div>"
        pieces.append(f"<div>{told}<div class='part'>{inside}</div></div>")
    four = ["<div class='four'>", *pieces[1:5], "</div>"]  # the gates stand side by side
    return "".join([head, body, _STYLE, pieces[0], *four, *pieces[5:], script])


def main() -> None:
    given = [word for word in sys.argv[1:] if word.endswith(".html")]
    path = Path(given[0]) if given else Path(tempfile.gettempdir()) / "lecture.html"
    path.write_text(page(), encoding="utf-8")
    print(f"{len(parts())} parts of the lecture: open {path}")


if __name__ == "__main__":
    main()
