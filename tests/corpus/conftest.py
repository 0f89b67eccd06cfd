"""Makes the corpus importable by its module names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
