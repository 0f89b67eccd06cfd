"""The one style and the one script that every page has."""

from pathlib import Path

__all__ = ["SCRIPT", "STYLE"]

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
