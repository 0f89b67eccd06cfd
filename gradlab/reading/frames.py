"""Whose code a line is: the user's, a library's, or gradlab's."""

import functools
import os
import sys
import sysconfig
from typing import Any

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


@functools.lru_cache(4096)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package, or to gradlab."""
    if file.startswith("<"):
        return file.startswith("<frozen") or "internals" in file
    path = os.path.abspath(file)
    return path.startswith((_OWN, *_LIBRARIES)) or "site-packages" in path


def user_line() -> str:
    """Return `layer.py:12`, the innermost line that is the user's."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if not is_library(frame.f_code.co_filename):
            return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
