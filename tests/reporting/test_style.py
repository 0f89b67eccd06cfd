"""What a picture's style says holds for that picture alone."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import gradlab
from gradlab import Graph


def pictures():
    graph = Graph(lambda x: np.exp(x) * 2, np.arange(3.0))
    graph.backward(np.ones(3))
    yield graph.report().render("svg")
    yield gradlab.jacobian(jnp.tanh, jnp.ones(4)).render("svg")


@pytest.mark.parametrize("picture", list(pictures()))
def test_every_rule_names_its_picture(picture):
    (style,) = re.findall("<style>(.*?)</style>", picture, re.S)
    (root,) = re.findall('class="(gradlab-[a-z]+)"', picture)
    selectors = re.findall(r"([^{}@]+)\{[^{}]*\}", style)
    assert len(selectors) > 5
    for selector in selectors:
        assert all(each.strip().startswith(f".{root} ") for each in selector.split(","))
