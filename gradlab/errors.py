"""Every error that gradlab raises, and when.

GradlabError                 the call was wrong; base of the two below
├── InputError               a value that does not fit        (also a ValueError)
├── InputTypeError           a thing of the wrong kind        (also a TypeError)
│   └── NotReadable          a NumPy function that cannot be read as a program
AssertionError
├── GradientMismatch         a gradient is wrong
├── GradientUndecided        nothing is wrong, but too little could be judged
└── StructureMismatch        a Jacobian has not the structure that was claimed
"""

from typing import Any


class GradlabError(Exception):
    """The base of every error that gradlab raises on bad input.

    Example:
        >>> import gradlab
        >>> try:
        ...     gradlab.verify("tahn")
        ... except gradlab.GradlabError as error:
        ...     print(error)
        there is no node named 'tahn'; did you mean 'tan' or 'tanh' or 'atan2'?

    Attributes:
        instead: a word of the call, and the word that works in its place; the command line prints
            the command that results.
    """

    def __init__(self, message: str, instead: tuple[str, str] = ("", "")) -> None:
        super().__init__(message)
        self.instead = instead


class InputError(GradlabError, ValueError):
    """A value does not fit: a shape, a dtype, an axis, a name."""


class InputTypeError(GradlabError, TypeError):
    """An argument is of the wrong kind: not callable, not an array, not a node."""


class NotReadable(InputTypeError):
    """A NumPy function cannot be read as a program.

    Attributes:
        reason: what ended the reading.
        line: the user's line where it ended, as `layer.py:41`, or nothing.

    Example:
        >>> error = NotReadable("np.nditer takes values out of sight", "layer.py:41")
        >>> print(error)
        gradlab cannot read this function at layer.py:41: np.nditer takes values out of sight
    """

    def __init__(self, reason: str, line: str = "") -> None:
        where = f" at {line}" if line else ""
        super().__init__(f"gradlab cannot read this function{where}: {reason}")
        self.reason, self.line = reason, line


class _Failure(AssertionError):
    """An assertion that failed, with the report that says why."""

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class GradientMismatch(_Failure):
    """A gradient is wrong; `.report` holds the entry, both numbers and the diagnosis."""


class GradientUndecided(_Failure):
    """No law failed, but a differentiable input has no entry that could be judged."""


class StructureMismatch(_Failure):
    """A Jacobian has not, or cannot be proved to have, the structure that was claimed."""
