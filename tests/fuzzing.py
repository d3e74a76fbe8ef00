"""How long the fuzz suites draw: FUZZ_DRAWS=2000 before a release, a twentieth of it otherwise."""

import os

DRAWS = int(os.environ.get("FUZZ_DRAWS", "100"))
