"""Boolean index patterns: which output entries may depend on which input entries, axis by axis."""

from gradlab.patterns import maps
from gradlab.patterns.colouring import Colouring
from gradlab.patterns.pattern import Pattern
from gradlab.patterns.zone import Zone

__all__ = ["Colouring", "Pattern", "Zone", "maps"]
