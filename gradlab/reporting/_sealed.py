"""What every page begins with: the browser is told to let no request out of it."""

__all__ = ["SEALED"]

SEALED = (
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)
