"""A name is text, whatever it holds: no markup, no element, no control character comes of it."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import gradlab
from gradlab.reporting import formats

NAMES = (
    "</script><script>alert(1)</script>",
    "</title></style></pre><img src=x onerror=alert(1)>",
    "\" onload='alert(1)' x=\"",
    "]]><!--&amp;",
    "\x1b[2J\x1b]0;title\x07\x9b31m\r\b",
    "\u202egnp.exe\u2066\u2028",
    "lone \ud800 and \ufffe",
    'a"]; b -> c; d["',
    "`x`\n```\n# heading",
)
ELEMENTS = {
    *("html", "meta", "title", "style", "body", "div", "pre", "header", "h1", "button", "span"),
    *("dl", "dt", "dd", "script", "svg", "g", "rect", "text", "path", "circle", "defs", "marker"),
    *("section", "h2", "h3", "p", "b", "code", "figure", "figcaption", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "output"),
}
FETCHING = {"src", "href", "xlink:href", "action", "data", "srcdoc"}
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def graph_of(name):
    graph = gradlab.Graph(lambda x: np.tanh(x) * x, np.array([0.5, -1.0])).label(
        tanh=name, x=f"{name} x"
    )
    graph.title = name
    graph.backward(graph.ones())
    return graph.report(local_gradients=True, checks=True)


def jacobian_of(name):
    def function(given):
        return given[name] * 2.0

    function.__name__ = name
    return gradlab.jacobian(function, {name: np.ones(3, np.float32)})


class Reader(HTMLParser):
    """Reads a page as a browser does: which elements, which attributes, which scripts."""

    def __init__(self):
        super().__init__()
        self.elements, self.attributes, self.scripts = set(), set(), []

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag == "script":
            self.scripts.append(dict(attributes).get("type"))


@pytest.mark.parametrize("make", [graph_of, jacobian_of])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_it_stays_text_in_every_format(make, name):
    report = make(name)
    for format in formats(report.kind):
        written = report.render(format)
        written.encode()
        assert not STEERING.search(written), format
        if format in ("svg", "junit"):
            ElementTree.fromstring(written)
        if format in ("svg", "html"):
            page = Reader()
            page.feed(written)
            assert page.elements <= ELEMENTS
            assert not page.attributes & FETCHING
            assert not [a for a in page.attributes if a.startswith("on")]
            assert page.scripts == ([None] if format == "html" else [])
        if format == "dot":
            bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", written)
            assert '"' not in bare and not re.search(r"\b[b-d]\b", bare)
        if format == "mermaid":
            quoted = re.findall(r'"([^"]*)"', written)
            assert quoted and not any(
                re.search(r"[`<>\n]", text.replace("<br/>", "")) for text in quoted
            )


@pytest.mark.parametrize("format", ["text", "html", "junit"])
def test_the_functions_name_stays_text(reports, format):
    for name, report in reports.items():
        if format in formats(report.kind):
            assert not STEERING.search(report.render(format)), name


def test_no_control_character_reaches_the_terminal(pytester):
    pytester.makepyfile(
        """
        import numpy as np

        def doubled(x):
            return 2 * x

        doubled.__name__ = "doubled\\x1b[2J"

        def test_it(gradcheck):
            gradcheck(doubled, np.ones(2), backward=lambda g, x: 2 * g)
        """
    )
    result = pytester.runpytest_inprocess("--color=no")
    result.assert_outcomes(passed=1)
    text = result.stdout.str()
    assert "\x1b" not in text and "1 test uses gradlab: 1 passed" in text
