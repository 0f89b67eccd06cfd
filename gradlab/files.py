"""Files are written whole or not at all."""

import contextlib
import os

from gradlab.errors import InputError


def write_whole(path: str, text: str) -> None:
    """Write a text file in one stroke: it is there complete, or the old one still is.

    A link stays a link, and a device or a pipe, such as /dev/stdout, is written and not replaced.
    """
    whole = os.path.isfile(path) or not os.path.exists(path)
    path = os.path.realpath(path) if whole else path
    draft = f"{path}.{os.getpid()}" if whole else ""
    try:
        with open(draft or path, "x" if draft else "w", encoding="utf-8") as file:
            file.write(text)
        if draft:
            os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(draft)
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
