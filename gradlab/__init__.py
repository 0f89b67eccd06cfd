"""gradlab: is the gradient right, which entry is wrong and why, and what shape has its Jacobian?

Importing this package is cheap: neither JAX nor NumPy is loaded until one of its names is used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "assert_structure": "gradlab.structure",
    "jacobian": "gradlab.structure",
    "Graph": "gradlab.graph",
    "GradlabError": "gradlab.errors",
    "Node": "gradlab.nodes",
    "nodes": "gradlab.nodes",
    "precision": "gradlab.measuring",
    "assert_gradients": "gradlab.checking",
    "audit": "gradlab.checking",
    "check": "gradlab.checking",
    "strategies": "gradlab.strategies",
    "verify": "gradlab.checking.verify",
}
__all__ = sorted(_HOME)

_ERRORS = (
    "GradientMismatch",
    "GradientUndecided",
    "InputError",
    "InputTypeError",
    "StructureMismatch",
)


def __getattr__(name: str) -> Any:
    home = "gradlab.errors" if name in _ERRORS else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'gradlab' has no attribute {name!r}")
    module = importlib.import_module(home)
    value = module if home == f"gradlab.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
