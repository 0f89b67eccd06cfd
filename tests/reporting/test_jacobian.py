"""How a Jacobian report looks, as text, SVG, HTML and JSON."""

import json
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab.cli import main
from gradlab.structure import jacobian


def blank(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.fixture(scope="module")
def report():
    return jacobian(jnp.tanh, blank(100, 4096))


def test_the_text_fits_one_screen_and_has_the_numbers(report):
    text = str(report)
    for part in (
        "tanh: diagonal, proved for every input of this shape\n",
        "  out[i, j] depends on x[i, j] alone\n",
        "  matrix    409,600 x 409,600, and 409,600 entries may differ from zero",
        "  memory    1.6 MB for the diagonal d; the whole matrix takes 625 GiB",
        "  backward  upstream * d; one forward-mode pass with a tangent of ones gives d",
    ):
        assert part in text
    assert len(text.splitlines()) < 30


def test_an_upper_bound_is_marked():
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g + 1,))
    assert "may be larger than the truth" in str(jacobian(f, blank(4)))


def test_the_picture_is_well_formed_at_any_size(report):
    root = ElementTree.fromstring(report.render("svg"))
    cells = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("class") == "entry"]
    assert 25 <= len(cells) <= 100
    assert len(report.render("svg")) < 50_000


def test_the_picture_shows_each_block_where_its_entries_are():
    both = jacobian(lambda x, y: {"a": x + y[0], "b": jnp.cumsum(y)}, blank(3), blank(4))
    root = ElementTree.fromstring(both.render("svg"))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}g"))) == 4
    assert "output['a']" in "".join(root.itertext())


def test_names_are_escaped():
    report = jacobian(lambda x: x, blank(2))
    assert "<lambda>" not in report.render("svg")
    assert "&lt;lambda&gt;" in report._repr_html_()


def test_json_is_plain(report):
    data = json.loads(report.render("json"))
    assert data["schema"] == "gradlab.jacobian/2"
    assert (data["nnz"], data["structure"], data["passes"]) == (409_600, "diagonal", 1)
    assert data["blocks"][0]["notation"] == "out[i, j] <- x[i, j]"


def test_plot_writes_the_file_whole(tmp_path):
    target = tmp_path / "spy.svg"
    jacobian(jnp.cumsum, np.ones(5, np.float32)).plot(target)
    assert [p.name for p in tmp_path.iterdir()] == ["spy.svg"]
    ElementTree.parse(target)


def test_a_proof_for_every_size_has_its_page_and_its_picture():
    J = jacobian(lambda x: x - x.mean(1, keepdims=True), "BxT")
    page, picture = J.render("html"), J.render("svg")
    assert "The matrix has B*T rows and B*T columns" in page
    assert "B &gt;= 1." in page and "takes 8 for each size without a number" in page
    assert "64 entries" in picture


def test_a_page_says_for_which_inputs_it_is_proved_and_cuts_no_label():
    page = jacobian(jax.nn.softmax, "BxTx64").render("html")
    assert "true for every B &gt;= 1 and every T &gt;= 1, for all values" in page
    assert "of this shape" not in page
    page = jacobian(jnp.tanh, np.ones((2, 16, 16, 8), np.float32)).render("html")
    assert "true for every input of this shape, for all values" in page
    assert "input x: 2x16x16x8" in page


def test_a_page_does_not_say_one_input_where_values_go_further():
    def scaled(x):
        return x / jax.lax.stop_gradient(x.max())

    page = jacobian(scaled, blank(4, 3)).report.render("html")
    assert "The Jacobian of scaled is diagonal" in page and "depends on one input" not in page
    assert "Values go further" in page and "through stop_gradient at" in page
    assert "depends on one input" in jacobian(jnp.tanh, blank(4, 3)).report.render("html")


def test_the_page_says_which_operator_it_is_where_the_program_tells():
    page = jacobian(jax.nn.softmax, blank(100, 512))._repr_html_()
    assert "as an operator: diag(d) + u v&#x27; for each i" in page
    assert "614.4 kB" in page
    assert "as an operator" not in jacobian(jnp.cumsum, blank(4))._repr_html_()


def test_the_page_of_the_command_line_says_it_too(tmp_path):
    path = tmp_path / "page.html"
    assert main(["jacobian", "jax.nn:softmax", "3x4", "-o", str(path)]) == 0
    assert "as an operator: diag(d) + u v&#x27; for each i" in path.read_text()


def test_inputs_of_different_structure_are_named():
    seen = jacobian(lambda x, w: jnp.cumsum(x) * w, blank(4), blank(4))
    kinds = {block.input: block.structure for block in seen.report.blocks}
    said = " and ".join(f"{kinds[name]} in {name}" for name in ("x", "w"))
    assert len(set(kinds.values())) == 2
    assert f": {said}, proved" in str(seen)
    assert f"is {said}</h1>" in seen.report.render("html").replace("is a ", "is ")


def test_a_step_without_a_line_of_source_is_named():
    assert "<code>tanh</code>" in jacobian(jnp.tanh, blank(3)).report.render("html")


@pytest.mark.parametrize(("axis", "names"), [(0, "[:, i]"), (1, "[b, :]")])
def test_a_mean_couples_every_index_of_its_axis(axis, names):
    def centred(x):
        return x - x.mean(axis=axis)[(slice(None), None) if axis else None]

    said = jacobian(centred, blank(6, 4)).why(axis)
    assert f"is coupled: out{names} depends on x{names} alone" in said
    said = jacobian(lambda x: x + x.mean(), blank(6, 4)).why(axis)
    assert f"depends on every {'column' if axis else 'row'} of x" in said


def test_a_refuted_claim_leaves_the_report_that_was_asked_for(tmp_path, capsys):
    path = tmp_path / "out.json"
    assert main(["jacobian", "jax.nn:softmax", "3x4", "--elementwise", "-o", str(path)]) == 1
    assert json.loads(path.read_text())["schema"] == "gradlab.jacobian/2"
    assert "but elementwise=True was asserted" in capsys.readouterr().err
