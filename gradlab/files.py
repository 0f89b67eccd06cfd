"""Files are written whole or not at all."""

import contextlib
import os

from gradlab.errors import InputError


def write_whole(path: str, text: str) -> None:
    """Write a text file in one stroke: it is there complete, or the old one still is."""
    draft = f"{path}.{os.getpid()}"
    try:
        with open(draft, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(draft)
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
