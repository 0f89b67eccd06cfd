"""What gradlab does where it fails itself: it warns, and says less."""

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def forgiven(what: str) -> Iterator[None]:
    """Warn of an error of gradlab's own, and go on without what was searched for."""
    try:
        yield
    except Exception as error:
        warn(what, error, "The verdict stands.", stacklevel=4)


def warn(what: str, error: Exception, stands: str, stacklevel: int = 2) -> None:
    """Warn that a part of gradlab failed, and say what is still true."""
    said = f"{type(error).__name__}: {error}".split("\n")[0]
    text = f"gradlab's {what} failed ({said}). {stands} Report this."
    warnings.warn(text, RuntimeWarning, stacklevel=stacklevel)
