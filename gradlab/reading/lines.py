"""A function of the user's that never ends at inputs which gradlab made is stopped."""

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from gradlab.reading.frames import is_library

MOST = 20_000  # lines; what runs longer can hardly be read as a program


class RunsAway(Exception):
    """A function ran more lines of Python than it may."""


@contextlib.contextmanager
def few_lines(most: int = MOST) -> Iterator[None]:
    """Raise `RunsAway` within the user's Python once it has run so many lines.

    Lines of libraries and of gradlab do not count. Where a debugger or a coverage tool watches
    this thread, nothing is counted.
    """
    if sys.gettrace() is not None:
        yield
        return
    left = most

    def line(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal left
        left -= event == "line"
        if left < 0:
            raise RunsAway(f"it ran more than {most:,} lines")
        return line

    def call(frame: FrameType, event: str, value: Any) -> Any:
        return None if is_library(frame.f_code.co_filename) else line

    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(None)
