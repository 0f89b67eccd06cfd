"""The types of `gradlab.nodes`, whose names are made on demand: the text of its stub file.

A type checker reads `gradlab/nodes/__init__.pyi`. `python tests/nodes/test_stub.py` writes it anew.
"""

import dataclasses
import inspect
import re
from pathlib import Path

from gradlab import nodes
from gradlab.nodes._base import Node
from gradlab.nodes._registry import registry

PATH = Path(nodes.__file__).parent / "__init__.pyi"
_HEAD = '''"""Types of the nodes. Written by `python tests/nodes/test_stub.py`: do not edit."""

from typing import Any, TypeAlias

from gradlab.nodes._base import Elementwise as Elementwise
from gradlab.nodes._base import Node as Node
from gradlab.nodes._registry import find as find
from gradlab.nodes._registry import registry as registry
'''
_ALIASES = """
Input: TypeAlias = Any  # an array of NumPy or JAX, a number, or a variable of a graph
Output: TypeAlias = Any  # an array of the inputs' namespace, or a variable of their graph
"""


def stub() -> str:
    """Return the text of the stub file: each node's class, and the function that applies it."""
    classes = list(registry().values())
    imports = [f"from {cls.__module__} import {cls.__name__} as {cls.__name__}" for cls in classes]
    functions = sorted(map(_function, classes))
    return "\n".join([_HEAD + "\n".join(sorted(imports)), _ALIASES, "\n".join(functions), ""])


def _function(cls: type[Node]) -> str:
    """Return the signature of the function that applies a node."""
    several = cls.arity()[1] == float("inf")
    inputs = [f"{'*' if several else ''}{name}: Input" for name in cls.input_names()]
    fields = [
        f"{field.name}: {_type(field.type)} = {field.default!r}"
        for field in dataclasses.fields(cls)
        if field.init
    ]
    positional = [] if several else ["/"]
    keywords = ["*", *fields] if fields and not several else fields
    outputs = len(re.findall(r"\([^)]*\)", cls.shapes.partition("->")[2].partition(" or ")[0]))
    returns = f"tuple[{', '.join(['Output'] * outputs)}]" if outputs > 1 else "Output"
    return f"def {cls.name()}({', '.join([*inputs, *positional, *keywords])}) -> {returns}: ..."


def _type(kind: object) -> str:
    return kind.__name__ if inspect.isclass(kind) and not hasattr(kind, "__args__") else str(kind)


def test_the_stub_is_what_the_registry_says():
    assert PATH.read_text() == stub(), "write it anew: python tests/nodes/test_stub.py"


if __name__ == "__main__":
    PATH.write_text(stub())
