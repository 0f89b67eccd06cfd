"""gradlab: is the gradient right, which entry is wrong and why, and what shape has its Jacobian?

Importing this package is cheap: neither JAX nor NumPy is loaded until one of its names is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Graph": "gradlab.graph",
    "GradlabError": "gradlab.errors",
    "nodes": "gradlab.nodes",
    "Node": "gradlab.nodes",
}
__all__ = sorted(_HOME)

_ALSO = dict.fromkeys(
    ("GradientMismatch", "GradientUndecided", "InputError", "InputTypeError", "StructureMismatch"),
    "gradlab.errors",
)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name) or _ALSO.get(name)
    if home is None:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = module if home == f"gradlab.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
