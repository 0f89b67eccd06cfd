"""The source of a fix, applied: what the user's file would be."""

import re
import sys
import types
from pathlib import Path
from typing import Any

from gradlab.report import Fix


def patched(fix: Fix) -> dict[str, Any]:
    """Run the file of a fix as it would be after the patch, and return its names."""
    lines, out, at = Path(fix.file).read_text().split("\n"), [], 0
    for line in fix.diff.split("\n")[2:]:
        hunk = re.match(r"@@ -(\d+)(?:,(\d+))? \+", line)
        if hunk:
            start = int(hunk[1]) - (hunk[2] != "0")
            out += lines[at:start]
            at = start
        elif line.startswith("-"):
            assert lines[at] == line[1:]
            at += 1
        elif line.startswith("+"):
            out.append(line[1:])
    module = sys.modules["patched"] = types.ModuleType("patched")  # dataclasses ask for it
    space: dict[str, Any] = vars(module)
    space["__file__"] = fix.file
    exec(compile("\n".join([*out, *lines[at:]]), fix.file, "exec"), space)
    return space
